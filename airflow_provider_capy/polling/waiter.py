"""One wait among the many that one poll serves: what is known of its thread, and what wakes it up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_capy.lifecycle import ENDS_AT_ONCE, judge
from airflow_provider_capy.polling.listed import ListedThread
from airflow_provider_capy.waiting import Step

if TYPE_CHECKING:
    from airflow_provider_capy.api.glances import ThreadGlance
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.exceptions import CapyRequestError
    from airflow_provider_capy.waiting import Wait


class ListKey(NamedTuple):
    """Which list shows a thread: the filters of ``listThreads``."""

    project_id: str
    status: str
    origin: str | None


def may_be_over(thread: Thread, wait: Wait, epoch: float) -> bool:
    """Say whether this state of its thread, believed at once, would end a wait."""
    return judge(thread, ENDS_AT_ONCE, wait.policy, epoch).outcome is not None


class Waiter:
    """One wait in a poll.

    Args:
        wait: the wait, which alone judges.
        project_id: the thread's project, if it is known; without it, it is asked for singly.

    Attributes:
        key: the list that should show it; ``None`` while it is asked for singly.
        due, ticket: loop time of the next look, and its place in the plan; 0 when none is planned.
        is_sharp: whether that look is a GET, which waits for nobody: a second look, a deadline, a repetition.
        is_sample: whether it is one that is compared with what a page has just shown.
        seen_at, fetched_at: loop times of the last look, and of the last GET; ``None`` before the first look.
        attempts: GETs of the current look that failed.
        missing_from: the list that was read to its end, and did not show it.
        hidden_until: loop time until which no list is asked for it.
    """

    __slots__ = (
        "_error", "_inbox", "_is_left", "_known", "_link", "_unchanged", "_waker", "attempts", "due", "fetched_at", "hidden_until",
        "interval", "is_sample", "is_sharp", "key", "missing_from", "origin", "project_id", "seen_at", "status", "ticket", "wait",
    )  # fmt: skip

    def __init__(self, wait: Wait, project_id: str | None) -> None:
        self.wait = wait
        self.interval = wait.poll_interval
        self.project_id = project_id
        # A thread that nobody has seen yet is most likely at work, and started by us.
        self.status, self.origin = "active", cast("str | None", "api")
        self.key: ListKey | None = None
        self.due, self.ticket = 0.0, 0
        self.is_sharp = self.is_sample = False
        self.seen_at: float | None = None
        self.fetched_at = self.hidden_until = 0.0
        self.attempts = 0
        self.missing_from: ListKey | None = None
        self._unchanged = Step(look_again_in=self.interval)
        self._known: Thread | None = None
        self._link = ""
        self._inbox: deque[Step] = deque()
        self._error: Exception | None = None
        self._is_left = False
        self._waker: asyncio.Future[None] | None = None

    async def next(self) -> Step | None:
        """Return the next step that has something to say: a line, an event, a pull request; in between, sleep.

        Returns:
            ``None`` when the poll is no more, and the wait has to go on alone.

        Raises:
            Exception: what the judgement of this very wait raised.
        """
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._is_left:
                return None
            self._waker = asyncio.get_running_loop().create_future()
            await self._waker
        return self._inbox.popleft()

    def worth(self, now: float) -> float:
        """Return which share of a GET a look saves now (loop time): as much of its interval as has passed."""
        return 1.0 if self.seen_at is None else min((now - self.seen_at) / self.interval, 1.0)

    def list_key(self, now: float) -> ListKey | None:
        """Return which list should show its thread; ``None`` where that is not known, or none does."""
        if not self.project_id or now < self.hidden_until:
            return None
        return ListKey(self.project_id, self.status, self.origin)

    def learn(self, thread: Thread, now: float, *, hidden_for: float) -> ListKey | None:
        """Learn from a GET which list should show the thread; one that shows it although it should not is left alone."""
        if self.missing_from is not None and self.missing_from.status == thread.status:
            self.hidden_until = 0.0 if self.origin else now + hidden_for
            self.origin = None
        self.missing_from = None
        self.status, self.project_id = thread.status, thread.project_id or self.project_id
        return self.list_key(now)

    def listed(self, item: ThreadGlance, epoch: float) -> Step | None:
        """Take in what a page shows; return what comes next, or ``None`` when only a GET may say whether this is the end."""
        wait, last = self.wait, cast("Any", self.wait.last)
        if wait.deadline is not None and epoch + self.interval >= wait.deadline:
            if epoch >= wait.deadline:
                return None
        elif isinstance(last, ListedThread) and last.item == item and not wait.is_failing:
            return self._unchanged
        thread = cast("Thread", ListedThread(item))
        return None if may_be_over(thread, wait, epoch) else self._tell(wait.saw(thread, epoch))

    def fetched(self, thread: Thread, epoch: float) -> Step:
        """Take in an answer to a GET."""
        self.attempts = 0
        self._known = thread
        return self._tell(self.wait.saw(thread, epoch))

    def failed(self, error: CapyRequestError, epoch: float, *, muted: bool) -> Step:
        """Take in a failed look; ``muted`` when somebody else logs it."""
        self.attempts = 0
        if isinstance(last := cast("Any", self.wait.last), ListedThread):
            self.wait.last = last.whole(self._known)
        return self._tell(self.wait.failed(error, epoch, muted=muted))

    def broke(self, error: Exception) -> None:
        """Let the wait fail with an error that is nobody else's."""
        self._error = error
        self._wake()

    def left_alone(self) -> None:
        """Let the wait go on by itself."""
        self._is_left = True
        self._wake()

    def _tell(self, step: Step) -> Step:
        last = self.wait.last
        link = last.pull_requests[0].url if last is not None and last.pull_requests else ""
        if step.event is not None or step.line or link != self._link:
            self._link = link
            self._inbox.append(step)
            self._wake()
        return step

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)
