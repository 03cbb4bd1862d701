"""Ctrl-C in `airflow dags test`, where no triggerer and no worker is there to call `on_kill`."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import alone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow


@pytest.fixture(scope="module")
def airflow_alone(airflow: LocalAirflow) -> Iterator[LocalAirflow]:
    with alone(airflow):
        yield airflow


@pytest.mark.parametrize("dag_id", ["group_poke", "interrupted_deferred"])
def test_an_interrupted_wait_stops_its_thread(airflow_alone: LocalAirflow, capy: EmulatorControl, dag_id: str) -> None:
    airflow = airflow_alone
    capy.script(life="forever")
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", "dags", "test", dag_id],
        cwd=airflow.home,
        env=airflow.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job of a script ignores SIGINT, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    try:
        thread = airflow.wait_until("a thread", lambda: next(iter(capy.threads()), None), 120)
        airflow.wait_until(
            "it is waited for", lambda: len(capy.requests("getThread", thread_id=thread["id"])) >= 2, 120
        )

        process.send_signal(signal.SIGINT)

        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert ("DEFERRED" in output) == dag_id.endswith("deferred"), output[-4000:]
    assert capy.stops(thread["id"]), output[-4000:]
    assert len(capy.threads()) == 1
