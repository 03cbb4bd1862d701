"""Small failures of what many waits share: each is at least as well off as alone. Real sockets, real triggers."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_capy.api.client import AsyncCapyClient
from airflow_provider_capy.hooks import look_ups
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.polling.lists import Walk
from airflow_provider_capy.polling.poll import Poll
from airflow_provider_capy.polling.registry import registry
from airflow_provider_capy.polling.waiter import Waiter
from airflow_provider_capy.triggers import thread
from tests.unit.api.servers import undecryptable
from tests.unit.polling.scripted import INTERVAL, Asked, Line, ScriptedCapy, latest, outcomes, wait_for, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Callable

# A look comes within an interval of the last, a page may keep it for one more, and this machine is busy.
ON_TIME = 2 * INTERVAL + 0.6


@pytest.mark.parametrize("broken", [1, 1000], ids=["one", "every"])
@pytest.mark.parametrize("is_page", [True, False], ids=["page", "get"])
async def test_a_tls_record_that_nobody_can_decrypt(tls_capy: ScriptedCapy, is_page: bool, broken: int) -> None:
    left = [broken if is_page else 1]

    async def spoil(asked: Asked, line: Line) -> bytes | None:
        if is_page is bool(asked.thread_id) or not left[0]:
            return None
        left[0] -= 1
        undecryptable(line.socket)
        return b""

    tls_capy.script = spoil
    ids = tls_capy.threads(20, ready_in=1.0, over=1.0)
    ended = await wait_for_all(ids)
    assert outcomes(ended) == {"ready": 20}
    assert left[0] < broken
    # A GET that failed is made once more in half a second.
    assert latest(tls_capy, ended) < ON_TIME + 1.5
    assert registry().is_empty


@pytest.mark.parametrize(
    "error",
    [RuntimeError("vault"), AirflowNotFoundException("none"), TimeoutError(), asyncio.CancelledError()],
    ids=repr,
)
async def test_the_first_look_up_fails_once(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(look_ups, "FAILED_FOR", 0.3)
    monkeypatch.setattr(thread, "LOOK_UP_AGAIN", 0.2)
    real, made = CapyHook.aget_connection, []

    async def fails_once(conn_id: str) -> Any:
        made.append(conn_id)
        await asyncio.sleep(0.05)
        if len(made) == 1:
            raise error
        return await real(conn_id)

    monkeypatch.setattr(CapyHook, "aget_connection", staticmethod(fails_once))
    ended = await wait_for_all(capy.threads(200, ready_in=1.5))
    assert outcomes(ended) == {"ready": 200}
    assert len(made) == 2
    assert latest(capy, ended) < ON_TIME + 1.5


@pytest.mark.parametrize("count", [4, 60])
async def test_a_list_that_lags_behind_for_good(
    capy: ScriptedCapy, caplog: pytest.LogCaptureFixture, in_step: None, count: int
) -> None:
    async def lie(asked: Asked, _: Line) -> bytes | None:
        return None if asked.thread_id else capy.page(asked, lies=True)

    capy.script = lie
    ended = await wait_for_all(capy.threads(count, ready_in=1.0))
    assert outcomes(ended) == {"ready": count}
    assert capy.pages() >= 3
    # One sweep each to find out with one, two, eight GETs that it lies.
    assert latest(capy, ended) < 5 * INTERVAL + 1.5
    said = [record for record in caplog.records if "has a list that shows" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING] * (count > 4)


async def test_a_project_id_that_cannot_be_listed(capy: ScriptedCapy, caplog: pytest.LogCaptureFixture) -> None:
    ended = await wait_for_all(capy.threads(10, " ", ready_in=1.5), project_id=" ")
    assert outcomes(ended) == {"ready": 10}
    assert latest(capy, ended) < ON_TIME
    assert capy.pages() == 0
    assert sum("cannot be listed" in record.getMessage() for record in caplog.records) == 1


@pytest.fixture
def send_breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], bool]], None]:
    """Have sending a call raise what nobody expects, when a test says so."""
    real = AsyncCapyClient.send

    def when(breaks: Callable[[Any], bool]) -> None:
        async def send(self: Any, call: Any, *given: Any) -> Any:
            if breaks(call):
                raise RuntimeError(f"unexpected, {call.path}")
            return await real(self, call, *given)

        monkeypatch.setattr(AsyncCapyClient, "send", send)

    return when


async def test_an_unexpected_exception_in_a_walk(capy: ScriptedCapy, send_breaks: Any) -> None:
    send_breaks(lambda call: call.operation == "listThreads")
    ended = await wait_for_all(capy.threads(20, ready_in=1.5))
    assert outcomes(ended) == {"ready": 20}
    assert latest(capy, ended) < ON_TIME
    assert max(capy.gets().values()) <= 1.5 / INTERVAL + 3


async def test_an_unexpected_exception_in_one_get_is_only_of_those_who_asked(
    capy: ScriptedCapy, send_breaks: Any
) -> None:
    ids = capy.threads(2, ready_in=1.0)
    send_breaks(lambda call: call.path.endswith(ids[0]))
    waits = [wait_for(thread_id) for thread_id in (ids[0], ids[0], ids[1], ids[1])]
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert [getattr(one, "outcome", None) for one in ended[2:]] == ["ready", "ready"]
    assert [type(one) for one in ended[:2]] == [RuntimeError, RuntimeError]
    # One object that many raise gathers the tracebacks of all.
    assert ended[0] is not ended[1]
    assert registry().is_empty


async def test_an_unexpected_exception_in_one_get_ends_no_wait(
    capy: ScriptedCapy, send_breaks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    [thread_id] = capy.threads(1, ready_in=1.0)
    left = [1]

    def once(call: Any) -> bool:
        left[0] -= call.path.endswith(thread_id)
        return left[0] == 0 and call.path.endswith(thread_id)

    send_breaks(once)
    ended = await wait_for_all([thread_id] * 5)
    assert outcomes(ended) == {"ready": 5}
    assert sum("goes on alone: RuntimeError" in record.getMessage() for record in caplog.records) == 5


@pytest.mark.parametrize("turn", [1, 5])
async def test_a_poll_that_breaks(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, turn: int
) -> None:
    real, turns = Poll.tick, [0]

    def breaks(self: Poll, now: Any) -> Any:
        turns[0] += self.size >= 30
        if turns[0] == turn and self.size >= 30:
            raise RuntimeError("a bug")
        return real(self, now)

    monkeypatch.setattr(Poll, "tick", breaks)
    ended = await wait_for_all(capy.threads(30, ready_in=1.5))
    assert outcomes(ended) == {"ready": 30}
    # Whoever goes on alone begins with a look within an interval.
    assert latest(capy, ended) < ON_TIME
    assert sum("its 30 waits go on alone" in record.getMessage() for record in caplog.records) == 1
    assert registry().is_empty


async def test_a_deadline_after_the_poll_broke_while_nobody_answers(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.time() + 2.0
    waits = [asyncio.ensure_future(wait_for(one, deadline=deadline)) for one in capy.threads(10)]
    while capy.pages() < 3:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.02)
    monkeypatch.setattr(Poll, "tick", None)
    await capy.stop()
    ended = await asyncio.gather(*waits)
    assert outcomes(ended) == {"timeout": 10}
    # What a page has shown is all that is known of most of them.
    assert {one.event["thread"]["run_state"] for one in ended} == {"running"}


async def test_whoever_comes_after_a_poll_broke_has_one_that_works(
    capy: ScriptedCapy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = capy.threads(30, ready_in=1.5)
    broken: list[Poll] = []
    real = Poll.tick

    def breaks(self: Poll, now: Any) -> Any:
        if broken and self is broken[0]:
            raise RuntimeError("a bug for good")
        return real(self, now)

    monkeypatch.setattr(Poll, "tick", breaks)
    first = [asyncio.ensure_future(wait_for(thread_id)) for thread_id in ids[:15]]
    await asyncio.sleep(0.5)
    broken.extend(poller.poll for poller in registry()._pollers)
    ended = await wait_for_all(ids[15:])
    assert outcomes([*ended, *await asyncio.gather(*first)]) == {"ready": 30}
    assert capy.pages() >= 1
    assert registry().is_empty


async def test_thousands_of_waits_that_come_and_go_leave_nothing(capy: ScriptedCapy) -> None:
    ids = capy.threads(50)
    process = psutil.Process()

    async def come_and_go(rounds: int) -> tuple[int, int, int]:
        for turn in range(rounds):
            waits = [asyncio.ensure_future(wait_for(ids[number % 50])) for number in range(200)]
            await asyncio.sleep((0.0, 0.05, 0.3)[turn % 3])
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        while capy.open:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        # What was cancelled holds what it was doing, until something else is awaited.
        del waits
        await asyncio.sleep(0)
        gc.collect()
        left = sum(type(one) in (Waiter, Poll, Walk) for one in gc.get_objects())
        return len(asyncio.all_tasks()), process.num_fds(), left

    before = await come_and_go(3)
    assert await come_and_go(15) == before
    assert registry().is_empty
