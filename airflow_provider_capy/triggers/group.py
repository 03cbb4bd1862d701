"""The one poller of all waits on one connection and project: who is here, and who is looked at when."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING

from airflow_provider_capy.triggers import sweep
from airflow_provider_capy.triggers.asking import Asking
from airflow_provider_capy.triggers.schedule import Schedule
from airflow_provider_capy.triggers.walking import walk_lists

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from airflow_provider_capy.triggers.seat import Seat
    from airflow_provider_capy.triggers.watcher import Line
    from airflow_provider_capy.waiting import Step

log = logging.getLogger(__name__)

FIRST_LOOK_WITHIN = 2.0


class Group:
    """All waits on one connection and project, and the poller that serves them; ends when the last one leaves.

    Args:
        line: the client that is shared, and what belongs to it.
        project_id: the project; ``None`` for waits that do not know theirs yet, which are asked for singly.
    """

    def __init__(self, line: Line, project_id: str | None) -> None:
        self.line = line
        self.project_id = project_id
        self.schedule = Schedule()
        self.seats: dict[str, list[Seat]] = {}
        self.lanes: dict[tuple[str, str | None], sweep.Lane] = {}
        self.bank = sweep.Bank()
        self.asking = Asking(self)
        self.scan_again = 0.0
        self.size = 0
        self._loop = asyncio.get_running_loop()
        self.shortest = float("inf")
        self._planned = 0.0
        self._bell: asyncio.Future[None] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._poller = self.start(self._run())

    # Coming and going

    def join(self, seat: Seat, due: float | None = None, latest: float = 0.0) -> None:
        """Take a wait in.

        Args:
            seat: its place.
            due: loop time of its next look; by default soon, spread so that many new ones do not come in step.
            latest: loop time at which it is made at the latest.
        """
        seat.group = self
        self.seats.setdefault(seat.wait.thread_id, []).append(seat)
        self.size += 1
        self.shortest = min(self.shortest, seat.interval)
        self.scan_again = 0.0
        if due is None:
            due = latest = self._loop.time() + self.line.draw() * min(seat.interval, FIRST_LOOK_WITHIN)
        self.plan(seat, due, latest)

    def leave(self, seat: Seat) -> None:
        """Let a wait go; leaving twice does no harm."""
        seats = self.seats.get(seat.wait.thread_id, [])
        if seat not in seats:
            return
        seats.remove(seat)
        if not seats:
            del self.seats[seat.wait.thread_id]
            self.asking.forget(seat.wait.thread_id)
        self.size -= 1
        self.schedule.drop(seat)
        if not self.size:
            self.line.forget(self)
            # A task of its own: the poller may not have begun, and then has no end to do this in.
            self._closer = self.start(self._close())

    async def closed(self) -> None:
        """Wait until an empty group has ended, and its client with it, if no other group uses it."""
        if self._closer is not None:
            await asyncio.wait({self._closer})

    async def _close(self) -> None:
        tasks = {self._poller, *self.asking.end()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self.line.release()

    def has(self, seat: Seat) -> bool:
        """Say whether a wait is still here."""
        return seat in self.seats.get(seat.wait.thread_id, ())

    # The poller

    async def _run(self) -> None:
        try:
            while True:
                await self._nap()
                await self._sweep(self.schedule.pop(self._loop.time()))
        except Exception as error:
            log.exception("The shared poller of project %s broke", self.project_id)
            self.broke(self.everybody(), error)

    async def _nap(self) -> None:
        while True:
            when = self.schedule.first()
            if self.asking.cool_down.failures and when is not None:
                when = max(when, self.asking.cool_down.until)
                # Whatever Capy asks for, a deadline is kept; it is a moment of our clock, which may be set meanwhile.
                for seat in self._beyond_deadline():
                    when = self._loop.time()
                    self.schedule.put(seat, when, when)
                when = min(when, self._first_deadline())
            if when is not None and when <= self._loop.time():
                return
            self._bell = self._loop.create_future()
            self._planned = float("inf") if when is None else when
            alarm = None if when is None else self._loop.call_at(when, self._ring)
            try:
                await self._bell
            finally:
                self._bell = None
                if alarm is not None:
                    alarm.cancel()

    def _beyond_deadline(self) -> list[Seat]:
        now = self.line.clock()
        return [seat for seat in self._waiting() if seat.wait.deadline is not None and seat.wait.deadline <= now]

    def _first_deadline(self) -> float:
        deadlines = [seat.wait.deadline for seat in self._waiting() if seat.wait.deadline is not None]
        return self._loop.time() + min(deadlines, default=float("inf")) - self.line.clock()

    def _waiting(self) -> list[Seat]:
        return [seat for seat in self.everybody() if not self.asking.is_asked(seat)]

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _sweep(self, due: list[Seat]) -> None:
        if self.asking.is_slowed_down:
            self.asking.probe(due)
            return
        postponed = await walk_lists(self, due)
        self._ask_for_the_rest([seat for seat in due if self.has(seat) and not seat.ticket], postponed)

    def _ask_for_the_rest(self, unseen: list[Seat], postponed: set[Seat]) -> None:
        for seat in unseen:
            if self.asking.is_slowed_down:
                self.plan(seat, seat.due, self.asking.cool_down.until)
            elif seat in postponed:
                self.plan_next(seat, seat.interval)
            elif not self.asking.is_asked(seat):
                self.ask_singly(seat)

    # Single threads

    def ask_singly(self, seat: Seat) -> None:
        """Look at a wait that is due by a GET of its own."""
        self.bank = self.bank.saved(seat.worth(self._loop.time()) - 1, self.size)
        self.asking.ask(seat)

    def broke(self, seats: Iterable[Seat], error: BaseException) -> None:
        """Let waits fail with an error that is a bug, here or in a judgement."""
        for seat in tuple(seats):
            seat.broke(error)
            self.leave(seat)

    # Planning

    def plan_step(self, seat: Seat, step: Step) -> None:
        """Plan what a step asks for."""
        if step.event is None:
            self.plan_next(seat, step.look_again_in)
        else:
            self.leave(seat)

    def plan_next(self, seat: Seat, pause: float) -> None:
        """Plan the next look in so many seconds, and a little later when nothing needs it sharp."""
        due = self._loop.time() + pause
        sharp = pause < 0.999 * seat.interval
        self.plan(seat, due, due if sharp else sweep.latest(due, pause, self.line.draw))

    def plan(self, seat: Seat, due: float, latest: float) -> None:
        """Plan the next look between two loop times."""
        if not self.has(seat):
            return
        if seat.wait.deadline is not None:
            latest = min(latest, max(self._loop.time() + seat.wait.deadline - self.line.clock(), self._loop.time()))
        self.schedule.put(seat, min(due, latest), latest)
        if latest < self._planned:
            self._ring()

    def everybody(self) -> list[Seat]:
        """Return all waits."""
        return [seat for seats in self.seats.values() for seat in seats]

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of nobody's context: what it logs belongs to no single task's log."""
        return contextvars.Context().run(self._loop.create_task, work)
