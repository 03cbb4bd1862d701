"""Every way of waiting on a really running Airflow: the same states, XComs and errors for the same thread."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.emulator.addresses import TOKEN
from tests.e2e.dags.ways_of_waiting import OPERATORS, OUTCOMES, SENSORS

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import ThreadTruth
    from airflow_provider_capy.emulator.server import EmulatorProcess
    from tests.harness.airflow import LocalAirflow

DAG = "ways_of_waiting"
SECRET = "Pfirsichbaum steht im Auftrag"
LIVES = {
    "ready": "default",
    "blocked_fail": "blocked",
    "blocked_skip": "blocked",
    "archived": "archived",
    "task_error": "task_error",
}
STATES = {
    "ready": "success",
    "blocked_fail": "failed",
    "blocked_skip": "skipped",
    "archived": "failed",
    "task_error": "failed",
    "timeout": "failed",
}
ERRORS = {
    "blocked_fail": dict.fromkeys(("sensor", "operator"), "CapyThreadBlockedError"),
    "archived": dict.fromkeys(("sensor", "operator"), "CapyThreadArchivedError"),
    "task_error": dict.fromkeys(("sensor", "operator"), "CapyThreadTaskError"),
    "timeout": {"sensor": "AirflowSensorTimeout", "operator": "CapyThreadTimeoutError"},
}
SEEN = {
    "ready": ("ready", "ready"),
    "blocked_fail": ("blocked", "blocked"),
    "blocked_skip": ("blocked", "blocked"),
    "archived": ("archived", "running"),
    "task_error": ("task_error", "ready"),
    "timeout": ("timeout", "running"),
}
KEYS = ("thread_id", "thread_url", "thread", "return_value")
KINDS = {"sensor": SENSORS, "operator": OPERATORS}


@dataclass
class Waited:
    """What a run of the DAG left behind.

    Attributes:
        tasks: the task instances by name.
        xcoms: by task and key.
        logs: of the tasks.
        files: the text of every log file of the instance.
        watched: the thread that the sensors of an outcome waited for.
        started: the truth about the threads that the operators of an outcome started.
    """

    tasks: dict[str, dict[str, Any]]
    xcoms: dict[str, dict[str, Any]]
    logs: dict[str, str]
    files: dict[str, str]
    watched: dict[str, ThreadTruth]
    started: dict[str, list[ThreadTruth]]


@pytest.fixture(scope="module")
def waited(airflow: LocalAirflow, capy_process: EmulatorProcess) -> Waited:
    """Run the DAG once; the threads end when those that hold no worker have begun to wait."""
    capy = capy_process.control
    capy.reset()
    threads = {outcome: capy.create(life="forever")[0] for outcome in OUTCOMES}
    for outcome, life in LIVES.items():
        # Long enough for the process that deferred to have ended: Airflow loses a task that is resumed before.
        capy.script(f"[{outcome}]", life, seconds=20)
    capy.script("[timeout]", "forever")
    run_id = airflow.trigger(DAG, {"threads": threads, "secret": SECRET})
    for outcome in LIVES:
        airflow.wait_for_deferral(DAG, run_id, f"sensor_deferrable_{outcome}", timeout=300)
        airflow.wait_for_task(DAG, run_id, f"sensor_reschedule_{outcome}", {"up_for_reschedule"}, timeout=300)
    for outcome, life in LIVES.items():
        capy.set_life(threads[outcome], life, seconds=3)
    airflow.wait_for_run(DAG, run_id, timeout=600)
    tasks = airflow.tasks(DAG, run_id)
    return Waited(
        tasks=tasks,
        xcoms={name: {key: airflow.xcom(DAG, run_id, name, key) for key in KEYS} for name in tasks},
        logs={name: airflow.task_log(DAG, run_id, name) for name in tasks},
        files={
            str(path): path.read_text(errors="replace") for path in (airflow.home / "logs").rglob("*") if path.is_file()
        },
        watched={outcome: capy.thread(threads[outcome]) for outcome in OUTCOMES},
        started={
            outcome: [truth for truth in capy.threads() if truth["prompt"].startswith(f"[{outcome}]")]
            for outcome in OUTCOMES
        },
    )


# Whichever test comes first runs the DAG.
pytestmark = pytest.mark.timeout(1500)
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_OUTCOME = pytest.mark.parametrize("outcome", OUTCOMES)


def test_every_task_ends_as_its_outcome_wants(waited: Waited) -> None:
    assert {name: task["state"] for name, task in waited.tasks.items()} == {
        f"{kind}_{mode}_{outcome}": state
        for outcome, state in [*STATES.items(), ("soft", "skipped")]
        for kind, modes in KINDS.items()
        for mode in modes
        if outcome in OUTCOMES or kind == "sensor"
    }


def test_no_task_was_tried_twice(waited: Waited) -> None:
    assert {name: task["try_number"] for name, task in waited.tasks.items()} == dict.fromkeys(waited.tasks, 1)


def test_those_that_shall_wait_in_the_triggerer_did(waited: Waited) -> None:
    deferred = {name for name, log in waited.logs.items() if "Pausing task as DEFERRED" in log}
    assert deferred == {name for name in waited.tasks if "_deferrable_" in name}


@EVERY_KIND
@EVERY_OUTCOME
def test_every_way_of_waiting_leaves_the_same_xcoms(kind: str, outcome: str, waited: Waited) -> None:
    told: dict[str, Any] = {}
    for mode in KINDS[kind]:
        xcoms = waited.xcoms[f"{kind}_{mode}_{outcome}"]
        summary, thread_id = xcoms["thread"], xcoms["thread_id"]
        assert (mode, summary["outcome"], summary["run_state"]) == (mode, *SEEN[outcome])
        assert summary["thread_id"] == thread_id
        assert xcoms["thread_url"] == summary["thread_url"]
        assert xcoms["thread_url"].endswith(f"/project/prj_demo/captain/{thread_id}")
        wanted = thread_id if kind == "operator" else summary
        assert xcoms["return_value"] == (wanted if STATES[outcome] == "success" else None)
        if kind == "sensor":
            assert thread_id == waited.watched[outcome]["id"]
        told[mode] = {
            **{key: summary[key] for key in ("outcome", "status", "run_state", "blocked_on", "waiting_on")},
            "tasks": [task["status"] for task in summary["tasks"]],
            "pull_requests": [request["state"] for request in summary["pull_requests"]],
        }
    assert told == dict.fromkeys(KINDS[kind], told[next(iter(KINDS[kind]))])


@EVERY_KIND
@pytest.mark.parametrize("outcome", ERRORS)
def test_every_way_of_waiting_raises_the_same(kind: str, outcome: str, waited: Waited) -> None:
    wanted = ERRORS[outcome][kind]
    raised = {mode: _raised(waited.logs[f"{kind}_{mode}_{outcome}"]) for mode in KINDS[kind]}
    assert raised == dict.fromkeys(KINDS[kind], wanted)


@EVERY_OUTCOME
def test_only_a_timeout_of_the_task_that_started_a_thread_stops_it(outcome: str, waited: Waited) -> None:
    stopped = [bool(truth["stops"]) for truth in waited.started[outcome]]
    assert stopped == [outcome == "timeout"] * len(OPERATORS)
    assert waited.watched[outcome]["stops"] == []


@pytest.mark.parametrize("mode", OPERATORS)
def test_an_error_ends_with_the_fate_of_the_thread(mode: str, waited: Waited) -> None:
    assert "It was stopped. A retry starts a new thread" in waited.logs[f"operator_{mode}_timeout"]


def test_each_change_of_state_is_told_once(waited: Waited) -> None:
    for name, log in waited.logs.items():
        told = re.findall(rf" info Thread {waited.xcoms[name]['thread_id']} is (\S+(?: \([^)]*\))?)", log)
        assert (name, told) == (name, [state for state, _ in groupby(told)])


def test_each_operator_tells_once_what_it_created_and_how_it_ended(waited: Waited) -> None:
    for name in (name for name in waited.tasks if name.startswith("operator")):
        thread_id, url = waited.xcoms[name]["thread_id"], waited.xcoms[name]["thread_url"]
        assert (name, waited.logs[name].count(f"Thread {thread_id} created: {url}")) == (name, 1)
        ended = waited.logs[name].count(f"Thread {thread_id} ended as ready: {url}")
        assert (name, ended) == (name, int(name.endswith("_ready")))


def test_no_log_shows_a_prompt_a_token_or_a_header(waited: Waited) -> None:
    assert any(".log.trigger." in path for path in waited.files)
    shown = {
        path: found
        for path, text in waited.files.items()
        if (found := [word for word in (SECRET, f'"{TOKEN}"', f"'{TOKEN}'", f"Bearer {TOKEN}") if word in text])
    }
    assert shown == {}


def _raised(log: str) -> str:
    """Return the class of the exception that failed the task."""
    return str(re.findall(r"(?m)^  (\w+): ", log)[-1])
