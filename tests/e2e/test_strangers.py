"""Nothing that is not Capy's own lasting word ends a wait or loses a thread: strangers' pages, outages, tokens, backends.

All tasks are of one run, since each of them mostly waits.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.e2e.refusing_xcom import DAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl, LoggedRequest, ThreadTruth
    from tests.harness.airflow import LocalAirflow

RETRY_AFTER = 8.0
OUTAGE_SECONDS = 18.0
LIFE_SECONDS = 16.0
FAILS = {"refused_thread_id", "rotated"}
OUTAGES = ("outage_worker", "outage_deferred", "outage_group.create", "outage_group.wait", "outage_reschedule")
WAITING = {"running", "deferred", "up_for_reschedule"}


@dataclass
class Went:
    """How the run went.

    Attributes:
        tasks: its task instances.
        threads: what the emulator knows, by the first word of their prompts.
        requests: every request about a thread.
        logs: of the tasks.
        report: of the task that stops.
        began: epoch seconds at which the outage began.
    """

    tasks: dict[str, dict[str, Any]]
    threads: dict[str, list[ThreadTruth]]
    requests: list[LoggedRequest]
    logs: dict[str, str]
    report: dict[str, Any]
    began: float

    def of(self, name: str) -> list[LoggedRequest]:
        """Return the requests about the threads of a scene."""
        ids = {truth["id"] for truth in self.threads[name]}
        return [request for request in self.requests if request["thread_id"] in ids]


@pytest.fixture(scope="module")
def rotating(airflow: LocalAirflow) -> Iterator[EmulatorControl]:
    """A Capy of its own, whose token changes, with the connection `capy_rotated` in Airflow's database."""
    with EmulatorProcess() as process:
        told = json.loads(process.control.connection_json())
        body = {**told, "connection_id": "capy_rotated", "extra": json.dumps(told["extra"])}
        airflow.request("POST", "/connections", json=body)
        yield process.control


@pytest.fixture(scope="module")
def went(airflow: LocalAirflow, capy_process: EmulatorProcess, rotating: EmulatorControl) -> Went:
    """Run the DAG once, and let everything happen to it."""
    capy = capy_process.control
    capy.reset()
    for life in ("[outage]", "[watched]"):
        capy.script(life, life="forever")
    for name in ("page_once", "just_created", "told_when", "refused_thread_url"):
        capy.script(f"[{name}]", seconds=LIFE_SECONDS)
    capy.script("[refused_thread_id]", life="forever")
    rotating.script(life="forever")
    [watched] = capy.create("[watched]", life="forever")
    [stopped] = capy.create("[page_in_stop]", life="forever", stop_seconds=1)
    capy.fault("status", "getThread", status=404, body="html", match="[page_once]", skip=2, times=1)
    capy.fault("status", "getThread", status=404, body="html", match=stopped, times=2)
    capy.fault("status", "stopThread", status=404, body="html", match=stopped, times=1)
    capy.fault("status", "getThread", status=404, match="[just_created]", times=2)
    capy.fault("status", "getThread", status=429, retry_after=RETRY_AFTER, match="[told_when]", skip=1, times=1)
    run_id = airflow.trigger(DAG, {"watched": watched, "stopped": stopped})
    airflow.wait_until("the token is in use", lambda: rotating.requests("getThread"), 120)
    rotate(airflow, rotating)
    for task in OUTAGES:
        states = {"success"} if task.endswith("create") else WAITING
        airflow.wait_for_task(DAG, run_id, task, states, timeout=120)
    airflow.wait_until("the worker waits", lambda: airflow.xcom(DAG, run_id, "outage_worker", "thread_id"), 60)
    began = time.time()
    capy.fault("reset", "getThread", match="[outage]")
    capy.fault("reset", "getThread", match="[watched]")
    capy.fault("status", "listThreads", status=503, body="html")
    time.sleep(OUTAGE_SECONDS)
    capy.clear_faults()
    for truth in capy.threads():
        if truth["prompt"].startswith(("[outage]", "[watched]")):
            capy.set_life(truth["id"], seconds=1)
    airflow.wait_until("the run is over", lambda: airflow.run_state(DAG, run_id) == "failed", 120)
    threads: dict[str, list[ThreadTruth]] = {}
    for truth in capy.threads() + rotating.threads():
        threads.setdefault(truth["prompt"].split("]")[0].removeprefix("["), []).append(truth)
    tasks = airflow.tasks(DAG, run_id)
    return Went(
        tasks=tasks,
        threads=threads,
        requests=capy.requests() + rotating.requests(),
        logs={name: airflow.task_log(DAG, run_id, name) for name in tasks},
        report=airflow.xcom(DAG, run_id, "page_in_stop")[0],
        began=began,
    )


def rotate(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    """Change the token at Capy, and then in the connection."""
    capy.organisation(token="capy_rotated_token")
    body = {"connection_id": "capy_rotated", "conn_type": "capy", "password": "capy_rotated_token"}
    airflow.request("PATCH", "/connections/capy_rotated", params={"update_mask": "password"}, json=body)


pytestmark = pytest.mark.timeout(600)


def test_every_task_but_those_that_must_fail_succeeds_in_its_first_try(went: Went) -> None:
    ended = {name: (task["state"], task["try_number"]) for name, task in went.tasks.items()}
    assert ended == {name: ("failed" if name in FAILS else "success", 1) for name in ended}


@pytest.mark.parametrize("name", ["page_once", "just_created", "told_when", "refused_thread_url", "outage"])
def test_no_second_thread_is_started_and_none_is_stopped(went: Went, name: str) -> None:
    threads = went.threads[name]
    assert len(threads) == (3 if name == "outage" else 1)
    assert [truth["stops"] for truth in threads] == [[]] * len(threads)


def test_the_strangers_answers_were_given(went: Went) -> None:
    assert [request["status"] for request in went.of("page_once")].count(404) == 1
    assert [request["status"] for request in went.of("just_created")].count(404) == 2
    assert [request["status"] for request in went.of("page_in_stop")].count(404) == 3


def test_a_stop_sees_past_the_page_of_an_ingress(went: Went) -> None:
    assert (went.report["result"], went.report["stopped_by_us"]) == ("stopped", True)
    assert went.threads["page_in_stop"][0]["stopped"] is not None


def test_a_wait_comes_back_when_it_is_told_to(went: Went) -> None:
    requests = went.of("told_when")
    (place,) = (place for place, request in enumerate(requests) if request["status"] == 429)
    assert requests[place + 1]["time"] - requests[place]["time"] >= RETRY_AFTER


def test_a_wait_and_its_last_stop_go_on_with_a_new_token(went: Went) -> None:
    statuses = [request["status"] for request in went.of("rotated")]
    assert 401 in statuses
    assert statuses[-1] == 200
    (truth,) = went.threads["rotated"]
    assert truth["stopped"] is not None
    assert "It was stopped" in went.logs["rotated"]


def test_a_thread_whose_id_cannot_be_kept_is_stopped_and_the_error_says_so(went: Went) -> None:
    (truth,) = went.threads["refused_thread_id"]
    assert truth["stopped"] is not None
    assert "was stopped" in went.logs["refused_thread_id"]


def test_an_outage_is_waited_out_ever_more_patiently(went: Went) -> None:
    during = [request["time"] - went.began for request in went.of("outage") if request["status"] == "dropped"]
    thirds = [sum(third <= when * 3 / OUTAGE_SECONDS < third + 1 for when in during) for third in range(3)]
    assert thirds[2] <= thirds[0]
    assert 3 <= len(during) <= 60
