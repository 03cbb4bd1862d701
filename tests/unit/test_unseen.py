"""In its last try a task stops its thread, unless what it fails for says that the thread could not be seen or known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import BaseXCom
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSecretsBackendAccessDenied,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.records import STORE_KEY
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_waits import WaitingTask
from tests.unit.left import left, operate, started, stopped, wait
from tests.unit.worker import TASK_ID, Supervisor, run_task

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")

CRASH = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger failure", "traceback": ["boom"]}}
BACKSTOP = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger timeout", "traceback": ["late"]}}
LEAVE = (
    exceptions.CapyServerError,
    exceptions.CapyLookUpError,
    exceptions.CapyInputError,
    exceptions.CapyStoreError,
    exceptions.CapyReferenceError,
    exceptions.CapyEventError,
    AirflowNotFoundException,
    TaskDeferralError,
)
STOP = (
    RuntimeError,
    KeyError,
    AirflowException,
    AirflowFailException,
    exceptions.CapyError,
    exceptions.CapyThreadError,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
    TaskDeferralTimeout,
)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


@pytest.fixture
def at_work(capy_emulator: EmulatorControl) -> tuple[str, Supervisor]:
    return started(capy_emulator)


def fail_in_wait(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait on a worker end with an error at once."""

    def fail(*_: Any) -> Any:
        raise kind("odd")

    monkeypatch.setattr(WaitingTask, "_wait_here", fail)


# Every kind of error


@pytest.mark.parametrize("kind", [*LEAVE, *STOP])
@pytest.mark.parametrize("task", ["operator", "wait"])
def test_in_the_last_try_the_kind_of_error_decides(
    task: str,
    kind: type[BaseException],
    at_work: tuple[str, Supervisor],
    capy_emulator: EmulatorControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread_id, supervisor = at_work
    fail_in_wait(kind, monkeypatch)
    ran = operate(supervisor) if task == "operator" else wait(thread_id)
    assert ran.state == "failed"
    assert (left if kind in LEAVE else stopped)(ran, thread_id, capy_emulator)
    by = {"operator": "its task, unwatched", "wait": f"{TASK_ID} failed for good"}[task]
    if task == "operator" and kind in {AirflowTaskTimeout, TaskDeferralTimeout}:
        by = "its task, timeout"
    record = ran.supervisor.store[STORE_KEY]
    assert (record["fate"], record["stopped_by"]) == (("left", "") if kind in LEAVE else ("stopped", by))


@pytest.mark.parametrize("kind", [*LEAVE, *STOP])
def test_a_skip_decides_no_more_than_the_error_behind_it(
    kind: type[BaseException], capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    fail_in_wait(kind, monkeypatch)
    ran = wait(thread_id, never_fail=True)
    assert (ran.state, len(capy_emulator.stops(thread_id))) == ("skipped", 0 if kind in LEAVE else 1)


# A timeout is never left to a next try, and a task with one left has not failed for good.
@pytest.mark.parametrize("kind", [kind for kind in (*LEAVE, *STOP) if kind is not AirflowTaskTimeout])
@pytest.mark.parametrize("durable", [True, False])
def test_a_next_try_goes_on_with_the_thread_or_is_told_of_its_stop(
    durable: bool, kind: type[BaseException], capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    capy_emulator.script(life="forever")
    fail_in_wait(kind, monkeypatch)
    ran = operate(Supervisor(), retries=1, durable=durable)
    [truth] = capy_emulator.threads()
    record = ran.supervisor.store[STORE_KEY]
    if ran.state == "failed":
        # Wrong input and timeouts of a sensor are not tried again.
        assert bool(truth["stops"]) is (kind in STOP)
    elif durable or kind in LEAVE:
        assert (record["fate"], truth["stops"]) == ("held", [])
        assert "the next try " + ("reattaches to it" if durable else "stops it") in str(ran.error)
    else:
        assert (record["fate"], record["ended"] != "") == ("stopped", True)
        assert stopped(ran, truth["id"], capy_emulator)


# The triggerer


@pytest.mark.parametrize("never_fail", [False, True])
@pytest.mark.parametrize(("resume", "stops"), [(CRASH, 0), (BACKSTOP, 1)], ids=["crash", "backstop"])
def test_a_crashed_trigger_is_unseen_and_a_late_one_is_a_timeout(
    resume: Any, stops: int, never_fail: bool, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = wait(thread_id, resume=resume, deferrable=True, never_fail=never_fail)
    assert (ran.state, len(capy_emulator.stops(thread_id))) == ("skipped" if never_fail else "failed", stops)


# What cannot be read


@pytest.mark.parametrize("event", [None, {"outcome": "interrupted", "thread_id": "jam_1"}], ids=repr)
@pytest.mark.parametrize("kind", ["operator", "wait"])
def test_an_event_that_is_not_ours_stops_no_thread(
    kind: str, event: Any, at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    resume = {"next_method": "execute_complete", "next_kwargs": {"event": event}}
    if kind == "operator":
        ran = operate(supervisor, resume, deferrable=True)
    else:
        ran = wait(thread_id, Supervisor(), resume, deferrable=True)
    assert left(ran, thread_id, capy_emulator)


def test_a_store_that_cannot_be_read_stops_no_thread(capy_emulator: EmulatorControl) -> None:
    class Unreadable(Supervisor):
        def send(self, msg: Any) -> Any:
            if isinstance(msg, comms.GetTaskStateStore):
                raise ConnectionError("the store is away")
            return super().send(msg)

    [thread_id] = capy_emulator.create(life="forever")
    assert left(wait(thread_id, Unreadable()), thread_id, capy_emulator)


def test_a_record_that_cannot_be_read_stops_no_thread(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = wait(thread_id, Supervisor(store={STORE_KEY: {"version": 2, "thread_id": thread_id}}))
    assert isinstance(ran.error, exceptions.CapyReferenceError)
    assert left(ran, thread_id, capy_emulator)


def test_a_wait_that_cannot_ask_whose_the_thread_is_leaves_it_and_says_so(
    capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backend(BaseXCom):
        @classmethod
        def get_all(cls, **_: Any) -> Any:
            raise RuntimeError("no bucket")

        get_one = get_all

    [thread_id] = capy_emulator.create(life="forever")
    monkeypatch.setattr(task_runner, "XCom", Backend)
    ran = wait(thread_id)
    assert "no bucket" in str(ran.error)
    # It may be another task's.
    assert "It was left running, since" in str(ran.error)
    assert capy_emulator.stops(thread_id) == []


# A connection that cannot be looked up


def refuse_look_up(number: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one look-up of the connection fail, counted from 1."""
    looked_up, times = CapyHook.get_connection, []

    def look_up(conn_id: str) -> Any:
        times.append(conn_id)
        if len(times) == number:
            raise error
        return looked_up(conn_id)

    monkeypatch.setattr(CapyHook, "get_connection", staticmethod(look_up))


REFUSED = pytest.mark.parametrize(
    "error",
    [
        AirflowSecretsBackendAccessDenied("denied"),
        AirflowNotFoundException("isn't defined"),
        RuntimeError("sealed"),
    ],
    ids=repr,
)


@REFUSED
@pytest.mark.parametrize("kind", ["operator", "wait"])
def test_a_look_up_that_fails_stops_no_thread(
    kind: str,
    error: Exception,
    at_work: tuple[str, Supervisor],
    capy_emulator: EmulatorControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thread_id, supervisor = at_work
    refuse_look_up(1, error, monkeypatch)
    ran = operate(supervisor) if kind == "operator" else wait(thread_id)
    assert isinstance(ran.error, exceptions.CapyLookUpError)
    assert left(ran, thread_id, capy_emulator)


@REFUSED
def test_a_sensor_that_comes_again_waits_until_its_connection_is_back(
    error: Exception, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = capy_emulator.create(seconds=1)
    refuse_look_up(2, error, monkeypatch)
    ran = run_task(lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, mode="reschedule", poke_interval=0.1))
    assert (ran.state, ran.looks > 2) == ("success", True)
