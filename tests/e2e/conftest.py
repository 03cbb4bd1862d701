"""One running Airflow and one emulated Capy for all end-to-end tests: starting them takes longer than most tests."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.demo.examples import EXAMPLES, quick_examples
from tests.harness.airflow import LocalAirflow
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl

DAGS = Path(__file__).parent / "dags"
ROOT = Path(__file__).parents[2]


@contextmanager
def alone(airflow: LocalAirflow) -> Iterator[None]:
    """Keep the running scheduler and triggerer from taking the run's tasks for theirs: it uses their database."""
    others = [airflow.component(name) for name in ("scheduler", "triggerer")]
    for component in others:
        component.ask_to_stop()
    for component in others:
        component.finish(3)
    try:
        yield
    finally:
        since = datetime.now(timezone.utc)
        for component in others:
            component.start()
        for component in others:
            airflow.wait_until(
                f"{component.name} is up again", lambda name=component.name: airflow.is_up(name, since=since), 120
            )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """Add to a failure what became of the runs the test has triggered: it is rarely the assertion that tells why."""
    report = yield
    airflow = getattr(item, "funcargs", {}).get("airflow")
    if report.when == "call" and report.failed and airflow is not None:
        for dag_id, run_id in airflow.triggered:
            report.sections.append((f"run of {dag_id}", airflow.describe_run(dag_id, run_id)))
    return report


@pytest.fixture(autouse=True)
def _no_run_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a test has left running, or the next one would share its workers with it."""
    yield
    if "airflow" in request.fixturenames:
        airflow = request.getfixturevalue("airflow")
        for dag_id, run_id in airflow.triggered:
            with suppress(AirflowError):
                if airflow.run_state(dag_id, run_id) not in RUN_OVER:
                    airflow.mark_run(dag_id, run_id, "failed")
        airflow.triggered.clear()


@pytest.fixture(scope="session")
def capy_process() -> Iterator[EmulatorProcess]:
    """The emulator of the session; tests take `capy`."""
    with EmulatorProcess() as process:
        yield process


@pytest.fixture
def capy(capy_process: EmulatorProcess) -> EmulatorControl:
    """An emulated Capy without threads, faults or memories of earlier tests; its threads live in real time."""
    capy_process.control.reset()
    return capy_process.control


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, capy_process: EmulatorProcess) -> Iterator[LocalAirflow]:
    """A running Airflow with the DAGs of this folder and the examples, whose connection `capy_default` leads to the emulator."""
    env = {
        "AIRFLOW_CONN_CAPY_DEFAULT": capy_process.control.connection_json(),
        "AIRFLOW__CORE__XCOM_BACKEND": "tests.e2e.refusing_xcom.RefusingXCom",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        **quick_examples(),
    }
    with LocalAirflow(tmp_path_factory.mktemp("airflow"), [DAGS, EXAMPLES], env=env) as airflow:
        yield airflow
