"""How far the reaper reads a project's history."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.operators.reap import created_since

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOW = datetime(2026, 11, 25, tzinfo=timezone.utc)
OLDEST = NOW - timedelta(days=7)


class Listing:
    """A list that counts how far it is read; `ages` in days, ``None`` for a date that cannot be read."""

    def __init__(self, ages: Sequence[float | None]) -> None:
        self.ages = ages
        self.read = 0

    def __iter__(self) -> Iterator[Thread]:
        for age in self.ages:
            self.read += 1
            created = "yesterday" if age is None else (NOW - timedelta(days=age)).isoformat()
            yield Thread.model_validate({"id": f"jam_{self.read}", "runState": "running", "createdAt": created})


@pytest.mark.parametrize(
    ("ages", "found", "read"),
    [
        pytest.param([1, 2, *[8] * 1000], 2, 102, id="newest first: a page of old ones ends it"),
        pytest.param([8, 1, *[9] * 300, 2], 2, 303, id="in no order: all of it"),
        pytest.param([9, 8, 2, 1], 2, 4, id="oldest first: all of it"),
        pytest.param([1, None, 2], 2, 3, id="a date that cannot be read: left alone"),
        pytest.param([], 0, 0, id="nothing"),
    ],
)
def test_as_much_is_read_as_need_be(ages: list[float | None], found: int, read: int) -> None:
    listing = Listing(ages)
    assert len(list(created_since(OLDEST, listing))) == found
    assert listing.read == read
