"""Every way of waiting gives the same verdicts, exceptions and XComs for the same thread."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from tests.unit.worker import TASK_ID, Ran, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")

POKE = 0.1
OPERATOR = {"operator in the worker": False, "operator deferrable": True}
SENSOR: dict[str, dict[str, Any]] = {
    "sensor poke": {"mode": "poke"},
    "sensor reschedule": {"mode": "reschedule"},
    "sensor deferrable": {"deferrable": True},
}
MODES = [*OPERATOR, *SENSOR]
PASSING = {"kind": "status", "operation": "getThread", "status": 503, "body": "html"}


@dataclass(frozen=True)
class Case:
    """One outcome.

    Attributes:
        state: of the task.
        error: what it raises.
        says: parts of the error's message.
        outcome: in the summary; ``None`` for no summary.
        life: how the thread lives, as the emulator's script takes it.
        faults: what the emulator does wrong.
        arguments: of the operator and the sensor.
        meanwhile: done to the thread while the task waits.
        operator_error: what the operator raises, when that differs from the sensor by design.
        operator_stops: whether the operator stops the thread.
        run_state: of the thread in the summary.
        pull_requests: how many the summary shows.
    """

    state: str = "success"
    error: type[BaseException] | None = None
    says: tuple[str, ...] = ()
    outcome: str | None = "ready"
    life: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    meanwhile: Callable[[EmulatorControl, str], object] | None = None
    operator_error: type[BaseException] | None = None
    operator_stops: bool = False
    run_state: str = "ready"
    pull_requests: int | None = None


def refused(status: int, error: type[BaseException]) -> Case:
    fault = {"kind": "status", "operation": "getThread", "status": status, "skip": 1}
    return Case("failed", error, (f"answered {status}",), None, {"life": "forever"}, (fault,))


def refused_once(status: int, body: str = "json", **more: Any) -> Case:
    fault = {"kind": "status", "operation": "getThread", "status": status, "body": body, "times": 1, **more}
    return Case(faults=(fault,), pull_requests=1)


CASES = {
    "ready": Case(pull_requests=1),
    "several pull requests": Case(life={"life": "several_prs"}, pull_requests=3),
    "ready after pending wakeups": Case(life={"life": "pending_wakeups"}, pull_requests=1),
    "ready after it waited on something": Case(life={"life": "waiting_ready"}, pull_requests=1),
    "start race": Case(life={"life": "start_race", "seconds": 1.0}, pull_requests=1),
    "unknown state passing by": Case(life={"life": "unknown_state", "run_state": "meditating"}, pull_requests=1),
    "task error": Case(life={"life": "task_error"}, pull_requests=0),
    "task error that counts": Case(
        "failed",
        exceptions.CapyThreadTaskError,
        ("failed",),
        "task_error",
        {"life": "task_error"},
        arguments={"fail_on_task_error": True},
    ),
    "blocked, fail": Case(
        "failed",
        exceptions.CapyThreadBlockedError,
        ("blocked on auth, permission", "a person must act"),
        "blocked",
        {"life": "blocked", "blocked_on": ("auth", "permission")},
        run_state="blocked",
    ),
    "blocked, skip": Case(
        "skipped",
        None,
        (),
        "blocked",
        {"life": "blocked"},
        arguments={"on_blocked": "skip"},
        run_state="blocked",
    ),
    "blocked, succeed": Case(
        outcome="blocked", life={"life": "blocked"}, arguments={"on_blocked": "succeed"}, run_state="blocked"
    ),
    "blocked, wait": Case(
        life={"life": "blocked"},
        arguments={"on_blocked": "wait"},
        meanwhile=lambda capy, thread_id: capy.unblock(thread_id),
        pull_requests=1,
    ),
    "archived with a stale run state": Case(
        "failed",
        exceptions.CapyThreadArchivedError,
        ("archived (its run state still reads 'running')", "not a success"),
        "archived",
        {"life": "archived"},
        run_state="running",
    ),
    "archived": Case(
        "failed",
        exceptions.CapyThreadArchivedError,
        ("was archived, which is not a success",),
        "archived",
        {"life": "archived_clean"},
        run_state="archived",
    ),
    "timeout": Case(
        "failed",
        AirflowSensorTimeout,
        ("had not settled in time, last seen 'running'",),
        "timeout",
        {"life": "forever"},
        arguments={"timeout": 0.6},
        operator_error=exceptions.CapyThreadTimeoutError,
        operator_stops=True,
        run_state="running",
    ),
    # The client asks four times before a poll counts as failed.
    "failed polls in between": Case(faults=({**PASSING, "skip": 1, "times": 8},), pull_requests=1),
    "an outage that lasts": Case(
        "failed",
        exceptions.CapyPollError,
        ("could not be looked at for", "answered 503"),
        None,
        {"life": "forever"},
        ({**PASSING, "skip": 1},),
        arguments={"tolerate_outage": 0.5},
    ),
    "a stranger's 404": refused_once(404, "html"),
    "a stranger's 403": refused_once(403, "html", skip=1),
    "Capy's 404 right after the create": refused_once(404),
    "Capy's 403 in between": refused_once(403, skip=1),
    "429": refused_once(429, retry_after=1),
    "401": refused(401, exceptions.CapyUnauthorizedError),
    "403": refused(403, exceptions.CapyForbiddenError),
    "404": refused(404, exceptions.CapyNotFoundError),
    "422": refused(422, exceptions.CapyValidationError),
}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's pauses between attempts are measured elsewhere."""
    from airflow_provider_capy.api import client
    from airflow_provider_capy.polling import poll

    original = client.policy
    monkeypatch.setattr(
        client, "policy", lambda limits, **kwargs: {**original(limits, **kwargs), "wait": lambda _: 0.002}
    )
    monkeypatch.setattr(poll, "wait_before", lambda *_: 0.002)
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


@pytest.fixture
def helper() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def wait_in(mode: str, case: Case, capy: EmulatorControl, helper: ThreadPoolExecutor) -> Ran:
    """Let a thread live its life while a task waits for it in one of the modes."""
    life = {"seconds": 0.5, **case.life}
    capy.script(**life)
    for fault in case.faults:
        capy.fault(**fault)
    meanwhile = helper.submit(act_when_blocked, capy, case.meanwhile) if case.meanwhile else None
    if mode in OPERATOR:
        ran = run_task(
            lambda: CapyCreateThreadOperator(
                task_id=TASK_ID,
                prompt="Fix the bug",
                wait_for_completion=True,
                deferrable=OPERATOR[mode],
                poke_interval=POKE,
                **case.arguments,
            )
        )
    else:
        [thread_id] = capy.create("Fix the bug", origin="api", **life)
        ran = run_task(
            lambda: CapyThreadSensor(
                task_id=TASK_ID, thread_id=thread_id, poke_interval=POKE, **{**SENSOR[mode], **case.arguments}
            )
        )
    if meanwhile is not None:
        meanwhile.result(30)
    return ran


def act_when_blocked(capy: EmulatorControl, act: Callable[[EmulatorControl, str], object]) -> None:
    from tests.harness.waiting import PatientClient

    def blocked() -> list[str]:
        return [thread["id"] for thread in capy.threads() if thread["run_state"] == "blocked"]

    client = PatientClient(capy.api_url)
    try:
        act(capy, client.wait_until("a thread is blocked", blocked, 30, 0.02)[0])
    finally:
        client.close()


def without_what_differs(value: Any, thread_id: str) -> Any:
    """Return a value without what no two threads share: ids, numbers, times."""
    if isinstance(value, dict):
        changing = {"created_at", "updated_at", "number", "url", "head_ref", "identifier", "pull_request_url", "title"}
        return {key: without_what_differs(item, thread_id) for key, item in value.items() if key not in changing}
    if isinstance(value, list):
        return [without_what_differs(item, thread_id) for item in value]
    return value.replace(thread_id, "THREAD") if isinstance(value, str) else value


@pytest.mark.parametrize("name", CASES)
def test_every_way_of_waiting_tells_the_same(
    name: str, capy_emulator: EmulatorControl, helper: ThreadPoolExecutor
) -> None:
    case = CASES[name]
    told: dict[str, Any] = {}
    for mode in MODES:
        capy_emulator.reset()
        ran = wait_in(mode, case, capy_emulator, helper)
        [truth] = capy_emulator.threads()
        thread_id = truth["id"]
        is_operator = mode in OPERATOR
        wanted = (case.operator_error if is_operator else None) or case.error

        assert (mode, ran.state, type(ran.error)) == (mode, case.state, type(None) if wanted is None else wanted)
        assert [part for part in case.says if part not in str(ran.error)] == []
        assert (mode, bool(truth["stops"])) == (mode, is_operator and case.operator_stops)
        summary = ran.xcoms.get("thread")
        assert ran.xcoms["thread_id"] == thread_id
        assert ran.xcoms["thread_url"].endswith(f"/project/prj_demo/captain/{thread_id}")
        assert ran.xcoms.get("return_value") == (
            None if case.state != "success" else thread_id if is_operator else summary
        )
        assert (summary and (summary["outcome"], summary["run_state"])) == (
            case.outcome and (case.outcome, case.run_state)
        )
        if case.pull_requests is not None and summary:
            assert len(summary["pull_requests"]) == case.pull_requests
        if summary and summary["pull_requests"]:
            assert ran.xcoms["pull_request_url"] == summary["pull_requests"][0]["url"]
        if isinstance(ran.error, exceptions.CapyAPIError):
            assert ran.error.status_code == int(name)
        told[mode] = without_what_differs(summary, thread_id)
    assert told == dict.fromkeys(MODES, told[MODES[0]])


def test_a_deferred_task_is_resumed_by_an_event_that_is_plain_json(capy_emulator: EmulatorControl) -> None:
    capy_emulator.script(seconds=0.3)
    ran = run_task(
        lambda: CapyCreateThreadOperator(
            task_id=TASK_ID, prompt="x", wait_for_completion=True, deferrable=True, poke_interval=POKE
        )
    )
    [event] = ran.supervisor.events
    assert json.loads(event)["thread"] == ran.xcoms["thread"]
    assert (ran.looks, ran.deferred) == (2, 1)


def test_a_sensor_does_not_defer_for_a_thread_that_has_settled(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="archived_clean", seconds=0, age=60)
    ran = run_task(lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, deferrable=True))
    assert (ran.state, ran.deferred) == ("failed", 0)


def test_a_rescheduled_sensor_remembers_since_when_it_is_blind(capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault(**PASSING)
    [thread_id] = capy_emulator.create(life="forever")
    ran = run_task(
        lambda: CapyThreadSensor(
            task_id=TASK_ID, thread_id=thread_id, mode="reschedule", poke_interval=POKE, tolerate_outage=0.5
        )
    )
    assert (type(ran.error), ran.looks > 1) == (exceptions.CapyPollError, True)


@pytest.mark.parametrize("mode", SENSOR)
@pytest.mark.parametrize(
    ("arguments", "life", "state"),
    [
        ({"soft_fail": True, "timeout": 0.3}, {"life": "forever"}, "skipped"),
        ({"soft_fail": True}, {"life": "archived", "seconds": 0.2}, "failed"),
        ({"never_fail": True, "timeout": 0.3}, {"life": "forever"}, "skipped"),
        ({"never_fail": True}, {"life": "archived", "seconds": 0.2}, "skipped"),
    ],
    ids=[
        "soft_fail and a timeout",
        "soft_fail and an archive",
        "never_fail and a timeout",
        "never_fail and an archive",
    ],
)
def test_a_sensors_leniency_is_the_same_in_every_mode(
    mode: str, arguments: dict[str, Any], life: dict[str, Any], state: str, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(**life)
    ran = run_task(
        lambda: CapyThreadSensor(
            task_id=TASK_ID, thread_id=thread_id, poke_interval=POKE, **{**SENSOR[mode], **arguments}
        )
    )
    assert (ran.state, ran.xcoms["thread"]["thread_id"]) == (state, thread_id)


@pytest.mark.parametrize("mode", SENSOR)
@pytest.mark.parametrize("arguments", [{"capy_conn_id": "capy_missing"}, {"thread_id": "{{ none }}"}], ids=str)
def test_never_fail_is_for_what_is_wrong_before_the_wait_as_well(
    arguments: dict[str, Any], mode: str, capy_emulator: EmulatorControl
) -> None:
    given = {"thread_id": "jam_1", "poke_interval": POKE, "never_fail": True, **SENSOR[mode], **arguments}
    assert run_task(lambda: CapyThreadSensor(task_id=TASK_ID, **given)).state == "skipped"


@pytest.mark.parametrize("mode", ["sensor poke", "sensor reschedule"])
def test_exponential_backoff_doubles_the_pauses_and_ends_in_time(mode: str, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    began = time.monotonic()
    ran = run_task(
        lambda: CapyThreadSensor(
            task_id=TASK_ID, thread_id=thread_id, poke_interval=0.2, timeout=3, exponential_backoff=True, **SENSOR[mode]
        )
    )
    looks = [request["time"] for request in capy_emulator.requests("getThread")]
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    assert (ran.state, type(ran.error)) == ("failed", AirflowSensorTimeout)
    assert time.monotonic() - began < 6
    # 0.2, 0.4, 0.8, 1.6 seconds, the last one cut by the timeout.
    assert len(looks) <= 6
    assert pauses[2] > 2 * pauses[0]


@pytest.mark.parametrize("mode", SENSOR)
def test_silent_fail_tolerates_any_number_of_failed_polls(mode: str, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault(**PASSING, skip=1, times=40)
    [thread_id] = capy_emulator.create(seconds=0.2)
    ran = run_task(
        lambda: CapyThreadSensor(
            task_id=TASK_ID, thread_id=thread_id, poke_interval=POKE, silent_fail=True, **SENSOR[mode]
        )
    )
    assert (ran.state, ran.xcoms["thread"]["outcome"]) == ("success", "ready")


def test_the_link_follows_the_project_that_capy_names(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(project_id="prj_other", seconds=0.1)
    ran = run_task(lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=POKE))
    assert ran.xcoms["thread_url"].endswith(f"/project/prj_other/captain/{thread_id}")


def test_poke_looks_once(capy_emulator: EmulatorControl) -> None:
    [working, blocked, done] = [
        *capy_emulator.create(life="forever"),
        *capy_emulator.create(life="blocked", seconds=0),
        *capy_emulator.create(seconds=0, age=60),
    ]

    class LookOnce(CapyThreadSensor):
        def execute(self, context: Any) -> bool:
            return self.poke(context)

    def look(thread_id: str, **arguments: Any) -> Ran:
        return run_task(lambda: LookOnce(task_id=TASK_ID, thread_id=thread_id, **arguments))

    assert look(working).xcoms["return_value"] is False
    assert look(done).xcoms["return_value"] is True
    assert isinstance(look(blocked).error, exceptions.CapyThreadBlockedError)
    assert look(blocked, on_blocked="skip").state == "skipped"
