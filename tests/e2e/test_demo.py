"""The demo is the first thing a newcomer sees; here it meets what a newcomer may do to it.

That it succeeds is seen by running it; the emulator stands in for the real Capy that the environment may lead to.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.demo.examples import quick_examples
from tests.harness.processes import end_session, session_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.timeout(900)

PROJECT = Path(__file__).parents[2]
CONSENT = ("--yes-real", "--repo", "acme/web@release")


class Demo:
    """A demo in a session of its own, to which the connection in the environment is the real Capy's."""

    def __init__(self, connection: str, log: Path, arguments: tuple[str, ...]) -> None:
        self.log = log
        # Settings of another Airflow, which the demo must not mind.
        outside = {"AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor", "AIRFLOW_HOME": "/nowhere"}
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.demo", *arguments],
                cwd=PROJECT,
                # A real Capy would be looked at every thirty seconds, which would take most of the time here.
                env={**os.environ, **quick_examples(), **outside, "AIRFLOW_CONN_CAPY_DEFAULT": connection},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, condition: Callable[[], bool], timeout: float = 300) -> None:
        """Wait until something is so while the demo runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def ended(self, timeout: float = 600) -> tuple[int, str]:
        """Return how it ended and what it wrote."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        output = self.log.read_text()
        assert self.process.returncode is not None, output
        return self.process.returncode, output

    def left_running(self) -> list[psutil.Process]:
        """Return what still runs of it and of its Airflow."""
        home = re.search(r"starts on a fresh database in (\S+)", self.log.read_text())
        assert home is not None
        found = session_members(self.process.pid)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("AIRFLOW_HOME") == home[1] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def demo(capy: EmulatorControl, tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Starts demos; what is left of one is ended with the test, and its Airflow with it."""
    demos: list[Demo] = []

    def start(*arguments: str, connection: str | None = None) -> Demo:
        log = tmp_path / f"demo-{len(demos)}.log"
        demos.append(Demo(connection or capy.connection_json(), log, arguments))
        return demos[-1]

    yield start
    for demo in demos:
        end_session(demo.process.pid)
        demo.process.wait()


def test_a_real_capy_costs_nothing_without_consent(demo: Callable[..., Demo]) -> None:
    # Nobody answers at this address: a request would end the demo with another code.
    away = (
        '{"conn_type": "capy", "host": "capy.invalid/api", "password": "capy_t", "extra": {"project_id": "prj_demo"}}'
    )
    for started in [demo(*arguments, connection=away) for arguments in ((), ("--yes-real",), ("--repo", "acme/web"))]:
        code, output = started.ended()
        assert code == 2, output
        assert "leads to a real Capy: https://capy.invalid/api, project prj_demo" in output
        assert "every one of them costs money" in output


def test_a_demo_that_shows_too_little_fails_and_says_what(capy: EmulatorControl, demo: Callable[..., Demo]) -> None:
    # All come to their own end at once, also the one that should be cancelled while it works.
    capy.script(seconds=0.5)
    code, output = demo(*CONSENT).ended()
    assert code == 1, output
    assert "a real Capy" in output
    assert "   seen   the schedule started 3 threads, 3 of them finished" in output
    assert re.search(r"   seen   the deploy started \d+\.\d s after its thread was ready", output)
    assert "NOT SEEN  a run that is cancelled while its thread works" in output
    assert "Threads: 5 started, 4 finished, 0 stopped." in output
    bodies = [request["body"] for request in capy.requests("createAndStartThread")]
    repos = [body["repos"] for body in bodies if "repos" in body]
    assert repos == [[{"repoFullName": "acme/web", "branch": "release"}]] * 2


def test_an_interrupted_demo_leaves_neither_processes_nor_threads(
    capy: EmulatorControl, demo: Callable[..., Demo]
) -> None:
    capy.script(life="forever")
    running = demo(*CONSENT)
    running.until(lambda: sum(thread["run_state"] == "running" for thread in capy.threads()) == 3)
    running.process.send_signal(signal.SIGINT)
    code, output = running.ended()
    assert code == 130, output
    assert running.left_running() == []
    assert [thread["stopped"] is not None for thread in capy.threads()] == [True] * 3
