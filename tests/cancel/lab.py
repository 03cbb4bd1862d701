"""The Airflows and the Capy that the matrix runs on, set up so that many runs can be cancelled side by side."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.harness.airflow import LocalAirflow
from tests.harness.services import Postgres, Redis

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.processes import Component

ROOT = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "dags"
WAYS = (
    *("op_worker", "op_deferred"),
    *("sensor_poke", "sensor_reschedule", "sensor_deferred"),
    *("group_poke", "group_deferred"),
    "dispatch",
)

ROOMY = {
    "AIRFLOW__CORE__PARALLELISM": "32",
    "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "64",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "256",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "10",
    # How soon a scheduler notices the tasks that an earlier one left behind: every five minutes by default.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
}


class CancelAirflow(LocalAirflow):
    """An Airflow whose triggerer cannot use one of its connections, as happens where only the workers were given it.

    With the CeleryExecutor it has one Celery worker.
    """

    def __init__(self, *args: Any, broken: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._broken = broken

    def _plan(self) -> Iterator[Component]:
        yield from super()._plan()
        if self.environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor":
            yield self._component(
                "celery", "worker", "--skip-serve-logs", "--concurrency", "8", "--without-gossip", name="celery-worker"
            )

    def _component(self, command: str, *arguments: str, name: str | None = None) -> Component:
        component = super()._component(command, *arguments, name=name)
        if command == "triggerer":
            component._env["AIRFLOW_CONN_CAPY_WORKERS_ONLY"] = self._broken
        return component


@dataclass
class Lab:
    """What the trials of a campaign share."""

    name: str
    airflow: LocalAirflow
    capy: EmulatorControl
    extra_dags: Path
    flags: Path
    side_by_side: int


@dataclass(frozen=True)
class Plan:
    """How an Airflow is set up."""

    triggerers: int = 1
    celery: bool = False
    quick: bool = True
    side_by_side: int = 12


PLANS = {
    "one": Plan(),
    "two": Plan(triggerers=2),
    "celery": Plan(celery=True),
    # As users have it, and one click after the other: this is what is timed.
    "ui": Plan(quick=False, side_by_side=1),
}


@contextmanager
def lab(name: str, home: Path, dag_ids: Collection[str]) -> Iterator[Lab]:
    """Run an Airflow with these DAGs, and an emulator, for the length of a `with` block.

    On PostgreSQL: SQLite gives a new trigger the id of an old one, and answers "locked" to clicks at the same time.
    """
    plan = PLANS[name]
    with ExitStack() as stack:
        capy = stack.enter_context(EmulatorProcess()).control
        capy.script(life="forever")
        database = stack.enter_context(Postgres()).url("airflow")
        extra, flags = home / "removable", home / "flags"
        extra.mkdir(parents=True)
        flags.mkdir()
        for copy in {_file_of(dag_id) for dag_id in dag_ids} - {"ways"}:
            shutil.copy(DAGS / "ways.py", extra / f"{copy}.py")
        # Longer than any answer of the matrix: what a lost answer does is not the question here.
        good = capy.connection_json(timeout=120)
        env = {
            **ROOMY,
            "AIRFLOW_CONN_CAPY_DEFAULT": good,
            "AIRFLOW_CONN_CAPY_WORKERS_ONLY": good,
            "CANCEL_DAGS": " ".join(sorted(dag_ids)),
            # The processes start elsewhere, and must run the code of this tree.
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        if plan.celery:
            env["AIRFLOW__CELERY__BROKER_URL"] = stack.enter_context(Redis()).url
            env["AIRFLOW__CELERY__RESULT_BACKEND"] = f"db+{database}"
        airflow = CancelAirflow(
            home / "airflow",
            [DAGS, extra],
            database=database,
            executor="CeleryExecutor" if plan.celery else "LocalExecutor",
            triggerers=plan.triggerers,
            quick=plan.quick,
            broken='{"conn_type": "capy", "host": "http://127.0.0.1:1"}',
            env=env,
        )
        stack.enter_context(airflow)
        airflow.request("POST", "/pools", json={"name": "closed", "slots": 0})
        yield Lab(name, airflow, capy, extra, flags, plan.side_by_side)


def _file_of(dag_id: str) -> str:
    """Return which file holds a DAG: one of its own for what is done to files, the common one for all others."""
    if dag_id.startswith("removed_"):
        return dag_id
    return "backstop" if dag_id.endswith("__backstop") else "ways"
