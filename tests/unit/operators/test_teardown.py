"""Where the teardown of a group looks for threads: a create that was cut off may have started one, or one more."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.operators.teardown import CapyThreadTeardown


def found_by(xcoms: dict[str, str], *, late: bool, **hits: str | Exception) -> tuple[set[str], bool, list[str]]:
    """What is found, whether something is missing, and what was searched for; with XComs and search results as given."""
    asked: list[str] = []

    def look_up(_hook: Any, reference: str) -> str | None:
        asked.append(reference)
        if isinstance(hit := hits.get(reference), Exception):
            raise hit
        return hit

    teardown: Any = SimpleNamespace(
        create_task_id="create",
        log=logging.getLogger(__name__),
        _pulled=lambda _ti, _task_id, key: xcoms.get(key),
        _look_up=look_up,
    )
    found: dict[str, str] = {}
    lost = CapyThreadTeardown._find(teardown, None, teardown, found, may_come_late=late)
    return set(found.values()), lost, asked


KNOWN = {"thread_id": "jam_1", "thread_reference": "af1"}


def test_a_thread_that_is_known_is_stopped_without_a_search() -> None:
    assert found_by(KNOWN, late=False) == ({"jam_1"}, False, [])


def test_a_create_that_was_cut_off_may_have_started_another_one_under_its_new_reference() -> None:
    assert found_by(KNOWN, late=True, af1="jam_2") == ({"jam_1", "jam_2"}, False, ["af1"])


def test_a_thread_that_is_only_announced_is_searched_for() -> None:
    announced = {"thread_reference": "af1"}
    assert found_by(announced, late=True) == (set(), True, ["af1"])
    assert found_by(announced, late=True, af1="jam_1") == ({"jam_1"}, False, ["af1"])


def test_a_search_that_fails_keeps_no_known_thread_at_work() -> None:
    assert found_by(KNOWN, late=True, af1=CapyRequestError("away")) == ({"jam_1"}, True, ["af1"])


def test_a_search_that_fails_where_nothing_is_known_is_an_error() -> None:
    with pytest.raises(CapyRequestError):
        found_by({"thread_reference": "af1"}, late=True, af1=CapyRequestError("away"))


def test_what_was_never_announced_is_not_searched_for() -> None:
    assert found_by({}, late=True) == (set(), False, [])
