"""One wait for one thread, without clock, sleep or socket: fed with answers, it says what to do next.

The worker's loop, the sensor's pokes and the trigger all drive this one class, so that they cannot disagree.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.events import WaitEvent
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyConnectError,
    CapyNoAnswerError,
    CapyRateLimitError,
    CapyResponseError,
    CapyServerError,
)
from airflow_provider_capy.lifecycle import TOLERATED_FAILURES, Memory, Outcome, Policy, judge, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.exceptions import CapyRequestError

JITTER = 0.1

_PASSING = (CapyConnectError, CapyNoAnswerError, CapyResponseError, CapyRateLimitError, CapyServerError)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next.

    Attributes:
        event: how the wait ended; ``None`` when it goes on.
        look_again_in: seconds until the next look, when it goes on.
        line: something that changed and belongs into the log, or ``None``.
        warning: whether that line is a warning.
        soon: whether the next look is a second look, which should not wait for the usual interval.
    """

    event: WaitEvent | None = None
    look_again_in: float = 0.0
    line: str | None = None
    warning: bool = False
    soon: bool = False


class Wait:
    """The state of one wait.

    Args:
        thread_id: the thread.
        thread_url: makes its web address from its project, for messages and the summary.
        policy: what the task wants.
        poll_interval: seconds between looks, spread by ±10 % so that many waits do not look in step.
        deadline: epoch seconds after which the wait is over, or ``None``.
        remembered: what :meth:`remembered` gave when an earlier process left off; ``None`` at the beginning.
        tolerated_failures: how many failed polls in a row are tolerated; ``None`` for any number.
        longest_pause: with it, the pauses double from look to look, up to so many seconds.
        draw: gives a number in [0, 1).
    """

    def __init__(
        self,
        thread_id: str,
        *,
        thread_url: Callable[[str], str],
        policy: Policy,
        poll_interval: float,
        deadline: float | None = None,
        remembered: Mapping[str, Any] | None = None,
        tolerated_failures: int | None = TOLERATED_FAILURES,
        longest_pause: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.thread_id = thread_id
        self.policy = policy
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.tolerated_failures = tolerated_failures
        self.last: Thread | None = None
        self._thread_url = thread_url
        self._draw = draw
        self._longest_pause = longest_pause
        before = remembered or {}
        self.failures = int(before.get("failures", 0))
        self._memory = Memory(bool(before.get("seen_at_work")), before.get("ready_since"))
        self._shown: str | None = before.get("shown")
        self._looks = int(before.get("looks", 0))

    def remembered(self) -> dict[str, Any]:
        """Return, as plain data, what a later process needs to go on as if it had been here all the time."""
        return {
            "failures": self.failures,
            "seen_at_work": self._memory.seen_at_work,
            "ready_since": self._memory.ready_since,
            "shown": self._shown,
            **({} if self._longest_pause is None else {"looks": self._looks}),
        }

    def saw(self, thread: Thread, now: float) -> Step:
        """Take one look at the thread in.

        Args:
            thread: what ``getThread`` answered.
            now: epoch seconds.
        """
        recovered = self.failures > 0
        self.failures = 0
        self.last = thread
        verdict = judge(thread, self._memory, self.policy, now)
        self._memory = verdict.memory
        line = self._change(thread, recovered=recovered)
        if verdict.outcome is not None:
            return Step(self._ended(verdict.outcome, thread), line=line)
        return self._go_on(now, line, soon=verdict.look_again_in)

    def failed(self, error: CapyRequestError, now: float) -> Step:
        """Take a failed poll in.

        A few in a row are tolerated when they may pass (no answer, 429, 5xx, an unreadable answer); 401, 403, 404, 422
        and their like end the wait at once.
        """
        self.failures += 1
        if not isinstance(error, _PASSING):
            return Step(WaitEvent.failed(self.thread_id, self.url, error, at_once=True))
        tolerated = self.tolerated_failures
        if tolerated is not None and self.failures > tolerated:
            return Step(WaitEvent.failed(self.thread_id, self.url, error, at_once=False, failures=self.failures))
        bound = "any number" if tolerated is None else tolerated
        line = f"Poll of thread {self.thread_id} failed ({self.failures} in a row, {bound} tolerated): {error}"
        at_least = error.retry_after if isinstance(error, CapyAPIError) else None
        return self._go_on(now, line, at_least=at_least or 0.0, warning=True)

    def _go_on(
        self, now: float, line: str | None, *, soon: float | None = None, at_least: float = 0.0, warning: bool = False
    ) -> Step:
        if self.deadline is not None and now >= self.deadline:
            return Step(self._ended(Outcome.TIMEOUT, self.last), line=line, warning=warning)
        pause = self.poll_interval * (1 + JITTER * (2 * self._draw() - 1))
        if self._longest_pause is not None and soon is None:
            pause = min(pause * 2.0 ** min(self._looks, 30), self._longest_pause)
            self._looks += 1
        pause = max(pause, at_least)
        if soon is not None:
            # Whoever asked for looks in quick succession (a test, a demo) gets them also where a second look is due.
            pause = min(soon, pause)
        if self.deadline is not None:
            pause = min(pause, max(self.deadline - now, 0.0))
        return Step(look_again_in=pause, line=line, warning=warning, soon=soon is not None)

    def _ended(self, outcome: Outcome, thread: Thread | None) -> WaitEvent:
        shown = summary(thread, outcome=outcome, url=self.url) if thread is not None else {}
        return WaitEvent(outcome=outcome, thread_id=self.thread_id, thread_url=self.url, thread=shown)

    @property
    def url(self) -> str:
        """The thread's web address, as far as it is known."""
        return self._thread_url(self.last.project_id if self.last is not None else "")

    def _change(self, thread: Thread, *, recovered: bool) -> str | None:
        shown = describe(thread)
        if shown == self._shown and not recovered:
            return None
        self._shown = shown
        return f"Thread {self.thread_id} is {shown}"


def describe(thread: Any) -> str:
    """Return a thread's state in words, e.g. ``waiting (on ci)`` or ``ready (2 wake-ups pending)``."""
    notes = []
    if thread.status == "archived" and thread.run_state != "archived":
        notes.append("archived")
    if thread.waiting_on:
        notes.append(f"on {', '.join(thread.waiting_on)}")
    if thread.blocked_on:
        notes.append(f"needs {', '.join(thread.blocked_on)}")
    if thread.pending_wakeups:
        notes.append(f"{thread.pending_wakeups} wake-up{'' if thread.pending_wakeups == 1 else 's'} pending")
    return f"{thread.run_state} ({'; '.join(notes)})" if notes else str(thread.run_state)
