"""What befalls processes: one trial's task, or a component of Airflow with every run that there is."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cancel.trial import Trial


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


def _mark_failed(trial: Trial) -> None:
    trial.begin()
    trial.airflow.mark_run(trial.dag_id, trial.run_id, "failed")


def _mark_at_once(trials: Sequence[Trial]) -> None:
    # One after the other, the first ones would be done with before the last one's click.
    with ThreadPoolExecutor(len(trials)) as pool:
        list(pool.map(_mark_failed, trials))


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


def mark_and_kill_api_server(trials: Sequence[Trial]) -> None:
    """Mark all runs failed, kill the API server with its last answer, and start it again five seconds later."""
    airflow = trials[0].airflow
    _mark_at_once(trials)
    airflow.component("api-server").kill(signal.SIGKILL, children=True)
    time.sleep(5)
    airflow.restart("api-server", timeout=120)


def kill_scheduler_at_timeout(trials: Sequence[Trial]) -> None:
    """Kill the scheduler, with all it started, the moment a run has timed out; the others do so before or after."""
    airflow, first = trials[0].airflow, trials[0]
    first.until("a run has timed out", lambda: first.run_state() in RUN_OVER, look=0.02)
    airflow.component("scheduler").kill(signal.SIGKILL, children=True)
    for trial in trials:
        trial.begin()
    airflow.restart("scheduler")


# The triggerers


def all_triggerers(trials: Sequence[Trial]) -> list[Any]:
    """Every triggerer there is."""
    return [part for name, part in trials[0].airflow.components.items() if name.startswith("triggerer")]


def _until_all_are_up(trials: Sequence[Trial]) -> None:
    airflow, count = trials[0].airflow, len(all_triggerers(trials))
    airflow.wait_until("all triggerers are up", lambda: airflow.living_jobs("TriggererJob") >= count, 90)


def mark_while_no_triggerer_lives(trials: Sequence[Trial]) -> None:
    """Kill every triggerer, mark the runs failed, and start them again."""
    for part in all_triggerers(trials):
        part.kill(signal.SIGKILL, children=True)
    _mark_at_once(trials)
    for part in all_triggerers(trials):
        part.restart(0)


def mark_and_restart_triggerers(signum: int) -> Callable[[Sequence[Trial]], None]:
    """Mark the runs failed, and restart every triggerer right after the click."""

    def act(trials: Sequence[Trial]) -> None:
        parts = all_triggerers(trials)
        _mark_at_once(trials)
        for part in parts:
            part.kill(signum, children=signum == signal.SIGKILL)
        for part in parts:
            part.wait(60)
            part.finish(0)
            part.start()
        _until_all_are_up(trials)

    return act


def _on_one_triggerer(trials: Sequence[Trial]) -> Any:
    """Return the triggerer that holds all waits; the others' were moved to it by a restart of theirs."""
    first, *others = all_triggerers(trials)
    for part in others:
        part.kill(signal.SIGTERM)
        part.wait(30)
        part.finish(0)
    for trial in trials:
        trial.until("the first triggerer holds it", lambda t=trial: _holder(t) is first)
    for part in others:
        part.start()
    _until_all_are_up(trials)
    return first


def _holder(trial: Trial) -> Any:
    return trial.airflow.triggerer_of(trial.dag_id, trial.run_id, trial.wait_task)


def freeze_holder(trials: Sequence[Trial]) -> None:
    """Freeze the holding triggerer until the other one has taken everything over, and thaw it."""
    first = _on_one_triggerer(trials)
    first.freeze()
    for trial in trials:
        trial.until("the other triggerer has taken over", lambda t=trial: _holder(t) not in {None, first})
    for trial in trials:
        trial.begin()
    first.thaw()


def kill_holder_and_mark(trials: Sequence[Trial]) -> None:
    """Kill the holding triggerer, and mark the runs failed before the other one has taken over."""
    first = _on_one_triggerer(trials)
    first.kill(signal.SIGKILL, children=True)
    _mark_at_once(trials)
    time.sleep(20)
    first.restart(0)


def freeze_holder_and_mark(trials: Sequence[Trial]) -> None:
    """Freeze the holding triggerer, mark the runs failed, and thaw it five seconds later."""
    first = _on_one_triggerer(trials)
    first.freeze()
    _mark_at_once(trials)
    time.sleep(5)
    first.thaw()


# The Celery worker


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
