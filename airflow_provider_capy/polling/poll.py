"""What the waits on one connection ask for, and when: without I/O, fed with time, answers, comings and goings.

Threads at work are listed; what a list does not show, or shows at its end, is asked for singly: a page may only say that a wait
goes on. The measure is one GET per thread and interval, which is what waits of their own would cost.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.api.retry import wait_before
from airflow_provider_capy.exceptions import CapyAPIError, CapyRequestError
from airflow_provider_capy.polling.lists import FEW, List, Walk
from airflow_provider_capy.polling.waiter import MISSES, ListKey, Waiter
from airflow_provider_capy.waiting import LONGEST_OUTAGE_PAUSE, is_passing

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
# A thread that pages show is asked for singly at least this often (seconds), and one thread of each walk.
FETCHED_WITHIN = 1800.0
# A page keeps looks waiting for an interval, and for so many seconds at the most.
PATIENCE = 5.0
# As many GETs are in flight as drain what waits for one within this share of the shortest interval, or those two seconds,
DRAIN = 0.25
# and one that takes so many seconds keeps no others waiting.
HANGS = 1.0
# A failure may be one thread's own; of so many threads in a row, it is everybody's.
STREAK = 3


class Now(NamedTuple):
    """A moment: the loop's time, and epoch seconds."""

    loop: float
    epoch: float


class Poll:
    """The waits on one connection.

    Args:
        limits: how patient one look is.
        draw: gives a number in [0, 1).
        in_flight: how many GETs may be under way, a quarter as many pages, and three times as many GETs that hang.

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
        self._pages: OrderedDict[Walk, None] = OrderedDict()
        self._queue: OrderedDict[str, float] = OrderedDict()
        self._asked: dict[str, float] = {}
        self._reading, self._seconds, self._seconds_each, self._shortest = 0, 0.0, 0.0, inf
        # An outage: since when, whose GETs are the probes and when the next ones are due, and whose looks wait for its answer.
        self._failing: set[str] = set()
        self._away_since: float | None = None
        self._is_told = False
        self._probes: set[str] = set()
        self._probe_at = 0.0
        self._held: dict[Waiter, None] = {}

    def join(self, waiter: Waiter, now: Now) -> None:
        """Take a wait in."""
        self._waiters.setdefault(waiter.wait.thread_id, []).append(waiter)
        self.size += 1
        self._shortest = min(self._shortest, waiter.interval)
        waiter.fetched_at = now.loop - self._draw() * FETCHED_WITHIN
        self._file(waiter, waiter.list_key, now)
        waiter.due = now.loop + self._draw() * min(waiter.interval, FIRST_LOOK_WITHIN)
        self._plan_at(waiter.due, waiter, now)

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
            self._unqueue(thread_id)

    def end(self) -> None:
        """Have every wait go on alone."""
        for waiter in [waiter for waiters in self._waiters.values() for waiter in waiters]:
            waiter.goes_on_alone()
        self.__init__(self._limits, self._draw, self._in_flight)  # type: ignore[misc]

    def next_at(self, now: Now) -> float:
        """Return the loop time of the next :meth:`tick`; infinite when only an answer brings one about."""
        while self._plan and self._plan[0][1] != self._plan[0][2].ticket:
            heappop(self._plan)
        at = self._plan[0][0] if self._plan else inf
        if self._queue:
            at = min(at, now.loop + min(max(DRAIN * self._shortest, 0.05), HANGS))
        return min(at, self._probe_at) if self._held and not self._probes else at

    def tick(self, now: Now) -> Iterator[str | Walk]:
        """Take up what is due by now, and yield what to send: a GET of a thread, or the next page of a walk."""
        while self._plan and self._plan[0][0] <= now.loop:
            _, ticket, entry = heappop(self._plan)
            if ticket == entry.ticket:
                entry.ticket = 0
                if isinstance(entry, Waiter):
                    self._is_due(entry, now)
                else:
                    entry.is_late = True
                    self._ask_all(entry.of.due, now)
        if self._held and not self._probes and now.loop >= self._probe_at:
            # Those that failed before may be the only ones that fail.
            held = [held for held in self._held if held.wait.thread_id not in self._failing] or list(self._held)
            for waiter in {held[int(self._draw() * len(held))]: None for _ in range(STREAK)}:
                self._probes.add(waiter.wait.thread_id)
                self._unplan(waiter)
                self._enqueue(waiter, now, first=True)
        while self._pages and self._reading < max(self._in_flight // 4, 1):
            self._reading += 1
            yield self._pages.popitem(last=False)[0]
        while self._queue and len(self._asked) < self._slots(now.loop):
            thread_id, _ = self._queue.popitem(last=False)
            self._asked[thread_id] = now.loop
            yield thread_id

    def _slots(self, now: float) -> int:
        drain = max(min(DRAIN * self._shortest, FIRST_LOOK_WITHIN), 0.01)
        is_late = now - next(iter(self._queue.values())) > max(drain, HANGS)
        wanted = ceil(len(self._queue) * (self._seconds if is_late else self._seconds_each) / drain)
        hanging = sum(sent < now - HANGS for sent in self._asked.values())
        return min(hanging, 3 * self._in_flight) + min(max(wanted, 1), self._in_flight)

    # Planning

    def _is_due(self, waiter: Waiter, now: Now) -> None:
        a_list = None if waiter.key is None or waiter.is_sharp else self._lists[waiter.key]
        is_over = waiter.wait.is_at_its_end(now.epoch)
        if a_list is None or is_over or not a_list.is_open(now.loop) or (a_list.walk and a_list.walk.is_late):
            self._ask(waiter, now)
            return
        a_list.due[waiter] = None
        self._keep_deadline(waiter, now)
        if a_list.walk is None and len(a_list.due) > FEW:
            a_list.walk = Walk(a_list, now.loop)
            self._next_page(a_list.walk, now)
        elif a_list.walk is None and now.loop >= (until := waiter.due + GATHER * waiter.interval):
            self._ask(waiter, now)
        elif a_list.walk is None:
            self._plan_at(until, waiter, now)

    def _ask(self, waiter: Waiter, now: Now, *, sharp: bool = False) -> None:
        """Have a thread fetched when it is its turn; in an outage, when a probe was answered."""
        self._unplan(waiter)
        waiter.is_sharp |= sharp
        is_at_its_end = waiter.wait.is_at_its_end(now.epoch)
        if not is_at_its_end:
            self._keep_deadline(waiter, now)
        is_alone = is_at_its_end and len(self._queue) + len(self._asked) < self._in_flight
        if self._away_since is None or is_alone:
            self._enqueue(waiter, now, first=is_at_its_end)
            return
        self._held[waiter] = None
        if waiter.seen_at is None or is_at_its_end:
            # Alone it would look at once.
            self._probe_at = min(self._probe_at, now.loop)

    def _ask_all(self, waiters: dict[Waiter, None], now: Now) -> None:
        for waiter in tuple(waiters):
            self._ask(waiter, now)

    def _keep_deadline(self, waiter: Waiter, now: Now) -> None:
        # Whatever a look waits for: a page, its turn, the end of an outage.
        if waiter.wait.deadline is not None:
            self._plan_at(inf, waiter, now)

    def _enqueue(self, waiter: Waiter, now: Now, *, first: bool) -> None:
        waiter.is_asking, thread_id = True, waiter.wait.thread_id
        if thread_id not in self._asked:
            self._queue.setdefault(thread_id, now.loop)
            if first:
                self._queue.move_to_end(thread_id, last=False)

    def _unqueue(self, thread_id: str) -> None:
        if thread_id in self._queue:
            del self._queue[thread_id]
            self._probes.discard(thread_id)

    def _plan_at(self, at: float, entry: Waiter | Walk, now: Now) -> None:
        if isinstance(entry, Waiter) and entry.wait.deadline is not None:
            at = min(at, now.loop + entry.wait.deadline - now.epoch)
        entry.ticket = next(self._tickets)
        heappush(self._plan, (at, entry.ticket, entry))
        if len(self._plan) > 2 * self.size + 64:
            self._plan = [planned for planned in self._plan if planned[1] == planned[2].ticket]
            heapify(self._plan)

    def _unplan(self, waiter: Waiter) -> None:
        waiter.ticket, waiter.is_asking = 0, False
        self._held.pop(waiter, None)
        if waiter.key is not None:
            self._lists[waiter.key].due.pop(waiter, None)

    def _file(self, waiter: Waiter, key: ListKey | None, now: Now | None = None) -> None:
        if key == waiter.key:
            return
        if waiter.key is not None:
            del self._lists[waiter.key].members[waiter]
            if not self._lists[waiter.key].members:
                del self._lists[waiter.key]
        waiter.key = key
        if key is not None and now is not None:
            waiter.filed_at = now.loop
            self._lists.setdefault(key, List(key)).members[waiter] = None

    def _go_on(self, waiter: Waiter, step: Step, now: Now) -> None:
        if step.event is not None:
            self.leave(waiter)
            return
        # In an outage all wait for a probe, and gather for a page once it is over.
        waiter.is_sharp = step.soon and self._away_since is None
        # Polls spread their looks themselves.
        waiter.due = now.loop + (step.look_again_in if step.soon else max(step.look_again_in, waiter.interval))
        gathers = step.soon or (waiter.key is not None and self._lists[waiter.key].is_open(now.loop))
        self._plan_at(waiter.due if gathers else waiter.due + self._draw() * GATHER * waiter.interval, waiter, now)

    def _broke(self, waiter: Waiter, error: Exception) -> None:
        # What happened to one look for all is nobody's own: whoever it belongs to meets it again.
        log.warning("The wait for thread %s goes on alone: %r", waiter.wait.thread_id, error)
        waiter.goes_on_alone()
        self.leave(waiter)

    # Single threads

    def got(self, thread_id: str, answer: Thread | Exception, now: Now) -> None:
        """Take in what the GET of a thread came to."""
        if (sent := self._asked.pop(thread_id, None)) is None:
            # Asked for before the poll broke: nobody waits for it here any more.
            return
        self._seconds += 0.2 * (now.loop - sent - self._seconds)
        # Shared by those that were under way with it: on a busy machine more at a time take longer, and gain nothing. Where Capy
        # is what is slow they do gain, which shows when this does not keep up.
        self._seconds_each += 0.2 * ((now.loop - sent) / (len(self._asked) + 1) - self._seconds_each)
        passing = isinstance(answer, CapyRequestError) and is_passing(answer)
        if isinstance(answer, CapyRequestError) and passing:
            self._is_away(thread_id, answer, sent, now)
        elif isinstance(answer, (Thread, CapyAPIError)):
            self._is_there(sent, now)
        # A failure is no look of those who did not ask: two waits on one thread would keep each other awake.
        mates = self._waiters.get(thread_id, ())
        waiters = {mate: None for mate in mates if mate.is_asking or not passing}
        if thread_id in self._probes:
            self._probes.discard(thread_id)
            # That all of them failed is the look of all who were held for them.
            waiters |= self._held if passing and not self._probes else {}
        for waiter in waiters:
            self._unplan(waiter)
            waiter.seen_at = now.loop
            try:
                step = self._judged(waiter, answer, sent, now)
            except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
                self._broke(waiter, error)
            else:
                self._file(waiter, waiter.list_key, now)
                self._go_on(waiter, step, now)

    def _judged(self, waiter: Waiter, answer: Thread | Exception, sent: float, now: Now) -> Step:
        if isinstance(answer, Thread):
            waiter.fetched_at = now.loop
            if waiter.is_sample and waiter.key is not None:
                a_list, is_true = self._lists[waiter.key], not waiter.may_be_over(answer, now.epoch)
                a_list.samples = max(a_list.samples // 2, 1) if is_true else 2 * a_list.samples
            waiter.is_sample = False
            return waiter.fetched(answer, now.epoch)
        if not isinstance(answer, CapyRequestError):
            raise answer
        if not is_passing(answer):
            return waiter.failed(answer, now.epoch)
        # Asked once more before the look counts as failed, as often and for as long as a wait of its own would.
        waiter.tried_since = waiter.tried_since if waiter.attempts else sent
        pause = wait_before(waiter.attempts + 1, answer, self._limits, self._draw)
        took = now.loop - waiter.tried_since
        is_last = waiter.attempts + 1 >= self._limits.attempts or took + pause > self._limits.total
        if is_last or waiter.wait.is_at_its_end(now.epoch):
            return waiter.failed(answer, now.epoch, muted=self._away_since is not None and self._is_told)
        return waiter.tries_again(pause)

    def _is_away(self, thread_id: str, error: CapyRequestError, sent: float, now: Now) -> None:
        self._failing.add(thread_id)
        if self._away_since is None:
            if len(self._failing) < STREAK:
                return
            self._away_since, self._is_told = now.loop, False
            queue, self._queue = self._queue, OrderedDict()
            self._ask_all({waiter: None for queued in queue for waiter in self._waiters[queued]}, now)
        elif sent < self._probe_at:
            return
        elif not self._is_told and self.size > FEW:
            self._is_told = True
            log.warning("%d waits slow down together, since nobody gets an answer: %s", self.size, error)
        retry_after = error.retry_after if isinstance(error, CapyAPIError) else None
        pause = min((now.loop - self._away_since) / 2, LONGEST_OUTAGE_PAUSE)
        self._probe_at = now.loop + max(retry_after or 0.0, pause, FIRST_LOOK_WITHIN)

    def _is_there(self, sent: float, now: Now) -> None:
        self._failing.clear()
        if self._away_since is None or sent < self._away_since:
            return
        if self._is_told:
            log.info("%d waits go on after %.0f s without an answer", self.size, now.loop - self._away_since)
        self._away_since = None
        for a_list in self._lists.values():
            if a_list.has_failed:
                a_list.wake()
        for waiter in tuple(self._held):
            self._unplan(waiter)
            self._is_due(waiter, now)

    # Lists

    def _next_page(self, walk: Walk, now: Now) -> None:
        self._plan_at(min(walk.began + walk.shortest, now.loop + PATIENCE), walk, now)
        walk.asked_at = now.loop
        self._pages[walk] = None

    def got_page(self, walk: Walk, answer: GlancePage | CapyRequestError, now: Now) -> None:
        """Take in what the next page of a walk came to."""
        self._reading -= 1
        walk.ticket = 0
        a_list = walk.of
        if self._lists.get(a_list.key) is not a_list:
            # Everybody has left it meanwhile.
            return
        if isinstance(answer, CapyRequestError):
            a_list.failed(walk, answer, now.loop)
        elif self._read(walk, answer, now):
            self._next_page(walk, now)
            return
        else:
            a_list.walked(walk, now.loop)
        a_list.walk = None
        if isinstance(answer, CapyRequestError) or walk.cursor:
            self._ask_all(a_list.due, now)
        else:
            self._ask_for_the_missing(a_list, walk, now)
        for waiter in nsmallest(a_list.samples, walk.shown, key=lambda shown: shown.fetched_at):
            if waiter.ticket and not waiter.is_sharp:
                waiter.is_sample = True
                self._ask(waiter, now, sharp=True)

    def _read(self, walk: Walk, page: GlancePage, now: Now) -> bool:
        """Take in what a page shows; return whether to read the next one."""
        self._is_there(walk.asked_at, now)
        saved = 0.0
        for item in page["items"]:
            # Most of what a page shows is as it was, or somebody else's: this loop is what polling costs.
            if item is not None and (waiters := self._waiters.get(item["id"])) and item["id"] not in self._asked:
                if self._queue and not any(waiter.is_sharp for waiter in waiters):
                    self._unqueue(item["id"])
                saved += sum(self._shown(waiter, item, walk, now) for waiter in tuple(waiters))
        cursor = (page.get("nextCursor") if page.get("hasMore") else None) or ""
        return walk.goes_on(saved, cursor)

    def _ask_for_the_missing(self, a_list: List, walk: Walk, now: Now) -> None:
        missing = [waiter for waiter in a_list.members if waiter.is_missing(walk.began, now.loop)]
        for waiter in [waiter for waiter in missing if waiter.wait.thread_id not in self._asked]:
            # A thread may slip from a page to one that was read before; a list that shows nobody shows none of them.
            waiter.missed += 1 if walk.has_paid else MISSES
            self._ask(waiter, now)
        for waiter in tuple(a_list.due):
            self._is_due(waiter, now)

    def _shown(self, waiter: Waiter, glance: ThreadGlance, walk: Walk, now: Now) -> float:
        """Take in that a page shows a thread; return which share of a GET that has saved."""
        if waiter.is_sharp:
            return 0.0
        try:
            step = waiter.glanced(glance, now.epoch)
        except Exception as error:  # noqa: BLE001 - one odd thread must not end the wait for the others
            self._broke(waiter, error)
            return 0.0
        self._unplan(waiter)
        if step is None or now.loop - waiter.fetched_at > FETCHED_WITHIN:
            self._ask(waiter, now, sharp=True)
            return 0.0
        walk.shown.append(waiter)
        saved, waiter.seen_at = waiter.worth(now.loop), now.loop
        waiter.missed -= waiter.missed % MISSES
        self._go_on(waiter, step, now)
        return saved
