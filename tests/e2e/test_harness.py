"""The other tests believe what the harness tells them, so it is tried on plain DAGs first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.harness.airflow import LocalAirflow
from tests.harness.client import AirflowError
from tests.harness.processes import Component, session_members
from tests.harness.settings import port_is_free, without_airflow

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[2]


def test_a_run_succeeds_and_can_be_read(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger("harness_smoke", {"name": "Ada"})
    assert airflow.wait_for_run("harness_smoke", run_id) == "success"
    assert airflow.task_states("harness_smoke", run_id) == {
        "greet": "success",
        "wait": "success",
        "shout[0]": "success",
        "shout[1]": "success",
    }
    assert airflow.xcom("harness_smoke", run_id, "greet") == "hello Ada"
    assert airflow.xcom("harness_smoke", run_id, "shout", map_index=1) == "B"
    assert airflow.xcom("harness_smoke", run_id, "greet", "no_such_key") is None
    assert "a line for the log" in airflow.task_log("harness_smoke", run_id, "greet")
    assert airflow.extra_links("harness_smoke", run_id, "greet") == {}


def test_the_log_of_a_failed_task_shows_where_and_why(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger("harness_bad")
    with pytest.raises(AirflowError, match=r"(?s)it is failed.*ValueError: bad luck"):
        airflow.wait_for_run("harness_bad", run_id, {"success"})
    log = airflow.task_log("harness_bad", run_id, "fail")
    assert re.search(r"(?s)harness_smoke.py:\d+ in fail\n  KeyError: 'missing'.*ValueError: bad luck", log)


def test_marking_a_run_failed_ends_what_runs_and_what_waits(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger("harness_long")
    airflow.wait_for_task("harness_long", run_id, "sleep", {"running"})
    airflow.wait_for_task("harness_long", run_id, "wait", {"deferred"})
    airflow.mark_run("harness_long", run_id, "failed")
    assert airflow.wait_for_run("harness_long", run_id) == "failed"
    assert airflow.task_states("harness_long", run_id) == {"sleep": "failed", "wait": "failed"}


def test_tasks_can_be_marked_and_cleared(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger("harness_long")
    airflow.wait_for_task("harness_long", run_id, "wait", {"deferred"})
    airflow.clear_task("harness_long", run_id, "wait")
    airflow.wait_for_task("harness_long", run_id, "wait", {"deferred"}, try_number=2)
    airflow.mark_task("harness_long", run_id, "wait", "success")
    airflow.mark_task("harness_long", run_id, "sleep", "skipped")
    assert airflow.wait_for_run("harness_long", run_id) == "success"


def test_a_wait_that_takes_too_long_shows_states_and_logs(airflow: LocalAirflow) -> None:
    run_id = airflow.trigger("harness_long")
    airflow.wait_for_task("harness_long", run_id, "sleep", {"running"})
    airflow.wait_until("log", lambda: "asleep" in airflow.task_log("harness_long", run_id, "sleep"), timeout=30)
    with pytest.raises(AirflowError, match=r"(?s)not within 0.1 s.*'sleep': 'running'.*asleep"):
        airflow.wait_for_run("harness_long", run_id, timeout=0.1)
    airflow.mark_run("harness_long", run_id, "failed")
    with pytest.raises(AirflowError, match="it is failed"):
        airflow.wait_for_run("harness_long", run_id, {"success"})
    with pytest.raises(AirflowError, match="the run is over, and it is failed"):
        airflow.wait_for_task("harness_long", run_id, "sleep", {"success"})


def test_components_can_be_killed_frozen_and_restarted(airflow: LocalAirflow) -> None:
    triggerer = airflow.component("triggerer")
    triggerer.freeze()
    assert {process.status() for process in triggerer.members()} == {psutil.STATUS_STOPPED}
    triggerer.thaw()
    triggerer.kill(children=True)
    assert triggerer.wait() == -signal.SIGKILL
    run_id = airflow.trigger("harness_smoke")
    airflow.wait_for_task("harness_smoke", run_id, "wait", {"deferred"})
    airflow.restart("triggerer")
    assert airflow.wait_for_run("harness_smoke", run_id) == "success"
    assert "Starting the triggerer" in triggerer.log_text()


def test_an_import_error_fails_the_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "broken.py").write_text("from airflow.sdk import DAG\nraise ValueError('no DAG today')\n")
    airflow = LocalAirflow(tmp_path / "home", dags)
    with pytest.raises(AirflowError, match="no DAG today"):
        airflow.start()
    assert set(airflow.components) == {"api-server", "dag-processor", "scheduler", "triggerer"}
    assert [component.members() for component in airflow.components.values()] == [[], [], [], []]
    assert all(
        port_is_free(port) for port in (airflow.ports.api, airflow.ports.worker_logs, airflow.ports.trigger_logs)
    )


def test_another_airflow_of_the_caller_is_not_touched() -> None:
    environment = {"AIRFLOW_HOME": "/x", "AIRFLOW__CORE__FERNET_KEY": "x", "AIRFLOW_CONN_A": "x", "PATH": "/bin"}
    assert without_airflow(environment) == {"PATH": "/bin"}


# A parent with an orphan, a child with a process group of its own, and one that has left the session.
FAMILY = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, process_group=0) if sys.version_info >= (3, 11) else subprocess.Popen(sleep, preexec_fn=os.setpgrp)
subprocess.Popen(sleep, start_new_session=True)
if os.fork() == 0:
    subprocess.Popen(sleep)
    os._exit(0)
time.sleep(600)
"""


def _eventually(condition: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_component_ends_with_all_its_descendants(tmp_path: Path) -> None:
    component = Component(
        "family", [sys.executable, "-c", FAMILY], env=dict(os.environ), directory=tmp_path, log_file=tmp_path / "log"
    )
    component.start()
    try:
        _eventually(lambda: len(component.members()) == 4)
        family = component.members()
    finally:
        component.stop()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_nothing_outlives_an_owner_that_died_suddenly(tmp_path: Path) -> None:
    owner = """
import os, sys
from pathlib import Path
from tests.harness.guard import Guard
from tests.harness.processes import Component
component = Component(
    "sleeper", [sys.executable, "-c", "import time; time.sleep(600)"],
    env=dict(os.environ), directory=Path(sys.argv[1]), log_file=Path(sys.argv[1], "log"),
)
guard = Guard()
component.start()
guard.watch(component.pid)
print(component.pid, flush=True)
os._exit(1)
"""
    result = subprocess.run(
        [sys.executable, "-c", owner, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    session = int(result.stdout)
    _eventually(lambda: not session_members(session))
