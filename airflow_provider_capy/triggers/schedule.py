"""Who is to be looked at when: a heap whose stale entries are dropped before they pile up."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_capy.triggers.seat import Seat


# Of all schedules: a wait that moves to another group leaves entries behind, which no ticket there may make valid again.
_TICKETS = count(1)


class Schedule:
    """The seats of a group in the order of their next look."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Seat]] = []
        self._valid = 0

    def put(self, seat: Seat, due: float, latest: float) -> None:
        """Plan a seat's next look, instead of the one planned before.

        Args:
            seat: the seat.
            due: loop time before which it is not asked for.
            latest: loop time of the look when nobody else brings it about.
        """
        self.drop(seat)
        seat.due, seat.latest, seat.ticket = due, latest, next(_TICKETS)
        heappush(self._heap, (latest, seat.ticket, seat))
        self._valid += 1
        if len(self._heap) > 2 * self._valid + 64:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].ticket]
            heapify(self._heap)

    def drop(self, seat: Seat) -> None:
        """Forget a seat's planned look, if there is one."""
        if seat.ticket:
            seat.ticket = 0
            self._valid -= 1

    def first(self) -> float | None:
        """Return the loop time of the next look, or ``None`` when none is planned."""
        while self._heap and self._heap[0][1] != self._heap[0][2].ticket:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> list[Seat]:
        """Take out every seat whose look is to be made by now."""
        due = []
        while (first := self.first()) is not None and first <= now:
            seat = heappop(self._heap)[2]
            self.drop(seat)
            due.append(seat)
        return due
