"""Whether a skipped create belongs to a branch that went another way, or to a run that was cancelled before it began."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_capy.operators.skipping import skipped_tasks, was_skipped_by_its_dag


def task(task_id: str, *before: Any, mapped: bool = False, rule: str = "all_success") -> Any:
    return SimpleNamespace(task_id=task_id, upstream_list=list(before), is_mapped=mapped, trigger_rule=rule)


FIRST = task("first")
MIDDLE = task("middle", FIRST)
AFTER_MAPPED = task("create", task("middle", mapped=True))


@pytest.mark.parametrize(
    ("create", "skipped", "branches", "expected"),
    [
        pytest.param(task("create"), {}, {}, False, id="nothing before it: a cancel"),
        pytest.param(task("create", FIRST), {}, {}, False, id="what is before it went well: a cancel"),
        pytest.param(task("create", MIDDLE), {"middle": False}, {}, False, id="a cancel skipped both"),
        pytest.param(task("create", MIDDLE), {"middle": True}, {}, True, id="the one before it chose to be skipped"),
        pytest.param(
            task("create", MIDDLE), {"middle": False, "first": True}, {}, True, id="one further up chose to be skipped"
        ),
        pytest.param(AFTER_MAPPED, {"middle": False}, {}, True, id="nothing to map over"),
        pytest.param(task("create", FIRST), {}, {"first": {"skipped": ["create"]}}, True, id="a short circuit"),
        pytest.param(task("create", FIRST), {}, {"first": {"skipped": ["other"]}}, False, id="of others"),
        pytest.param(task("create", FIRST), {}, {"first": {"followed": ["other"]}}, True, id="a branch elsewhere"),
        pytest.param(
            task("create", FIRST), {}, {"first": {"followed": ["create"]}}, False, id="a branch that was cancelled"
        ),
        pytest.param(
            task("create", MIDDLE),
            {"middle": False},
            {"first": {"followed": ["other"]}},
            True,
            id="a branch further up went elsewhere",
        ),
        pytest.param(task("create", FIRST, rule="one_failed"), {}, {}, True, id="nothing failed"),
    ],
)
def test_what_accounts_for_a_skip(
    create: Any, skipped: dict[str, bool], branches: dict[str, Any], expected: bool
) -> None:
    assert was_skipped_by_its_dag(create, {"create": False, **skipped}, branches.get) is expected


def test_which_tasks_are_skipped_and_which_of_them_ran() -> None:
    crumbs = [
        {"task_id": "ran", "state": "skipped", "duration": 0.2},
        {"task_id": "never", "state": "skipped", "duration": 0.0},
        {"task_id": "by_a_branch", "state": "skipped", "duration": None},
        {"task_id": "mapped", "state": "skipped", "duration": 0.0},
        {"task_id": "mapped", "state": "skipped", "duration": 1.0},
        {"task_id": "good", "state": "success", "duration": 1.0},
    ]
    assert skipped_tasks(crumbs) == {"ran": True, "never": False, "by_a_branch": False, "mapped": True}
