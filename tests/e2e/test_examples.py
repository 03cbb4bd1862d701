"""The examples are what users copy, so each of them runs in a real Airflow and is held to what its docstring says."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.examples import EXAMPLES, POOL
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth
    from tests.harness.airflow import LocalAirflow

READ_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dags = {
    dag_id: {"tags": sorted(dag.tags), "doc": dag.doc_md}
    for dag_id, dag in bag.dags.items()
}
print(json.dumps({"errors": bag.import_errors, "warnings": bag.captured_warnings, "dags": dags}))
"""


@pytest.fixture
def pool(airflow: LocalAirflow) -> Iterator[str]:
    """The pool of the mapped example, made as its docstring says."""
    airflow.request("POST", "/pools", json={"name": POOL, "slots": 2, "include_deferred": True})
    yield POOL
    airflow.request("DELETE", f"/pools/{POOL}")


@pytest.fixture
def airflow_api(airflow: LocalAirflow) -> Iterator[str]:
    """The connection of the reaper's example: from this Airflow to itself."""
    body = {"connection_id": "airflow_api", "conn_type": "http", "host": airflow.url}
    airflow.request("POST", "/connections", json=body)
    yield "airflow_api"
    airflow.request("DELETE", "/connections/airflow_api")


def _only_thread(airflow: LocalAirflow, capy: EmulatorControl) -> ThreadTruth:
    threads = airflow.wait_until("a thread is started", capy.threads, timeout=60)
    assert len(threads) == 1
    return threads[0]


def _wait_for_state(airflow: LocalAirflow, capy: EmulatorControl, thread_id: str, run_state: str) -> None:
    airflow.wait_until(
        f"thread {thread_id} is {run_state}", lambda: capy.thread(thread_id)["run_state"] == run_state, timeout=60
    )


def _scheduled_run(airflow: LocalAirflow, dag_id: str) -> str:
    """Unpause a DAG, let the scheduler start the run of its last schedule, and return that run's id when it succeeds."""
    assert airflow.runs(dag_id) == {}
    airflow.unpause(dag_id)
    try:
        [run_id] = airflow.wait_until("the scheduler starts a run", lambda: list(airflow.runs(dag_id)), timeout=60)
        assert run_id.startswith("scheduled__")
        assert airflow.wait_for_run(dag_id, run_id) == "success"
    finally:
        # Not before: a paused DAG resumes no task that was deferred.
        airflow.pause(dag_id)
    return run_id


def _started(task: dict[str, Any]) -> float:
    return datetime.fromisoformat(task["start_date"].replace("Z", "+00:00")).timestamp()


def _most_at_once(threads: list[ThreadTruth]) -> int:
    return max(sum(other["created"] <= one["created"] < other["since"] for other in threads) for one in threads)


def test_every_example_is_imported_without_an_error_or_a_warning(airflow: LocalAirflow) -> None:
    result = subprocess.run(
        [sys.executable, "-c", READ_DAGS, str(EXAMPLES)],
        env=airflow.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    read = json.loads(result.stdout.splitlines()[-1])
    assert (read["errors"], read["warnings"]) == ({}, {})
    assert {f"{dag_id}.py" for dag_id in read["dags"]} == {path.name for path in EXAMPLES.glob("*.py")}
    for dag in read["dags"].values():
        assert dag["tags"] == ["capy", "example"]
        assert "**Costs**" in dag["doc"]


def test_the_schedule_dispatches_several_threads(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    dag_id = "dispatch_on_schedule"
    run_id = _scheduled_run(airflow, dag_id)
    chores = ("dependencies", "flaky_tests", "changelog")
    threads = {thread["id"]: thread for thread in capy.threads()}
    assert {airflow.xcom(dag_id, run_id, chore) for chore in chores} == set(threads)
    assert len(threads) == 3
    assert {thread["run_state"] for thread in threads.values()} == {"ready"}
    for chore in chores:
        thread_id = airflow.xcom(dag_id, run_id, chore)
        assert f"captain/{thread_id}" in airflow.task_log(dag_id, run_id, "report")


def test_a_deploy_waits_for_its_thread(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    run_id = airflow.trigger("gate_a_deploy", {"repo": "acme/web", "branch": "release"})
    assert airflow.wait_for_run("gate_a_deploy", run_id) == "success"
    thread = _only_thread(airflow, capy)
    [request] = capy.requests("createAndStartThread")
    assert request["body"]["repos"] == [{"repoFullName": "acme/web", "branch": "release"}]
    assert "acme/web, branch release" in thread["prompt"]
    assert thread["stops"] == []
    tasks = airflow.tasks("gate_a_deploy", run_id)
    assert {name: task["state"] for name, task in tasks.items()} == {
        "rehearsal.create": "success",
        "rehearsal.wait": "success",
        "rehearsal.stop": "success",
        "deploy": "success",
    }
    assert _started(tasks["deploy"]) >= thread["since"]
    assert airflow.xcom("gate_a_deploy", run_id, "rehearsal.wait")["outcome"] == "ready"


def test_a_deploy_does_not_start_when_its_thread_failed(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(match="Rehearse the deploy", life="task_error", seconds=2)
    run_id = airflow.trigger("gate_a_deploy")
    with pytest.raises(AirflowError, match="it is failed"):
        airflow.wait_for_run("gate_a_deploy", run_id, {"success"})
    assert airflow.task_states("gate_a_deploy", run_id)["deploy"] == "upstream_failed"
    assert len(capy.threads()) == 1


def test_a_thread_stops_when_its_run_is_cancelled(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    dag_id = "cancel_with_the_run"
    capy.script(match="Add type annotations", life="forever")
    run_id = airflow.trigger(dag_id)
    airflow.wait_for_task(dag_id, run_id, "migration.wait", {"deferred"})
    thread_id = _only_thread(airflow, capy)["id"]
    _wait_for_state(airflow, capy, thread_id, "running")
    airflow.mark_run(dag_id, run_id, "failed")
    _wait_for_state(airflow, capy, thread_id, "ready")
    assert airflow.wait_for_run(dag_id, run_id) == "failed"
    assert capy.thread(thread_id)["stopped"] is not None
    assert airflow.task_states(dag_id, run_id) == {
        "migration.create": "success",
        "migration.wait": "failed",
        "migration.stop": "failed",
        "announce": "skipped",
    }


def test_mapped_prompts_keep_to_their_pool(airflow: LocalAirflow, capy: EmulatorControl, pool: str) -> None:
    dag_id = "mapped_prompts_in_a_pool"
    run_id = airflow.trigger(dag_id, {"services": ["a", "b", "c", "d"]})
    assert airflow.wait_for_run(dag_id, run_id) == "success"
    threads = capy.threads()
    assert [name for name in "abcd" if sum(f"the service {name}," in t["prompt"] for t in threads) == 1] == list("abcd")
    assert {thread["run_state"] for thread in threads} == {"ready"}
    assert _most_at_once(threads) == 2
    assert airflow.xcom(dag_id, run_id, "count") == 4


def test_a_person_is_told_of_a_blocked_thread_and_the_run_goes_on(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    dag_id = "notify_when_blocked"
    capy.script(match="Rotate the keys", life="blocked", blocked_on=["permission"])
    run_id = airflow.trigger(dag_id)
    airflow.wait_for_task(dag_id, run_id, "tell_a_person", {"success"})
    thread_id = _only_thread(airflow, capy)["id"]
    message = airflow.xcom(dag_id, run_id, "tell_a_person")
    assert "needs you (permission): http" in message
    assert message.endswith(f"/captain/{thread_id}")
    assert airflow.task_states(dag_id, run_id)["work.wait"] not in {"success", "failed"}
    capy.unblock(thread_id)
    assert airflow.wait_for_run(dag_id, run_id) == "success"
    assert airflow.xcom(dag_id, run_id, "collect") == [capy.thread(thread_id)["pull_requests"][0]["url"]]
    assert capy.stops(thread_id) == []


def test_nobody_is_told_of_a_thread_that_gets_along(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    run_id = airflow.trigger("notify_when_blocked")
    assert airflow.wait_for_run("notify_when_blocked", run_id) == "success"
    assert airflow.task_states("notify_when_blocked", run_id)["tell_a_person"] == "skipped"


def test_a_thread_started_elsewhere_is_waited_for(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    [thread_id] = capy.create("Started by a person", seconds=8)
    run_id = airflow.trigger("watch_a_thread", {"thread_id": thread_id})
    assert airflow.wait_for_run("watch_a_thread", run_id) == "success"
    assert airflow.xcom("watch_a_thread", run_id, "wait")["thread_id"] == thread_id
    assert capy.requests("createAndStartThread") == []


def test_a_thread_started_elsewhere_outlives_a_cancelled_watch(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    [thread_id] = capy.create("Started by a person", life="forever")
    run_id = airflow.trigger("watch_a_thread", {"thread_id": thread_id})
    airflow.wait_for_task("watch_a_thread", run_id, "wait", {"deferred"})
    # The first look is the sensor's own.
    airflow.wait_until("the trigger has looked", lambda: len(capy.requests("getThread")) > 1, timeout=60)
    airflow.mark_run("watch_a_thread", run_id, "failed")
    assert airflow.wait_for_run("watch_a_thread", run_id, RUN_OVER) == "failed"
    airflow.wait_until(
        "the trigger has decided",
        lambda: "not stopped: stop_on_kill is off" in airflow.task_log("watch_a_thread", run_id, "wait"),
        timeout=60,
    )
    assert capy.stops(thread_id) == []
    assert capy.thread(thread_id)["run_state"] == "running"


def test_the_reaper_stops_the_thread_of_a_run_that_is_over_and_nobody_elses(
    airflow: LocalAirflow, capy: EmulatorControl, airflow_api: str
) -> None:
    run_id = airflow.trigger("gate_a_deploy")
    assert airflow.wait_for_run("gate_a_deploy", run_id) == "success"
    orphan = _only_thread(airflow, capy)["id"]
    capy.set_life(orphan, "forever")
    [stranger] = capy.create("Started by a person", life="forever")
    reap_id = _scheduled_run(airflow, "reap_threads")
    reports = airflow.xcom("reap_threads", reap_id, "reap")
    assert [(report["thread_id"], report["result"]) for report in reports] == [(orphan, "stopped")]
    assert (len(capy.stops(orphan)), capy.stops(stranger)) == (1, [])
