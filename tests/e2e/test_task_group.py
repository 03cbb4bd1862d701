"""`capy_thread` on a really running Airflow: whatever happens to a run, its thread ends and it is not green by mistake."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth
    from tests.harness.airflow import LocalAirflow


def the_thread(airflow: LocalAirflow, capy: EmulatorControl, timeout: float = 60) -> ThreadTruth:
    return airflow.wait_until("a thread at the emulator", lambda: next(iter(capy.threads()), None), timeout)


def stopped(airflow: LocalAirflow, capy: EmulatorControl, thread_id: str) -> ThreadTruth:
    def probe() -> ThreadTruth | None:
        thread = capy.thread(thread_id)
        return thread if thread["stops"] and thread["run_state"] == "ready" else None

    return airflow.wait_until(f"{thread_id} to be stopped", probe, 60)


@pytest.mark.parametrize("dag_id", ["group_deferred", "group_poke"])
def test_a_good_thread_lets_the_deploy_pass_and_is_not_stopped(
    airflow: LocalAirflow, capy: EmulatorControl, dag_id: str
) -> None:
    run_id = airflow.trigger(dag_id)

    assert airflow.wait_for_run(dag_id, run_id) == "success"
    (thread,) = capy.threads()
    assert airflow.task_states(dag_id, run_id) == {
        "work.create": "success",
        "work.wait": "success",
        "work.stop": "success",
        "deploy": "success",
    }
    assert airflow.xcom(dag_id, run_id, "deploy") == thread["id"]
    assert thread["stops"] == []


def assert_a_clear_does_not_take_it_for_finished(
    airflow: LocalAirflow, dag_id: str, run_id: str, *, only_failed: bool
) -> None:
    """A stopped thread reads ready; whoever clears the wait is not to get a deploy of half the work."""
    if only_failed:
        airflow.clear_run(dag_id, run_id, only_failed=True)
    else:
        airflow.clear_task(dag_id, run_id, "work.wait", downstream=True)
    airflow.wait_for_task(dag_id, run_id, "work.wait", try_number=1 + only_failed)
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
    assert airflow.wait_for_run(dag_id, run_id) == "failed"
    states = airflow.task_states(dag_id, run_id)
    assert (states["work.wait"], states["deploy"]) == ("failed", "skipped")
    assert_a_clear_does_not_take_it_for_finished(airflow, dag_id, run_id, only_failed=True)


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
    assert airflow.wait_for_run("group_deferred", run_id) == "failed"
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
    assert airflow.wait_for_run("group_deferred", run_id) == "failed"
    assert_a_clear_does_not_take_it_for_finished(airflow, "group_deferred", run_id, only_failed=False)


def test_a_run_that_is_cancelled_before_its_group_begins_does_not_end_green(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    run_id = airflow.trigger("group_after_prepare")
    airflow.wait_for_task("group_after_prepare", run_id, "prepare", states={"running"}, timeout=90)

    airflow.mark_run("group_after_prepare", run_id, "failed")

    assert airflow.wait_for_run("group_after_prepare", run_id) == "failed"
    assert capy.threads() == []


def test_a_group_that_a_branch_has_skipped_fails_no_run(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    run_id = airflow.trigger("group_in_a_branch")

    assert airflow.wait_for_run("group_in_a_branch", run_id) == "success"
    assert airflow.task_states("group_in_a_branch", run_id)["work.create"] == "skipped"
    assert capy.threads() == []


def test_without_stop_on_kill_the_thread_goes_on_and_the_run_still_fails(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_left_running")
    airflow.wait_for_task("group_left_running", run_id, "work.wait", states={"deferred"}, timeout=90)

    airflow.mark_run("group_left_running", run_id, "failed")

    assert airflow.wait_for_run("group_left_running", run_id) == "failed"
    time.sleep(3)
    thread = the_thread(airflow, capy)
    assert (thread["stops"], thread["run_state"]) == ([], "running")


def test_a_blocked_thread_that_is_skipped_is_left_for_its_person(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="blocked")
    run_id = airflow.trigger("group_skips_blocked")

    assert airflow.wait_for_run("group_skips_blocked", run_id) == "success"
    assert airflow.task_states("group_skips_blocked", run_id) == {
        "work.create": "success",
        "work.wait": "skipped",
        "work.stop": "success",
        "deploy": "skipped",
    }
    assert the_thread(airflow, capy)["stops"] == []


def test_a_wait_that_times_out_stops_the_thread_and_fails_the_run(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_impatient")

    assert airflow.wait_for_run("group_impatient", run_id) == "failed"
    stopped(airflow, capy, the_thread(airflow, capy)["id"])
    assert airflow.task_states("group_impatient", run_id)["work.wait"] == "failed"


def test_a_wait_that_times_out_under_soft_fail_stops_the_thread_and_fails_no_run(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    run_id = airflow.trigger("group_forgiving")

    assert airflow.wait_for_run("group_forgiving", run_id) == "success"
    stopped(airflow, capy, the_thread(airflow, capy)["id"])
    assert airflow.task_states("group_forgiving", run_id) == {
        "work.create": "success",
        "work.wait": "skipped",
        "work.stop": "success",
        "deploy": "skipped",
    }


def test_a_mapped_group_has_a_thread_of_its_own_for_each_prompt(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    run_id = airflow.trigger("group_mapped")

    assert airflow.wait_for_run("group_mapped", run_id) == "success"
    threads = {thread["id"]: thread["title"] for thread in capy.threads()}
    assert sorted(threads.values()) == ["First", "Second"]
    waited_for = [airflow.xcom("group_mapped", run_id, "one.work.wait", "thread_id", map_index=n) for n in (0, 1)]
    assert [threads[thread_id] for thread_id in waited_for] == ["First", "Second"]


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
    assert (airflow.wait_for_run("group_mapped", run_id), len(capy.threads())) == ("failed", 2)
