"""The plain path of a cancel on a really running Airflow: the run is marked failed, its threads stop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow

WHERE = {"worker": "running", "deferred": "deferred"}
TASKS = {
    f"{kind}_{where}_{ending}": state
    for kind in ("operator", "sensor")
    for where, state in WHERE.items()
    for ending in ("stopped", "kept")
}


def test_marking_a_run_failed_stops_its_threads(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="forever")
    watched = {task: capy.create(task, life="forever")[0] for task in TASKS if task.startswith("sensor")}
    run_id = airflow.trigger("cancelled", watched)
    for task, state in TASKS.items():
        airflow.wait_for_task("cancelled", run_id, task, {state}, timeout=180)

    def threads() -> dict[str, str]:
        return {truth["prompt"].splitlines()[0]: truth["id"] for truth in capy.threads()}

    def everything_waits() -> bool:
        # A deferred task says so from the triggerer: one that no triggerer has taken over yet is ended by nobody.
        running = {task: f"Thread {thread_id} is running" for task, thread_id in threads().items()}
        return len(running) == len(TASKS) and all(
            line in airflow.task_log("cancelled", run_id, task) for task, line in running.items()
        )

    airflow.wait_until("every task waits for its thread", everything_waits, 120)
    airflow.mark_run("cancelled", run_id, "failed")

    to_stop = [thread_id for task, thread_id in threads().items() if task.endswith("stopped")]
    airflow.wait_until("every thread is asked to stop", lambda: all(capy.stops(one) for one in to_stop), 60)
    assert airflow.wait_for_run("cancelled", run_id) == "failed"
    assert airflow.task_states("cancelled", run_id) == dict.fromkeys(TASKS, "failed")

    def tells(task: str) -> bool:
        thread, log = f"Thread {threads()[task]}", airflow.task_log("cancelled", run_id, task)
        if task.endswith("kept"):
            return re.search(rf"{thread} is not stopped: .*stop_on_kill is off", log) is not None
        # Its log tells that only where the task was faster than the listener; whoever was, leaves word.
        record = airflow.stored("cancelled", run_id, task, "capy_thread")
        return record["fate"] in {"stopping", "stopped"} and bool(record["stopped_by"])

    for task in TASKS:
        airflow.wait_until(f"{task} says what it did", lambda task=task: tells(task), 60)
    at_work = {task: capy.thread(thread_id)["run_state"] for task, thread_id in threads().items()}
    assert at_work == {task: "ready" if task.endswith("stopped") else "running" for task in TASKS}


def test_a_create_that_is_cut_off_stops_its_thread_when_the_answer_comes(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    capy.fault("slow", "createAndStartThread", seconds=4)
    run_id = airflow.trigger("cancelled_create")
    [thread] = airflow.wait_until("the create is under way", capy.threads, 120, 0.05)
    airflow.mark_run("cancelled_create", run_id, "failed")
    airflow.wait_until("the thread is asked to stop", lambda: capy.stops(thread["id"]), 60)
    assert airflow.wait_for_run("cancelled_create", run_id) == "failed"
    assert airflow.task_states("cancelled_create", run_id) == {"create": "failed"}
    airflow.wait_until(
        "the log says so",
        lambda: (
            f"Thread {thread['id']}, it was asked to stop: its task instance is failed"
            in airflow.task_log("cancelled_create", run_id, "create")
        ),
        60,
    )
    assert [truth["id"] for truth in capy.threads()] == [thread["id"]]
