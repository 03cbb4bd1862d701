"""What is heard of a run's end where no task is there to hear it, and what the person on call sees of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.dags.run_ends import ALERTS

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow


def stopped_in_record(airflow: LocalAirflow, dag_id: str, run_id: str, task_id: str) -> bool:
    return airflow.stored(dag_id, run_id, task_id, "capy_thread")["fate"] == "stopped"


def test_a_run_marked_failed_between_two_tries_of_a_task_stops_its_thread(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    # Threads of other tests may be looked at meanwhile.
    capy.fault("status", "getThread", match="Between tries", status=503, skip=2, times=4)
    run_id = airflow.trigger("between_tries")
    airflow.wait_for_task("between_tries", run_id, "work", {"up_for_retry"})
    [thread] = capy.threads()
    assert (thread["over"], thread["stops"]) == (False, [])

    airflow.mark_run("between_tries", run_id, "failed")

    airflow.wait_until("the thread is asked to stop", lambda: capy.stops(thread["id"]), 30)
    airflow.wait_until("the record says so", lambda: stopped_in_record(airflow, "between_tries", run_id, "work"), 30)
    assert capy.thread(thread["id"])["run_state"] == "ready"
    assert "marked failed" in airflow.stored("between_tries", run_id, "work", "capy_thread")["stopped_by"]


def test_a_dispatched_thread_is_stopped_when_its_run_is_marked_failed_and_only_then(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    done, cancelled = (airflow.trigger("dispatching") for _ in range(2))
    for run_id in (done, cancelled):
        airflow.wait_for_task("dispatching", run_id, "hold", {"running"})
    goes_on, to_stop = (airflow.xcom("dispatching", run_id, "dispatch") for run_id in (done, cancelled))

    airflow.mark_run("dispatching", done, "success")
    airflow.mark_run("dispatching", cancelled, "failed")

    airflow.wait_until("the thread is asked to stop", lambda: capy.stops(to_stop), 30)
    airflow.wait_until(
        "the record says so", lambda: stopped_in_record(airflow, "dispatching", cancelled, "dispatch"), 30
    )
    # That run was marked before the other one, and both are heard in order.
    assert (capy.stops(goes_on), capy.thread(goes_on)["run_state"]) == ([], "running")
    assert airflow.stored("dispatching", done, "dispatch", "capy_thread")["fate"] == "dispatched"


def test_a_failure_alerts_once_and_leads_to_its_thread(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    # Over before its wait looks for the first time, which is on the worker.
    capy.script(life="archived", seconds=0.1)
    run_id = airflow.trigger("alerting")
    assert airflow.wait_for_run("alerting", run_id) == "failed"

    tasks = airflow.tasks("alerting", run_id)
    assert {name: (task["state"], task["try_number"]) for name, task in tasks.items()} == {
        "work.create": ("success", 1),
        "work.wait": ("failed", 1),
        "deploy": ("upstream_failed", 0),
    }
    [thread] = capy.threads()
    link = f"{capy.page_url}project/prj_demo/captain/{thread['id']}"
    alerts = [line for line in (airflow.home / ALERTS).read_text().splitlines() if line.startswith(run_id)]
    assert [line.split()[1] for line in alerts] == ["work.wait"]
    assert link in alerts[0]
    assert "Clear work.create to start a new one" in alerts[0]
    for task_id in ("work.create", "work.wait"):
        assert airflow.xcom("alerting", run_id, task_id, "thread_url") == link
        assert airflow.extra_links("alerting", run_id, task_id)["Open in Capy"] == link
