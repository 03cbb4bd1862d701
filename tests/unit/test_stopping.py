"""A stop is idempotent, bounded and confirmed, whatever Capy answers."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from airflow_provider_capy import lifecycle, stopping
from airflow_provider_capy.api import AsyncCapyClient, CapyClient
from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.api.settings import ClientSettings
from airflow_provider_capy.exceptions import (
    CapyConflictError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyResponseError,
    CapyServerError,
)
from airflow_provider_capy.flow import Ask, Pause, arun, run
from airflow_provider_capy.looking import look_surely
from airflow_provider_capy.stopping import Found, StopReport, request_stop, stop_and_confirm

if TYPE_CHECKING:
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.flow import Flow

Drive = "Callable[[Flow[StopReport]], StopReport]"
QUICK = RetryLimits(attempts=2, total=5.0, base=0.01, cap=0.02)


@pytest.fixture(params=["worker", "event loop"])
def drive(request: pytest.FixtureRequest, capy_emulator: EmulatorControl) -> Any:
    """Drives a stop against the emulator, both ways."""
    settings = ClientSettings(
        token=SecretStr(capy_emulator.token),
        base_url=capy_emulator.api_url,
        read_timeout=1.0,
        retry=QUICK,
    )

    def in_worker(flow: Flow[StopReport]) -> StopReport:
        with CapyClient(settings) as client:
            return run(flow, client)

    def in_loop(flow: Flow[StopReport]) -> StopReport:
        async def go() -> StopReport:
            async with AsyncCapyClient(settings) as client:
                return await arun(flow, client)

        return asyncio.run(go())

    return in_worker if request.param == "worker" else in_loop


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(lifecycle, "STANDS_AFTER", 1.0)
    monkeypatch.setattr(lifecycle, "SOONEST_AGAIN", 0.1)


def confirm(thread_id: str, timeout: float = 20.0) -> Flow[StopReport]:
    return stop_and_confirm(thread_id, until=time.time() + timeout, clock=time.time)


def phases(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"at": number * 1000, **step} for number, step in enumerate(steps)]


@pytest.mark.parametrize(
    "state",
    [
        {"run_state": "running"},
        {"run_state": "queued"},
        {"run_state": "waiting", "waiting_on": ["ci"]},
        {"run_state": "meditating"},
    ],
    ids=lambda state: state["run_state"],
)
def test_a_thread_at_work_is_stopped_and_seen_at_rest(
    state: dict[str, Any], drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(phases=phases(state), age=60)
    report = drive(confirm(thread_id))
    assert (report.result, report.run_state, report.stopped_by_us, report.is_over, report.project_id) == (
        Found.STOPPED,
        "ready",
        True,
        True,
        "prj_demo",
    )
    assert len(capy_emulator.stops(thread_id)) == 1


@pytest.mark.parametrize(
    ("life", "state"), [("default", "ready"), ("archived", "running"), ("archived_clean", "archived")]
)
def test_a_thread_at_rest_is_left_alone(life: str, state: str, drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life=life, seconds=0, age=60)
    report = drive(confirm(thread_id))
    assert report == StopReport(thread_id, Found.ALREADY_SETTLED, state, project_id="prj_demo")
    assert (report.in_words, capy_emulator.stops(thread_id)) == (f"it had nothing left to stop ({state})", [])


def test_stopping_twice_says_that_there_is_nothing_left(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(phases=phases({"run_state": "running"}), age=60)
    assert [drive(confirm(thread_id)).result for _ in range(2)] == [Found.STOPPED, Found.ALREADY_SETTLED]
    assert len(capy_emulator.stops(thread_id)) == 1


def test_a_blocked_thread_is_asked_once_because_an_answer_would_wake_it(
    drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="blocked", seconds=0)
    report = drive(confirm(thread_id))
    assert (report.result, report.run_state, len(capy_emulator.requests("stopThread"))) == (
        Found.STOPPED,
        "blocked",
        1,
    )


def test_a_blocked_thread_can_be_spared(drive: Any, capy_emulator: EmulatorControl) -> None:
    [blocked] = capy_emulator.create(life="blocked", seconds=0)
    [working] = capy_emulator.create(phases=phases({"run_state": "running"}), age=60)
    reports = [
        drive(stop_and_confirm(thread_id, until=time.time() + 20, clock=time.time, spare_blocked=True))
        for thread_id in (blocked, working)
    ]
    assert [(report.result, report.run_state, report.stopped_by_us) for report in reports] == [
        (Found.ALREADY_SETTLED, "blocked", False),
        (Found.STOPPED, "ready", True),
    ]
    assert [bool(capy_emulator.stops(thread_id)) for thread_id in (blocked, working)] == [False, True]


def test_a_ready_that_is_only_a_start_is_asked_and_looked_at_until_it_is_stopped(
    drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="start_race", seconds=5)
    report = drive(confirm(thread_id))
    assert (report.result, report.run_state, capy_emulator.thread(thread_id)["over"]) == (Found.STOPPED, "ready", True)


class Young:
    """A Capy whose thread reads ready until it is ``starts`` seconds old, and works then unless it was stopped before.

    Attributes:
        now: epoch seconds; only pauses move it.
        stops: what the stops are answered with, one after another: an error, or ``None`` when they are taken.
        asked: the age at each stop.
    """

    def __init__(self, age: float, *stops: Exception | None, starts: float = 8.0) -> None:
        self.now = BORN + age
        self.stops = list(stops)
        self.asked: list[float] = []
        self._starts = starts
        self._is_stopped = False

    @property
    def works(self) -> bool:
        return not self._is_stopped and self.now - BORN >= self._starts

    def send(self, call: Call[Any], _: RetryLimits | None) -> Thread:
        if call.operation == "stopThread":
            self.asked.append(self.now - BORN)
            if (error := self.stops.pop(0) if self.stops else None) is not None:
                raise error
            self._is_stopped = True
        seen = {"id": "jam_1", "runState": "running" if self.works else "ready", "createdAt": "2027-01-15T08:00:00Z"}
        return Thread.model_validate(seen, context={"date": formatdate(self.now, usegmt=True)})

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def stopped(self, **how: Any) -> StopReport:
        flow = stop_and_confirm("jam_1", until=self.now + 60, clock=lambda: self.now, **how)
        return run(flow, self, self.sleep)  # type: ignore[arg-type]


BORN = 1_800_000_000.0
NOT_RUNNING = CapyConflictError("The thread is not running", status_code=409)


@pytest.mark.parametrize("how", [{}, {"ask_first": True}, {"spare_blocked": True}], ids=str)
@pytest.mark.parametrize("age", [0.0, 2.0, 4.0, 7.5, 9.0])
def test_a_young_ready_is_believed_only_after_a_stop_that_was_taken(age: float, how: dict[str, Any]) -> None:
    capy = Young(age)
    report = capy.stopped(**how)
    assert (report.result, report.stopped_by_us, capy.asked) == (Found.STOPPED, True, [age])
    assert capy.now - BORN - age >= lifecycle.SECOND_LOOK_SECONDS or age > 8.0


@pytest.mark.parametrize(
    "first",
    [NOT_RUNNING, CapyServerError("503", status_code=503), CapyRateLimitError("429", status_code=429)],
    ids=lambda error: type(error).__name__,
)
def test_a_young_ready_is_not_believed_after_a_stop_that_was_not_taken(first: Exception) -> None:
    capy = Young(4.0, first)
    report = capy.stopped()
    capy.now = BORN + 60.0
    assert (report.result, capy.works, len(capy.asked)) == (Found.STOPPED, False, 2)


def test_a_ready_that_capy_does_not_stop_is_believed_once_the_start_race_is_over() -> None:
    capy = Young(4.0, NOT_RUNNING, starts=60.0)
    report = capy.stopped()
    assert (report.result, report.stopped_by_us) == (Found.ALREADY_SETTLED, False)
    assert lifecycle.START_RACE_SECONDS <= capy.now - BORN < 25.0


def test_a_ready_that_is_old_is_believed_at_once() -> None:
    capy = Young(lifecycle.START_RACE_SECONDS, starts=60.0)
    assert (capy.stopped().result, capy.asked) == (Found.ALREADY_SETTLED, [])


def test_a_thread_that_does_not_exist_is_over(drive: Any) -> None:
    report = drive(confirm("jam_nobody"))
    assert (report.result, report.is_over, report.in_words) == (Found.GONE, True, "it does not exist any more")


def test_a_conflict_is_a_thread_that_does_not_run(drive: Any, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("stop_conflict")
    [thread_id] = capy_emulator.create(life="blocked", seconds=0)
    report = drive(confirm(thread_id))
    assert (report.result, report.run_state, report.stopped_by_us) == (Found.ALREADY_SETTLED, "blocked", False)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "times": 4},
        {"kind": "status", "status": 503, "body": "html", "times": 3},
        {"kind": "status", "status": 429, "times": 3},
        {"kind": "status", "status": 429, "retry_after": 1, "times": 3},
        {"kind": "reset", "times": 3},
        {"kind": "not_json", "times": 3},
        {"kind": "error_after", "times": 1},
        {"kind": "lost", "times": 1},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_a_stop_that_fails_is_repeated_until_it_works(
    fault: dict[str, Any], drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault(operation="stopThread", **fault)
    report = drive(confirm(thread_id, 30.0))
    assert (report.is_over, capy_emulator.thread(thread_id)["run_state"]) == (True, "ready")


def test_looks_that_fail_are_looked_again(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "getThread", status=502, body="html", times=3)
    assert drive(confirm(thread_id)).result is Found.STOPPED


def test_a_stop_that_is_slower_than_its_timeout_arrives_all_the_same(
    drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("slow", "stopThread", seconds=3)
    report = drive(confirm(thread_id))
    assert (report.is_over, capy_emulator.thread(thread_id)["run_state"]) == (True, "ready")


def test_a_thread_that_never_stops_is_reported_within_the_bound(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(phases=phases({"run_state": "running"}), stop_seconds=1000)
    began = time.monotonic()
    report = drive(confirm(thread_id, 3.0))
    assert time.monotonic() - began < 10
    assert (report.result, report.run_state, report.stopped_by_us, report.is_over) == (
        Found.NOT_CONFIRMED,
        "running",
        True,
        False,
    )
    assert report.in_words == "it was asked to stop, which is NOT confirmed (running)"


class StillAtWork:
    """A Capy whose thread never stops, and whose clock moves only by pauses."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.asked: list[tuple[str, float]] = []

    def send(self, call: Call[Any], _: RetryLimits | None) -> Thread:
        self.asked.append((call.operation, self.now))
        return Thread.model_validate({"id": "jam_1", "runState": "running"})

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_thread_that_goes_on_is_asked_again() -> None:
    capy = StillAtWork()
    report = run(stop_and_confirm("jam_1", until=capy.now + 30, clock=lambda: capy.now), capy, capy.sleep)  # type: ignore[arg-type]
    stops = [time for operation, time in capy.asked if operation == "stopThread"]
    assert (report.result, len(stops) > 2, capy.now <= 1_800_000_030.0) == (Found.NOT_CONFIRMED, True, True)
    assert all(later - earlier >= stopping.ASK_AGAIN_AFTER for earlier, later in pairwise(stops))


def test_a_ready_thread_that_wakes_up_again_is_stopped_then(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(
        phases=[{"at": 0, "run_state": "ready", "pending_wakeups": 1}, {"at": 1, "run_state": "running"}],
        seconds=1,
        age=0,
    )
    report = drive(confirm(thread_id, 30.0))
    assert (report.result, capy_emulator.thread(thread_id)["over"]) == (Found.STOPPED, True)


def test_a_capy_that_is_away_is_reported_within_the_bound(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", status=503)
    report = drive(confirm(thread_id, 2.0))
    assert (report.result, report.stopped_by_us, "answered 503" in report.error) == (Found.NOT_CONFIRMED, True, True)
    assert "it was asked to stop, which is NOT confirmed" in report.in_words
    assert capy_emulator.requests("stopThread")


@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_no_that_stands_is_the_end_of_it(status: int, drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", status=status)
    began = time.monotonic()
    report = drive(confirm(thread_id))
    assert (report.result, report.stopped_by_us, f"answered {status}" in report.error) == (
        Found.NOT_CONFIRMED,
        False,
        True,
    )
    assert 1.0 <= time.monotonic() - began < 10


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_no_that_passes_stops_no_stop(status: int, drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", status=status, times=3)
    assert drive(confirm(thread_id)).result is Found.STOPPED


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_thread_that_may_not_be_looked_at_is_asked_to_stop_all_the_same(
    status: int, drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "getThread", status=status)
    report = drive(confirm(thread_id, 3.0))
    assert (report.result, report.stopped_by_us) == (Found.NOT_CONFIRMED, True)
    assert capy_emulator.stops(thread_id)


def test_a_stop_that_nobody_waits_for_is_asked_until_it_is_taken(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "stopThread", status=404, times=2)
    flow = stop_and_confirm(thread_id, until=time.time() + 20, clock=time.time, ask_first=True, confirm=False)
    assert drive(flow) == StopReport(thread_id, Found.REQUESTED, stopped_by_us=True)
    assert {request["operation"] for request in capy_emulator.requests()} == {"stopThread"}


@pytest.mark.parametrize("fault", [{"status": 404, "times": 2}, {"status": 404, "body": "html"}])
def test_a_thread_is_looked_for_again_before_it_is_taken_for_gone(
    fault: dict[str, Any], drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "getThread", **fault)
    if "body" in fault:
        with pytest.raises(CapyResponseError):
            drive(look_surely(thread_id, clock=time.time))
    else:
        assert drive(look_surely(thread_id, clock=time.time)).id == thread_id


def test_a_thread_that_stays_away_is_gone(drive: Any) -> None:
    assert drive(look_surely("jam_nobody", clock=time.time)) is None


def test_a_request_alone_is_one_request(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    report = drive(request_stop(thread_id))
    assert report == StopReport(thread_id, Found.REQUESTED, stopped_by_us=True)
    assert [request["operation"] for request in capy_emulator.requests()] == ["stopThread"]


def test_a_request_that_finds_nothing_to_stop_is_no_error(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "stopThread", status=409)
    assert drive(request_stop(thread_id)).result is Found.ALREADY_SETTLED


def test_one_404_proves_nothing_to_a_single_request(drive: Any) -> None:
    with pytest.raises(CapyNotFoundError):
        drive(request_stop("jam_nobody"))


def test_a_request_that_fails_is_raised_after_its_attempts(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "stopThread", status=500)
    with pytest.raises(CapyServerError):
        drive(request_stop(thread_id, RetryLimits(attempts=3, base=0.01)))
    assert len(capy_emulator.requests("stopThread")) == 3


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 503}, {"kind": "status", "status": 429, "retry_after": 30}]
)
def test_a_thread_that_cannot_be_looked_at_is_asked_to_stop_all_the_same(
    fault: dict[str, Any], drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault(operation="getThread", **fault)
    report = drive(confirm(thread_id, 2.0))
    assert (report.result, report.stopped_by_us) == (Found.NOT_CONFIRMED, True)
    assert "it was asked to stop, which is NOT confirmed" in report.in_words
    assert capy_emulator.stops(thread_id)


def test_a_stop_that_surely_was_not_processed_is_not_said_to_be_asked_for(
    drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", status=429)
    report = drive(confirm(thread_id, 1.0))
    assert (report.result, report.stopped_by_us) == (Found.NOT_CONFIRMED, False)
    assert "it could NOT be asked to stop" in report.in_words


def test_a_thread_that_rests_after_a_stop_whose_answer_was_lost_rests_for_us(
    drive: Any, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever", stop_seconds=0)
    capy_emulator.fault("error_after", "stopThread", times=1)
    report = drive(confirm(thread_id))
    assert (report.result, report.stopped_by_us) == (Found.STOPPED, True)


def test_a_pause_that_capy_asks_for_is_made_but_for_one_last_look() -> None:
    now = 0.0
    flow = stop_and_confirm("jam_1", until=20.0, clock=lambda: now)
    assert isinstance(next(flow), Ask)
    step = flow.send(Thread.model_validate({"id": "jam_1", "runState": "running"}))
    assert isinstance(step, Ask)
    assert flow.throw(CapyRateLimitError("later", status_code=429, retry_after=30.0)) == Pause(
        20.0 - stopping.LOOK_EVERY
    )


def test_a_report_is_plain_data() -> None:
    report = StopReport("jam_1", Found.NOT_CONFIRMED, "running", stopped_by_us=True, error="why", project_id="prj_1")
    assert report.xcom() == {
        "thread_id": "jam_1",
        "result": "not_confirmed",
        "run_state": "running",
        "stopped_by_us": True,
        "error": "why",
        "project_id": "prj_1",
    }


def test_a_stop_is_repeated_although_nobody_may_look(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.fault("status", "getThread", status=403)
    capy_emulator.fault("status", "stopThread", status=503, body="html", times=3)
    report = drive(confirm(thread_id, 12.0))
    assert (report.stopped_by_us, len(capy_emulator.stops(thread_id)) >= 1) == (True, True)


def test_whoever_takes_a_stop_knows_the_thread(drive: Any, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever", stop_seconds=1000)
    capy_emulator.fault("status", "getThread", status=404)
    report = drive(confirm(thread_id, 4.0))
    assert (report.result, report.stopped_by_us) == (Found.NOT_CONFIRMED, True)
