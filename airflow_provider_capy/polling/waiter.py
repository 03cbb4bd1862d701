"""One wait among the many that one poll serves: what is known of its thread, and what wakes it up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_capy.api.glances import GlancedThread
from airflow_provider_capy.lifecycle import ENDS_AT_ONCE, judge
from airflow_provider_capy.waiting import Step

if TYPE_CHECKING:
    from airflow_provider_capy.api.glances import ThreadGlance
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.exceptions import CapyRequestError
    from airflow_provider_capy.waiting import Wait

# So often a list has to miss a thread before another one is tried: without the filter for its origin, then none.
MISSES = 2
# From this share of its interval on, a look is as good as due.
SOON = 0.5


class ListKey(NamedTuple):
    """Which list shows a thread: the filters of ``listThreads``."""

    project_id: str
    status: str
    origin: str | None


class Waiter:
    """One wait in a poll; all its times are loop times.

    Args:
        wait: the wait, which alone judges.
        project_id: the thread's project, if it is known; without it, it is asked for singly.

    Attributes:
        key, filed_at: the list that should show it (``None`` while it is asked for singly), and since when.
        due, ticket: when the next look is due, and its place in the plan; 0 while none is planned.
        is_asking: whether its thread is being asked for on its behalf.
        is_sharp: whether the next look is a GET that gathers with nobody: a second look, a deadline.
        is_sample: whether it is a GET that is to be compared with what a page has just shown.
        seen_at, fetched_at: of the last look (``None`` before the first), and of the last GET.
        missed: how often its list did not show it.
        attempts, tried_since: GETs of the current look that failed, and when the first one of them was sent.
    """

    def __init__(self, wait: Wait, project_id: str | None) -> None:
        self.wait = wait
        self.interval = wait.poll_interval
        self.key: ListKey | None = None
        self.due = self.fetched_at = self.filed_at = self.tried_since = 0.0
        self.ticket = self.missed = self.attempts = 0
        self.is_asking = self.is_sharp = self.is_sample = False
        self.seen_at: float | None = None
        # A thread that nobody has seen yet is most likely at work, and started by us.
        self._project_id, self._status, self._link = project_id, "active", ""
        self._known: Thread | None = None
        self._same = Step(look_again_in=self.interval)
        self._inbox: deque[Step | None] = deque()
        self._waker: asyncio.Future[None] | None = None

    async def next(self) -> Step | None:
        """Return the next step that has something to say: a line, an event, a pull request; in between, sleep.

        Returns:
            ``None`` when the wait has to go on alone.
        """
        while not self._inbox:
            self._waker = asyncio.get_running_loop().create_future()
            await self._waker
        return self._inbox.popleft()

    def goes_on_alone(self) -> None:
        """Have :meth:`next` return ``None``."""
        self._is_seen_whole()
        self._tell(None)

    def _is_seen_whole(self) -> None:
        # Only a whole thread may be handed out, and nobody may see it again.
        if isinstance(last := cast("Any", self.wait.last), GlancedThread):
            self.wait.last = last.whole(self._known)

    def _tell(self, what: Step | None) -> None:
        self._inbox.append(what)
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    @property
    def list_key(self) -> ListKey | None:
        """The list that should show its thread; ``None`` where that is not known, or none does."""
        if not self._project_id or self.missed >= 2 * MISSES:
            return None
        return ListKey(self._project_id, self._status, "api" if self.missed < MISSES else None)

    def worth(self, now: float) -> float:
        """Return which share of a GET a look saves: as much of its interval as has passed."""
        return 1.0 if self.seen_at is None else min((now - self.seen_at) / self.interval, 1.0)

    def is_missing(self, began: float, now: float) -> bool:
        """Say whether a walk that began then should have shown it, and its look is as good as due."""
        is_unseen = self.seen_at is None or self.seen_at < began
        return is_unseen and self.filed_at <= began and not self.is_sharp and self.worth(now) >= SOON

    def may_be_over(self, thread: Thread, epoch: float) -> bool:
        """Say whether this state of its thread, believed at once, would end the wait."""
        return judge(thread, ENDS_AT_ONCE, self.wait.policy, epoch).outcome is not None

    def glanced(self, glance: ThreadGlance, epoch: float) -> Step | None:
        """Take in what a page shows; return what comes next, or ``None`` when only a GET may say whether this is the end."""
        wait, last = self.wait, cast("Any", self.wait.last)
        if wait.deadline is not None and epoch >= wait.deadline:
            return None
        if isinstance(last, GlancedThread) and last.glance == glance and not wait.is_failing:
            return self._same
        thread = cast("Thread", GlancedThread(glance))
        return None if self.may_be_over(thread, epoch) else self._stepped(wait.saw(thread, epoch))

    def fetched(self, thread: Thread, epoch: float) -> Step:
        """Take in an answer to a GET."""
        if thread.status != self._status:
            self.missed = 0
        self._known, self._status, self.attempts = thread, thread.status, 0
        self._project_id = thread.project_id or self._project_id
        return self._stepped(self.wait.saw(thread, epoch))

    def tries_again(self, pause: float) -> Step:
        """Take in a failed GET that is to be made once more, in so many seconds, before the look counts as failed."""
        self.attempts += 1
        self.wait.missed()
        return Step(look_again_in=pause, soon=True)

    def failed(self, error: CapyRequestError, epoch: float, *, muted: bool = False) -> Step:
        """Take in a failed look; ``muted`` when somebody else logs it."""
        self.attempts = 0
        self._is_seen_whole()
        return self._stepped(self.wait.failed(error, epoch, muted=muted))

    def _stepped(self, step: Step) -> Step:
        last = self.wait.last
        link = last.pull_requests[0].url if last is not None and last.pull_requests else ""
        if step.event is not None or step.line or link != self._link:
            self._link = link
            self._tell(step)
        return step
