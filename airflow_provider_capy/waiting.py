"""One wait for one thread, without clock, sleep or socket: fed with answers, it says what to do next.

The worker's loop, the sensor's pokes and the trigger all drive this one class, so that they cannot disagree.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
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
from airflow_provider_capy.foreign_text import clean_text
from airflow_provider_capy.lifecycle import (
    KNOWN_STATES,
    TOLERATED_OUTAGE,
    Denial,
    Memory,
    Outcome,
    Policy,
    judge,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.exceptions import CapyRequestError

JITTER = 0.1
SHORTEST_PAUSE = 0.1
# The longer nobody can see a thread, the seldomer it is looked for: half as long as that already lasts, so long at the most.
LONGEST_OUTAGE_PAUSE = 300.0
# One line in so many seconds tells that an outage goes on.
WARN_EVERY = 60.0
_LONGEST_SHOWN = 200

_PASSING = (CapyConnectError, CapyNoAnswerError, CapyResponseError, CapyRateLimitError, CapyServerError)


def is_passing(error: BaseException) -> bool:
    """Say whether a failed look tells nothing about the thread: no answer, 429, 5xx, or one that is not Capy's own."""
    return isinstance(error, _PASSING)


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
        tolerate_outage: seconds that nobody may be able to see the thread; ``None`` for as long as the wait lasts.
        longest_pause: with it, the pauses double from look to look, up to so many seconds.
        draw: gives a number in [0, 1).

    Attributes:
        last: the last look at the thread; ``None`` before the first.
        unseen_since: epoch seconds of the first of the looks in a row that nobody answered; ``None`` while they are answered.
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
        tolerate_outage: float | None = TOLERATED_OUTAGE,
        longest_pause: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.thread_id = thread_id
        self.policy = policy
        self.poll_interval = max(poll_interval, SHORTEST_PAUSE)
        self.deadline = deadline
        self.tolerate_outage = tolerate_outage
        self.last: Thread | None = None
        self._thread_url = thread_url
        self._draw = draw
        self._longest_pause = longest_pause
        before = remembered or {}
        self.unseen_since: float | None = before.get("unseen_since")
        self._failing_since: float | None = before.get("failing_since")
        self._told_at: float | None = before.get("told_at")
        self._denial = Denial(**before.get("denial", {}))
        self._memory = Memory(**before.get("memory", {}))
        self._shown: str | None = before.get("shown")
        self._looks = int(before.get("looks", 0))

    def remembered(self) -> dict[str, Any]:
        """Return, as plain data, what a later process needs to go on as if it had been here all the time."""
        return {
            "unseen_since": self.unseen_since,
            "failing_since": self._failing_since,
            "told_at": self._told_at,
            "denial": asdict(self._denial),
            "memory": asdict(self._memory),
            "shown": self._shown,
            **({} if self._longest_pause is None else {"looks": self._looks}),
        }

    def saw(self, thread: Thread, now: float) -> Step:
        """Take one look at the thread in.

        Args:
            thread: what ``getThread`` answered.
            now: epoch seconds.
        """
        failing = None if self._told_at is None or self._failing_since is None else now - self._failing_since
        self._failing_since = self.unseen_since = self._told_at = None
        self._denial.refuted()
        self.last = thread
        verdict = judge(thread, self._memory, self.policy, now)
        self._memory = verdict.memory
        line, warning = self._change(thread, failing)
        if verdict.outcome is not None:
            return Step(self._ended(verdict.outcome, thread), line=line, warning=warning)
        return self._go_on(now, line, soon=verdict.look_again_in, warning=warning)

    def failed(self, error: CapyRequestError, now: float, *, muted: bool = False) -> Step:
        """Take a failed look in; ``muted`` when somebody else tells of it.

        What may pass is tolerated for as long as the wait may be blind; what says when to come back is no outage. A no of
        Capy's own (401, 403, 404, 422 and their like) ends the wait once it has stood for a while.
        """
        self._failing_since = now if self._failing_since is None else min(self._failing_since, now)
        if not is_passing(error):
            return self._refused(error, now, muted=muted)
        self._denial.refuted()
        retry_after = error.retry_after if isinstance(error, CapyAPIError) else None
        pause = retry_after or 0.0
        if retry_after or isinstance(error, CapyRateLimitError):
            self.unseen_since = None
        else:
            self.unseen_since = now if self.unseen_since is None else min(self.unseen_since, now)
            blind = now - self.unseen_since
            if self.tolerate_outage is not None and blind >= self.tolerate_outage:
                return Step(WaitEvent.failed(self.thread_id, self.url, error, blind=blind))
            pause = min(blind / 2, LONGEST_OUTAGE_PAUSE)
        return self._go_on(now, self._warning(error, now, muted=muted), at_least=pause, warning=True)

    def missed(self) -> None:
        """Take in that a look failed in passing, and is tried again before it counts."""
        self._denial.refuted()

    def _refused(self, error: CapyRequestError, now: float, *, muted: bool) -> Step:
        soon = self._denial.heard(error, now)
        if self._denial.stands:
            return Step(WaitEvent.failed(self.thread_id, self.url, error))
        return self._go_on(now, self._warning(error, now, muted=muted), soon=soon, warning=True)

    def _warning(self, error: CapyRequestError, now: float, *, muted: bool) -> str | None:
        if muted:
            return None
        if self._told_at is not None and 0 <= now - self._told_at < WARN_EVERY:
            return None
        self._told_at = now
        return f"Thread {self.thread_id} could not be looked at, which is tried again: {error}"

    @property
    def is_failing(self) -> bool:
        """Whether the last look failed."""
        return self._failing_since is not None

    def is_at_its_end(self, now: float) -> bool:
        """Say whether one more failed look would end the wait, at ``now`` (epoch seconds)."""
        if self.deadline is not None and now >= self.deadline:
            return True
        if self.tolerate_outage is None or self.unseen_since is None:
            return False
        return now - self.unseen_since >= self.tolerate_outage

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

    def _change(self, thread: Thread, failing: float | None) -> tuple[str | None, bool]:
        """Return the line that tells of a new state, or that the thread is seen again, and whether it is a warning."""
        shown = describe(thread)
        changed = shown != self._shown
        self._shown = shown
        if changed and thread.run_state not in KNOWN_STATES:
            return f"Thread {self.thread_id} is {shown}, a state unknown here that is taken for work: {self.url}", True
        if failing is not None:
            return f"Thread {self.thread_id} is seen again after {failing:.0f} s: {shown}", False
        return (f"Thread {self.thread_id} is {shown}" if changed else None), False


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
    words = f"{thread.run_state} ({'; '.join(notes)})" if notes else str(thread.run_state)
    return clean_text(words, _LONGEST_SHOWN)
