"""What the benches of cancelling share: PostgreSQL, an emulated Capy and an Airflow with DAGs of their own, and tables."""

from __future__ import annotations

import math
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.harness.airflow import LocalAirflow
from tests.harness.services import Postgres, Redis

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Engine

    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.processes import Component

ROOT = Path(__file__).parents[2]
SWITCH = "AIRFLOW__CAPY__STOP_AT_RUN_END"
OURS = "airflow_provider_capy"


class CeleryAirflow(LocalAirflow):
    """An Airflow with a Celery worker."""

    def _plan(self) -> Iterator[Component]:
        yield from super()._plan()
        options = ("--skip-serve-logs", "--concurrency", "8", "--without-gossip")
        yield self._component("celery", "worker", *options, name="celery-worker")


@dataclass
class Stage:
    airflow: LocalAirflow
    capy: EmulatorControl
    database: Engine

    def listens(self) -> bool:
        """Whether the API server has loaded a listener of ours."""
        plugins = self.airflow.request("GET", "/plugins")["plugins"]
        return any(OURS in listener for plugin in plugins for listener in plugin["listeners"])

    def switch(self, on: bool, *names: str) -> None:
        """Restart components with the listener on or off."""
        for name in names:
            self.airflow.component(name)._env[SWITCH] = str(on)
            self.airflow.restart(name, timeout=180)
        self.check(on)

    def check(self, on: bool) -> None:
        """See that the listener is on or off as it should be."""
        if self.listens() is not on:
            raise RuntimeError(f"the listener is {'not loaded' if on else 'loaded all the same'}: nothing is measured")


@contextmanager
def stage(
    dags: Mapping[str, str], *, env: Mapping[str, str], celery: bool = False, quick: bool = False, on: bool = True
) -> Iterator[Stage]:
    """Run everything for the length of a `with` block; `dags` are files by name; the listener is on or off."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (home / "dags").mkdir()
        for name, code in dags.items():
            (home / "dags" / name).write_text(code)
        capy = stack.enter_context(EmulatorProcess()).control
        capy.script(life="forever")
        url = stack.enter_context(Postgres()).url("airflow")
        settings = {
            # Longer than any answer that a bench holds back.
            "AIRFLOW_CONN_CAPY_DEFAULT": capy.connection_json(timeout=300),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            SWITCH: str(on),
            **env,
        }
        if celery:
            settings["AIRFLOW__CELERY__BROKER_URL"] = stack.enter_context(Redis()).url
            settings["AIRFLOW__CELERY__RESULT_BACKEND"] = f"db+{url}"
        kind, executor = (CeleryAirflow, "CeleryExecutor") if celery else (LocalAirflow, "LocalExecutor")
        airflow = kind(home / "airflow", home / "dags", database=url, executor=executor, env=settings, quick=quick)
        stack.enter_context(airflow)
        database = create_engine(url)
        stack.callback(database.dispose)
        place = Stage(airflow, capy, database)
        place.check(on)
        yield place


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed; not a number when there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else float("nan")


def table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows in Markdown; the columns' formats read their fields, and a missing one is blank."""
    lines = ["| " + " | ".join(map(str.strip, columns)) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [_cell(form, row) for form in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(form: str, row: Mapping[str, Any]) -> str:
    try:
        return form.format(**row)
    except KeyError:
        return ""
