"""Whether Capy answers nobody at the moment: then one probe at a time asks for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capy.api.retry import wait_before
from airflow_provider_capy.waiting import LONGEST_OUTAGE_PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.exceptions import CapyRequestError

# A failure may be one thread's own; so many in a row, of different threads, are everybody's.
STREAK = 3


class Outage:
    """The outage of one connection's Capy, as far as there is one; all times are loop times.

    Args:
        limits: how patient one request is.
        draw: gives a number in [0, 1).

    Attributes:
        failures: probes that failed; 0 in good times.
        until: when the next probe is due.
        is_told: whether one line in the log tells of it for all.
        probe: the thread that is asked for on everybody's behalf; ``None`` while none is.
        failing: the threads whose GETs have failed since the last answer.
    """

    def __init__(self, limits: RetryLimits, draw: Callable[[], float]) -> None:
        self.failures = 0
        self.since = self.until = 0.0
        self.probe: str | None = None
        self.is_told = False
        self.failing: set[str] = set()
        self._limits = limits
        self._draw = draw

    def failed(self, thread_id: str, error: CapyRequestError, sent: float, now: float) -> bool:
        """Take in that a GET failed in passing; return whether that begins an outage."""
        self.failing.add(thread_id)
        if self.failures:
            if sent < self.until:  # old news
                return False
        elif len(self.failing) < STREAK:
            return False
        else:
            self.since = now
        self.failures += 1
        pause = wait_before(min(self.failures, 30), error, self._limits, lambda: 0.5 + 0.5 * self._draw())
        if self.has_lasted:
            pause = max(pause, min((now - self.since) / 2, LONGEST_OUTAGE_PAUSE))
        self.until = now + pause
        return self.failures == 1

    @property
    def has_lasted(self) -> bool:
        """Whether as many probes have failed as a wait of its own would have made before it counts a look as failed."""
        return self.failures >= self._limits.attempts

    def over(self, sent: float) -> bool:
        """Take in an answer to a GET; return whether an outage is over with it."""
        self.failing.clear()
        if not self.failures or sent < self.since:
            return False
        self.failures = 0
        return True
