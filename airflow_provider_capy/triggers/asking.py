"""Single GETs for a group, and what their failures mean: one thread's own, or everybody's, for which all slow down once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from airflow_provider_capy.api import calls
from airflow_provider_capy.api.retry import NO_RETRIES, wait_before
from airflow_provider_capy.exceptions import CapyAPIError, CapyRequestError, CapyUnauthorizedError
from airflow_provider_capy.triggers import sweep
from airflow_provider_capy.waiting import is_passing

if TYPE_CHECKING:
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.triggers.group import Group
    from airflow_provider_capy.triggers.seat import Seat

log = logging.getLogger(__name__)

PROBE_AGAIN = 5.0


class Asking:
    """The single GETs of one group.

    Args:
        group: the group.

    Attributes:
        cool_down: how the group slows down at the moment.
    """

    def __init__(self, group: Group) -> None:
        self.cool_down = sweep.CoolDown()
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._backlog: dict[str, None] = {}
        self._asked: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds_each = 0.0
        self._failing: set[str] = set()
        self._told = False
        self._told_of_lists = False

    @property
    def is_slowed_down(self) -> bool:
        """Whether Capy fails for everybody at the moment."""
        return self.cool_down.failures > 0

    def is_asked(self, seat: Seat) -> bool:
        """Say whether its thread is being asked for."""
        return seat.wait.thread_id in self._asked

    def is_under_way(self, seat: Seat) -> bool:
        """Say whether the GET of its thread was sent, or has to be sent whatever a page shows."""
        thread_id = seat.wait.thread_id
        return thread_id in self._asked and not (thread_id in self._backlog and seat.may_be_listed())

    def take_back(self, seat: Seat) -> None:
        """Spare a GET that was not sent yet, because a page shows the thread."""
        if seat.wait.thread_id in self._backlog:
            del self._backlog[seat.wait.thread_id]
            self._asked.discard(seat.wait.thread_id)

    def end(self) -> set[asyncio.Task[None]]:
        """Ask for nothing more; returns what is still under way."""
        self._backlog.clear()
        return self._tasks

    def forget(self, thread_id: str) -> None:
        """Forget that a thread's GET failed: nobody waits for it any more."""
        self._failing.discard(thread_id)

    def probe(self, due: list[Seat]) -> None:
        """Ask with as little as possible whether Capy answers again; who is at the brink gets an answer of its own."""
        epoch, until = self._group.line.clock(), max(self.cool_down.until, self._loop.time())
        # One that failed before may be the only one that fails.
        due.sort(key=lambda seat: seat.wait.thread_id in self._failing)
        for seat in due:
            if not self._asked or seat.wait.is_at_its_end(epoch):
                self.ask(seat)
            elif not self.is_asked(seat):
                # The probe's answer plans them anew, whatever it is; this is for a probe without one.
                self._group.plan(seat, seat.due, until + min(seat.interval, PROBE_AGAIN))

    def ask(self, seat: Seat) -> None:
        """Have a wait's thread fetched as soon as a slot is free."""
        thread_id = seat.wait.thread_id
        self._group.schedule.drop(seat)
        if thread_id not in self._asked:
            self._asked.add(thread_id)
            self._backlog[thread_id] = None
            self._pump()

    def _pump(self) -> None:
        while self._backlog and len(self._tasks) < self._slots():
            del self._backlog[thread_id := next(iter(self._backlog))]
            self._tasks.add(task := self._group.start(self._get(thread_id)))
            task.add_done_callback(self._got)

    def _slots(self) -> int:
        return sweep.slots(len(self._backlog), self._seconds_each, self._group.shortest)

    def _got(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A shared GET broke", exc_info=error)
            self._group.broke(self._group.everybody(), error)
        self._pump()

    async def _get(self, thread_id: str) -> None:
        started = self._loop.time()
        try:
            if thread_id not in self._group.seats:
                return
            thread = await self._group.line.client.send(calls.get_thread(thread_id), NO_RETRIES)
        except CapyRequestError as error:
            self._took(started)
            if not (isinstance(error, CapyUnauthorizedError) and await self._has_moved()):
                self._failed(thread_id, error, started)
        except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
            self._group.broke(self._group.seats.get(thread_id, ()), error)
        else:
            self._took(started)
            self.answered(started)
            self._saw(thread_id, thread)
        finally:
            self._asked.discard(thread_id)

    def _took(self, started: float) -> None:
        # Shared by those that were under way with it: on a busy machine more at a time take longer, and gain nothing.
        seconds = (self._loop.time() - started) / max(len(self._tasks), 1)
        self._seconds_each = 0.8 * self._seconds_each + 0.2 * seconds

    def _saw(self, thread_id: str, thread: Thread) -> None:
        for seat in tuple(self._group.seats.get(thread_id, ())):
            try:
                seat.seen_at = self._loop.time()
                self._group.plan_step(seat, seat.saw(thread, self._group.line.clock()))
            except Exception as error:  # noqa: BLE001 - see above
                self._group.broke([seat], error)
            if thread.project_id and thread.project_id != self._group.project_id and self._group.has(seat):
                self._group.line.move(seat, self._group, thread.project_id)

    def _failed(self, thread_id: str, error: CapyRequestError, started: float) -> None:
        mine = [seat for seat in self._group.seats.get(thread_id, ()) if not seat.ticket]
        passing = is_passing(error)
        if passing and self._is_everybodys(thread_id, error):
            self.slow_down(error, started)
        elif not passing and isinstance(error, CapyAPIError):
            self.answered(started)
        limits = self._group.line.limits
        now, epoch = self._loop.time(), self._group.line.clock()
        for seat in mine:
            seat.attempts += 1
            seat.seen_at = now
            if passing:
                seat.wait.missed()
            tried = max(seat.attempts, self.cool_down.failures) >= limits.attempts
            if not passing or tried or seat.wait.is_at_its_end(epoch):
                self._group.plan_step(seat, seat.failed(error, epoch, muted=passing and self._told))
            else:
                pause = wait_before(seat.attempts, error, limits, self._group.line.draw)
                self._group.plan(seat, seat.due, max(now + pause, self.cool_down.until))

    def _is_everybodys(self, thread_id: str, error: CapyRequestError) -> bool:
        # The same thread again proves nothing, unless there is no other.
        fresh = thread_id not in self._failing
        self._failing.add(thread_id)
        known = len(self._failing) >= len(self._group.seats) or fresh
        return sweep.is_everybodys(error, len(self._failing)) or (self.cool_down.failures > 0 and known)

    async def _has_moved(self) -> bool:
        try:
            return await self._group.line.moved(self._group)
        except Exception as error:  # noqa: BLE001 - the 401 is what the waits are told then
            log.warning("After a 401 the connection could not be looked up again: %s", error)
            return False

    def slow_down(self, error: CapyRequestError, started: float) -> None:
        """Cool down after a failure that is everybody's.

        Args:
            error: what a request raised.
            started: loop time at which it was sent; one sent before the last cool-down is old news.
        """
        if self.cool_down.failures and started < self.cool_down.until:
            return
        now, epoch = self._loop.time(), self._group.line.clock()
        self.cool_down = self.cool_down.worse(error, self._group.line.limits, now, self._group.line.draw)
        self._give_back_all_but_the_desperate(epoch)
        if not self._told and self._group.size > sweep.FEW:
            self._told = True
            log.warning(
                "%d waits of project %s slow down together: %s", self._group.size, self._group.project_id, error
            )
        for seat in self._group.everybody():
            if self.is_asked(seat) or (seat.ticket and seat.due > now):
                continue
            if self.cool_down.failures >= self._group.line.limits.attempts and not seat.wait.is_at_its_end(epoch):
                self._group.plan_step(seat, seat.failed(error, epoch, muted=self._told))
            else:
                self._group.plan(seat, seat.due, self.cool_down.until)

    def _give_back_all_but_the_desperate(self, epoch: float) -> None:
        asked = [
            (thread_id, any(seat.wait.is_at_its_end(epoch) for seat in self._group.seats.get(thread_id, ())))
            for thread_id in self._backlog
        ]
        self._asked.difference_update(thread_id for thread_id, desperate in asked if not desperate)
        self._backlog = {thread_id: None for thread_id, desperate in asked if desperate}

    def page_failed(self, error: CapyRequestError, started: float) -> None:
        """Take in that a list could not be read: what is due is asked for singly, unless nobody gets an answer.

        Args:
            error: what the request raised.
            started: loop time at which it was sent.
        """
        if sweep.is_everybodys(error, 1):
            self.slow_down(error, started)
        elif not self._told_of_lists:
            self._told_of_lists = True
            log.warning(
                "Project %s cannot be listed, its threads are asked for singly: %s", self._group.project_id, error
            )

    def answered(self, started: float) -> None:
        """Go on as usual when Capy answers again (``started``: loop time of the request)."""
        self._failing.clear()
        if not self.cool_down.failures or started < self.cool_down.until:
            return
        lasted = self._loop.time() - self.cool_down.since
        self.cool_down = sweep.CoolDown()
        if self._told:
            self._told = False
            log.info("%d waits of project %s go on after %.0f s", self._group.size, self._group.project_id, lasted)
        now = self._loop.time()
        for seat in self._group.everybody():
            if seat.ticket and seat.due <= now:
                self._group.plan(seat, seat.due, now)
