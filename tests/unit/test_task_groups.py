"""What a group hands to which of its tasks."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.task_groups import CapyThreadGroup, capy_thread


def group(**arguments: object) -> CapyThreadGroup:
    with DAG("groups", schedule=None):
        return capy_thread("work", prompt="Hello", **arguments)


def test_where_a_task_runs_is_meant_for_all_three() -> None:
    made = group(pool="threads", queue="agents")

    assert [(task.pool, task.queue) for task in (made.create, made.wait, made.stop)] == [("threads", "agents")] * 3


def test_retries_are_for_create_and_wait_and_the_teardown_keeps_its_own() -> None:
    made = group(retries=7)

    assert (made.create.retries, made.wait.retries, made.stop.retries) == (7, 7, 3)


def test_the_sensors_arguments_reach_the_wait() -> None:
    made = group(mode="reschedule", soft_fail=True)

    assert (made.wait.mode, made.wait.soft_fail) == ("reschedule", True)


@pytest.mark.parametrize("name", ["task_id", "wait_for_completion", "thread_id"])
def test_what_the_group_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(CapyInputError, match=f"{name}: the group sets this itself"):
        group(**{name: "x"})
