"""One list of a project's threads: whether it is worth a walk over its pages, how far, and whether it tells the truth."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_capy.exceptions import CapyAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.api.glances import ThreadGlance
    from airflow_provider_capy.exceptions import CapyRequestError
    from airflow_provider_capy.polling.waiter import ListKey, Waiter

log = logging.getLogger(__name__)

# As many threads are asked for singly: a page costs as much work as they do.
FEW = 2
# For how many intervals a list rests after a walk that failed, and after one that did not pay; doubled each time, up to a bound.
FAILED, UNPAID, LONGEST = 1, 10, 80
@dataclass(eq=False, slots=True)
class Walk:
    """One walk over the pages of a list.

    Attributes:
        key: the list.
        due: whose looks wait for it, and whether they did from its start.
        began: loop time.
        shortest: the shortest interval of those (seconds).
        unseen: how many threads of the list were not shown yet.
        ticket: the place in the plan of the moment at which nobody waits for it any more.
        is_late: whether that has come.
        cursor: of the next page; empty for the first one, and after the last one.
        pages, paid, barren: pages read, GETs that they saved, and pages in a row that saved fewer than they cost.
        shown: whose threads it showed at work.
    """

    key: ListKey
    due: dict[Waiter, bool]
    began: float
    shortest: float
    unseen: int
    ticket: int = 0
    is_late: bool = False
    cursor: str = ""
    pages: int = 0
    paid: float = 0.0
    barren: int = 0
    shown: list[Waiter] = field(default_factory=list)
    _cursors: set[str] = field(default_factory=lambda: {""})

    def read(self, saved: float, cursor: str) -> bool:
        """Take in a page that saved so many GETs, and the cursor of the next; return whether that is worth reading."""
        self.pages += 1
        self.paid += saved
        self.barren = 0 if saved >= FEW else self.barren + 1
        self.cursor = "" if cursor in self._cursors else cursor
        self._cursors.add(cursor)
        return bool(self.cursor) and self.unseen > 0 and not self.is_late and self.barren <= len(self.due) // 100

    @property
    def is_complete(self) -> bool:
        """Whether the list was read to its end."""
        return not self.cursor


@dataclass(eq=False, slots=True)
class List:
    """What is known of one list.

    Attributes:
        members: how many waits it should show.
        collected: whose looks are due, and wait until enough others are.
        walk: the one under way.
        has_failed: whether the last one failed.
        samples: how many of the threads that a walk shows are asked for singly: more while GETs contradict it.
    """

    members: int = 0
    collected: dict[Waiter, bool] = field(default_factory=dict)
    walk: Walk | None = None
    has_failed: bool = False
    samples: int = 1
    _rests_until: float = 0.0
    _times: int = 0
    _hoped: float = float("inf")
    _is_told: bool = False

    def is_open(self, now: float) -> bool:
        """Say whether a walk is worth trying: for more than a few, and not soon after one that was not."""
        return self.members > FEW and (now >= self._rests_until or self.members >= 2 * self._hoped)

    def wake(self) -> None:
        """Take it up again."""
        self._times, self._rests_until, self._hoped, self.has_failed = 0, 0.0, float("inf"), False

    def failed(self, walk: Walk, now: float, error: CapyRequestError) -> None:
        """Rest after a page could not be read."""
        self.has_failed = True
        retry_after = error.retry_after if isinstance(error, CapyAPIError) else None
        self._rest(FAILED, walk, now, at_least=retry_after or 0.0)
        self._tell("Project %s cannot be listed, its threads are asked for singly: %s", walk.key.project_id, error)

    def walked(self, walk: Walk, now: float) -> None:
        """Go on after a walk, or rest when it did not pay, or what it showed was not true."""
        self.has_failed = False
        if 2 * self.samples > self.members:
            self._rest(LONGEST, walk, now)
            self._tell("Project %s: its list shows threads at work that are not; all are asked for singly", walk.key.project_id)
        elif walk.is_late or walk.paid < FEW * walk.pages:
            self._rest(UNPAID, walk, now, hoped=self.members)
        else:
            self.wake()

    def sampled(self, *, is_true: bool) -> None:
        """Take in whether a GET agreed with what a walk had shown."""
        self.samples = max(self.samples // 2, 1) if is_true else 2 * self.samples

    def _rest(
        self, intervals: int, walk: Walk, now: float, *, at_least: float = 0.0, hoped: float = float("inf")
    ) -> None:
        self._times = 1 if self.members >= 2 * self._hoped else self._times + 1
        rest = walk.shortest * min(intervals * 2 ** min(self._times - 1, 10), LONGEST)
        self._rests_until, self._hoped = now + max(rest, at_least), hoped

    def _tell(self, words: str, *values: object) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning(words, *values)
