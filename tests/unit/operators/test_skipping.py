"""Whether a skipped create belongs to a branch that went another way, or to a run that was cancelled before it began."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_capy.operators.skipping import Skips


def task(task_id: str, *before: Any, mapped: bool = False, rule: str = "all_success") -> Any:
    return SimpleNamespace(task_id=task_id, upstream_list=list(before), is_mapped=mapped, trigger_rule=rule)


def crumb(task_id: str, state: str, duration: float | None = 0.0, map_index: int = -1) -> dict[str, Any]:
    return {"task_id": task_id, "map_index": map_index, "state": state, "duration": duration}


FIRST = task("first")
OTHER = task("other")
MIDDLE = task("middle", FIRST)
ALONE = task("create", FIRST)
BEHIND = task("create", MIDDLE)
JOIN = task("create", FIRST, OTHER, rule="none_failed_min_one_success")
NEVER, CHOSE, GOOD, FAILED = ("skipped", 0.0), ("skipped", 1.0), ("success", 1.0), ("failed", 1.0)


@pytest.mark.parametrize(
    ("create", "states", "branches", "expected"),
    [
        pytest.param(task("create"), {}, {}, False, id="nothing before it: a cancel"),
        pytest.param(ALONE, {"first": GOOD}, {}, False, id="what is before it went well: a cancel"),
        pytest.param(BEHIND, {"first": FAILED, "middle": NEVER}, {}, False, id="a cancel skipped both"),
        pytest.param(BEHIND, {"middle": CHOSE}, {}, True, id="the one before it chose to be skipped"),
        pytest.param(BEHIND, {"middle": NEVER, "first": CHOSE}, {}, True, id="one further up chose to be skipped"),
        pytest.param(
            BEHIND, {"first": FAILED, "middle": CHOSE}, {}, False, id="what ran before a clear has not run again"
        ),
        pytest.param(
            task("create", task("middle", mapped=True)), {"middle": NEVER}, {}, True, id="nothing to map over"
        ),
        pytest.param(ALONE, {}, {"first": {"skipped": ["create"]}}, True, id="a short circuit"),
        pytest.param(ALONE, {}, {"first": {"skipped": ["other"]}}, False, id="a short circuit of others"),
        pytest.param(ALONE, {}, {"first": {"followed": ["other"]}}, True, id="a branch elsewhere"),
        pytest.param(ALONE, {}, {"first": {"followed": ["create"]}}, False, id="a branch that was cancelled"),
        pytest.param(BEHIND, {"middle": NEVER}, {"first": {"followed": ["other"]}}, True, id="a branch further up"),
        pytest.param(JOIN, {"first": CHOSE, "other": FAILED}, {}, False, id="a join that would have run: a cancel"),
        pytest.param(JOIN, {"first": CHOSE, "other": NEVER}, {}, True, id="a join of which nothing ran"),
        pytest.param(
            task("create", FIRST, rule="none_failed"), {"first": CHOSE}, {}, False, id="a rule that skips nobody"
        ),
        pytest.param(task("create", FIRST, rule="all_done"), {"first": CHOSE}, {}, False, id="another of these"),
        pytest.param(task("create", FIRST, rule="one_failed"), {"first": GOOD}, {}, True, id="nothing failed"),
    ],
)
def test_what_accounts_for_a_skip(
    create: Any, states: dict[str, tuple[str, float]], branches: dict[str, Any], expected: bool
) -> None:
    skips = Skips([crumb(name, *ended) for name, ended in {**states, "create": NEVER}.items()], branches.get)
    assert skips.are_accounted_for(create) is expected


def test_every_task_is_asked_once_however_many_ways_lead_to_it() -> None:
    layer = [task(f"0-{number}") for number in range(6)]
    for depth in range(1, 12):
        layer = [task(f"{depth}-{number}", *layer) for number in range(6)]
    asked: list[str] = []
    crumbs = [crumb(f"{depth}-{number}", *NEVER) for depth in range(12) for number in range(6)]
    skips = Skips([*crumbs, crumb("create", *NEVER)], asked.append)
    assert skips.are_accounted_for(task("create", *layer)) is False
    assert sorted(asked) == sorted(name["task_id"] for name in crumbs)


def test_an_instance_that_ran_chose_to_be_skipped() -> None:
    skips = Skips([crumb("wait", *CHOSE, map_index=0), crumb("wait", *NEVER, map_index=1)], {}.get)
    assert [skips.was_chosen("wait", index) for index in (0, 1, 2)] == [True, False, False]
