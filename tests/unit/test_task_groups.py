"""What a group hands to which of its tasks."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.task_groups import CapyThreadGroup, capy_thread


def group(defaults: dict[str, object] | None = None, **arguments: object) -> CapyThreadGroup:
    with DAG("groups", schedule=None, default_args=defaults or {}):
        return capy_thread("work", prompt="Hello", **arguments)


def test_where_a_task_runs_is_meant_for_all_three() -> None:
    made = group(queue="agents")

    assert [task.queue for task in (made.create, made.wait, made.stop)] == ["agents"] * 3


@pytest.mark.parametrize("defaults", [{}, {"pool": "threads", "priority_weight": 1}])
def test_the_teardown_waits_for_no_slot_that_work_holds(defaults: dict[str, object]) -> None:
    made = group(defaults, pool="threads")

    assert [task.pool for task in (made.create, made.wait, made.stop)] == ["threads", "threads", "default_pool"]
    assert made.stop.weight_rule == "absolute"
    assert made.stop.priority_weight > 1000


def test_a_dags_default_args_reach_the_group() -> None:
    defaults = {
        "capy_conn_id": "capy_team",
        "project_id": "prj_team",
        "deferrable": True,
        "poke_interval": 7,
        "timeout": 8,
        "on_blocked": "skip",
        "fail_on_task_error": True,
        "stop_on_kill": False,
    }
    made = group(defaults)

    assert {task.capy_conn_id for task in (made.create, made.wait, made.stop)} == {"capy_team"}
    assert {task.project_id for task in (made.create, made.wait, made.stop)} == {"prj_team"}
    assert {task.stop_on_kill for task in (made.create, made.wait, made.stop)} == {False}
    assert (made.wait.deferrable, made.wait.poke_interval, made.wait.timeout) == (True, 7, 8)
    assert (made.wait.on_blocked, made.stop.on_blocked) == ("skip", "skip")
    assert (made.create.fail_on_task_error, made.wait.fail_on_task_error) == (True, True)
    assert made.stop.timeout == 60


def test_what_is_given_wins_over_default_args_and_those_over_the_groups_defaults() -> None:
    assert group({"timeout": 8}, timeout=9).wait.timeout == 9
    assert group({"on_blocked": "skip"}, on_blocked="wait").stop.on_blocked == "wait"
    assert group().wait.timeout == 24 * 60 * 60


def test_retries_are_for_create_and_wait_and_the_teardown_keeps_its_own() -> None:
    made = group(retries=7)

    assert (made.create.retries, made.wait.retries, made.stop.retries) == (7, 7, 3)


def test_the_sensors_arguments_reach_the_wait() -> None:
    made = group(mode="reschedule", soft_fail=True)

    assert (made.wait.mode, made.wait.soft_fail) == ("reschedule", True)


def test_a_group_without_a_reference_is_refused() -> None:
    with pytest.raises(CapyInputError, match="durable: False leaves the group no reference"):
        group(durable=False)


@pytest.mark.parametrize("name", ["task_id", "wait_for_completion", "thread_id"])
def test_what_the_group_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(CapyInputError, match=f"{name}: the group sets this itself"):
        group(**{name: "x"})
