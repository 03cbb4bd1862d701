"""Waits for an Airflow to get somewhere, and shows states and logs when it does not: a bare timeout helps nobody."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import httpx

from tests.harness.client import AirflowClient, AirflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

T = TypeVar("T")

RUN_OVER = frozenset({"success", "failed"})
TASK_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


class PatientClient(AirflowClient):
    """A client that can wait."""

    def wait_until(self, what: str, probe: Callable[[], T | None], timeout: float, interval: float = 0.25) -> T:
        """Return the first true answer of the probe; an Airflow that is just restarting counts as "not yet"."""
        deadline = time.monotonic() + timeout
        while True:
            trouble = ""
            try:
                answer = probe()
            except httpx.TransportError as error:
                answer, trouble = None, f" (the API is unreachable: {error!r})"
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AirflowError(f"{what}: not within {timeout:g} s{trouble}")
            time.sleep(interval)

    def is_up(self, command: str, *, since: datetime, count: int = 1) -> bool:
        """Tell whether so many processes of one `airflow` command have come up since then."""
        try:
            if command not in JOBS:
                return self.health()["metadatabase"] == "healthy" and self.serves_tasks()
            return self.living_jobs(JOBS[command], since=since) >= count
        except (httpx.TransportError, AirflowError):
            return False

    def wait_for_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until a DAG is parsed, for files that are added while Airflow runs."""
        self.wait_until(f"DAG {dag_id} is parsed", lambda: dag_id in {dag["dag_id"] for dag in self.dags()}, timeout)

    def wait_for_run(self, dag_id: str, run_id: str, states: Collection[str] = RUN_OVER, timeout: float = 120) -> str:
        """Wait until a run is in one of the states (by default: over) and return the state.

        A run that ends otherwise is an error at once, with the logs of its tasks.
        """
        what = f"run {run_id} of {dag_id} is {_either(states)}"

        def probe() -> str | None:
            state = self.run_state(dag_id, run_id)
            if state in states:
                return state
            if state in RUN_OVER:
                raise AirflowError(f"{what}: it is {state}")
            return None

        return self._wait(what, probe, timeout, dag_id, run_id)

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str] = TASK_OVER,
        timeout: float = 120,
        *,
        try_number: int = 0,
    ) -> str:
        """Wait until a task (`task[0]` when mapped) is in one of the states, in that try or a later one.

        A run that ends without it is an error at once: nothing will change any more.
        """
        what = f"task {task_id} of {dag_id} is {_either(states)}"

        def probe() -> str | None:
            # The run is asked first: what its tasks say afterwards is final if it was over by then.
            over = self.run_state(dag_id, run_id) in RUN_OVER
            instance = self.tasks(dag_id, run_id).get(task_id)
            state = (instance["state"] or "none") if instance else "missing"
            if instance and instance["try_number"] >= try_number and state in states:
                return state
            if over and (state in TASK_OVER or state == "missing"):
                raise AirflowError(f"{what}: the run is over, and it is {state}")
            return None

        return self._wait(what, probe, timeout, dag_id, run_id)

    def _wait(self, what: str, probe: Callable[[], T | None], timeout: float, dag_id: str, run_id: str) -> T:
        try:
            return self.wait_until(what, probe, timeout)
        except AirflowError as error:
            raise AirflowError(f"{error}\n{self.describe_run(dag_id, run_id)}") from None

    def describe_run(self, dag_id: str, run_id: str, lines: int = 25) -> str:
        """Tell how a run stands and how the logs of its tasks end: what one wants to read when a test fails."""
        try:
            tasks = self.tasks(dag_id, run_id)
            states = {name: instance["state"] for name, instance in tasks.items()}
            parts = [f"run {run_id} of {dag_id} is {self.run_state(dag_id, run_id)}: {states}"]
            for name, instance in tasks.items():
                if instance["try_number"]:
                    tries = (dag_id, run_id, instance["task_id"], instance["try_number"], instance["map_index"])
                    tail = "\n".join(line[:300] for line in self.task_log(*tries).splitlines()[-lines:])
                    parts.append(f"--- log of {name}, try {instance['try_number']}, {instance['state']}:\n{tail}")
        except (AirflowError, httpx.TransportError) as error:
            return f"the run cannot be described: {error!r}"
        return "\n".join(parts)


def _either(states: Collection[str]) -> str:
    return " or ".join(sorted(states))
