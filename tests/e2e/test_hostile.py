"""What Capy says goes into Airflow's database: on PostgreSQL, no text, number or size of it stops a triggerer or a task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.e2e.conftest import DAGS
from tests.harness.airflow import LocalAirflow
from tests.harness.services import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.emulator.server import EmulatorProcess

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

TRIGGERERS = ("triggerer", "triggerer-2")
TASKS = 8
LIFE_SECONDS = 12.0


def saying(text: str) -> dict[str, Any]:
    """Return an answer that says a text wherever it can."""
    task = {"id": text, "identifier": text, "title": text, "status": "completed", "assignee": text}
    pull = {"number": 1, "url": f"https://git.example/{text}", "repoFullName": text, "state": text, "headRef": text}
    return {
        "title": text,
        "tasks": [task],
        "pullRequests": [{**pull, "baseRef": text, "draft": False}],
        "participants": [{"userId": text, "userType": text}],
        "tags": [{"name": text, "color": text}],
        "createdAt": text,
        "updatedAt": text,
        text: text,
    }


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = {"more": [value]}
    return value


HOSTILE: dict[str, str] = {
    "nul": json.dumps(saying("Fix \u0000 byte")),
    "half": json.dumps(saying("Fix \ud83d")),
    "sizes": json.dumps(
        {
            "title": "x" * 2_000_000,
            "tasks": [
                {"id": "t", "identifier": f"T-{n}", "title": "t" * 500, "status": "completed"} for n in range(2000)
            ],
            "pullRequests": [{"number": n, "url": "https://git.example/" + "u" * 3000} for n in range(500)],
        }
    ),
    "numbers": json.dumps(
        {
            "pullRequests": [{"number": 2**64, "url": "https://git.example/1"}, {"number": -(10**300), "draft": 2**70}],
            "tasks": [{"id": 2**64, "identifier": float("nan"), "title": float("inf"), "status": "completed"}],
            "title": 2**100,
            "usage": {"credits": float("nan"), "deep": nested(300)},
        }
    ),
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, capy_process: EmulatorProcess) -> Iterator[LocalAirflow]:
    """An Airflow on PostgreSQL, whose jsonb refuses what SQLite keeps, with two triggerers."""
    env = {
        "AIRFLOW_CONN_CAPY_DEFAULT": capy_process.control.connection_json(),
        "AIRFLOW__CORE__PARALLELISM": "12",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "32",
    }
    home = tmp_path_factory.mktemp("airflow-hostile")
    with (
        Postgres() as postgres,
        LocalAirflow(home, DAGS, database=postgres.url("airflow"), triggerers=2, env=env) as airflow,
    ):
        yield airflow


def runners(airflow: LocalAirflow) -> set[int]:
    """Return the processes of all triggerers; a runner that died would be missing, or another one."""
    return {process.pid for name in TRIGGERERS for process in airflow.component(name).members()}


@dataclass
class Went:
    """How the runs went."""

    airflow: LocalAirflow
    runs: dict[str, str]
    before: set[int]


@pytest.fixture(scope="module")
def went(airflow: LocalAirflow, capy_process: EmulatorProcess) -> Went:
    """One run for each kind, beside each other, and one that nothing befalls and that ends last."""
    capy: EmulatorControl = capy_process.control
    capy.reset()
    capy.script(seconds=LIFE_SECONDS)
    capy.script("[neighbour]", life="forever")
    for name, patch in HOSTILE.items():
        capy.fault("distort", match=f"[{name}]", patch=patch)
    # Of lists, every thread of the project says all that no reader of lists decides by.
    capy.fault("distort", "listThreads", patch=HOSTILE["nul"])
    before = runners(airflow)
    neighbour = airflow.trigger("hostile_neighbour")
    airflow.wait_for_task("hostile_neighbour", neighbour, "wait", {"deferred"}, 120)
    runs = {name: airflow.trigger("hostile", {"name": name}) for name in HOSTILE}
    for run_id in runs.values():
        airflow.wait_for_run("hostile", run_id, timeout=240)
    for truth in capy.threads():
        capy.set_life(truth["id"], seconds=0)
    airflow.wait_for_run("hostile_neighbour", neighbour, timeout=60)
    return Went(airflow, runs, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_way_of_waiting_succeeds_at_once(went: Went, name: str) -> None:
    tasks = went.airflow.tasks("hostile", went.runs[name])
    assert len(tasks) == TASKS
    assert {task: (found["state"], found["try_number"]) for task, found in tasks.items()} == dict.fromkeys(
        tasks, ("success", 1)
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_what_downstream_tasks_get_is_short_and_clean(went: Went, name: str) -> None:
    for task in ("operator_deferred", "operator_worker", "group_deferred.wait", "group_poke.wait"):
        thread = went.airflow.xcom("hostile", went.runs[name], task, "thread")
        assert (thread["outcome"], thread["run_state"]) == ("ready", "ready")
        text = json.dumps(thread, allow_nan=False)
        assert len(text) < 1_000_000
        assert "\\u0000" not in text
        text.encode()


def test_no_triggerer_was_stopped_by_it(went: Went) -> None:
    assert all(went.airflow.component(name).running for name in TRIGGERERS)
    assert went.before <= runners(went.airflow)
    assert all(psutil.pid_exists(pid) for pid in went.before)


def test_no_thread_was_started_twice_or_stopped(went: Went, capy_process: EmulatorProcess) -> None:
    threads = capy_process.control.threads()
    assert [truth["stops"] for truth in threads] == [[]] * (5 * len(HOSTILE) + 1)
