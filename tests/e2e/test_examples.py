"""The examples are what users copy, so each of them runs in a real Airflow and is held to what its docstring says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.examples import EXAMPLES, POOL
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth
    from airflow_provider_capy.emulator.server import EmulatorProcess
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


SCHEDULED = "dispatch_on_schedule"
SERVICES = ["a", "b", "c", "d"]


@dataclass
class Played:
    """What the runs of the examples left behind that need nobody's help.

    Attributes:
        runs: their ids by DAG.
        states: how they ended.
        threads: the truth about their threads.
        elsewhere: the thread that no example has started.
        bodies: what was asked of Capy when threads were started.
    """

    runs: dict[str, str]
    states: dict[str, str]
    threads: list[ThreadTruth]
    elsewhere: str
    bodies: list[dict[str, Any]]

    def threads_of(self, words: str) -> list[ThreadTruth]:
        return [thread for thread in self.threads if words in thread["prompt"]]


@pytest.fixture(scope="module")
def played(airflow: LocalAirflow, capy_process: EmulatorProcess) -> Played:
    """Play them all at once: each of them mostly waits."""
    capy = capy_process.control
    capy.reset()
    [elsewhere] = capy.create("Started by a person", seconds=15)
    # As the example's docstring says.
    airflow.request("POST", "/pools", json={"name": POOL, "slots": 2, "include_deferred": True})
    assert airflow.runs(SCHEDULED) == {}
    airflow.unpause(SCHEDULED)
    try:
        [scheduled] = airflow.wait_until(
            "the scheduler starts a run", lambda: list(airflow.runs(SCHEDULED)), timeout=60
        )
        runs = {
            SCHEDULED: scheduled,
            "gate_a_deploy": airflow.trigger("gate_a_deploy", {"repo": "acme/web", "branch": "release"}),
            "mapped_prompts_in_a_pool": airflow.trigger("mapped_prompts_in_a_pool", {"services": SERVICES}),
            "notify_when_blocked": airflow.trigger("notify_when_blocked"),
            "watch_a_thread": airflow.trigger("watch_a_thread", {"thread_id": elsewhere}),
        }
        states = {dag_id: airflow.wait_for_run(dag_id, run_id, timeout=240) for dag_id, run_id in runs.items()}
    finally:
        # Not before: a paused DAG resumes no task that was deferred.
        airflow.pause(SCHEDULED)
        airflow.request("DELETE", f"/pools/{POOL}")
    bodies = [request["body"] for request in capy.requests("createAndStartThread")]
    return Played(runs, states, capy.threads(), elsewhere, bodies)


def _only_thread(airflow: LocalAirflow, capy: EmulatorControl) -> ThreadTruth:
    threads = airflow.wait_until("a thread is started", capy.threads, timeout=60)
    assert len(threads) == 1
    return threads[0]


def _wait_for_state(airflow: LocalAirflow, capy: EmulatorControl, thread_id: str, run_state: str) -> None:
    airflow.wait_until(
        f"thread {thread_id} is {run_state}", lambda: capy.thread(thread_id)["run_state"] == run_state, timeout=60
    )


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


EVERY_EXAMPLE = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "cancel_with_the_run")


@pytest.mark.parametrize("dag_id", EVERY_EXAMPLE)
def test_an_example_that_needs_nobodys_help_succeeds(airflow: LocalAirflow, played: Played, dag_id: str) -> None:
    assert played.states[dag_id] == "success", airflow.describe_run(dag_id, played.runs[dag_id])


def test_the_schedule_dispatches_several_threads(airflow: LocalAirflow, played: Played) -> None:
    run_id = played.runs[SCHEDULED]
    assert run_id.startswith("scheduled__")
    ids = {airflow.xcom(SCHEDULED, run_id, chore) for chore in ("dependencies", "flaky_tests", "changelog")}
    assert len(ids) == 3
    assert {thread["run_state"] for thread in played.threads if thread["id"] in ids} == {"ready"}
    told = airflow.task_log(SCHEDULED, run_id, "report")
    assert [thread_id for thread_id in ids if f"captain/{thread_id}" not in told] == []


def test_a_deploy_waits_for_its_thread(airflow: LocalAirflow, played: Played) -> None:
    run_id = played.runs["gate_a_deploy"]
    [thread] = played.threads_of("Rehearse the deploy")
    assert [body["repos"] for body in played.bodies if "repos" in body] == [
        [{"repoFullName": "acme/web", "branch": "release"}]
    ]
    assert "acme/web, branch release" in thread["prompt"]
    assert thread["stops"] == []
    tasks = airflow.tasks("gate_a_deploy", run_id)
    assert {name: task["state"] for name, task in tasks.items()} == {"rehearsal": "success", "deploy": "success"}
    assert _started(tasks["deploy"]) >= thread["since"]
    assert airflow.xcom("gate_a_deploy", run_id, "rehearsal", "thread")["outcome"] == "ready"


def test_mapped_prompts_keep_to_their_pool(airflow: LocalAirflow, played: Played) -> None:
    threads = played.threads_of("how to roll back the service")
    asked = [name for name in SERVICES if sum(f"the service {name}," in thread["prompt"] for thread in threads) == 1]
    assert (asked, len(threads)) == (SERVICES, len(SERVICES))
    assert {thread["run_state"] for thread in threads} == {"ready"}
    assert _most_at_once(threads) == 2
    dag_id = "mapped_prompts_in_a_pool"
    assert airflow.xcom(dag_id, played.runs[dag_id], "count") == len(SERVICES)


def test_nobody_is_told_of_a_thread_that_gets_along(airflow: LocalAirflow, played: Played) -> None:
    states = airflow.task_states("notify_when_blocked", played.runs["notify_when_blocked"])
    assert states["tell_a_person"] == "skipped"


def test_a_thread_started_elsewhere_is_waited_for(airflow: LocalAirflow, played: Played) -> None:
    thread = airflow.xcom("watch_a_thread", played.runs["watch_a_thread"], "wait")
    assert (thread["thread_id"], thread["outcome"]) == (played.elsewhere, "ready")
    assert len(played.bodies) == len(played.threads) - 1


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
    airflow.wait_for_task(dag_id, run_id, "migration", {"deferred"})
    thread_id = _only_thread(airflow, capy)["id"]
    _wait_for_state(airflow, capy, thread_id, "running")
    airflow.mark_run(dag_id, run_id, "failed")
    _wait_for_state(airflow, capy, thread_id, "ready")
    # Its state is asked in the cancel matrix: on SQLite, Airflow's scheduler may write over what a person has marked.
    airflow.wait_for_run(dag_id, run_id)
    assert capy.thread(thread_id)["stopped"] is not None
    assert airflow.task_states(dag_id, run_id) == {
        "migration": "failed",
        "announce": "skipped",
    }


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


def test_a_thread_started_elsewhere_outlives_a_cancelled_watch(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    [thread_id] = capy.create("Started by a person", life="forever")
    run_id = airflow.trigger("watch_a_thread", {"thread_id": thread_id})
    airflow.wait_for_task("watch_a_thread", run_id, "wait", {"deferred"})
    # The first look is the sensor's own, and the trigger's is told.
    airflow.wait_until(
        "the trigger has looked",
        lambda: f"Thread {thread_id} is running" in airflow.task_log("watch_a_thread", run_id, "wait"),
        timeout=60,
    )
    airflow.mark_run("watch_a_thread", run_id, "failed")
    assert airflow.wait_for_run("watch_a_thread", run_id, RUN_OVER) == "failed"
    airflow.wait_until(
        "the trigger has decided",
        lambda: "not stopped: stop_on_kill is off" in airflow.task_log("watch_a_thread", run_id, "wait"),
        timeout=60,
    )
    assert capy.stops(thread_id) == []
    assert capy.thread(thread_id)["run_state"] == "running"
