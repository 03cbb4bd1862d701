"""Every cell of the matrix as a test: what becomes of thread and run is what the guarantees table says.

Named so that `pytest` does not collect it by itself: it takes hours, see `python -m tests.cancel`.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest

from tests.cancel.rows import ROWS

if TYPE_CHECKING:
    from tests.cancel.conftest import Campaigns
    from tests.cancel.rows import Row

LONGEST = 8 * 3600.0
TIMED = [row for row in ROWS if row.median is not None]


@pytest.mark.timeout(LONGEST)
def test_cell(campaigns: Campaigns, row: Row, way: str, repetition: int) -> None:
    result = campaigns.result(row, way, repetition, LONGEST)

    assert result.error == ""
    assert result.as_promised, (result.fate, result.run, result.promised, result.tasks)
    assert (result.orphan, result.false_stop, result.green) == (False, False, False)
    assert (result.false_success, result.false_failure) == (False, False)
    assert row.within is None or (result.stop_after is not None and result.stop_after <= row.within)


@pytest.mark.parametrize(
    ("timed", "way"), [pytest.param(row, way, id=f"{row.key}-{way}") for row in TIMED for way in row.promises]
)
def test_median(campaigns: Campaigns, timed: Row, way: str) -> None:
    """Of the trials that the test above has made: none, when it was asked for none."""
    own = [result for result in campaigns.results if (result.row, result.way) == (timed.key, way)]

    assert not own or statistics.median(result.stop_after or LONGEST for result in own) <= timed.median
