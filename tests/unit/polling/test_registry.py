"""Triggers that meet at one desk, against a real server: look-ups, clients, the switch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.hooks import look_ups as shared
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.polling.registry import registry
from airflow_provider_capy.triggers.thread import CapyThreadTrigger

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connections that are looked up, in order; each look-up takes a moment, as in a triggerer."""
    seen: list[str] = []
    real = CapyHook.aget_connection

    async def counted(conn_id: str) -> Any:
        seen.append(conn_id)
        await asyncio.sleep(0.05)
        return await real(conn_id)

    monkeypatch.setattr(CapyHook, "aget_connection", staticmethod(counted))
    return seen


async def event_of(thread_id: str, **arguments: Any) -> dict[str, Any]:
    trigger = CapyThreadTrigger(
        thread_id=thread_id, **{"project_id": "prj_demo", "poll_interval": 0.3, "stop_on_kill": False, **arguments}
    )
    [event] = [event async for event in trigger.run()]
    assert isinstance(event.payload, dict)
    return event.payload


async def outcomes(thread_ids: list[str], **arguments: Any) -> set[str]:
    return {event["outcome"] for event in await asyncio.gather(*(event_of(one, **arguments) for one in thread_ids))}


async def test_many_waits_share_one_look_up_one_client_and_pages(
    capy_emulator: EmulatorControl, look_ups: list[str]
) -> None:
    ids = capy_emulator.create(copies=150, origin="api", seconds=2.0)
    assert await outcomes(ids) == {"ready"}
    requests = capy_emulator.requests()
    assert look_ups == ["capy_default"]
    assert "listThreads" in {request["operation"] for request in requests}
    assert len({request["client_port"] for request in requests}) <= 32 + 8
    assert registry().is_empty


async def test_the_switch_gives_every_trigger_its_own_loop(
    capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__SHARED_POLLER", "False")
    ids = capy_emulator.create(copies=5, origin="api", seconds=1.0)
    assert await outcomes(ids) == {"ready"}
    assert {request["operation"] for request in capy_emulator.requests()} == {"getThread"}


async def test_a_failed_look_up_reaches_everybody_and_is_made_once(
    capy_emulator: EmulatorControl, look_ups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_DEFAULT")
    monkeypatch.setenv("AIRFLOW_CONN_BAD", '{"conn_type": "capy"}')
    waits = [event_of("jam_1", capy_conn_id="bad", tolerate_outage=0.0) for _ in range(20)]
    events = await asyncio.gather(*waits)
    assert {event["outcome"] for event in events} == {"poll_failed"}
    assert all("connection 'bad', password" in event["failure"]["message"] for event in events)
    assert look_ups == ["bad"]


async def test_whoever_asked_first_may_leave(capy_emulator: EmulatorControl, look_ups: list[str]) -> None:
    [thread_id] = capy_emulator.create(seconds=0.5)
    first, second = (asyncio.ensure_future(event_of(thread_id)) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second)["outcome"] == "ready"
    assert look_ups == ["capy_default"]


async def test_a_connection_that_was_changed_is_looked_up_again_after_a_401(
    capy_emulator: EmulatorControl, look_ups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = capy_emulator.connection_json()
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", good.replace(capy_emulator.token, "capy_revoked"))
    await shared.look_ups().hook("capy_default")
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", good)
    ids = capy_emulator.create(copies=5, origin="api", seconds=1.0)
    assert await outcomes(ids) == {"ready"}
    assert len(look_ups) == 2
    assert registry().is_empty


async def test_a_token_that_stays_wrong_ends_the_wait(
    capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch, quick_proof: None
) -> None:
    bad = capy_emulator.connection_json().replace(capy_emulator.token, "capy_revoked")
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", bad)
    event = await event_of("jam_1")
    assert (event["outcome"], event["failure"]["status_code"]) == ("poll_failed", 401)


async def test_thousands_of_waits_that_come_and_go_leave_no_task(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever", origin="api")
    for turn in range(300):
        waits = [asyncio.ensure_future(event_of(thread_id)) for _ in range(10)]
        await asyncio.sleep(0.002 * (turn % 3))
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    assert registry().is_empty
    assert asyncio.all_tasks() == {asyncio.current_task()}
