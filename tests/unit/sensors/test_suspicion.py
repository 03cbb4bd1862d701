"""A sensor that is cleared after its run was cancelled does not take the stopped thread for a finished one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.exceptions import CapyForbiddenError, CapyThreadStoppedError
from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.sensors import suspicion
from airflow_provider_capy.sensors.suspicion import STORE_KEY
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from tests.unit.operators.test_kill import killed, until
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}


def sense(thread_id: str, supervisor: Supervisor, *, clears: int = 1, max_tries: int = 1, **arguments: Any) -> Ran:
    return run_task(
        lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.05, **arguments),
        supervisor=supervisor,
        retries=max_tries,
        try_number=max_tries + 1,
        clear_number=clears,
    )


def finished_thread(capy: EmulatorControl) -> str:
    [thread_id] = capy.create(seconds=0.01)
    until(lambda: capy.thread(thread_id)["run_state"] == "ready")
    return thread_id


def left_by_a_wait_for(thread_id: str) -> Supervisor:
    return Supervisor(store={STORE_KEY: {"thread_id": thread_id, "tries": [0, 0]}})


@pytest.fixture
def stopped(capy_emulator: EmulatorControl) -> str:
    [thread_id] = capy_emulator.create(life="forever")
    killed(
        lambda: run_task(
            lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.05),
            supervisor=Supervisor(standing="failed"),
        ),
        lambda: capy_emulator.requests("getThread"),
    )
    until(lambda: capy_emulator.thread(thread_id)["run_state"] == "ready")
    return thread_id


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_that_the_cancelled_wait_has_stopped_is_no_success(mode: str, stopped: str) -> None:
    ran = sense(stopped, left_by_a_wait_for(stopped), **MODES[mode])
    assert (ran.state, type(ran.error)) == ("failed", CapyThreadStoppedError)
    assert f"Thread {stopped} reads ready, which proves nothing" in str(ran.error)


def test_a_retry_and_another_clear_find_it_suspicious_as_well(stopped: str) -> None:
    supervisor = left_by_a_wait_for(stopped)
    for clears, max_tries in ((1, 1), (1, 1), (2, 2)):
        assert isinstance(sense(stopped, supervisor, clears=clears, max_tries=max_tries).error, CapyThreadStoppedError)


def test_a_try_that_could_not_look_leaves_the_suspicion_to_the_next(
    stopped: str, capy_emulator: EmulatorControl
) -> None:
    supervisor = left_by_a_wait_for(stopped)
    capy_emulator.fault("status", "getThread", status=403, times=1)
    assert isinstance(sense(stopped, supervisor).error, CapyForbiddenError)
    assert isinstance(sense(stopped, supervisor).error, CapyThreadStoppedError)


def test_never_fail_skips_it(stopped: str) -> None:
    assert sense(stopped, left_by_a_wait_for(stopped), never_fail=True).state == "skipped"


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_that_is_still_at_work_is_waited_for(
    mode: str, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspicion, "STOP_TAKES", 0.5)
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.set_life(thread_id, "default", seconds=3)
    supervisor = left_by_a_wait_for(thread_id)
    assert sense(thread_id, supervisor, **MODES[mode]).state == "success"
    assert STORE_KEY not in supervisor.store


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_that_comes_to_rest_right_after_the_clear_may_have_been_asked_to_before(
    mode: str, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    capy_emulator.set_life(thread_id, "default", seconds=3)
    supervisor = left_by_a_wait_for(thread_id)
    for _ in range(2):
        ran = sense(thread_id, supervisor, **MODES[mode])
        assert (ran.state, type(ran.error)) == ("failed", CapyThreadStoppedError)
    assert len(capy_emulator.requests("getThread")) > 2


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_that_ends_by_itself_leaves_no_word(mode: str, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    supervisor = Supervisor()
    assert sense(thread_id, supervisor, clears=0, timeout=0.2, **MODES[mode]).state == "failed"
    capy_emulator.set_life(thread_id, "default", seconds=0.01)
    assert sense(thread_id, supervisor, max_tries=2, **MODES[mode]).state == "success"


@pytest.mark.parametrize(
    ("left", "clears", "max_tries"),
    [
        pytest.param(0, 0, 0, id="a retry after its worker died"),
        pytest.param(1, 1, 1, id="a clear of a running task, whose on_kill keeps the thread"),
        pytest.param(None, 1, 1, id="a clear of a task that never waited"),
    ],
)
def test_a_finished_thread_is_a_success_where_nobody_stopped_it(
    left: int | None, clears: int, max_tries: int, capy_emulator: EmulatorControl
) -> None:
    thread_id = finished_thread(capy_emulator)
    supervisor = Supervisor(store={} if left is None else {STORE_KEY: {"thread_id": thread_id, "tries": [left, 0]}})
    assert sense(thread_id, supervisor, clears=clears, max_tries=max_tries).state == "success"


def test_the_word_of_a_wait_for_another_thread_says_nothing(capy_emulator: EmulatorControl) -> None:
    thread_id = finished_thread(capy_emulator)
    assert sense(thread_id, left_by_a_wait_for("jam_other")).state == "success"


def test_a_sensor_that_stops_nothing_leaves_no_word(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    supervisor = Supervisor(standing="failed")
    killed(
        lambda: run_task(
            lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.05, stop_on_kill=False),
            supervisor=supervisor,
        ),
        lambda: capy_emulator.requests("getThread"),
    )
    assert STORE_KEY not in supervisor.store


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("whose", "state"), [("ours", "failed"), ("another", "success")])
def test_a_thread_that_a_stop_task_of_the_run_has_stopped_is_no_success(
    whose: str, state: str, mapped: bool, capy_emulator: EmulatorControl
) -> None:
    thread_id = finished_thread(capy_emulator)
    stopped = [thread_id if whose == "ours" else "jam_other"]

    def make() -> CapyThreadSensor:
        if mapped:
            CapyStopThreadOperator.partial(task_id="stop").expand(thread_id=[thread_id, "jam_other"])
        else:
            CapyStopThreadOperator(task_id="stop", thread_id=thread_id)
        return CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.05)

    ran = run_task(
        make,
        supervisor=Supervisor(others={("stop", "stopped_threads"): stopped}),
        retries=1,
        try_number=2,
        clear_number=1,
    )
    assert ran.state == state


def test_a_stop_task_names_the_threads_that_it_stopped_and_no_others(capy_emulator: EmulatorControl) -> None:
    [at_work] = capy_emulator.create(life="forever")
    finished = finished_thread(capy_emulator)
    ran = run_task(lambda: CapyStopThreadOperator(task_id=TASK_ID, thread_id=[at_work, finished]))
    assert ran.xcoms["stopped_threads"] == [at_work]
