"""One wait's place among the many that one poller serves: what it may be told, and what wakes it up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_capy.lifecycle import ENDS_AT_ONCE, judge
from airflow_provider_capy.triggers.glimpse import Glimpse
from airflow_provider_capy.triggers.sweep import DOUBTED_LOOKS

if TYPE_CHECKING:
    from airflow_provider_capy.api.glances import ThreadGlance
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.exceptions import CapyRequestError
    from airflow_provider_capy.triggers.group import Group
    from airflow_provider_capy.waiting import Step, Wait


class Seat:
    """One wait in a group.

    Args:
        wait: the wait, which alone judges.

    Attributes:
        group: where it is.
        interval: seconds between looks.
        due: loop time before which nothing is asked on its behalf.
        latest: loop time at which it is looked at even when nobody else is due.
        ticket: tells the current place in the schedule from those given up.
        seen_at: loop time of the last look; ``None`` before the first.
        attempts: GETs of the current look that failed.
        singly: looks that are to be GETs, because pages did not tell the truth or cannot.
        status: the thread's ``status`` when last seen, which says in which list it is; ``None`` before.
        origin: the list's ``origin`` filter that shows it, or ``None`` for none; most threads were started by us.
        place: the page on which it was last seen; ``None`` when it was not on any.
    """

    __slots__ = (
        "_error",
        "_inbox",
        "_known",
        "_link",
        "_missed",
        "_suspected",
        "_waker",
        "attempts",
        "due",
        "group",
        "interval",
        "latest",
        "origin",
        "place",
        "seen_at",
        "singly",
        "status",
        "ticket",
        "wait",
    )  # fmt: skip

    group: Group

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.interval = wait.poll_interval
        self.due = self.latest = 0.0
        self.ticket = 0
        self.seen_at: float | None = None
        self.attempts = 0
        self.singly = 0
        self.status: str | None = None
        self.origin: str | None = "api"
        self.place: int | None = None
        self._suspected = False
        self._missed: str | None = None
        self._known: Thread | None = None
        self._link = ""
        self._inbox: deque[Step] = deque()
        self._error: BaseException | None = None
        self._waker: asyncio.Future[None] | None = None

    async def next(self) -> Step:
        """Return the next step that has something to say: a line, an event, a pull request; in between, sleep.

        Raises:
            Exception: what the judgement of this very wait raised.
        """
        while not self._inbox:
            if self._error is not None:
                raise self._error
            self._waker = asyncio.get_running_loop().create_future()
            await self._waker
        return self._inbox.popleft()

    def missed(self, status: str) -> None:
        """Remember that a walk to the end of the list of this status did not show it."""
        self._missed = status

    def worth(self, now: float) -> float:
        """Return which share of a GET a look saves now (loop time): as much of its interval as has passed.

        Thus looks that come early, because a page shows the thread anyway, are no licence for more requests.
        """
        if self.seen_at is None:
            return 1.0
        return min((now - self.seen_at) / max(self.interval, 0.001), 2.0)

    def may_be_listed(self) -> bool:
        """Say whether a page may be asked for it."""
        return not (self.singly or self.attempts or self._suspected or self._missed)

    def is_unchanged(self, raw: ThreadGlance, now: float) -> bool:
        """Say whether a page shows what the last look showed: a thread that is at work is then judged as it was.

        Args:
            raw: the thread on the page.
            now: epoch seconds.
        """
        last: Any = self.wait.last
        if not isinstance(last, Glimpse) or last.raw != raw or self.wait.is_failing:
            return False
        return self.wait.deadline is None or now + self.interval < self.wait.deadline

    def glimpsed(self, glimpse: Glimpse, now: float) -> Step | None:
        """Take in what a page shows.

        Args:
            glimpse: the thread on the page.
            now: epoch seconds.

        Returns:
            what comes next; ``None`` when this might be the end, which only a GET may say.
        """
        self.status, self._missed = glimpse.status, None
        wait = self.wait
        if wait.deadline is not None and now >= wait.deadline:
            self._suspected = True
            return None
        if judge(cast("Thread", glimpse), ENDS_AT_ONCE, wait.policy, now).outcome is not None:
            self._suspected = True
            return None
        return self._stepped(wait.saw(cast("Thread", glimpse), now))

    def saw(self, thread: Thread, now: float) -> Step:
        """Take in an answer to a GET (epoch seconds)."""
        self.attempts = 0
        self._known = thread
        step = self._stepped(self.wait.saw(thread, now))
        self._learn(thread, step)
        self.status = thread.status
        self._suspected, self._missed = False, None
        return step

    def _learn(self, thread: Thread, step: Step) -> None:
        if step.soon:
            self.singly = max(self.singly, 1)
        elif self._suspected:
            self.singly = DOUBTED_LOOKS
        elif self._missed is not None and self._missed == thread.status:
            # It should have been in that list: perhaps the other filter hides it, perhaps lists do not know it.
            self.singly = 0 if self.origin else DOUBTED_LOOKS
            self.origin = None
        elif thread.status != self.status:
            self.singly = 0
        elif self.singly:
            self.singly -= 1

    def failed(self, error: CapyRequestError, now: float, *, muted: bool) -> Step:
        """Take in a failed poll.

        Args:
            error: what it raised.
            now: epoch seconds.
            muted: whether somebody else logs it.
        """
        self.attempts = 0
        last: Any = self.wait.last
        if isinstance(last, Glimpse):
            self.wait.last = last.thread(self._known)
        return self._stepped(self.wait.failed(error, now, muted=muted))

    def broke(self, error: BaseException) -> None:
        """Let the wait fail with an error that is nobody else's."""
        self._error = error
        self._wake()

    def _stepped(self, step: Step) -> Step:
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
