"""What a run is brought into before something happens to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.harness.client import AirflowError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cancel.trial import Trial

# A task that comes back this soon after its deferral meets a race of Airflow's own scheduler, which is not the question.
SCHEDULER_LAG = 5.0


def started(trial: Trial) -> None:
    """Bring it nowhere: what comes, comes by itself."""
    trial.start()


def started_slowly(seconds: float) -> Callable[[Trial], None]:
    """The same, with a create that is processed at once and answered only after so many seconds."""

    def bring(trial: Trial) -> None:
        trial.slow_down("slow", "createAndStartThread", seconds)
        trial.start()

    return bring


def creating(seconds: float = 3) -> Callable[[Trial], None]:
    """The create is processed, and answered only after so many seconds."""

    def bring(trial: Trial) -> None:
        started_slowly(seconds)(trial)
        trial.until("the create's request", trial.threads)
        if (state := trial.state(trial.create_task)) != "running":
            raise AirflowError(f"{trial.create_task} is {state} although its create is not answered")

    return bring


def before_create(seconds: float) -> Callable[[Trial], None]:
    """The create has been sent, and is processed only after so many seconds."""

    def bring(trial: Trial) -> None:
        fault = trial.slow_down("slow_before", "createAndStartThread", seconds)
        trial.start()
        trial.until(
            "the create's request",
            lambda: any(one["fired"] for one in trial.capy.faults() if one["id"] == fault),
        )

    return bring


def scheduled(trial: Trial) -> None:
    """The create waits for a slot."""
    trial.start()
    trial.until("the create is scheduled", lambda: trial.state(trial.create_task) == "scheduled")


def feeding(trial: Trial) -> None:
    """The task that says how often the mapped group is to be expanded waits for a slot."""
    trial.start()
    trial.until("the feeding task is scheduled", lambda: trial.state("feed") == "scheduled")


def gap(trial: Trial) -> None:
    """The create is over, and what comes next waits for a slot."""
    trial.start()
    trial.until("the create is over", lambda: trial.state(trial.create_task) == "success")
    trial.until("the wait is scheduled", lambda: trial.state(trial.wait_task) == "scheduled")


def deferred(trial: Trial) -> None:
    """The wait is deferred; whether a triggerer has taken it over by now is chance."""
    trial.start()
    trial.until(f"{trial.wait_task} is deferred", lambda: trial.state(trial.wait_task) == "deferred")


def waiting(trial: Trial) -> None:
    """The wait waits, and whoever waits has looked at the thread."""
    trial.start()
    trial.until(f"{trial.wait_task} waits", trial.waits)


def backfilled(trial: Trial) -> None:
    """The same, in a run of a backfill."""
    day = f"2020-01-{trial.result.repetition:02}"
    span = {"from_date": f"{day}T00:00:00Z", "to_date": f"{day}T00:00:00Z"}
    body = {"dag_id": trial.dag_id, "dag_run_conf": trial.conf, **span}
    trial.backfill = trial.airflow.request("POST", "/backfills", json=body)["id"]
    trial.run_id = next(run_id for run_id in trial.airflow.runs(trial.dag_id) if day in run_id)
    trial.until(f"{trial.wait_task} waits", trial.waits)


def retry(trial: Trial) -> None:
    """A try has failed with tries left, and its thread works on.

    In the triggerer the connection is missing; everywhere else Capy answers none of the attempts of one look.
    """
    trial.start()
    if trial.waiting_state != "deferred":
        trial.until(f"{trial.wait_task} waits", trial.waits)
        trial.capy.fault("status", "getThread", match=trial.key, status=503, times=4)
    trial.until("the try has failed", lambda: trial.state(trial.wait_task) == "up_for_retry")
    if not trial.at_work():
        raise AirflowError(f"{trial.wait_task} is up_for_retry, but its thread does not work on")


def finished(trial: Trial) -> None:
    """The wait has succeeded, and what comes next waits for a slot."""
    waiting(trial)
    if trial.waiting_state == "deferred":
        time.sleep(SCHEDULER_LAG)
    trial.finish_threads()
    trial.until("the next task is scheduled", lambda: trial.state("after") == "scheduled")
