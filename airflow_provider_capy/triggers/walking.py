"""One sweep over a project's lists: reads pages as long as they pay, and hands every wait what they show of its thread."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_provider_capy.api.glances import glance_at_threads
from airflow_provider_capy.api.requests import ListThreadsQuery
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.triggers import sweep
from airflow_provider_capy.triggers.glimpse import Glimpse

if TYPE_CHECKING:
    from airflow_provider_capy.api.glances import GlancePage, ThreadGlance
    from airflow_provider_capy.triggers.group import Group
    from airflow_provider_capy.triggers.seat import Seat

PAGE = 100


async def walk_lists(group: Group, due: list[Seat]) -> set[Seat]:
    """Look at as many threads as pays by pages.

    Args:
        group: the group.
        due: who is due.

    Returns:
        the due waits that have to pay for a page that showed nobody: they wait one interval longer.
    """
    now = asyncio.get_running_loop().time()
    if group.project_id is None or group.size <= sweep.FEW or now < group.scan_again:
        return set()
    postponed: set[Seat] = set()
    lists: dict[tuple[str, str | None], list[Seat]] = defaultdict(list)
    hoped: dict[tuple[str, str | None], int] = defaultdict(int)
    for seat in group.everybody():
        if seat.worth(now) >= sweep.COUNTS and seat.may_be_listed() and not group.asking.is_under_way(seat):
            # A thread that nobody has seen yet is most likely at work.
            lane = ("active" if seat.status is None else seat.status, seat.origin)
            lists[lane].append(seat)
            hoped[lane] += seat.due <= now + sweep.RIDE * seat.interval
    walked = False
    for lane, wanted in lists.items():
        if group.lanes.get(lane, sweep.Lane()).is_open(hoped[lane], now) and not group.asking.is_slowed_down:
            walked = True
            postponed |= await _Walker(group, lane, wanted, due).walk()
    if not walked:
        group.scan_again = now + min(1.0, 0.05 * min(seat.interval for seat in due))
    return postponed


class _Walker:
    def __init__(self, group: Group, lane: tuple[str, str | None], wanted: list[Seat], due: list[Seat]) -> None:
        self._group = group
        self._lane = lane
        self._left = set(wanted)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._shortest = min(seat.interval for seat in wanted)
        # Who is due but no longer, or not, to be found in this list cannot pay for its pages.
        epoch = group.line.clock()
        self._due = [seat for seat in due if seat in self._left and not seat.wait.is_at_its_end(epoch)]
        payers = {*self._due, *filter(_is_new, wanted)}
        self._walk = sweep.Walk(len(wanted), len(payers), group.bank.balance)

    async def walk(self) -> set[Seat]:
        group, (status, origin) = self._group, self._lane
        query = ListThreadsQuery(project_id=group.project_id or "", limit=PAGE, status=status or None, origin=origin)
        pause = sweep.pause_between_pages(self._shortest, len(self._left) // PAGE + 1)
        lane = group.lanes.get(self._lane, sweep.Lane())
        cursors = {""}
        while self._walk.goes_on(seat.place for seat in self._left if seat.place is not None):
            started = self._loop.time()
            try:
                page = await group.line.client.send(glance_at_threads(query), NO_RETRIES)
            except CapyRequestError as error:
                group.lanes[self._lane] = lane.after_failure(
                    self._walk.wanted, group.size, self._shortest, self._loop.time()
                )
                group.bank = group.bank.saved(-1, group.size)
                group.asking.page_failed(error, started)
                return set()
            group.asking.answered(started)
            cursor = (page.get("nextCursor") if page.get("hasMore") else None) or ""
            self._take(page, has_more=cursor not in cursors)
            cursors.add(cursor)
            query = query.model_copy(update={"cursor": cursor})
            if self._walk.has_more and pause:
                await asyncio.sleep(pause)
        if not self._walk.pages:
            return set()
        group.lanes[self._lane] = lane.after(self._walk, group.size, self._shortest, self._loop.time())
        return self._settled()

    def _take(self, page: GlancePage, *, has_more: bool) -> None:
        group, left, place = self._group, self._left, self._walk.pages
        now, epoch = self._loop.time(), group.line.clock()
        found, paid = 0, 0.0
        for item in page["items"]:
            # Most of what a page shows is somebody else's, and most of ours is as it was: this loop is what polling costs.
            if item is None or not (seats := group.seats.get(item["id"])):
                continue
            for seat in tuple(seats):
                if seat in left:
                    left.discard(seat)
                    found += 1
                if group.asking.is_under_way(seat):
                    continue
                group.asking.take_back(seat)
                paid += seat.worth(now)
                seat.place, seat.seen_at = place, now
                try:
                    self._show(seat, item, epoch)
                except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
                    group.broke([seat], error)
        group.bank = group.bank.saved(paid - 1, group.size)
        self._walk = self._walk.took(found, paid, has_more=has_more)

    def _show(self, seat: Seat, item: ThreadGlance, epoch: float) -> None:
        group = self._group
        if seat.is_unchanged(item, epoch):
            seat.attempts = 0
            group.plan_next(seat, seat.interval)
            return
        step = seat.glimpsed(Glimpse(item), epoch)
        if step is not None:
            seat.attempts = 0
            group.plan_step(seat, step)
        else:
            group.asking.ask(seat)

    def _settled(self) -> set[Seat]:
        group, walk, now = self._group, self._walk, self._loop.time()
        unseen = [seat for seat in self._due if seat in self._left and group.has(seat) and not seat.ticket]
        postponed = unseen[: walk.deficit]
        for seat in postponed:
            # Its look is spent on the page that showed nobody.
            group.bank = group.bank.saved(seat.worth(now), group.size)
            seat.seen_at = now
        for seat in set() if walk.has_more else self._left.difference(postponed):
            if seat.seen_at is not None and seat.seen_at >= self._began:
                continue
            seat.missed(self._lane[0])
            # It has most likely just left this list, by settling: that is worth a GET as soon as it is due.
            if seat.due <= now and group.has(seat):
                group.ask_singly(seat)
        return set(postponed)


def _is_new(seat: Seat) -> bool:
    # Its first look is paid for from the start.
    return seat.seen_at is None
