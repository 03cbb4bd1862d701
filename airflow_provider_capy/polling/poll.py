"""What the waits on one connection ask for, and when: pure, fed with time, answers, comings and goings.

Threads at work are listed; what a list does not show, or shows at its end, is asked for singly: a page may only say that a wait
goes on. The measure is one GET per thread and interval, which is what waits of their own would cost.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.api.retry import wait_before
from airflow_provider_capy.exceptions import CapyAPIError, CapyRequestError
from airflow_provider_capy.polling.lists import FEW, List, Walk
from airflow_provider_capy.polling.outage import Outage
from airflow_provider_capy.polling.waiter import ListKey, Waiter, may_be_over
from airflow_provider_capy.waiting import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.api.glances import GlancePage, ThreadGlance
    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.waiting import Step

log = logging.getLogger(__name__)

# New waits look within so many seconds, spread so that many do not come in step.
FIRST_LOOK_WITHIN = 2.0
# A look comes up to this share of its interval late: so polls spread, and waits gather for a page.
GATHER = 0.1
# A thread that pages show is asked for singly at least this often (seconds); and of each walk, one thread.
FETCHED_WITHIN = 1800.0
# A page keeps looks waiting for an interval, and for so many seconds at the most.
PATIENCE = 5.0
# As many GETs are in flight as drain what waits for one within this share of the shortest interval.
DRAIN = 0.1


class Now(NamedTuple):
    """A moment: the loop's time, and epoch seconds."""

    loop: float
    epoch: float


class Poll:
    """The waits on one connection.

    Args:
        limits: how patient one request is.
        draw: gives a number in [0, 1).
        in_flight: how many GETs may be under way, and four times as many as pages.

    Attributes:
        size: how many waits there are.
    """

    def __init__(self, limits: RetryLimits, draw: Callable[[], float], in_flight: int) -> None:
        self.size = 0
        self._limits, self._draw, self._in_flight = limits, draw, in_flight
        self._waiters: dict[str, list[Waiter]] = {}
        self._lists: dict[ListKey, List] = {}
        self._plan: list[tuple[float, int, Waiter | Walk]] = []
        self._tickets = count(1)
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._asked: dict[str, float] = {}
        self._pages: OrderedDict[Walk, None] = OrderedDict()
        self._reading = 0
        self._outage = Outage(limits, draw)
        self._held: dict[Waiter, None] = {}
        self._seconds_each = 0.0
        self._shortest = float("inf")

    def everybody(self) -> list[Waiter]:
        """Return all waits."""
        return [waiter for waiters in self._waiters.values() for waiter in waiters]

    def join(self, waiter: Waiter, now: Now) -> None:
        """Take a wait in."""
        self._waiters.setdefault(waiter.wait.thread_id, []).append(waiter)
        self.size += 1
        self._shortest = min(self._shortest, waiter.interval)
        waiter.fetched_at = now.loop - self._draw() * FETCHED_WITHIN
        self._file(waiter, waiter.list_key(now.loop))
        self._plan_at(now.loop + self._draw() * min(waiter.interval, FIRST_LOOK_WITHIN), waiter)

    def leave(self, waiter: Waiter) -> None:
        """Let a wait go; leaving twice does no harm."""
        thread_id = waiter.wait.thread_id
        if waiter not in (waiters := self._waiters.get(thread_id, [])):
            return
        waiters.remove(waiter)
        self.size -= 1
        self._unplan(waiter)
        self._file(waiter, None)
        if not waiters:
            del self._waiters[thread_id]
            self._queue.pop(thread_id, None)

    def next_at(self, now: Now) -> float:
        """Return the loop time of the next :meth:`tick`, infinite when only an answer brings one about."""
        while self._plan and self._plan[0][1] != self._plan[0][2].ticket:
            heappop(self._plan)
        at = self._plan[0][0] if self._plan else float("inf")
        if self._queue:
            at = min(at, now.loop + max(DRAIN * self._shortest, 0.05))
        return min(at, self._outage.until) if self._held and self._outage.probe is None else at

    def tick(self, now: Now) -> Iterator[str | Walk]:
        """Take up what is due by now, and yield what to send: a GET of a thread, or the next page of a walk."""
        while self._plan and self._plan[0][0] <= now.loop:
            _, ticket, entry = heappop(self._plan)
            if ticket != entry.ticket:
                continue
            entry.ticket = 0
            if isinstance(entry, Waiter):
                self._is_due(entry, now)
            else:
                entry.is_late = True
                self._ask_all(entry.due, now)
        if self._held and self._outage.probe is None and now.loop >= self._outage.until:
            self._probe()
        while self._pages and self._reading < max(self._in_flight // 4, 1):
            self._reading += 1
            yield self._pages.popitem(last=False)[0]
        while self._queue and len(self._asked) < self._slots(now.loop):
            thread_id, _ = self._queue.popitem(last=False)
            self._asked[thread_id] = now.loop
            yield thread_id

    # What is due

    def _is_due(self, waiter: Waiter, now: Now) -> None:
        a_list = self._lists[waiter.key] if waiter.key and not waiter.is_sharp else None
        if a_list is None or self._outage.failures or waiter.wait.is_at_its_end(now.epoch) or not a_list.is_open(now.loop):
            self._ask(waiter, now)
        elif (walk := a_list.walk) is not None and not walk.is_late:
            walk.due[waiter] = False
        elif walk is not None:
            self._ask(waiter, now)
        else:
            a_list.collected[waiter] = True
            if len(a_list.collected) > FEW:
                self._walk(a_list, now)
            elif now.loop < (gathered := waiter.due + GATHER * waiter.interval):
                self._plan_at(gathered, waiter)
            else:
                self._ask(waiter, now)

    def _ask(self, waiter: Waiter, now: Now, *, sharp: bool = False) -> None:
        """Have a thread fetched when it is its turn; in an outage, when a probe was answered."""
        self._unplan(waiter)
        waiter.is_sharp |= sharp
        is_at_its_end = waiter.wait.is_at_its_end(now.epoch)
        if self._outage.failures and not is_at_its_end:
            self._held[waiter] = None
            if waiter.seen_at is None:
                # Alone it would look at once.
                self._outage.until = min(self._outage.until, now.loop)
            if waiter.wait.deadline is not None:
                self._plan_at(now.loop + waiter.wait.deadline - now.epoch, waiter)
        elif waiter.wait.thread_id not in self._asked:
            self._enqueue(waiter, first=is_at_its_end)

    def _ask_all(self, waiters: dict[Waiter, bool], now: Now) -> None:
        for waiter in tuple(waiters):
            self._ask(waiter, now)
        waiters.clear()

    def _enqueue(self, waiter: Waiter, *, first: bool) -> None:
        self._queue.setdefault(waiter.wait.thread_id)
        if first:
            self._queue.move_to_end(waiter.wait.thread_id, last=False)

    def _probe(self) -> None:
        # One that failed before may be the only one that fails.
        waiter = min(self._held, key=lambda held: held.wait.thread_id in self._outage.failing)
        self._unplan(waiter)
        self._outage.probe = waiter.wait.thread_id
        if waiter.wait.thread_id not in self._asked:
            self._enqueue(waiter, first=True)

    def _slots(self, now: float) -> int:
        oldest = now - min(self._asked.values(), default=now)
        wanted = ceil(len(self._queue) * max(self._seconds_each, oldest) / max(DRAIN * self._shortest, 0.01))
        return min(max(wanted, 1), self._in_flight)

    def _plan_at(self, at: float, entry: Waiter | Walk) -> None:
        entry.ticket = next(self._tickets)
        heappush(self._plan, (at, entry.ticket, entry))
        if len(self._plan) > 2 * self.size + 64:
            self._plan = [planned for planned in self._plan if planned[1] == planned[2].ticket]
            heapify(self._plan)

    def _unplan(self, waiter: Waiter) -> None:
        waiter.ticket = 0
        self._held.pop(waiter, None)
        if waiter.key is not None:
            a_list = self._lists[waiter.key]
            a_list.collected.pop(waiter, None)
            if a_list.walk is not None:
                a_list.walk.due.pop(waiter, None)

    def _file(self, waiter: Waiter, key: ListKey | None) -> None:
        if key == waiter.key:
            return
        if waiter.key is not None:
            self._lists[waiter.key].members -= 1
            if not self._lists[waiter.key].members:
                del self._lists[waiter.key]
        waiter.key = key
        if key is not None:
            self._lists.setdefault(key, List()).members += 1

    def _go_on(self, waiter: Waiter, step: Step, now: Now) -> None:
        if step.event is not None:
            self.leave(waiter)
            return
        pause = step.look_again_in
        waiter.is_sharp = pause < 0.999 * waiter.interval
        waiter.due = now.loop + pause
        a_list = None if waiter.key is None else self._lists[waiter.key]
        late = 0.0 if waiter.is_sharp or (a_list and a_list.is_open(now.loop)) else self._draw() * GATHER * pause
        self._plan_at(waiter.due + late, waiter)

    def _judged(self, waiter: Waiter, now: Now, judge: Callable[[], Step]) -> None:
        try:
            step = judge()
        except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
            self._broke(waiter, error)
        else:
            self._go_on(waiter, step, now)

    def _broke(self, waiter: Waiter, error: Exception) -> None:
        waiter.broke(error)
        self.leave(waiter)

    # Single threads

    def got(self, thread_id: str, answer: Thread | Exception, now: Now) -> None:
        """Take in what the GET of a thread came to."""
        sent = self._asked.pop(thread_id)
        # Shared by those that were under way with it: on a busy machine more at a time take longer, and gain nothing.
        self._seconds_each += 0.2 * ((now.loop - sent) / (len(self._asked) + 1) - self._seconds_each)
        failed = answer if isinstance(answer, CapyRequestError) else None
        passing = failed is not None and is_passing(failed)
        if failed is not None and passing:
            if self._outage.failed(thread_id, failed, sent, now.loop):
                self._is_away(failed, now)
        elif isinstance(answer, (Thread, CapyAPIError)) and self._outage.over(sent):
            self._is_back(now)
        for waiter in self._waiters.get(thread_id, [])[:]:
            waiter.seen_at = waiter.fetched_at = now.loop
            if isinstance(answer, Thread):
                self._saw(waiter, answer, now)
            elif not isinstance(answer, CapyRequestError):
                self._broke(waiter, answer)
            elif not passing or not self._tries_again(waiter, answer, now):
                self._failed(waiter, answer, now, muted=passing)
        if self._outage.probe == thread_id:
            self._outage.probe = None
            if failed is not None and self._outage.failures:
                self._share(failed, now)

    def _saw(self, waiter: Waiter, thread: Thread, now: Now) -> None:
        if waiter.is_sample and waiter.key is not None:
            waiter.is_sample = False
            self._lists[waiter.key].sampled(is_true=not may_be_over(thread, waiter.wait, now.epoch))
        key = waiter.learn(thread, now.loop, hidden_for=FETCHED_WITHIN)
        self._file(waiter, key)
        self._judged(waiter, now, partial(waiter.fetched, thread, now.epoch))

    def _failed(self, waiter: Waiter, error: CapyRequestError, now: Now, *, muted: bool) -> None:
        muted = muted and self._outage.is_told
        self._judged(waiter, now, partial(waiter.failed, error, now.epoch, muted=muted))

    def _tries_again(self, waiter: Waiter, error: CapyRequestError, now: Now) -> bool:
        """Plan another GET before the look counts as failed, as a wait of its own would make it."""
        waiter.attempts += 1
        waiter.wait.missed()
        pause = wait_before(waiter.attempts, error, self._limits, self._draw)
        enough = waiter.attempts >= self._limits.attempts or pause > self._limits.total or self._outage.has_lasted
        if enough or waiter.wait.is_at_its_end(now.epoch):
            return False
        waiter.is_sharp = True
        self._plan_at(now.loop + pause, waiter)
        return True

    def _share(self, error: CapyRequestError, now: Now) -> None:
        """Let those who were held know how the probe failed: it is their look, too."""
        for waiter in tuple(self._held):
            waiter.seen_at = now.loop
            if self._outage.has_lasted:
                self._unplan(waiter)
                self._failed(waiter, error, now, muted=True)

    def _is_away(self, error: CapyRequestError, now: Now) -> None:
        self._outage.is_told = self.size > FEW
        if self._outage.is_told:
            log.warning("%d waits slow down together, since nobody gets an answer: %s", self.size, error)
        queue, self._queue = self._queue, OrderedDict()
        for thread_id in queue:
            for waiter in self._waiters[thread_id]:
                self._ask(waiter, now)

    def _is_back(self, now: Now) -> None:
        if self._outage.is_told:
            log.info("%d waits go on after %.0f s without an answer", self.size, now.loop - self._outage.since)
        for a_list in self._lists.values():
            if a_list.has_failed:
                a_list.wake()
        for waiter in tuple(self._held):
            self._unplan(waiter)
            self._is_due(waiter, now)

    # Lists

    def _walk(self, a_list: List, now: Now) -> None:
        due, a_list.collected = a_list.collected, {}
        for waiter in due:
            waiter.ticket = 0
        [key] = {waiter.key for waiter in due if waiter.key}
        a_list.walk = Walk(key, due, now.loop, min(waiter.interval for waiter in due), a_list.members)
        self._next_page(a_list.walk, now)

    def _next_page(self, walk: Walk, now: Now) -> None:
        self._plan_at(min(walk.began + walk.shortest, now.loop + PATIENCE), walk)
        self._pages[walk] = None

    def got_page(self, walk: Walk, answer: GlancePage | CapyRequestError, now: Now) -> None:
        """Take in what the next page of a walk came to."""
        self._reading -= 1
        walk.ticket = 0
        a_list = self._lists.get(walk.key)
        if a_list is None or a_list.walk is not walk:
            self._ask_all(walk.due, now)
            return
        if isinstance(answer, CapyRequestError):
            self._end(a_list, walk, now, answer)
            return
        if not self._outage.failures:
            self._outage.failing.clear()
        saved = 0.0
        for item in answer["items"]:
            # Most of what a page shows is as it was, or somebody else's: this loop is what polling costs.
            if item is None or (waiters := self._waiters.get(item["id"])) is None or item["id"] in self._asked:
                continue
            for waiter in waiters[:]:
                saved += self._listed(waiter, item, walk, now)
        cursor = (answer.get("nextCursor") if answer.get("hasMore") else None) or ""
        if walk.read(saved, cursor) and not self._outage.failures:
            self._next_page(walk, now)
        else:
            self._end(a_list, walk, now)

    def _listed(self, waiter: Waiter, item: ThreadGlance, walk: Walk, now: Now) -> float:
        """Take in that a page shows a thread, and return which share of a GET that has saved."""
        if waiter.key == walk.key:
            walk.unseen -= 1
        if waiter.is_sharp:
            return 0.0
        try:
            step = waiter.listed(item, now.epoch)
        except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
            self._broke(waiter, error)
            return 0.0
        self._unplan(waiter)
        if step is None or now.loop - waiter.fetched_at > FETCHED_WITHIN:
            self._ask(waiter, now, sharp=True)
            return 0.0
        self._queue.pop(item["id"], None)
        walk.shown.append(waiter)
        saved, waiter.seen_at, waiter.attempts = waiter.worth(now.loop), now.loop, 0
        self._go_on(waiter, step, now)
        return saved

    def _end(self, a_list: List, walk: Walk, now: Now, error: CapyRequestError | None = None) -> None:
        a_list.walk = None
        if error is not None:
            a_list.failed(walk, now.loop, error)
        else:
            for waiter in nsmallest(a_list.samples, walk.shown, key=lambda shown: shown.fetched_at):
                if waiter.ticket:
                    waiter.is_sample = True
                    self._ask(waiter, now, sharp=True)
            a_list.walked(walk, now.loop)
        for waiter, was_there in walk.due.items():
            if error is None and walk.is_complete and was_there:
                waiter.missing_from = walk.key
                self._ask(waiter, now, sharp=True)
            elif was_there:
                self._ask(waiter, now)
            else:
                self._is_due(waiter, now)
