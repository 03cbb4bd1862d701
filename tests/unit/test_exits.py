"""However a task ends once its thread is known, one place decides what becomes of the thread, and the error says it."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import BaseXCom, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.records import STORE_KEY
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.sensors.wait import CapyThreadWait
from airflow_provider_capy.starting import ThreadStart
from airflow_provider_capy.triggers.thread import CapyThreadTrigger
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import EmulatorControl

POKE = 0.1
WAYS: dict[str, dict[str, Any]] = {
    "dispatch": {"wait_for_completion": False},
    "worker": {"wait_for_completion": True, "deferrable": False},
    "deferred": {"wait_for_completion": True, "deferrable": True},
}
SENSING: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}
# The durability, the retries, and whether a next try goes on with the thread.
TRIES = pytest.mark.parametrize(
    ("durable", "retries", "is_kept"), [(True, 0, False), (True, 1, True), (False, 0, False), (False, 1, False)]
)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


def operate(supervisor: Supervisor | None = None, *, retries: int = 0, **arguments: Any) -> Ran:
    given = {"poke_interval": POKE, "retries": retries, **arguments}
    return run_task(
        lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work", **given),
        supervisor=supervisor,
        retries=retries,
    )


def sense(thread_id: str, supervisor: Supervisor | None = None, *, retries: int = 0, **arguments: Any) -> Ran:
    given = {"poke_interval": POKE, "retries": retries, **arguments}
    return run_task(
        lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, **given), supervisor=supervisor, retries=retries
    )


def refuse(monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
    """Let the installation's XCom backend refuse some keys."""

    class Backend(BaseXCom):
        @staticmethod
        def serialize_value(value: Any, *, key: str | None = None, **_: Any) -> Any:  # type: ignore[override]
            if key in keys:
                raise RuntimeError(f"no bucket for {key}")
            return value

    monkeypatch.setattr(task_runner, "XCom", Backend)


class Broken(Supervisor):
    """Fails with an error of a state store's or of Airflow's own on some messages."""

    def __init__(self, is_refused: Callable[[Any], bool], error: Exception) -> None:
        super().__init__()
        self._is_refused, self._error = is_refused, error

    def send(self, msg: Any) -> Any:
        if self._is_refused(msg):
            raise self._error
        return super().send(msg)


def check(ran: Ran, capy: EmulatorControl, *, is_kept: bool) -> None:
    """Check that the thread is kept for a next try or stopped, and that the error says which."""
    [truth] = capy.threads()
    assert (ran.state, bool(truth["stops"])) == ("up_for_retry" if is_kept else "failed", not is_kept) or (
        # With durable=False a next try starts another one.
        ran.state == "up_for_retry" and not is_kept and truth["stops"]
    )
    fate = "was left running; the next try reattaches to it" if is_kept else "It was stopped"
    assert f"Thread {truth['id']}" in str(ran.error)
    assert fate in str(ran.error)
    if STORE_KEY in ran.supervisor.store:
        assert ran.supervisor.store[STORE_KEY]["fate"] == (Fate.HELD if is_kept else Fate.STOPPED)
        assert ran.supervisor.store[STORE_KEY]["thread_id"] == truth["id"]


@TRIES
@pytest.mark.parametrize("way", WAYS)
def test_an_xcom_backend_that_refuses_the_id_loses_no_thread(
    way: str,
    durable: bool,
    retries: int,
    is_kept: bool,
    capy_emulator: EmulatorControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capy_emulator.script(life="forever")
    refuse(monkeypatch, "thread_id")
    ran = operate(retries=retries, durable=durable, **WAYS[way])
    check(ran, capy_emulator, is_kept=is_kept)
    assert "RuntimeError: no bucket for thread_id" in str(ran.error)
    assert isinstance(ran.error, exceptions.CapyThreadError)
    # The button leads to it all the same.
    assert capy_emulator.threads()[0]["id"] in ran.xcoms["thread_url"]


SHOWN = ("thread_url", "pull_request_url", "thread")


@pytest.mark.parametrize("way", WAYS)
def test_what_is_only_shown_is_no_reason_to_fail_for_an_operator(
    way: str, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    capy_emulator.script(seconds=0.2)
    refuse(monkeypatch, *SHOWN)
    assert operate(**WAYS[way]).state == "success"


@pytest.mark.parametrize("mode", SENSING)
def test_what_is_only_shown_is_no_reason_to_fail_for_a_sensor(
    mode: str, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.2)
    refuse(monkeypatch, *SHOWN)
    ran = sense(thread_id, **SENSING[mode])
    assert (ran.state, ran.xcoms["return_value"]["outcome"]) == ("success", "ready")


@pytest.mark.parametrize("error", [RuntimeError("away"), AirflowException("away")], ids=repr)
@pytest.mark.parametrize("key", SHOWN)
def test_what_airflow_cannot_store_of_it_is_none_either(
    key: str, error: Exception, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(seconds=0.2)
    supervisor = Broken(lambda msg: isinstance(msg, comms.SetXCom) and msg.key == key, error)
    assert operate(supervisor, **WAYS["worker"]).state == "success"


@pytest.mark.parametrize("error", [RuntimeError("away"), AirflowException("away"), TypeError("odd")], ids=repr)
@pytest.mark.parametrize("way", ["worker", "deferred"])
def test_a_store_that_fails_once_the_thread_has_settled_fails_no_operator(
    way: str, error: Exception, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(seconds=0.2)
    assert operate(after_the_end(error), **WAYS[way]).state == "success"


@pytest.mark.parametrize("error", [RuntimeError("away"), AirflowException("away"), TypeError("odd")], ids=repr)
@pytest.mark.parametrize("mode", SENSING)
def test_a_store_that_fails_once_the_thread_has_settled_fails_no_sensor(
    mode: str, error: Exception, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.2)
    assert sense(thread_id, after_the_end(error), **SENSING[mode]).state == "success"


def after_the_end(error: Exception) -> Supervisor:
    ended: list[Any] = []

    def is_refused(msg: Any) -> bool:
        if isinstance(msg, comms.SetXCom) and msg.key == "thread":
            ended.append(msg)
        return bool(ended) and isinstance(msg, (comms.GetTaskStateStore, comms.SetTaskStateStore))

    return Broken(is_refused, error)


@TRIES
@pytest.mark.parametrize("kind", [RuntimeError, TypeError, KeyError, AirflowException])
def test_whatever_is_raised_right_after_the_create_loses_no_thread(
    kind: type[Exception],
    durable: bool,
    retries: int,
    is_kept: bool,
    capy_emulator: EmulatorControl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capy_emulator.script(life="forever")
    error = kind("odd")

    def fail(*_: Any) -> str:
        raise error

    monkeypatch.setattr(ThreadStart, "_store", fail)
    ran = operate(retries=retries, durable=durable)
    check(ran, capy_emulator, is_kept=is_kept)
    assert ran.error is not None
    assert error in {ran.error, ran.error.__cause__}


@TRIES
def test_a_wait_that_cannot_be_handed_over_loses_no_thread(
    durable: bool, retries: int, is_kept: bool, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    capy_emulator.script(life="forever")
    monkeypatch.setattr(CapyThreadTrigger, "serialize", lambda _: ("a.path", {"thread_id": object()}))
    ran = operate(retries=retries, durable=durable, **WAYS["deferred"])
    assert ran.deferred == 0
    check(ran, capy_emulator, is_kept=is_kept)


def test_an_error_in_a_sensors_wait_says_that_the_thread_was_left(
    capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = capy_emulator.create(life="forever")

    def fail(*_: Any) -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(CapyHook, "get_thread", fail)
    ran = sense(thread_id)
    assert (ran.state, capy_emulator.stops(thread_id)) == ("failed", [])
    assert str(ran.error) == "RuntimeError: odd. It was left as it is"
    assert sense(thread_id, never_fail=True).state == "skipped"


@pytest.mark.parametrize(
    "limits",
    [
        {"timeout": 9 * 365 * 86400},
        # A template is read when it is rendered.
        {"timeout": "{{ 10**12 }}"},
        # More is beyond Airflow's own alarm clock, which ends the task before it begins.
        {"execution_timeout": timedelta(days=290 * 365), "timeout": 9 * 365 * 86400},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_no_timeout_is_beyond_what_airflow_can_add_to_its_clock(
    kind: str, limits: dict[str, Any], capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(seconds=0.2)
    supervisor = Supervisor()
    if kind == "operator":
        ran = operate(supervisor, wait_for_completion=True, deferrable=True, **limits)
    else:
        ran = sense(capy_emulator.create(seconds=0.2)[0], supervisor, deferrable=True, **limits)
    deferrals = [message for message in supervisor.messages if isinstance(message, comms.DeferTask)]
    assert all(datetime.now(timezone.utc) + (message.trigger_timeout or timedelta()) for message in deferrals)
    # Such a value may be refused, as long as nothing is started for it.
    refused = isinstance(ran.error, exceptions.CapyInputError) and (kind == "sensor" or not capy_emulator.threads())
    assert ran.state == "success" or refused


# Retries that cannot help


@pytest.mark.parametrize(
    ("status", "state"),
    [(401, "up_for_retry"), (403, "failed"), (404, "failed"), (422, "failed")],
)
def test_a_create_is_tried_again_only_where_something_can_change_by_itself(
    status: int, state: str, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=status, times=1)
    ran = operate(retries=1)
    assert (ran.state, capy_emulator.threads()) == (state, [])
    assert isinstance(ran.error, exceptions.CapyAPIError)
    assert (ran.error.status_code, isinstance(ran.error, AirflowFailException)) == (status, state == "failed")


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        (RetryRule(exceptions.CapyValidationError, RetryAction.RETRY), "up_for_retry"),
        (RetryRule(exceptions.CapyThreadBlockedError, RetryAction.RETRY), "failed"),
        (RetryRule(exceptions.CapyError, RetryAction.FAIL), "failed"),
    ],
    ids=["tries it again", "says nothing", "gives up"],
)
def test_a_rule_of_the_users_own_comes_first(rule: RetryRule, state: str, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=422, times=1)
    assert operate(retries=1, retry_policy=ExceptionRetryPolicy([rule])).state == state


@pytest.mark.parametrize("way", WAYS)
def test_wrong_input_is_not_tried_again(way: str, capy_emulator: EmulatorControl) -> None:
    ran = operate(retries=3, project_id="{{ 'bad project' }}", poke_interval="{{ 'soon' }}", **WAYS[way])
    assert (ran.state, isinstance(ran.error, exceptions.CapyInputError)) == ("failed", True)
    assert capy_emulator.threads() == []


@pytest.mark.parametrize("mode", SENSING)
def test_a_sensor_with_wrong_input_is_not_tried_again(mode: str, capy_emulator: EmulatorControl) -> None:
    ran = sense("{{ none }}", retries=2, **SENSING[mode])
    assert (ran.state, isinstance(ran.error, exceptions.CapyInputError)) == ("failed", True)


def test_a_next_try_with_wrong_input_leaves_the_thread_of_the_first_and_says_so(capy_emulator: EmulatorControl) -> None:
    capy_emulator.script(life="forever")
    supervisor = Supervisor()
    operate(supervisor, retries=1, wait_for_completion=False)
    ran = run_task(
        lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work", timeout="{{ 'later' }}", retries=2),
        supervisor=supervisor,
        retries=2,
        try_number=2,
    )
    [truth] = capy_emulator.threads()
    assert (ran.state, truth["stops"]) == ("failed", [])
    assert f"Thread {truth['id']}: It was left as it is, and costs money while it is at work" in str(ran.error)


# What a task leaves on its operator

# What Airflow sets itself when it runs a task.
AIRFLOWS = {"_lock_for_execution", "_log", "_cached_logger"}


@pytest.mark.parametrize("way", WAYS)
def test_an_operator_keeps_nothing_of_its_run_where_listeners_look(way: str, capy_emulator: EmulatorControl) -> None:
    capy_emulator.script(seconds=0.2)
    made, ran = [], []

    def make() -> CapyCreateThreadOperator:
        made.append(
            CapyCreateThreadOperator(
                task_id=TASK_ID,
                prompt="Work",
                poke_interval=POKE,
                on_success_callback=lambda context: ran.append(context["ti"].task),
                **WAYS[way],
            )
        )
        return made[-1]

    assert run_task(make).state == "success"
    assert vars(ran[0]).keys() - AIRFLOWS == vars(made[-1]).keys() - AIRFLOWS
    assert as_openlineage_reads(ran[0]) == as_openlineage_reads(made[-1])


@pytest.mark.parametrize("kind", [CapyThreadSensor, CapyThreadWait])
@pytest.mark.parametrize("mode", SENSING)
def test_a_sensor_keeps_nothing_of_its_run_where_listeners_look(
    mode: str, kind: type[CapyThreadSensor], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.2)
    made, ran = [], []
    more = {"create_task_id": "create"} if kind is CapyThreadWait else {}

    def make() -> CapyThreadSensor:
        made.append(
            kind(
                task_id=TASK_ID,
                thread_id=thread_id,
                poke_interval=POKE,
                on_success_callback=lambda context: ran.append(context["ti"].task),
                **SENSING[mode],
                **more,
            )
        )
        return made[-1]

    assert run_task(make).state == "success"
    assert vars(ran[0]).keys() - AIRFLOWS == vars(made[-1]).keys() - AIRFLOWS
    assert as_openlineage_reads(ran[0]).keys() == as_openlineage_reads(made[-1]).keys()


def as_openlineage_reads(task: Any) -> dict[str, Any]:
    """Read an operator as OpenLineage does with ``include_full_task_info``, which loses the event to what is not plain."""
    unread = {"_dag", "_hook", "_log", "_outlets", "_inlets", "_lock_for_execution", "handler", "params"}
    unread |= {"_BaseOperator__instantiated", "_BaseOperator__init_kwargs", "python_callable", "retry_delay"}
    # These it casts, or knows.
    unread |= {
        "_cached_logger",
        "task_group",
        "start_date",
        "on_success_callback",
        "weight_rule",
        "_BaseOperator__from_mapped",
    }
    plain = (str, int, float, bool, timedelta, type(None))

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple, set)):
            return [read(item) for item in value]
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        assert isinstance(value, plain), value
        return value

    return {name: read(value) for name, value in vars(task).items() if name not in unread}


def test_a_copy_of_a_task_has_not_run_yet() -> None:
    task = CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work")
    task._run.at_stake = "jam_1"
    copies = [copy.copy(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task)), task.prepare_for_execution()]
    assert [other._run.at_stake for other in copies] == [None] * 4
    assert [other.prompt for other in copies] == ["Work"] * 4
