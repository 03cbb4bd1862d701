"""What is done to a run: the user's clicks as the UI sends them, and what platforms do to processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cancel.trial import Trial


def mark_run(state: str) -> Callable[[Trial], None]:
    """Mark the run."""
    return lambda trial: trial.airflow.mark_run(trial.dag_id, trial.run_id, state)


def mark_wait(state: str) -> Callable[[Trial], None]:
    """Mark the task that waits."""
    return lambda trial: trial.airflow.mark_task(trial.dag_id, trial.run_id, trial.wait_task, state)


def mark_create(state: str) -> Callable[[Trial], None]:
    """Mark the task that creates."""
    return lambda trial: trial.airflow.mark_task(trial.dag_id, trial.run_id, trial.create_task, state)


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
    """Mark the run failed, and clear what failed once all has come to rest, as somebody does who has changed his mind.

    Cleared at once, a deferred task is waiting again before its old trigger has asked whether it is over.
    """
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    trial.until("the run is over", lambda: trial.run_state() in RUN_OVER)
    try:
        trial.airflow.wait_until("the thread is stopped", lambda: trial.threads()[0]["stops"], 15)
    except AirflowError:
        # Nobody stops it, so it is watched from the clear on.
        trial.acted_at = time.time()
    trial.airflow.clear_run(trial.dag_id, trial.run_id, only_failed=True)


def nothing(trial: Trial) -> None:
    """Let time do it; the clock begins at the start of the phase."""


def pause(trial: Trial) -> None:
    """Pause the DAG."""
    trial.airflow.pause(trial.dag_id)


def pause_and_fail(trial: Trial) -> None:
    """Pause the DAG, mark its run failed, and see the stop come before anybody unpauses it."""
    trial.airflow.pause(trial.dag_id)
    trial.acted_at = time.time()
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    trial.airflow.wait_until("the thread is stopped", lambda: trial.threads()[0]["stops"], 60)
    trial.airflow.unpause(trial.dag_id)


def delete_run(trial: Trial) -> None:
    """Mark the run failed and delete it at once; Airflow refuses to delete a running one."""
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    _delete_until_done(trial, f"/dags/{trial.dag_id}/dagRuns/{trial.run_id}")


def delete_wait(trial: Trial) -> None:
    """Delete the task instance that waits."""
    trial.airflow.request(
        "DELETE",
        f"/dags/{trial.dag_id}/dagRuns/{trial.run_id}/taskInstances/{trial.wait_task}",
        params={"map_index": -1},
    )


def delete_dag(trial: Trial) -> None:
    """Delete the DAG with all its runs."""
    _delete_until_done(trial, f"/dags/{trial.dag_id}")


def _delete_until_done(trial: Trial, path: str) -> None:
    # A teardown keeps the run running for some seconds more, and a running one is refused with 409.
    def probe() -> bool:
        try:
            trial.airflow.request("DELETE", path)
        except AirflowError as error:
            if "-> 409" in str(error):
                return False
            if "-> 404" not in str(error):
                raise
        return True

    trial.airflow.wait_until(f"{path} is deleted", probe, 90, 0.3)


def remove_file_and_fail(trial: Trial) -> None:
    """Remove the DAG's file, wait until Airflow knows, and mark the run failed."""
    (trial.lab.extra_dags / f"{trial.dag_id}.py").unlink()
    trial.airflow.wait_until(
        "the DAG is stale",
        lambda: trial.dag_id not in {dag["dag_id"] for dag in trial.airflow.dags() if not dag.get("is_stale")},
        120,
    )
    trial.acted_at = time.time()
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")


def signal_task(signum: int, *, supervisor: bool = False, task: bool = True) -> Callable[[Trial], None]:
    """Signal the process of the task that waits, or the one that supervises it, or both."""

    def act(trial: Trial) -> None:
        ti_id = trial.airflow.tasks(trial.dag_id, trial.run_id)[trial.wait_task]["id"]
        names = {f"airflow worker -- {ti_id}"} if task else set()
        names |= {f"airflow worker -- LocalExecutor: {ti_id}"} if supervisor else set()
        found = []
        for process in trial.airflow.component("scheduler").members():
            # Others come and go meanwhile.
            with suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).strip() in names:
                    found.append(process)
        if len(found) != len(names):
            raise AirflowError(f"of {names} only {found} run")
        for process in found:
            process.send_signal(signum)

    return act


# To what all runs share


def restart(name: str, *, after_kill: bool = False) -> Callable[[Sequence[Trial]], None]:
    """Restart a component, politely or after its sudden death."""

    def act(trials: Sequence[Trial]) -> None:
        airflow = trials[0].airflow
        if after_kill:
            airflow.component(name).kill(signal.SIGKILL, children=True)
        airflow.restart(name)

    return act


def api_server_gone(seconds: float) -> Callable[[Sequence[Trial]], None]:
    """Take the API server away, for longer than a task's heartbeats are allowed to fail."""

    def act(trials: Sequence[Trial]) -> None:
        server = trials[0].airflow.component("api-server")
        server.stop(3)
        time.sleep(seconds)
        trials[0].airflow.restart("api-server", timeout=120)

    return act


def triggerers_of(trials: Sequence[Trial]) -> list[Any]:
    """The triggerers that hold the trials' waits."""
    names = []
    for trial in trials:
        holder = trial.until(
            "a triggerer runs it", lambda t=trial: t.airflow.triggerer_of(t.dag_id, t.run_id, t.wait_task)
        )
        names.append(holder.name)
    return [trials[0].airflow.component(name) for name in sorted(set(names))]


def all_triggerers(trials: Sequence[Trial]) -> list[Any]:
    """Every triggerer there is."""
    return [part for name, part in trials[0].airflow.components.items() if name.startswith("triggerer")]


def mark_while_no_triggerer_lives(trials: Sequence[Trial]) -> None:
    """Kill every triggerer, mark the runs failed, and start them again."""
    parts = all_triggerers(trials)
    for part in parts:
        part.kill(signal.SIGKILL, children=True)
    for trial in trials:
        trial.acted_at = time.time()
        trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    for part in parts:
        part.restart(0)


def _on_one_triggerer(trials: Sequence[Trial]) -> Any:
    """Return the triggerer that holds most; the others' runs were moved to it by a restart of theirs."""
    airflow = trials[0].airflow
    for part in all_triggerers(trials)[1:]:
        part.kill(signal.SIGTERM)
        part.wait(30)
        part.finish(0)
    first = airflow.component("triggerer")
    for trial in trials:
        trial.until(
            "the first triggerer holds it",
            lambda t=trial: t.airflow.triggerer_of(t.dag_id, t.run_id, t.wait_task) is first,
        )
    for part in all_triggerers(trials)[1:]:
        part.start()
    airflow.wait_until("both triggerers are up", lambda: airflow.living_jobs("TriggererJob") >= 2, 90)
    return first


def freeze_holder(trials: Sequence[Trial]) -> None:
    """Freeze the holding triggerer until the other one has taken everything over, and thaw it."""
    first = _on_one_triggerer(trials)
    first.freeze()
    for trial in trials:
        trial.until(
            "the other triggerer has taken over",
            lambda t=trial: t.airflow.triggerer_of(t.dag_id, t.run_id, t.wait_task) not in {None, first},
        )
    for trial in trials:
        trial.acted_at = time.time()
    first.thaw()


def kill_holder_and_mark(trials: Sequence[Trial]) -> None:
    """Kill the holding triggerer, and mark the runs failed before the other one has taken over."""
    first = _on_one_triggerer(trials)
    first.kill(signal.SIGKILL, children=True)
    for trial in trials:
        trial.acted_at = time.time()
        trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    time.sleep(20)
    first.restart(0)


def freeze_holder_and_mark(trials: Sequence[Trial]) -> None:
    """Freeze the holding triggerer, mark the runs failed, and thaw it five seconds later."""
    first = _on_one_triggerer(trials)
    first.freeze()
    for trial in trials:
        trial.acted_at = time.time()
        trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")
    time.sleep(5)
    first.thaw()


def celery_warm(trials: Sequence[Trial]) -> None:
    """Tell the Celery worker to stop, and let the threads finish: it waits for its tasks, which end as they would."""
    worker = trials[0].airflow.component("celery-worker")
    worker.kill(signal.SIGTERM)
    time.sleep(10)
    for trial in trials:
        trial.finish_threads()
    worker.wait(120)
    worker.finish(0)
    worker.start()


def celery_killed(signum: int, *, group: bool = False) -> Callable[[Sequence[Trial]], None]:
    """Signal the Celery worker so that its tasks are told as well, and start another one once it is gone."""

    def act(trials: Sequence[Trial]) -> None:
        worker = trials[0].airflow.component("celery-worker")
        if group:
            os.killpg(worker.pid, signum)
        else:
            worker.kill(signum)
        worker.wait(120)
        worker.finish(0)
        worker.start()

    return act
