"""What one shared poll asks for: pages or single threads, how far to page, when, and how slowly after a failure.

All of it pure. The measure is one GET per thread and interval, which is what waits of their own would cost: a page is
paid for by the due threads that it shows, and what it does not show is asked for singly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from airflow_provider_capy.api.retry import wait_before
from airflow_provider_capy.exceptions import CapyConnectError, CapyRateLimitError
from airflow_provider_capy.waiting import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_capy.api.retry import RetryLimits

# As many threads are asked for singly: a page costs as much work as they do.
FEW = 2
# A look comes up to this share of its interval late, never early: so polls of many groups and processes spread, and
# the threads of one page are due together again.
GATHER = 0.05
# A thread that is due within this share of its interval is worth walking on for.
RIDE = 0.25
# One that has waited for this share of its interval is worth a page that others do not need: then they come together.
COUNTS = 0.5
# The pages of one walk are spread over this share of the shortest interval, with pauses no longer than this (seconds).
SPREAD = 0.05
LONGEST_PAUSE = 0.25
# After n walks in a row that did not pay, the list rests for 2**n intervals, up to 2**this.
LONGEST_REST = 6
# GETs in flight at the most, beside one page, and within which share of an interval a backlog should be gone.
SLOTS = 7
DRAIN = 0.1
# Single failures of some kinds may be one thread's own; so many in a row, of different threads, are the server's.
STREAK = 3
# How many looks a thread is asked for singly after a page and its own GET had contradicted each other.
DOUBTED_LOOKS = 8


def latest(due: float, pause: float, draw: Callable[[], float]) -> float:
    """Return when a look that is due at ``due``, ``pause`` seconds after the last, is made at the latest."""
    return due + GATHER * draw() * pause


def slots(backlog: int, seconds_each: float, shortest_interval: float) -> int:
    """Return how many GETs may be in flight: few connections in quiet times, more when a backlog would last.

    Args:
        backlog: how many threads wait to be asked for.
        seconds_each: how long a GET takes.
        shortest_interval: in seconds, of those who wait.
    """
    return min(max(ceil(backlog * seconds_each / max(DRAIN * shortest_interval, 0.01)), 1), SLOTS)


def pause_between_pages(shortest_interval: float, pages_expected: int) -> float:
    """Return how many seconds to pause between two pages of a walk."""
    return min(SPREAD * shortest_interval / max(pages_expected, 1), LONGEST_PAUSE)


@dataclass(frozen=True, slots=True)
class Lane:
    """What is known of one list (a project's threads of one status).

    Attributes:
        fruitless: how many walks in a row did not pay.
        rests_until: loop time until which it is left alone.
        hoped: how many threads the last fruitless walk had hoped for.
    """

    fruitless: int = 0
    rests_until: float = 0.0
    hoped: int = 0

    def is_open(self, wanted: int, now: float) -> bool:
        """Say whether a walk is worth trying: for more than a few, and not again soon after it did not pay.

        Args:
            wanted: how many threads might be on it.
            now: loop time.
        """
        return wanted > FEW and (now >= self.rests_until or wanted >= 2 * max(self.hoped, FEW))

    def after(self, walk: Walk, members: int, interval: float, now: float) -> Lane:
        """Return what is known after a walk.

        Args:
            walk: the walk, ended.
            members: how many threads the group has.
            interval: the shortest interval of those it was made for, in seconds.
            now: loop time.
        """
        return Lane() if walk.has_paid else self.after_failure(walk.wanted, members, interval, now)

    def after_failure(self, wanted: int, members: int, interval: float, now: float) -> Lane:
        """Return what is known after a walk that failed or did not pay."""
        # That a list does not pay for some of the threads says little about all of them.
        fruitless = min(self.fruitless + 1, LONGEST_REST) if 2 * wanted >= members else self.fruitless
        return Lane(fruitless, now + interval * 2.0**fruitless, wanted)


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk over the pages of a list.

    Attributes:
        wanted: how many threads were hoped for.
        due: how many of them are due, and may therefore wait one interval longer to pay for a page.
        bank: requests saved so far, see :class:`Bank`.
        pages: pages read.
        found: wanted threads seen.
        paid: GETs that the pages saved.
        barren: pages in a row, up to the last, that showed fewer than two wanted threads.
        has_more: whether there is a next page.
    """

    wanted: int
    due: int
    bank: float = 0.0
    pages: int = 0
    found: int = 0
    paid: float = 0.0
    barren: int = 0
    has_more: bool = True

    @property
    def has_paid(self) -> bool:
        """Whether every page showed two wanted threads on average: below that, single GETs are as cheap."""
        return self.found >= 2 * self.pages

    @property
    def deficit(self) -> int:
        """How many pages nobody has paid for: so many due threads have to wait one interval longer."""
        return max(ceil(self.pages - self.paid - self.bank), 0) if self.pages > self.paid else 0

    def took(self, found: int, paid: float, *, has_more: bool) -> Walk:
        """Return the walk after one more page.

        Args:
            found: wanted threads on it.
            paid: GETs that it saved.
            has_more: whether there is a next page.
        """
        return replace(
            self,
            pages=self.pages + 1,
            found=self.found + found,
            paid=self.paid + paid,
            barren=0 if found >= 2 else self.barren + 1,
            has_more=has_more,
        )

    def goes_on(self, places: Iterable[int]) -> bool:
        """Say whether to read the next page.

        Args:
            places: on which pages (counted from 0) the threads not seen yet were seen last, as far as that is known.
        """
        left = self.wanted - self.found
        # A page may be borrowed from a due thread, which then waits one interval longer; of many, from one in a hundred.
        borrowed = self.pages + 1 - self.paid - self.bank
        if not self.has_more or left < 2 or borrowed > min(1 + self.due // 100, max(self.due - self.paid, 0)):
            return False
        if self.barren <= left // 100:
            return True
        return self._is_promised(sorted(places))

    def _is_promised(self, places: Sequence[int]) -> bool:
        saved = self.paid - self.pages + self.bank
        for count, place in enumerate(places, 1):
            # A thread drifts to later pages when new ones are started before it.
            pages = max(place - self.pages, 0) + 1
            if count >= 2 * pages and pages <= saved + 1:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Bank:
    """Requests that waits of their own would have made by now and these did not: so many may be risked on pages.

    Attributes:
        balance: requests.
    """

    balance: float = 0.0

    def saved(self, requests: float, members: int) -> Bank:
        """Return the balance after looks.

        Args:
            requests: what the looks were worth, less the requests that they cost.
            members: how many threads the group has: savings are bounded, an hour of them is no licence for a minute of
                waste.
        """
        return Bank(min(self.balance + requests, max(0.1 * members, 2.0)))


@dataclass(frozen=True, slots=True)
class CoolDown:
    """How a group that shares one Capy slows down.

    Attributes:
        failures: requests that failed in a row; 0 in good times.
        until: loop time until which nobody asks.
        since: loop time of the first of them.
    """

    failures: int = 0
    until: float = 0.0
    since: float = 0.0

    def worse(self, error: BaseException, limits: RetryLimits, now: float, draw: Callable[[], float]) -> CoolDown:
        """Return the cool-down after one more failure: doubled, jittered, and what ``Retry-After`` asks at least."""
        failures = self.failures + 1
        pause = wait_before(min(failures, 30), error, limits, lambda: 0.5 + 0.5 * draw())
        return CoolDown(failures, now + pause, self.since if self.failures else now)


def is_everybodys(error: BaseException, streak: int) -> bool:
    """Say whether a failed GET means that Capy fails for everybody and not for one thread.

    Args:
        error: what it raised.
        streak: how many GETs have failed since the last one that did not.
    """
    return isinstance(error, (CapyConnectError, CapyRateLimitError)) or (is_passing(error) and streak >= STREAK)
