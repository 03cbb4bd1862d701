"""A SIGTERM on the worker, in every phase of a task: what becomes of the thread, and how the task ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, AirflowTaskTimeout, ErrorType
from airflow.sdk.execution_time import comms

from airflow_provider_capy.exceptions import CapyThreadError
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.sensors.wait import CapyThreadWait
from tests.unit.wire import WiredSupervisor
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return found


def killed(run: Callable[[], Ran], when: Callable[[], Any]) -> Ran:
    """Run a task, and send its process the signal that Airflow's supervisor sends, at a moment."""
    main = threading.main_thread().ident
    assert main is not None

    def kill() -> None:
        until(when)
        signal.pthread_kill(main, signal.SIGTERM)

    with ThreadPoolExecutor(1) as executor:
        killing = executor.submit(kill)
        ran = run()
        killing.result(30)
    return ran


def operator(**arguments: Any) -> Callable[[], CapyCreateThreadOperator]:
    defaults: dict[str, Any] = {
        "prompt": "Work",
        "wait_for_completion": True,
        "deferrable": False,
        "poke_interval": 0.1,
    }
    return lambda: CapyCreateThreadOperator(task_id=TASK_ID, **{**defaults, **arguments})


@pytest.fixture
def capy(capy_emulator: EmulatorControl) -> EmulatorControl:
    capy_emulator.script(life="forever")
    return capy_emulator


WAITING = pytest.mark.parametrize(
    ("standing", "retries", "state", "error", "stopped"),
    [
        ("failed", 0, "failed", AirflowFailException, True),
        ("failed", 2, "failed", AirflowFailException, True),
        ("success", 2, "failed", AirflowFailException, True),
        ("restarting", 2, "up_for_retry", CapyThreadError, False),
        ("restarting", 0, "failed", CapyThreadError, False),
        ("running", 2, "up_for_retry", CapyThreadError, False),
        ("running", 0, "failed", CapyThreadError, True),
    ],
)


@WAITING
def test_a_kill_while_the_operator_waits(
    standing: str, retries: int, state: str, error: type[Exception], stopped: bool, capy: EmulatorControl
) -> None:
    ran = killed(
        lambda: run_task(operator(retries=retries), supervisor=Supervisor(standing=standing), retries=retries),
        lambda: capy.requests("getThread"),
    )
    [truth] = capy.threads()
    assert (ran.state, isinstance(ran.error, CapyKilledError), bool(truth["stops"])) == (state, True, stopped)
    # Airflow does not try again what ends with this class.
    assert isinstance(ran.error, AirflowFailException) is (error is AirflowFailException)
    fate = "it was asked to stop" if stopped else "was not stopped"
    assert fate in str(ran.error)


@pytest.mark.parametrize("standing", ["running", "unknown"])
@pytest.mark.parametrize("durable", [True, False])
def test_a_kill_with_tries_left_stops_what_no_next_try_goes_on_with(
    durable: bool, standing: str, capy: EmulatorControl
) -> None:
    ran = killed(
        lambda: run_task(operator(retries=2, durable=durable), supervisor=Supervisor(standing=standing), retries=2),
        lambda: capy.requests("getThread"),
    )
    [truth] = capy.threads()
    assert (ran.state, bool(truth["stops"])) == ("up_for_retry", not durable)


def test_a_kill_with_stop_on_kill_off_leaves_the_thread_and_ends_the_task(capy: EmulatorControl) -> None:
    ran = killed(
        lambda: run_task(operator(stop_on_kill=False), supervisor=Supervisor(standing="failed")),
        lambda: capy.requests("getThread"),
    )
    [truth] = capy.threads()
    assert (ran.state, isinstance(ran.error, AirflowFailException), truth["stops"]) == ("failed", True, [])
    assert "stop_on_kill is off" in str(ran.error)


@pytest.mark.parametrize(
    ("standing", "retries", "durable", "stopped"),
    [
        ("failed", 0, True, True),
        ("failed", 0, False, True),
        ("running", 1, True, False),
        # No next try knows the thread.
        ("running", 1, False, True),
    ],
)
def test_a_kill_while_the_create_is_under_way_waits_for_its_answer(
    standing: str, retries: int, durable: bool, stopped: bool, capy: EmulatorControl
) -> None:
    capy.fault("slow", "createAndStartThread", seconds=0.8)
    supervisor = Supervisor(standing=standing)
    ran = killed(
        lambda: run_task(operator(retries=retries, durable=durable), supervisor=supervisor, retries=retries),
        capy.threads,
    )
    [truth] = capy.threads()
    assert (ran.state, bool(truth["stops"])) == ("up_for_retry" if retries else "failed", stopped)
    assert ran.xcoms["thread_id"] == truth["id"]
    assert truth["id"] in str(ran.error)


class Cleared(Supervisor):
    """Its task instance is cleared while the task is at work: what it has kept is another one's from then on."""

    cleared = False

    def send(self, msg: Any) -> Any:
        if isinstance(msg, comms.GetTaskStates):
            self.cleared = True
        if self.cleared and isinstance(msg, comms.GetTaskStateStore):
            return comms.ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND)
        if self.cleared and isinstance(msg, comms.SetTaskStateStore):
            raise AirflowRuntimeError(
                comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})
            )
        return super().send(msg)


@pytest.mark.parametrize("standing", ["running", "unknown", "restarting", "queued"])
@pytest.mark.parametrize("in_create", [True, False])
def test_a_try_that_cannot_leave_word_stops_no_thread_that_a_next_one_may_take_for_finished(
    in_create: bool, standing: str, capy: EmulatorControl
) -> None:
    if in_create:
        capy.fault("slow", "createAndStartThread", seconds=0.8)
    supervisor = Cleared(standing=standing)
    ran = killed(
        lambda: run_task(operator(), supervisor=supervisor),
        capy.threads if in_create else lambda: capy.requests("getThread"),
    )
    [truth] = capy.threads()
    assert (ran.state, truth["stops"], supervisor.cleared) == ("failed", [], True)
    assert f"Thread {truth['id']} was not stopped" in str(ran.error)
    assert standing == "restarting" or "its record cannot tell of a stop" in str(ran.error)


@pytest.mark.parametrize("standing", ["running", "unknown", "restarting", "queued", "failed"])
@pytest.mark.parametrize("in_create", [True, False])
def test_a_thread_that_no_other_try_can_know_of_is_stopped(
    in_create: bool, standing: str, capy: EmulatorControl
) -> None:
    if in_create:
        capy.fault("slow", "createAndStartThread", seconds=0.8)
    ran = killed(
        lambda: run_task(operator(durable=False), supervisor=Cleared(standing=standing)),
        capy.threads if in_create else lambda: capy.requests("getThread"),
    )
    [truth] = capy.threads()
    assert (ran.state, len(truth["stops"])) == ("failed", 1)
    assert f"Thread {truth['id']}: it was asked to stop" in str(ran.error)


def asks_for_the_link(message: Any) -> bool:
    return isinstance(message, comms.SetXCom) and message.key == "thread_url"


class Told(WiredSupervisor):
    """Notes how many stops there had been when the record was told of one."""

    def __init__(self, capy: EmulatorControl, *how: Any) -> None:
        self.stops_at_word: list[int] = []
        self._capy = capy
        super().__init__(*how)

    def answer(self, message: Any) -> Any:
        if isinstance(message, comms.SetTaskStateStore) and message.value["fate"] == "stopping":
            self.stops_at_word.append(len(self._capy.requests("stopThread")))
        return super().answer(message)


@pytest.mark.parametrize("seconds", [0.5, 3])
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_kill_into_a_request_to_airflow_leaves_word_and_stops_once_it_is_out_of_it(
    kind: str, seconds: float, capy: EmulatorControl
) -> None:
    [watched] = capy.create(life="forever") if kind == "sensor" else [""]
    supervisor = Told(capy, asks_for_the_link, seconds)
    make = operator() if kind == "operator" else lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=watched)
    with suppress(TypeError):
        # Airflow itself takes the late answers for its own, and can stumble over that once all is done.
        killed(lambda: run_task(make, supervisor=supervisor), supervisor.is_busy.is_set)
    [truth] = capy.threads()
    # The word comes first: a next try would take a stopped thread without it for a finished one.
    assert (len(truth["stops"]), supervisor.stops_at_word) == (1, [0])
    assert supervisor.store["capy_thread"]["fate"] == "stopping"


@pytest.mark.parametrize("standing", ["running", "failed"])
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_kill_that_airflow_takes_for_an_error_of_a_secrets_backend_is_a_kill(
    kind: str, standing: str, capy: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    [watched] = capy.create(life="forever") if kind == "sensor" else [""]
    looked_up = CapyHook.get_connection

    def interrupted(_: CapyHook, conn_id: str) -> Any:
        monkeypatch.setattr(CapyHook, "get_connection", looked_up)
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        return looked_up(conn_id)

    monkeypatch.setattr(CapyHook, "get_connection", interrupted)
    make = operator() if kind == "operator" else lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=watched)
    ran = run_task(make, supervisor=Supervisor(standing=standing))
    assert (ran.state, "Killed (its task instance is" in str(ran.error)) == ("failed", True)
    if kind == "sensor":
        # Until Python 3.12 the interrupted look-up holds a lock that the stop has to wait for, longer than the handler does.
        until(lambda: capy.stops(watched))
    # The operator had not sent its create yet, and sends none.
    assert [bool(thread["stops"]) for thread in capy.threads()] == ([True] if kind == "sensor" else [])


class LooksUp(WiredSupervisor):
    """Knows the connection, and takes its time with its first look-up."""

    def __init__(self, capy: EmulatorControl, seconds: float, standing: str = "running") -> None:
        self._connection = json.loads(capy.connection_json())
        self.asked_at: list[float] = []
        super().__init__(lambda message: isinstance(message, comms.GetConnection), seconds, standing)

    def answer(self, message: Any) -> Any:
        if isinstance(message, comms.GetConnection):
            self.asked_at.append(time.time() - (0 if self.asked_at else self._seconds))
            fields = dict.fromkeys(("host", "schema", "login", "password", "port")) | self._connection
            fields["extra"] = json.dumps(fields.get("extra") or {})
            return comms.ConnectionResult(conn_id=message.conn_id, **fields)
        return super().answer(message)


@pytest.mark.parametrize("seconds", [0.5, 3])
@pytest.mark.parametrize("kind", ["operator", "sensor", "wait"])
def test_a_kill_into_the_look_up_of_the_connection_stops_a_thread_that_is_known(
    kind: str, seconds: float, capy: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = LooksUp(capy, seconds)
    if kind == "operator":
        before = run_task(operator(wait_for_completion=False), retries=1)
        supervisor.store.update(before.supervisor.store)
        make: Callable[[], Any] = operator(retries=1)
    else:
        [watched] = capy.create(life="forever")
        more = {"create_task_id": "create"} if kind == "wait" else {}
        sensor = CapyThreadWait if kind == "wait" else CapyThreadSensor
        make = lambda: sensor(task_id=TASK_ID, thread_id=watched, retries=1, **more)  # noqa: E731
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_DEFAULT")
    with suppress(TypeError):
        killed(lambda: run_task(make, supervisor=supervisor, try_number=2, retries=1), supervisor.is_busy.is_set)
    ended = time.time()
    [truth] = capy.threads()
    assert len(truth["stops"]) == 1
    assert supervisor.store["capy_thread"]["fate"] == "stopping"
    # Airflow leaves five seconds.
    [look_up, *_] = supervisor.asked_at
    assert ended - look_up < 5


def test_a_kill_before_a_create_that_leaves_no_record_sends_none(capy: EmulatorControl) -> None:
    supervisor = Supervisor()
    run_task(operator(durable=False, wait_for_completion=False), supervisor=supervisor)
    capy.fault("slow", "stopThread", seconds=1)
    ran = killed(
        lambda: run_task(operator(durable=False, retries=1), supervisor=supervisor, try_number=2, retries=1),
        lambda: capy.requests("stopThread") or capy.faults()[0]["fired"],
    )
    [truth] = capy.threads()
    assert ("Killed" in str(ran.error), bool(truth["stops"])) == (True, True)


@pytest.mark.parametrize("standing", ["running", "failed"])
def test_a_kill_after_the_thread_was_seen_to_its_end_stops_nothing(
    standing: str, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.1)
    supervisor = SlowOnceSettled(standing=standing)
    ran = killed(
        lambda: run_task(
            lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.1), supervisor=supervisor
        ),
        supervisor.is_settled.is_set,
    )
    assert (ran.state, capy_emulator.stops(thread_id)) == ("failed", [])
    assert supervisor.store["capy_thread"]["fate"] == "settled"


class SlowOnceSettled(Supervisor):
    """Takes its time with the word that the thread has come to its own end."""

    def __init__(self, standing: str) -> None:
        super().__init__(standing=standing)
        self.is_settled = threading.Event()

    def send(self, msg: Any) -> Any:
        answer = super().send(msg)
        if isinstance(msg, comms.SetTaskStateStore) and msg.value.get("fate") == "settled":
            self.is_settled.set()
            time.sleep(0.5)
        return answer


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize("standing", ["running", "unknown"])
def test_a_sensor_that_is_killed_in_its_last_try_leaves_word_and_stops(
    standing: str, mode: str, capy: EmulatorControl
) -> None:
    [thread_id] = capy.create(life="forever")
    capy.fault("slow", "getThread", seconds=1)
    supervisor = Supervisor(standing=standing)
    ran = killed(
        lambda: run_task(
            lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, mode=mode), supervisor=supervisor
        ),
        lambda: capy.faults()[0]["fired"],
    )
    assert (ran.state, len(capy.stops(thread_id)), supervisor.store["capy_thread"]["fate"]) == ("failed", 1, "stopping")


@pytest.mark.parametrize("standing", ["failed", "success", "skipped"])
def test_a_task_instance_that_is_over_needs_no_word(standing: str, capy: EmulatorControl) -> None:
    ran = killed(
        lambda: run_task(operator(), supervisor=Cleared(standing=standing)), lambda: capy.requests("getThread")
    )
    [truth] = capy.threads()
    assert (ran.state, len(truth["stops"])) == ("failed", 1)


def test_a_kill_before_the_create_starts_nothing(capy: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_capy.starting import ThreadStart

    get = ThreadStart.get

    def killed_first(start: ThreadStart) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return get(start)

    monkeypatch.setattr(ThreadStart, "get", killed_first)
    ran = run_task(operator(), supervisor=Supervisor(standing="failed"))
    assert (ran.state, isinstance(ran.error, AirflowFailException), capy.threads()) == ("failed", True, [])


def test_a_kill_while_an_earlier_trys_thread_is_looked_for_stops_it(capy: EmulatorControl) -> None:
    supervisor = Supervisor()
    first = run_task(operator(wait_for_completion=False, retries=1), supervisor=supervisor, retries=1)
    supervisor.standing = "failed"
    capy.fault("slow", "getThread", seconds=1)
    ran = killed(
        lambda: run_task(operator(retries=1), supervisor=supervisor, try_number=2, retries=1),
        lambda: capy.faults()[0]["fired"],
    )
    [truth] = capy.threads()
    assert (first.state, ran.state, bool(truth["stops"])) == ("success", "failed", True)


def test_a_kill_that_comes_into_a_log_call_does_not_wait_for_it(
    capy: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Log:
        """As structlog's: its lock is not re-entrant."""

        lock = threading.Lock()
        lines: list[str] = []  # noqa: RUF012 - of this one test

        def warning(self, line: str, *details: str) -> None:
            with self.lock:
                self.lines.append(line % details)

    monkeypatch.setattr(CapyCreateThreadOperator, "log", Log())
    [thread_id] = capy.create(life="forever")
    killed_task = operator()()
    killed_task._run.at_stake = thread_id
    assert killed_task.hook.settings.project_id
    with Log.lock, pytest.raises(CapyThreadError, match="Killed"):
        killed_task.on_kill()
    [line] = until(lambda: Log.lines)
    assert line.startswith(f"Thread {thread_id}, it was asked to stop: ")
    assert len(capy.stops(thread_id)) == 1


def test_a_stop_that_fails_in_a_kill_is_told(capy: EmulatorControl) -> None:
    capy.fault("status", "stopThread", status=403)
    ran = killed(
        lambda: run_task(operator(), supervisor=Supervisor(standing="failed")), lambda: capy.requests("getThread")
    )
    assert (ran.state, "its stop FAILED" in str(ran.error)) == ("failed", True)


def test_a_stop_that_is_slow_in_a_kill_was_sent(capy: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> None:
    handling: list[float] = []
    on_kill = CapyCreateThreadOperator.on_kill

    def timed(self: CapyCreateThreadOperator) -> None:
        began = time.monotonic()
        try:
            on_kill(self)
        finally:
            handling.append(time.monotonic() - began)

    monkeypatch.setattr(CapyCreateThreadOperator, "on_kill", timed)
    capy.fault("slow", "stopThread", seconds=8)
    ran = killed(
        lambda: run_task(operator(), supervisor=Supervisor(standing="failed")), lambda: capy.requests("getThread")
    )
    [truth] = capy.threads()
    assert (ran.state, bool(truth["stops"])) == ("failed", True)
    # Airflow leaves five seconds.
    assert len(handling) == 1
    assert handling[0] < 5
    assert "was not answered within" in str(ran.error) or "FAILED" in str(ran.error)


@pytest.mark.parametrize("stop_on_kill", [True, False])
@pytest.mark.parametrize("leniency", [{}, {"silent_fail": True}, {"soft_fail": True}, {"never_fail": True}], ids=str)
def test_a_kill_while_the_sensor_pokes(leniency: dict[str, Any], stop_on_kill: bool, capy: EmulatorControl) -> None:
    [thread_id] = capy.create(life="forever")
    ran = killed(
        lambda: run_task(
            lambda: CapyThreadSensor(
                task_id=TASK_ID, thread_id=thread_id, poke_interval=0.1, stop_on_kill=stop_on_kill, **leniency
            ),
            supervisor=Supervisor(standing="failed"),
        ),
        lambda: capy.requests("getThread"),
    )
    assert (ran.state, bool(capy.stops(thread_id))) == ("failed", stop_on_kill)


def test_a_cleared_sensor_leaves_its_thread_to_the_next_try(capy: EmulatorControl) -> None:
    [thread_id] = capy.create(life="forever")
    ran = killed(
        lambda: run_task(
            lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.1, retries=1),
            supervisor=Supervisor(standing="restarting"),
            retries=1,
        ),
        lambda: capy.requests("getThread"),
    )
    assert (ran.state, capy.stops(thread_id)) == ("up_for_retry", [])


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_execution_timeout_stops_the_thread_and_says_so(deferrable: bool, capy: EmulatorControl) -> None:
    ran = run_task(operator(deferrable=deferrable, execution_timeout=timedelta(seconds=2)))
    [truth] = capy.threads()
    assert (ran.state, type(ran.error), bool(truth["stops"])) == ("failed", AirflowTaskTimeout, True)
    assert "It was stopped" in str(ran.error)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_execution_timeout_of_a_sensor_leaves_the_thread(deferrable: bool, capy: EmulatorControl) -> None:
    [thread_id] = capy.create(life="forever")
    ran = run_task(
        lambda: CapyThreadSensor(
            task_id=TASK_ID,
            thread_id=thread_id,
            poke_interval=0.1,
            deferrable=deferrable,
            execution_timeout=timedelta(seconds=2),
        )
    )
    assert (ran.state, type(ran.error), capy.stops(thread_id)) == ("failed", AirflowTaskTimeout, [])
    assert "It was left as it is" in str(ran.error)
