"""The token is rotated while threads are at work: every way of waiting and every stop goes on with the new one."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time import task_runner

from airflow_provider_capy import stopping
from airflow_provider_capy.api.calls import get_thread
from airflow_provider_capy.exceptions import CapyThreadTimeoutError, CapyUnauthorizedError
from airflow_provider_capy.flow import run
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.stopping import request_stop
from airflow_provider_capy.triggers.thread import CapyThreadTrigger
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import BaseOperator

    from airflow_provider_capy.emulator.control import EmulatorControl

CONNECTION = "AIRFLOW_CONN_CAPY_DEFAULT"
NEW = "capy_rotated"


@dataclass
class Token:
    """The token of the connection and of Capy.

    Attributes:
        capy: takes it.
        look_ups: how often the connection was looked up.
    """

    capy: EmulatorControl
    monkeypatch: pytest.MonkeyPatch
    look_ups: int = 0

    def rotate(self) -> None:
        self.capy.organisation(token=NEW)
        self.store(self.capy.connection_json().replace(self.capy.token, NEW))

    def revoke(self) -> None:
        self.capy.organisation(token=NEW)

    def store(self, connection: str) -> None:
        self.monkeypatch.setenv(CONNECTION, connection)


@pytest.fixture
def token(capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch) -> Token:
    token = Token(capy_emulator, monkeypatch)
    for name in ("get_connection", "aget_connection"):
        monkeypatch.setattr(CapyHook, name, counted(token, getattr(CapyHook, name)))
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)
    return token


def counted(token: Token, look_up: Any) -> Any:
    def count(conn_id: str) -> Any:
        token.look_ups += 1
        return look_up(conn_id)

    return staticmethod(count)


@pytest.fixture
def hook(token: Token) -> Iterator[CapyHook]:
    with closing(CapyHook()) as hook:
        _ = hook.settings
        yield hook


def refused(capy: EmulatorControl) -> int:
    return sum(request["status"] == 401 for request in capy.requests())


# The hook


def test_every_call_of_a_hook_goes_on_with_the_new_token(hook, token, capy_emulator) -> None:
    [first] = capy_emulator.create(origin="api", life="forever")
    calls: list[Callable[[], Any]] = [
        lambda: hook.get_thread(first),
        lambda: list(hook.list_threads()),
        lambda: hook.create_thread("Do it"),
        lambda: hook.stop_thread(first),
        lambda: hook.send(get_thread(first)),
        lambda: run(request_stop(first), hook),
        lambda: run(request_stop(first), hook.client),
    ]
    for number, call in enumerate(calls):
        call()
        before = refused(capy_emulator)
        new = f"capy_rotated_{number}"
        capy_emulator.organisation(token=new)
        token.store(capy_emulator.connection_json().replace(capy_emulator.token, new))
        call()
        assert (token.look_ups, refused(capy_emulator) - before) == (number + 2, 1)
    assert len(capy_emulator.threads()) == 3


def test_a_connection_that_says_the_same_is_looked_up_once_and_not_sent_with_again(hook, token, capy_emulator) -> None:
    token.revoke()
    with pytest.raises(CapyUnauthorizedError):
        hook.create_thread("Do it")
    assert (token.look_ups, refused(capy_emulator), capy_emulator.threads()) == (2, 1, [])


@pytest.mark.parametrize("connection", [None, '{"conn_type": "capy"}'], ids=["deleted", "without a token"])
def test_a_look_up_that_fails_is_told_beside_the_401(connection, hook, token, monkeypatch) -> None:
    token.revoke()
    if connection is None:
        monkeypatch.delenv(CONNECTION)
    else:
        token.store(connection)
    # In the error's own words, which name the connection.
    told = r"401.*\. After this 401: (The )?connection 'capy_default'(,| could not be looked up)"
    with pytest.raises(CapyUnauthorizedError, match=told):
        hook.get_thread("jam_1")
    with pytest.raises(CapyUnauthorizedError, match=told):
        asyncio.run(once(hook))


async def once(hook: CapyHook) -> None:
    async with await hook.aclient() as client:
        await client.get_thread("jam_1")


def test_a_kill_that_comes_into_the_look_up_is_raised(hook, token, monkeypatch) -> None:
    def killed(_: str) -> None:
        raise CapyKilledError("Killed")

    token.revoke()
    monkeypatch.setattr(CapyHook, "get_connection", staticmethod(killed))
    with pytest.raises(CapyKilledError):
        hook.get_thread("jam_1")


def test_a_host_that_has_moved_is_followed(hook, token, capy_emulator) -> None:
    [thread_id] = capy_emulator.create()
    token.revoke()
    value = json.loads(capy_emulator.connection_json()) | {"password": NEW}
    token.store(json.dumps(value | {"host": value["host"].replace("127.0.0.1", "localhost")}))
    assert hook.get_thread(thread_id).id == thread_id
    assert "localhost" in hook.settings.client.base_url


async def test_many_that_are_refused_at_once_share_one_look_up(token, capy_emulator) -> None:
    ids = capy_emulator.create(copies=40)
    async with await CapyHook().aclient() as client:
        for _ in range(2):
            assert [thread.id for thread in await asyncio.gather(*map(client.get_thread, ids))] == ids
            token.rotate()
        assert token.look_ups == 2
        capy_emulator.organisation(token="capy_somebody_elses")
        ends = await asyncio.gather(*map(client.get_thread, ids), return_exceptions=True)
    assert {type(end) for end in ends} == {CapyUnauthorizedError}
    assert token.look_ups <= 4


async def test_whoever_looks_up_for_all_may_leave(token, capy_emulator) -> None:
    [thread_id] = capy_emulator.create()
    async with await CapyHook().aclient() as client:
        await client.get_thread(thread_id)
        token.rotate()
        tasks = [asyncio.ensure_future(client.get_thread(thread_id)) for _ in range(5)]
        while token.look_ups < 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        tasks[0].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(getattr(end, "id", "") == thread_id for end in ends[1:])


# The ways of waiting


def operator(**arguments: Any) -> Callable[[], BaseOperator]:
    defaults = {"prompt": "Work", "wait_for_completion": True, "deferrable": False, "poke_interval": 0.1}
    return lambda: CapyCreateThreadOperator(task_id=TASK_ID, **{**defaults, **arguments})


def until_seen(capy: EmulatorControl) -> None:
    deadline = time.monotonic() + 30
    while not capy.requests("getThread"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def once_seen(token: Token, do: Callable[[], Any]) -> Any:
    """Rotate the token as soon as somebody has looked at the thread, and go on with something else."""

    def act() -> None:
        until_seen(token.capy)
        token.rotate()

    with ThreadPoolExecutor(1) as executor:
        acting = executor.submit(act)
        done = do()
        acting.result(30)
    return done


@pytest.mark.parametrize("way", ["worker", "deferred", "deferred alone"])
def test_an_operators_wait_goes_on(way, token, capy_emulator, monkeypatch) -> None:
    capy_emulator.script(seconds=1.5)
    if way == "deferred alone":
        monkeypatch.setenv("AIRFLOW__CAPY__SHARED_POLLER", "False")
    ran: Ran = once_seen(token, lambda: run_task(operator(deferrable=way != "worker")))
    assert (ran.state, len(capy_emulator.threads())) == ("success", 1)
    assert refused(capy_emulator) >= 1


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_a_sensors_wait_goes_on(mode, token, capy_emulator) -> None:
    [thread_id] = capy_emulator.create(seconds=1.5)
    more: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    ran: Ran = once_seen(
        token,
        lambda: run_task(lambda: CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.1, **more)),
    )
    assert ran.state == "success"


# The stops


def test_the_last_stop_of_a_worker_works(token, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    # The next look comes with the end of the time.
    ran: Ran = once_seen(token, lambda: run_task(operator(timeout=1.0, poke_interval=30)))
    assert isinstance(ran.error, CapyThreadTimeoutError)
    assert "was stopped" in str(ran.error)
    assert capy_emulator.threads()[0]["stopped"]


def test_on_kill_works(token, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    main = threading.main_thread().ident
    assert main is not None

    def kill() -> None:
        until_seen(capy_emulator)
        token.rotate()
        signal.pthread_kill(main, signal.SIGTERM)

    with ThreadPoolExecutor(1) as executor:
        killing = executor.submit(kill)
        # So long that no look of the wait comes upon the new token first.
        ran = run_task(operator(poke_interval=30), supervisor=Supervisor(standing="failed"))
        killing.result(30)
    assert isinstance(ran.error, AirflowFailException)
    assert "was asked to stop" in str(ran.error)
    assert capy_emulator.threads()[0]["stopped"]


@pytest.mark.parametrize("wait_for_stop", [True, False])
def test_a_stop_task_of_many_renews_once_for_all(wait_for_stop, token, capy_emulator, monkeypatch) -> None:
    ids = capy_emulator.create(copies=30, life="forever")
    settings = CapyHook.asettings

    async def rotated_right_after(self: CapyHook) -> Any:
        found = await settings(self)
        token.rotate()
        return found

    monkeypatch.setattr(CapyHook, "asettings", rotated_right_after)
    ran = run_task(lambda: CapyStopThreadOperator(task_id=TASK_ID, thread_id=ids, wait_for_stop=wait_for_stop))
    assert ran.state == "success"
    assert {report["result"] for report in ran.xcoms["return_value"]} == {"stopped" if wait_for_stop else "requested"}
    assert token.look_ups == 2


@pytest.mark.parametrize("alone", [True, False])
async def test_the_kill_of_a_deferred_task_works(alone, token, capy_emulator, monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__SHARED_POLLER", str(not alone))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(standing="failed"), raising=False)
    [thread_id] = capy_emulator.create(life="forever")
    waiting = CapyThreadTrigger(thread_id=thread_id, poll_interval=30)
    waiting.task_instance = SimpleNamespace(
        id="ti", dag_id="dag", run_id="run", task_id=TASK_ID, map_index=-1, try_number=1, context_carrier=None
    )

    async def wait() -> None:
        async for _ in waiting.run():
            pass

    task = asyncio.ensure_future(wait())
    while not capy_emulator.requests():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.02)
    token.rotate()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await waiting.on_kill()
    assert capy_emulator.thread(thread_id)["stopped"]
