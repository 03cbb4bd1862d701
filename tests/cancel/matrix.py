"""Every cell of the matrix as a test: what becomes of thread and run is what the guarantees table says.

Named so that `pytest` does not collect it by itself: it takes an hour, see `python -m tests.cancel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cancel.conftest import Campaigns
    from tests.cancel.rows import Row

LONGEST = 4 * 3600.0


@pytest.mark.timeout(LONGEST)
def test_cell(campaigns: Campaigns, row: Row, way: str, repetition: int) -> None:
    result = campaigns.result(row, way, repetition, LONGEST)

    assert result.error == ""
    assert result.as_promised, (result.fate, result.run, result.promised, result.tasks)
    assert (result.false_stop, result.green, result.false_success) == (False, False, False)
    assert result.promised["fate"] == "*" or result.orphan == result.promised["orphan"]
    assert row.within is None or (result.stop_after is not None and result.stop_after <= row.within[way])
