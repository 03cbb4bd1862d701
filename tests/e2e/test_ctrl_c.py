"""Ctrl-C in `airflow dags test`, where no triggerer and no worker is there to call `on_kill`."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.e2e.conftest import alone

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow


def test_an_interrupted_wait_stops_its_thread(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    capy.script(life="forever")
    with alone(airflow):
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "dags", "test", "group_poke"],
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
            looks = airflow.wait_until("it is waited for", lambda: len(capy.requests("getThread")) >= 2, 120)
            assert looks

            process.send_signal(signal.SIGINT)

            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
    assert capy.stops(thread["id"]), output[-4000:]
    assert len(capy.threads()) == 1
