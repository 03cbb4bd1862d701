"""One list of a project's threads: whether a walk over its pages is worth it, how far, and whether it shows what is true."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_capy.exceptions import CapyAPIError

if TYPE_CHECKING:
    from airflow_provider_capy.exceptions import CapyRequestError
    from airflow_provider_capy.polling.waiter import ListKey, Waiter

log = logging.getLogger(__name__)

# As many threads are asked for singly: a page costs as much work as they do.
FEW = 2
# For how many intervals a list rests after a walk that failed, and one that did not pay; doubled each time, up to a bound.
FAILED, UNPAID, LONGEST = 1, 10, 80


@dataclass(eq=False, slots=True)
class List:
    """What is known of one list.

    Attributes:
        key: its filters.
        members: the waits that it should show.
        due: whose looks are due: they wait for a walk, or until enough of them are.
        walk: the one under way.
        has_failed: whether the last one did.
        samples: how many of those whom a walk shows are asked for singly: twice as many each time a GET contradicts it.
    """

    key: ListKey
    members: dict[Waiter, None] = field(default_factory=dict)
    due: dict[Waiter, None] = field(default_factory=dict)
    walk: Walk | None = None
    has_failed: bool = False
    samples: int = 1
    _rests_until: float = 0.0
    _times: int = 0
    _hoped: float = inf
    _is_told: bool = False

    def is_open(self, now: float) -> bool:
        """Say whether a walk is worth trying: for more than a few, and not soon after one that was not (loop time)."""
        return len(self.members) > FEW and (now >= self._rests_until or len(self.members) >= 2 * self._hoped)

    def wake(self) -> None:
        """Take it up again."""
        self._times, self._rests_until, self._hoped, self.has_failed = 0, 0.0, inf, False

    def failed(self, walk: Walk, error: CapyRequestError, now: float) -> None:
        """Rest after a page that could not be read."""
        retry_after = error.retry_after if isinstance(error, CapyAPIError) else None
        self._rest(FAILED, walk, now + (retry_after or 0.0))
        self.has_failed = True
        self._tell(f"cannot be listed, its threads are asked for singly: {error}")

    def walked(self, walk: Walk, now: float) -> None:
        """Go on after a walk, or rest when it did not pay or was not true."""
        if 2 * self.samples > max(len(self.members), 2 * FEW):
            self._rest(LONGEST, walk, now)
            self._tell("has a list that shows threads at work that are not, they are asked for singly")
        elif walk.has_paid:
            self.wake()
            self._is_told = False
        else:
            self._rest(UNPAID, walk, now)
            self._hoped = len(self.members)

    def _rest(self, intervals: int, walk: Walk, now: float) -> None:
        self._times = 1 if len(self.members) >= 2 * self._hoped else self._times + 1
        self._rests_until = now + walk.shortest * min(intervals * 2 ** min(self._times - 1, 10), LONGEST)
        self._hoped = inf

    def _tell(self, words: str) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("Project %s %s", self.key.project_id, words)


@dataclass(eq=False, slots=True)
class Walk:
    """One walk over the pages of a list.

    Attributes:
        of: the list.
        began, asked_at: loop times, of its start and of its last request.
        ticket: the place in the plan of the moment at which nobody waits for it any more.
        is_late: whether that has come.
        cursor: of the next page; empty for the first one, and after the last one.
        shown: whose threads it showed as going on.
    """

    of: List
    began: float
    asked_at: float = 0.0
    ticket: int = 0
    is_late: bool = False
    cursor: str = ""
    shown: list[Waiter] = field(default_factory=list)
    shortest: float = field(init=False)
    _pages: int = 0
    _saved: float = 0.0
    _barren: int = 0
    _cursors: set[str] = field(default_factory=lambda: {""})

    def __post_init__(self) -> None:
        self.shortest = min(waiter.interval for waiter in self.of.due)

    def goes_on(self, saved: float, cursor: str) -> bool:
        """Take in a page that saved so many GETs, and the cursor of the next; return whether that is worth reading."""
        self._pages += 1
        self._saved += saved
        self._barren = 0 if saved >= FEW else self._barren + 1
        self.cursor = "" if cursor in self._cursors else cursor
        self._cursors.add(cursor)
        everybody = len(self.shown) >= len(self.of.members)
        return bool(self.cursor) and not everybody and self._barren <= len(self.of.due) // 100

    @property
    def has_paid(self) -> bool:
        """Whether its pages saved more than they cost."""
        return self._saved >= FEW * self._pages
