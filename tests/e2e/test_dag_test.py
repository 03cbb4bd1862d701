"""A DAG runs inside one process as it does on a real Airflow: mapped, deferred, decorated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import alone

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow

DAG = "dag_test"
STATES = {
    "create[0]": "success",
    "create[1]": "success",
    "wait[0]": "success",
    "wait[1]": "success",
    "stop[0]": "success",
    "stop[1]": "success",
    "ask": "success",
}


@pytest.mark.parametrize("how", ["airflow dags test", "scheduler"])
def test_mapped_deferred_and_decorated_tasks_run(how: str, airflow: LocalAirflow, capy: EmulatorControl) -> None:
    before = set(airflow.runs(DAG))
    if how == "scheduler":
        capy.script(life="forever")
        run_id = airflow.trigger(DAG)
        for task in ("wait[0]", "wait[1]", "ask"):
            airflow.wait_for_deferral(DAG, run_id, task)
        for truth in capy.threads():
            capy.set_life(truth["id"], seconds=1)
    else:
        capy.script(seconds=2)
        with alone(airflow):
            airflow.airflow("dags", "test", DAG)
    [run_id] = set(airflow.runs(DAG)) - before
    assert airflow.wait_for_run(DAG, run_id, timeout=240) == "success"
    assert airflow.task_states(DAG, run_id) == STATES
    threads = {truth["prompt"].splitlines()[0]: truth for truth in capy.threads()}
    assert set(threads) == {"one", "two", "Explain 2"}
    for index, prompt in enumerate(("one", "two")):
        thread_id = threads[prompt]["id"]
        assert airflow.xcom(DAG, run_id, "create", map_index=index) == thread_id
        assert airflow.xcom(DAG, run_id, "wait", map_index=index)["thread_id"] == thread_id
        [report] = airflow.xcom(DAG, run_id, "stop", map_index=index)
        assert (report["thread_id"], report["result"]) == (thread_id, "already_settled")
        assert airflow.extra_links(DAG, run_id, "wait", map_index=index)["Open in Capy"] == (
            f"{capy.page_url}project/prj_demo/captain/{thread_id}"
        )
    assert airflow.xcom(DAG, run_id, "ask", "thread")["outcome"] == "ready"
