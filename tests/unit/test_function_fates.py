"""A function that makes a prompt may fail beside the thread of an earlier try; wrong input of a stop is final."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.decorators.thread import _CapyThreadDecoratedOperator
from airflow_provider_capy.operators.thread import CapyStopThreadOperator
from airflow_provider_capy.records import STORE_KEY
from tests.unit.left import left, started
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


@pytest.fixture
def at_work(capy_emulator: EmulatorControl) -> tuple[str, Supervisor]:
    return started(capy_emulator)


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


# What a function raises that asks Capy itself says as little about the thread as our own look does.
@pytest.mark.parametrize("function", [fails(exceptions.CapyServerError("no prompt today", status_code=500)), lambda: 7])
def test_a_function_that_fails_for_what_it_cannot_know_leaves_the_thread_of_an_earlier_try(
    function: Callable[[], Any], at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    ran = decorated(function, supervisor)
    assert (ran.state, supervisor.store[STORE_KEY]["fate"]) == ("failed", "left")
    assert f"Thread {thread_id}: " in str(ran.error)
    assert left(ran, thread_id, capy_emulator)


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError("no prompt today"), "failed"), (AirflowSkipException("not today"), "skipped")],
    ids=repr,
)
def test_a_function_that_fails_or_skips_in_its_last_try_stops_the_thread_of_an_earlier_one(
    error: Exception, state: str, at_work: tuple[str, Supervisor], capy_emulator: EmulatorControl
) -> None:
    thread_id, supervisor = at_work
    ran = decorated(fails(error), supervisor)
    record = supervisor.store[STORE_KEY]
    assert (ran.state, record["fate"], record["stopped_by"]) == (state, "stopped", "its task, unwatched")
    # A skip is the function's own.
    assert f"Thread {thread_id}: It was stopped" in str(ran.error or error)
    assert len(capy_emulator.stops(thread_id)) == 1


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
