"""What people do to a run: their clicks, as the UI sends them, and what they do to its DAG."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cancel.trial import Trial


def nothing(trial: Trial) -> None:
    """Let time do it; the clock begins at the start of the phase."""


def let_go(trial: Trial) -> None:
    """Let the task end that the run waits for, or the one that is to fail."""
    trial.let_go()


def mark_run(state: str) -> Callable[[Trial], None]:
    """Mark the run."""
    return lambda trial: trial.airflow.mark_run(trial.dag_id, trial.run_id, state)


def mark_wait(state: str) -> Callable[[Trial], None]:
    """Mark the task that waits."""
    return lambda trial: trial.airflow.mark_task(trial.dag_id, trial.run_id, trial.wait_task, state)


def mark_create(state: str) -> Callable[[Trial], None]:
    """Mark the task that creates."""
    return lambda trial: trial.airflow.mark_task(trial.dag_id, trial.run_id, trial.create_task, state)


# Clears


def clear_wait(trial: Trial) -> None:
    """Clear the task that waits."""
    trial.airflow.clear_task(trial.dag_id, trial.run_id, trial.wait_task)


def clear_create(trial: Trial) -> None:
    """Clear the task that creates, with what comes after it."""
    trial.airflow.clear_task(trial.dag_id, trial.run_id, trial.create_task, downstream=True)


def clear_run(trial: Trial) -> None:
    """Clear the whole run."""
    trial.airflow.clear_run(trial.dag_id, trial.run_id)


def fail_and_clear(trial: Trial) -> None:
    """Mark the run failed, and clear what failed once all has come to rest, as somebody does who has changed his mind."""
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    trial.until("the run is over", lambda: trial.run_state() in RUN_OVER)
    trial.until("the thread is stopped", lambda: trial.threads()[0]["stops"], 60)
    trial.airflow.clear_run(trial.dag_id, trial.run_id, only_failed=True)


# Pauses and deletions


def pause(trial: Trial) -> None:
    """Pause the DAG."""
    trial.airflow.pause(trial.dag_id)


def pause_and_fail(trial: Trial) -> None:
    """Pause the DAG, mark its run failed, and see the stop come before anybody unpauses it."""
    trial.airflow.pause(trial.dag_id)
    trial.begin()
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    trial.until("the thread is stopped", lambda: trial.threads()[0]["stops"], 60)
    trial.airflow.unpause(trial.dag_id)


def fail_and_delete(trial: Trial) -> None:
    """Mark the run failed and delete it at once; Airflow refuses to delete a running one."""
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    trial.airflow.delete_run(trial.dag_id, trial.run_id)


def delete_wait(trial: Trial) -> None:
    """Delete the task instance that waits."""
    path = f"/dags/{trial.dag_id}/dagRuns/{trial.run_id}/taskInstances/{trial.wait_task}"
    trial.airflow.request("DELETE", path, params={"map_index": -1})


def delete_dag(trial: Trial) -> None:
    """Delete the DAG with all its runs; Airflow refuses while a task of it is on a worker."""
    trial.airflow.request("DELETE", f"/dags/{trial.dag_id}")


def remove_file_and_fail(trial: Trial) -> None:
    """Remove the DAG's file, wait until Airflow knows, and mark the run failed."""
    (trial.lab.extra_dags / f"{trial.dag_id}.py").unlink()
    trial.airflow.wait_until(
        "the DAG is stale",
        lambda: trial.dag_id not in {dag["dag_id"] for dag in trial.airflow.dags() if not dag.get("is_stale")},
        120,
    )
    trial.begin()
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")


# Backfills


def cancel_backfill(trial: Trial) -> None:
    """Cancel the backfill that the run belongs to: runs that are queued become failed, the others go on."""
    trial.airflow.request("PUT", f"/backfills/{trial.backfill}/cancel")


def queue_and_cancel_backfill(trial: Trial) -> None:
    """Pause the backfill, set its run to queued, so that it stays so, and cancel the backfill: no listener is called."""
    trial.airflow.request("PUT", f"/backfills/{trial.backfill}/pause")
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "queued")
    time.sleep(2)
    trial.begin()
    cancel_backfill(trial)
