"""The buttons of a task work while it still waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow

TASKS = {
    "operator_worker": "running",
    "operator_deferred": "deferred",
    "sensor_worker": "running",
    "sensor_deferred": "deferred",
}


def test_the_buttons_lead_somewhere_while_the_task_waits(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="forever")
    [watched] = capy.create("watched", life="forever")
    run_id = airflow.trigger("links", {"thread_id": watched})

    def links(task: str) -> dict[str, str | None]:
        return airflow.extra_links("links", run_id, task)

    for task, state in TASKS.items():
        airflow.wait_for_task("links", run_id, task, {state}, timeout=180)
        found = airflow.wait_until(f"{task} has a link", lambda task=task: links(task)["Open in Capy"], 60)
        thread_id = airflow.xcom("links", run_id, task, "thread_id")
        assert found == f"{capy.page_url}project/prj_demo/captain/{thread_id}"
        assert links(task)["Pull request"] is None

    for truth in capy.threads():
        phases = [{"at": 0, "run_state": "waiting", "waiting_on": ["ci"], "pull_requests": ["draft"]}]
        capy.set_life(truth["id"], phases=phases)
    expected = {truth["id"]: truth["pull_requests"][0]["url"] for truth in capy.threads()}
    for task, state in TASKS.items():
        found = airflow.wait_until(f"{task} shows the request", lambda task=task: links(task)["Pull request"], 60)
        assert found == expected[airflow.xcom("links", run_id, task, "thread_id")]
        assert airflow.task_states("links", run_id)[task] == state

    for truth in capy.threads():
        capy.set_life(truth["id"], seconds=0.5)
    assert airflow.wait_for_run("links", run_id) == "success"
    for task in TASKS:
        thread_id = airflow.xcom("links", run_id, task, "thread_id")
        assert links(task)["Open in Capy"] == f"{capy.page_url}project/prj_demo/captain/{thread_id}"
        assert (links(task)["Pull request"] or "").startswith("http")
