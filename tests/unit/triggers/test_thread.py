"""The trigger as the triggerer treats it: started, cancelled again and again, asked to stop, given up."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, GetXCom
from pydantic import SecretStr

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.flow import IN_FLIGHT
from airflow_provider_capy.hooks import look_ups
from airflow_provider_capy.polling import registry
from airflow_provider_capy.triggers import stops, thread
from airflow_provider_capy.triggers.thread import USER_ACTION, CapyThreadTrigger
from tests.unit.worker import TASK_ID, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_capy.emulator.control import EmulatorControl

TI = SimpleNamespace(
    id="ti", dag_id="dag", run_id="run", task_id=TASK_ID, map_index=-1, try_number=1, context_carrier=None
)


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


def questions(supervisor: Supervisor) -> list[GetTaskStates]:
    return [message for message in supervisor.messages if isinstance(message, GetTaskStates)]


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
        "tolerate_outage": 3600.0,
    }


async def test_an_unknown_policy_is_refused_where_it_ends_this_trigger_only(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    # Whatever a constructor raises ends the whole triggerer.
    waiting = CapyThreadTrigger(thread_id="jam_1", on_blocked="never")  # type: ignore[arg-type]
    with pytest.raises(CapyInputError, match="on_blocked: 'never'"):
        await first(waiting.run())


async def test_a_connection_that_is_wrong_ends_the_wait_at_once(
    capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", '{"conn_type": "capy"}')
    [fired] = await first(trigger("jam_1").run())
    assert fired["outcome"] == "poll_failed"
    assert "connection 'capy_default', password" in fired["failure"]["message"]


@pytest.mark.parametrize("shared", [True, False])
async def test_a_connection_that_cannot_be_looked_up_for_a_while_ends_no_wait(
    shared: bool, capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__SHARED_POLLER", str(shared))
    monkeypatch.setattr(look_ups, "FAILED_FOR", 0.1)
    monkeypatch.setattr(thread, "LOOK_UP_AGAIN", 0.1)
    good = capy_emulator.connection_json()
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_DEFAULT")
    [thread_id] = capy_emulator.create(seconds=0)
    waiting = asyncio.ensure_future(first(trigger(thread_id).run()))
    await asyncio.sleep(0.5)
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", good)
    [fired] = await waiting
    assert (fired["outcome"], fired["thread_id"]) == ("ready", thread_id)


async def test_a_connection_that_stays_away_past_the_deadline_is_a_timeout(
    capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_DEFAULT")
    [fired] = await first(trigger("jam_1", deadline=time.time() - 1).run())
    assert fired["outcome"] == "timeout"


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
    assert (late["outcome"], ready["outcome"]) == ("timeout", "ready")
    assert late["thread"]["run_state"] in {"queued", "running"}


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
    assert (capy_emulator.stops(thread_id), questions(supervisor)) == ([], [])


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


@pytest.mark.parametrize(
    ("life", "late", "told", "asks", "kept"),
    [
        ({"life": "blocked", "seconds": 0}, False, "blocked", True, True),
        ({"life": "blocked", "seconds": 0}, False, None, True, False),
        ({"life": "forever"}, True, "timeout", True, True),
        ({"life": "forever"}, True, None, True, False),
        ({"life": "forever"}, False, None, False, False),
        ({"life": "archived", "seconds": 0}, False, None, False, True),
    ],
    ids=["blocked, told", "blocked", "late, told", "late", "at work", "archived"],
)
async def test_only_what_another_triggerer_may_have_left_alone_is_asked_for(
    life: dict[str, Any],
    late: bool,
    told: str | None,
    asks: bool,
    kept: bool,
    capy_emulator: EmulatorControl,
    supervisor: Supervisor,
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id, on_blocked="wait", poll_interval=60)
    task = await running(waiting, capy_emulator)
    # The triggerer is frozen, and everything that counts happens meanwhile.
    capy_emulator.set_life(thread_id, **life)
    waiting.deadline = time.time() - 1 if late else None
    if told:
        supervisor.xcoms["thread"] = {"thread_id": thread_id, "outcome": told}
    await killed(waiting, task)
    asked = [message for message in supervisor.messages if isinstance(message, GetXCom)]
    assert (bool(asked), capy_emulator.requests("stopThread") == []) == (asks, kept)


@pytest.mark.parametrize("stop_on_kill", [True, False])
async def test_a_ctrl_c_under_dag_test_stops_the_thread(
    stop_on_kill: bool, capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    task = await running(trigger(thread_id, ti=None, stop_on_kill=stop_on_kill), capy_emulator)
    await ended(task)
    assert bool(capy_emulator.stops(thread_id)) is stop_on_kill


async def test_a_triggerer_that_shuts_down_leaves_its_threads(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    await ended(await running(trigger(thread_id), capy_emulator))
    assert (capy_emulator.stops(thread_id), questions(supervisor)) == ([], [])


async def test_many_that_are_killed_together_ask_one_question_and_share_a_client(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    ids = capy_emulator.create(life="forever", copies=60)
    waits = [trigger(thread_id) for thread_id in ids]
    await asyncio.gather(*(wait.on_kill() for wait in waits))
    assert [thread["id"] for thread in capy_emulator.threads() if not thread["stops"]] == []
    assert len(questions(supervisor)) == 1
    assert len({request["client_port"] for request in capy_emulator.requests()}) <= IN_FLIGHT
    assert stops._CLIENTS[asyncio.get_running_loop()]._open == {}


async def test_what_an_earlier_try_told_of_another_thread_keeps_none(
    capy_emulator: EmulatorControl, supervisor: Supervisor
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id)
    task = await running(waiting, capy_emulator)
    supervisor.xcoms["thread"] = {"thread_id": "jam_other", "outcome": "blocked"}
    await killed(waiting, task)
    assert capy_emulator.thread(thread_id)["run_state"] == "ready"


async def test_the_fate_is_told_before_airflow_closes_the_log(
    capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    def tell(line: str, *details: object) -> None:
        # Airflow closes the log of a trigger whose task has ended.
        assert not task.done()
        lines.append(line % details)

    monkeypatch.setattr(CapyThreadTrigger, "log", SimpleNamespace(info=tell, warning=tell, exception=tell))
    capy_emulator.fault("slow", "stopThread", seconds=2)
    [thread_id] = capy_emulator.create(life="forever")
    runner = TriggerRunner()
    runner.triggers[1] = {"task": None, "is_watcher": False, "name": "t", "events": 0}  # type: ignore[typeddict-item]
    task = asyncio.ensure_future(runner.run_trigger(1, trigger(thread_id)))
    for _ in range(100):
        await asyncio.sleep(0.2)
        if task.done():
            break
        if capy_emulator.requests("getThread"):
            task.cancel(USER_ACTION)
    assert lines[-1] == f"Thread {thread_id}, it was stopped: its task instance is failed"


@pytest.mark.parametrize("noticed", [True, False], ids=["a poll came upon it", "no poll has come upon it"])
async def test_a_kill_after_the_token_was_changed_stops_with_the_new_one(
    noticed: bool, capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    good = capy_emulator.connection_json()
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", good)
    waiting = trigger(thread_id, poll_interval=0.05 if noticed else 60)
    task = await running(waiting, capy_emulator)
    # As if Capy had forgotten the token that this triggerer looked up.
    assert waiting._settings is not None
    object.__setattr__(waiting._settings.client, "token", SecretStr("capy_revoked"))
    [poller] = registry.registry()._pollers
    poller.client._http.headers["Authorization"] = "Bearer capy_revoked"
    if noticed:
        answered = len([r for r in capy_emulator.requests("getThread") if r["status"] == 200])
        for _ in range(200):
            if len([r for r in capy_emulator.requests("getThread") if r["status"] == 200]) > answered + 1:
                break
            await asyncio.sleep(0.02)
    await killed(waiting, task)
    assert capy_emulator.thread(thread_id)["run_state"] == "ready"


async def test_a_stop_that_cannot_succeed_ends_the_kill_without_an_exception(
    capy_emulator: EmulatorControl, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    capy_emulator.fault("status", "stopThread", status=403)
    [thread_id] = capy_emulator.create(life="forever")
    waiting = trigger(thread_id)
    task = await running(waiting, capy_emulator)
    monkeypatch.setattr(thread, "STOP_BUDGET", 2.0)
    await killed(waiting, task)
    assert capy_emulator.requests("stopThread")
