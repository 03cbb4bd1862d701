"""The trigger as the triggerer treats it: started, cancelled again and again, asked to stop, given up."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.triggers.thread import CapyThreadTrigger
from tests.unit.worker import TASK_ID, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_capy.emulator.control import EmulatorControl

TI = SimpleNamespace(dag_id="dag", run_id="run", task_id=TASK_ID, map_index=-1)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor(standing="failed")
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


def trigger(thread_id: str, ti: Any = TI, **arguments: Any) -> CapyThreadTrigger:
    made = CapyThreadTrigger(thread_id=thread_id, **{"poll_interval": 0.05, **arguments})
    made.task_instance = ti
    return made


async def first(events: AsyncIterator[Any]) -> Any:
    return [event.payload async for event in events]


async def running(waiting: CapyThreadTrigger, capy: EmulatorControl) -> asyncio.Task[Any]:
    """Start a trigger, and return once it has looked at its thread."""
    task = asyncio.ensure_future(first(waiting.run()))
    deadline = time.monotonic() + 30
    while not capy.requests():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return task


async def killed(waiting: CapyThreadTrigger, task: asyncio.Task[Any]) -> None:
    """Do what the triggerer does: cancel the wait, call on_kill, and cancel again every moment."""
    await ended(task)
    killing = asyncio.ensure_future(waiting.on_kill())
    while not killing.done():
        await asyncio.sleep(0.05)
        killing.cancel()
    await killing


async def ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_is_serialised_makes_the_same_trigger_again() -> None:
    path, arguments = CapyThreadTrigger(
        thread_id="jam_1", capy_conn_id="c", project_id="p", poll_interval=2.0, deadline=5.0, on_blocked="wait"
    ).serialize()
    assert path == "airflow_provider_capy.triggers.thread.CapyThreadTrigger"
    assert CapyThreadTrigger(**arguments).serialize() == (path, arguments)
    assert arguments == {
        "thread_id": "jam_1",
        "capy_conn_id": "c",
        "project_id": "p",
        "poll_interval": 2.0,
        "deadline": 5.0,
        "on_blocked": "wait",
        "fail_on_task_error": False,
        "stop_on_kill": True,
        "tolerated_failures": 5,
    }


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(CapyInputError, match="on_blocked: 'never'"):
        CapyThreadTrigger(thread_id="jam_1", on_blocked="never")  # type: ignore[arg-type]


async def test_it_fires_once_and_ends(capy_emulator: EmulatorControl, supervisor: Supervisor) -> None:
    [thread_id] = capy_emulator.create(seconds=0.3)
    [fired] = await first(trigger(thread_id).run())
    assert (fired["outcome"], fired["thread_id"]) == ("ready", thread_id)


async def test_a_deadline_that_has_passed_still_allows_one_look(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [working, done] = [*capy_emulator.create(life="forever"), *capy_emulator.create(seconds=0, age=60)]
    [late] = await first(trigger(working, deadline=time.time() - 10).run())
    [ready] = await first(trigger(done, deadline=time.time() - 10).run())
    assert (late["outcome"], late["thread"]["run_state"], ready["outcome"]) == (
        "timeout",
        late["thread"]["run_state"],
        "ready",
    )
    assert late["thread"] != {}


async def test_the_pull_request_is_published_while_the_wait_goes_on(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    phases = [{"at": 0, "run_state": "waiting", "waiting_on": ["ci"], "pull_requests": ["open"]}]
    [thread_id] = capy_emulator.create(phases=phases)
    task = await running(trigger(thread_id), capy_emulator)
    deadline = time.monotonic() + 30
    while "pull_request_url" not in supervisor.xcoms:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert supervisor.xcoms["pull_request_url"] == capy_emulator.thread(thread_id)["pull_requests"][0]["url"]
    await ended(task)


@pytest.mark.parametrize("standing", ["failed", "success", "skipped", "removed"])
async def test_a_kill_of_a_task_that_is_over_stops_the_thread_although_it_is_cancelled_again(
    standing: str, capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    supervisor.standing = standing
    capy_emulator.fault("slow", "stopThread", seconds=1)
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id)
    task = await running(waiting, capy_emulator)
    await killed(waiting, task)
    assert capy_emulator.thread(thread_id)["run_state"] == "ready"


@pytest.mark.parametrize("standing", ["deferred", "running", "scheduled", "restarting"])
async def test_a_kill_of_a_task_that_is_alive_elsewhere_keeps_the_thread(
    standing: str, capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    supervisor.standing = standing
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id)
    task = await running(waiting, capy_emulator)
    await killed(waiting, task)
    assert capy_emulator.stops(thread_id) == []


async def test_a_kill_with_stop_on_kill_off_asks_nobody(capy_emulator: EmulatorControl, supervisor: Supervisor) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id, stop_on_kill=False)
    task = await running(waiting, capy_emulator)
    await killed(waiting, task)
    asked = [message for message in supervisor.messages if isinstance(message, GetTaskStates)]
    assert (capy_emulator.stops(thread_id), asked) == ([], [])


async def test_a_kill_after_the_event_was_fired_does_nothing(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [thread_id] = capy_emulator.create(life="blocked", seconds=0)
    waiting = trigger(thread_id)
    await first(waiting.run())
    await waiting.on_kill()
    assert (capy_emulator.stops(thread_id), capy_emulator.requests("stopThread")) == ([], [])


async def test_a_kill_without_a_task_instance_keeps_the_thread(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id, ti=None)
    task = await running(waiting, capy_emulator)
    await waiting.on_kill()
    assert capy_emulator.stops(thread_id) == []
    await ended(task)


async def test_a_stop_that_cannot_succeed_ends_the_kill_without_an_exception(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    capy_emulator.fault("status", "stopThread", status=403)
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id)
    task = await running(waiting, capy_emulator)
    await killed(waiting, task)
    assert len(capy_emulator.requests("stopThread")) == 1
