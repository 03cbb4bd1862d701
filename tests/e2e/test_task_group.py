"""`capy_thread` on a really running Airflow: whatever happens to a run, its thread ends, and nothing takes it for finished.

What becomes of the state of a run that was marked failed is asked in the cancel matrix, on PostgreSQL. SQLite locks no rows, so
Airflow's scheduler now and then writes what it has just computed from the tasks over what a person has marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth
    from airflow_provider_capy.emulator.server import EmulatorProcess
    from tests.harness.airflow import LocalAirflow

UNTOUCHED = (
    "group_mapped",
    "group_deferred",
    "group_poke",
    "group_skips_blocked",
    "group_impatient",
    "group_forgiving",
)


def the_thread(airflow: LocalAirflow, capy: EmulatorControl, timeout: float = 60) -> ThreadTruth:
    return airflow.wait_until("a thread at the emulator", lambda: next(iter(capy.threads()), None), timeout)


def stopped(airflow: LocalAirflow, capy: EmulatorControl, thread_id: str) -> ThreadTruth:
    def probe() -> ThreadTruth | None:
        thread = capy.thread(thread_id)
        return thread if thread["stops"] and thread["run_state"] == "ready" else None

    return airflow.wait_until(f"{thread_id} to be stopped", probe, 60)


@dataclass
class Ended:
    """A run that nobody has touched.

    Attributes:
        state: how it ended.
        tasks: how its tasks ended.
        waited_for: the thread of each of its waits.
        threads: the truth about these.
    """

    state: str
    tasks: dict[str, str]
    waited_for: dict[str, str]
    threads: list[ThreadTruth]


@pytest.fixture(scope="module")
def ended(airflow: LocalAirflow, capy_process: EmulatorProcess) -> dict[str, Ended]:
    """Let every kind of group come to its own end, all of them at once: each of them mostly waits."""
    capy = capy_process.control
    capy.reset()
    capy.script(life="forever")
    runs = {dag_id: airflow.trigger(dag_id) for dag_id in UNTOUCHED}
    for task_id in ("one.work.wait[0]", "one.work.wait[1]"):
        airflow.wait_for_deferral("group_mapped", runs["group_mapped"], task_id)
    for dag_id in ("group_deferred", "group_skips_blocked"):
        airflow.wait_for_deferral(dag_id, runs[dag_id], "work.wait")
    airflow.wait_for_task("group_poke", runs["group_poke"], "work.wait", {"running"})
    for thread in capy.threads():
        if thread["prompt"].startswith("Group group_skips_blocked"):
            capy.set_life(thread["id"], "blocked", seconds=2)
        elif thread["prompt"].startswith(("Group group_deferred", "Group group_poke", "First", "Second")):
            capy.set_life(thread["id"], seconds=2)
    states = {dag_id: airflow.wait_for_run(dag_id, run_id) for dag_id, run_id in runs.items()}

    def of(dag_id: str) -> Ended:
        tasks, run_id = airflow.tasks(dag_id, runs[dag_id]), runs[dag_id]
        waits = {name: (task["task_id"], task["map_index"]) for name, task in tasks.items() if ".wait" in name}
        waited_for = {
            name: airflow.xcom(dag_id, run_id, task_id, "thread_id", map_index=map_index)
            for name, (task_id, map_index) in waits.items()
        }
        threads = [capy.thread(thread_id) for thread_id in waited_for.values()]
        return Ended(states[dag_id], {name: task["state"] for name, task in tasks.items()}, waited_for, threads)

    return {dag_id: of(dag_id) for dag_id in runs}


@pytest.mark.parametrize("dag_id", ["group_deferred", "group_poke"])
def test_a_good_thread_lets_the_deploy_pass_and_is_not_stopped(ended: dict[str, Ended], dag_id: str) -> None:
    assert ended[dag_id].state == "success"
    assert ended[dag_id].tasks == {"work.create": "success", "work.wait": "success", "deploy": "success"}
    assert [thread["stops"] for thread in ended[dag_id].threads] == [[]]


def test_a_blocked_thread_that_is_skipped_is_left_for_its_person(ended: dict[str, Ended]) -> None:
    run = ended["group_skips_blocked"]
    assert run.state == "success"
    assert run.tasks == {"work.create": "success", "work.wait": "skipped", "deploy": "skipped"}
    assert [(thread["run_state"], thread["stops"]) for thread in run.threads] == [("blocked", [])]


def test_a_wait_that_times_out_stops_the_thread_and_fails_the_run(ended: dict[str, Ended]) -> None:
    run = ended["group_impatient"]
    assert run.state == "failed"
    assert run.tasks == {"work.create": "success", "work.wait": "failed", "deploy": "upstream_failed"}
    assert [(thread["run_state"], len(thread["stops"])) for thread in run.threads] == [("ready", 1)]


def test_a_wait_that_times_out_under_soft_fail_stops_the_thread_and_fails_no_run(ended: dict[str, Ended]) -> None:
    run = ended["group_forgiving"]
    assert run.state == "success"
    assert run.tasks == {"work.create": "success", "work.wait": "skipped", "deploy": "skipped"}
    assert [(thread["run_state"], len(thread["stops"])) for thread in run.threads] == [("ready", 1)]


def test_a_mapped_group_has_a_thread_of_its_own_for_each_prompt(ended: dict[str, Ended]) -> None:
    run = ended["group_mapped"]
    titles = {thread["id"]: thread["title"] for thread in run.threads}
    assert run.state == "success"
    assert [titles[run.waited_for[f"one.work.wait[{index}]"]] for index in (0, 1)] == ["First", "Second"]


def assert_a_clear_does_not_take_it_for_finished(airflow: LocalAirflow, dag_id: str, run_id: str) -> None:
    """A stopped thread reads ready; whoever clears the wait is not to get a deploy of half the work."""
    airflow.clear_task(dag_id, run_id, "work.wait", downstream=True)
    assert airflow.wait_for_run(dag_id, run_id) == "failed"
    tasks = airflow.tasks(dag_id, run_id)
    assert (tasks["work.wait"]["state"], tasks["deploy"]["try_number"]) == ("failed", 0)
    log = airflow.task_log(dag_id, run_id, "work.wait", tasks["work.wait"]["try_number"])
    assert "CapyThreadStoppedError" in log


@pytest.mark.parametrize(("dag_id", "waits_as"), [("group_deferred", "deferred"), ("group_poke", "running")])
def test_marking_the_run_failed_while_it_waits_stops_the_thread(
    airflow: LocalAirflow, capy: EmulatorControl, dag_id: str, waits_as: str
) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger(dag_id)
    airflow.wait_for_task(dag_id, run_id, "work.wait", states={waits_as}, timeout=90)

    airflow.mark_run(dag_id, run_id, "failed")

    stopped(airflow, capy, the_thread(airflow, capy)["id"])
    airflow.wait_for_run(dag_id, run_id)
    states = airflow.task_states(dag_id, run_id)
    assert (states["work.wait"], states["deploy"]) == ("failed", "skipped")
    assert_a_clear_does_not_take_it_for_finished(airflow, dag_id, run_id)


def test_marking_the_run_failed_while_the_create_is_under_way_stops_its_thread(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    capy.fault("slow", "createAndStartThread", seconds=20)
    run_id = airflow.trigger("group_deferred")
    thread = the_thread(airflow, capy)
    assert airflow.task_states("group_deferred", run_id)["work.create"] == "running"

    airflow.mark_run("group_deferred", run_id, "failed")

    stopped(airflow, capy, thread["id"])
    airflow.wait_for_run("group_deferred", run_id)
    assert len(capy.threads()) == 1


def test_marking_the_run_failed_between_create_and_wait_stops_the_thread(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_deferred")
    airflow.wait_for_task("group_deferred", run_id, "work.create", states={"success"}, timeout=90)
    # The wait may be anything between scheduled and just deferred here: each of them is a fair sample.
    airflow.mark_run("group_deferred", run_id, "failed")

    stopped(airflow, capy, the_thread(airflow, capy)["id"])
    airflow.wait_for_run("group_deferred", run_id)
    assert_a_clear_does_not_take_it_for_finished(airflow, "group_deferred", run_id)


def test_without_stop_on_kill_the_thread_goes_on_and_the_run_still_fails(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_left_running")
    airflow.wait_for_task("group_left_running", run_id, "work.wait", states={"deferred"}, timeout=90)

    def told(words: str) -> bool:
        return words in airflow.task_log("group_left_running", run_id, "work.wait")

    airflow.wait_until("the trigger has looked", lambda: told("is running"), 60)

    airflow.mark_run("group_left_running", run_id, "failed")

    airflow.wait_for_run("group_left_running", run_id)
    airflow.wait_until("the trigger has decided", lambda: told("not stopped: stop_on_kill is off"), 60)
    thread = the_thread(airflow, capy)
    assert (thread["stops"], thread["run_state"]) == ([], "running")


def test_cancelling_a_mapped_group_stops_each_of_its_threads(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_mapped")
    waits = ("one.work.wait[0]", "one.work.wait[1]")
    airflow.wait_until(
        "both waits to be deferred",
        lambda: all(airflow.task_states("group_mapped", run_id).get(wait) == "deferred" for wait in waits) or None,
        90,
    )

    airflow.mark_run("group_mapped", run_id, "failed")

    for thread in capy.threads():
        stopped(airflow, capy, thread["id"])
    airflow.wait_for_run("group_mapped", run_id)
    assert len(capy.threads()) == 2
