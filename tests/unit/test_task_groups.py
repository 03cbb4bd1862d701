"""What a group hands to which of its tasks."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.task_groups import CapyThreadGroup, capy_thread


def group(defaults: dict[str, object] | None = None, **arguments: object) -> CapyThreadGroup:
    with DAG("groups", schedule=None, default_args=defaults or {}):
        return capy_thread("work", prompt="Hello", **arguments)


def test_a_group_is_two_tasks_the_second_of_which_answers_for_the_thread() -> None:
    made = group()

    assert set(made.children) == {"work.create", "work.wait"}
    assert made.create.downstream_task_ids == {"work.wait"}
    assert (made.create.thread_owner, made.wait.create_task_id) == ("work.wait", "work.create")
    assert [task.is_teardown for task in (made.create, made.wait)] == [False, False]


@pytest.mark.parametrize(
    "arguments", [{"queue": "agents"}, {"pool": "threads"}, {"priority_weight": 7}, {"retries": 7}], ids=str
)
def test_where_and_how_a_task_runs_is_meant_for_both(arguments: dict[str, object]) -> None:
    made = group(**arguments)

    assert [{name: getattr(task, name) for name in arguments} for task in (made.create, made.wait)] == [arguments] * 2


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

    assert {task.capy_conn_id for task in (made.create, made.wait)} == {"capy_team"}
    assert {task.project_id for task in (made.create, made.wait)} == {"prj_team"}
    assert {task.stop_on_kill for task in (made.create, made.wait)} == {False}
    assert (made.wait.deferrable, made.wait.poke_interval, made.wait.timeout) == (True, 7, 8)
    assert made.wait.on_blocked == "skip"
    assert (made.create.fail_on_task_error, made.wait.fail_on_task_error) == (True, True)


def test_what_is_given_wins_over_default_args_and_those_over_the_groups_defaults() -> None:
    assert group({"timeout": 8}, timeout=9).wait.timeout == 9
    assert group({"on_blocked": "skip"}, on_blocked="wait").wait.on_blocked == "wait"
    assert group().wait.timeout == 24 * 60 * 60


def test_the_sensors_arguments_reach_the_wait() -> None:
    made = group(mode="reschedule", soft_fail=True)

    assert (made.wait.mode, made.wait.soft_fail) == ("reschedule", True)


def test_a_group_without_a_reference_is_refused() -> None:
    with pytest.raises(CapyInputError, match="durable: False leaves nothing by which"):
        group(durable=False)


@pytest.mark.parametrize("name", ["task_id", "wait_for_completion", "thread_id"])
def test_what_the_group_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(CapyInputError, match=f"{name}: the group sets this itself"):
        group(**{name: "x"})
