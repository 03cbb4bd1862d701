"""What is not known of a thread stops none: only its own end, the user's time and a kill do, and every error says its fate."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import BaseXCom, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSecretsBackendAccessDenied, AirflowSkipException
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.decorators.thread import _CapyThreadDecoratedOperator
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.operators.owning import LEFT_UNSEEN
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.records import STORE_KEY
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.sensors.wait import CapyThreadWait
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")

CRASH = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger failure", "traceback": ["boom"]}}
BACKSTOP = {"next_method": "__fail__", "next_kwargs": {"error": "Trigger timeout", "traceback": ["late"]}}


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


@pytest.fixture
def at_work(capy_emulator: EmulatorControl) -> tuple[str, Supervisor]:
    """A thread at work, and what the try of an operator that started it has left."""
    capy_emulator.script(life="forever")
    supervisor = Supervisor()
    started = run_task(lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work"), supervisor=supervisor)
    return started.xcoms["thread_id"], supervisor


def operate(supervisor: Supervisor, resume: Any = None, **arguments: Any) -> Ran:
    given = {"wait_for_completion": True, "poke_interval": 0.1, **arguments}
    return run_task(
        lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work", **given), supervisor=supervisor, resume=resume
    )


def wait(thread_id: str, supervisor: Supervisor | None = None, resume: Any = None, **arguments: Any) -> Ran:
    given = {"poke_interval": 0.1, "create_task_id": "g.create", **arguments}
    return run_task(
        lambda: CapyThreadWait(task_id=TASK_ID, thread_id=thread_id, **given), supervisor=supervisor, resume=resume
    )


class Unreadable(Supervisor):
    def send(self, msg: Any) -> Any:
        if isinstance(msg, comms.GetTaskStateStore):
            raise ConnectionError("the store is away")
        return super().send(msg)


def left(ran: Ran, thread_id: str, capy: EmulatorControl) -> bool:
    """Say whether the thread goes on, and the error ends with that."""
    words = str(ran.error)
    assert (LEFT_UNSEEN in words, "was not stopped" in words, "was stopped" in words) == (True, False, False)
    return not capy.stops(thread_id)


# A sensor that never fails


@pytest.mark.parametrize("supervisor", [Supervisor, Unreadable])
def test_a_skip_decides_no_more_than_the_error_behind_it(
    supervisor: type[Supervisor], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    resume = CRASH if supervisor is Supervisor else None
    ran = wait(thread_id, supervisor(), resume, deferrable=resume is not None, never_fail=True)
    assert (ran.state, capy_emulator.stops(thread_id)) == ("skipped", [])


@pytest.mark.parametrize("never_fail", [False, True])
def test_a_wait_whose_time_is_over_stops_its_thread_whoever_noticed(
    never_fail: bool, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = wait(thread_id, resume=BACKSTOP, deferrable=True, never_fail=never_fail)
    assert (ran.state, len(capy_emulator.stops(thread_id))) == ("skipped" if never_fail else "failed", 1)


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
    assert left(ran, thread_id, capy_emulator)


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


# The function of a decorated task


def decorated(function: Callable[[], Any], supervisor: Supervisor, **arguments: Any) -> Ran:
    def make() -> Any:
        return _CapyThreadDecoratedOperator(
            task_id=TASK_ID, python_callable=function, wait_for_completion=True, retries=1, **arguments
        )

    return run_task(make, supervisor=supervisor, retries=1, try_number=arguments.pop("try_number", 2))


def fails(error: Exception) -> Callable[[], str]:
    def work() -> str:
        raise error

    return work


@pytest.mark.parametrize(
    "function",
    [
        fails(ValueError("no prompt today")),
        # Also what a function is told that asks Capy itself.
        fails(exceptions.CapyServerError("no prompt today", status_code=500)),
        lambda: 7,
    ],
)
def test_a_function_that_fails_leaves_the_thread_of_an_earlier_try_and_says_so(
    function: Callable[[], Any], at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    ran = decorated(function, supervisor)
    assert (ran.state, supervisor.store[STORE_KEY]["fate"]) == ("failed", "left")
    assert f"Thread {thread_id}: " in str(ran.error)
    assert left(ran, thread_id, capy_emulator)


def test_a_function_that_skips_lets_go_of_the_thread_of_an_earlier_try(
    at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    supervisor.store[STORE_KEY]["fate"] = "held"
    ran = decorated(fails(AirflowSkipException("not today")), supervisor)
    assert (ran.state, supervisor.store[STORE_KEY]["fate"], capy_emulator.stops(thread_id)) == ("skipped", "left", [])


def test_a_function_that_is_killed_knows_the_thread_of_an_earlier_try(
    at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    supervisor.standing = "failed"

    def work() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return "Work"

    ran = decorated(work, supervisor)
    assert ran.state == "failed"
    assert f"Thread {thread_id}: it was asked to stop" in str(ran.error)
    assert len(capy_emulator.stops(thread_id)) == 1


def test_a_function_that_fails_before_there_is_a_thread_fails_as_it_does(capy_emulator: EmulatorControl) -> None:
    error = ValueError("no prompt today")
    ran = decorated(fails(error), Supervisor(), try_number=1)
    assert (ran.state, ran.error, capy_emulator.threads()) == ("up_for_retry", error, [])


def test_a_function_that_returns_no_text_is_not_called_again() -> None:
    ran = decorated(lambda: 7, Supervisor(), try_number=1)
    assert (ran.state, isinstance(ran.error, exceptions.CapyInputError)) == ("failed", True)


def test_whether_there_is_a_next_try_is_read_from_the_error_that_is_raised(
    at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    # Once the thread is known, the error is ours, to which this rule does not apply.
    never = ExceptionRetryPolicy([RetryRule(ValueError, RetryAction.FAIL)])
    ran = decorated(fails(ValueError("no prompt today")), supervisor, retry_policy=never, try_number=1)
    assert (ran.state, supervisor.store[STORE_KEY]["fate"], capy_emulator.stops(thread_id)) == (
        "up_for_retry",
        "held",
        [],
    )


# A stop task


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        (None, "failed"),
        (ExceptionRetryPolicy([RetryRule(exceptions.CapyInputError, RetryAction.RETRY)]), "up_for_retry"),
    ],
)
@pytest.mark.parametrize("wrong", [{"timeout": "{{ 'soon' }}"}, {"thread_id": [["jam_1"]]}], ids=str)
def test_wrong_input_of_a_stop_is_not_tried_again_but_by_a_rule(wrong: dict[str, Any], policy: Any, state: str) -> None:
    def make() -> Any:
        given = {"thread_id": "jam_1", **wrong}
        task = CapyStopThreadOperator(
            task_id=TASK_ID, **{**given, "thread_id": "jam_1"}, retries=1, retry_policy=policy
        )
        task.thread_id = given["thread_id"]
        return task

    ran = run_task(make, retries=1)
    assert (ran.state, isinstance(ran.error, exceptions.CapyInputError)) == (state, True)
