"""The stopper against an emulated Capy: patient, beside each other, and by the reference where no id is known."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.api import AsyncCapyClient
from airflow_provider_capy.api.calls import get_thread
from airflow_provider_capy.flow import IN_FLIGHT
from airflow_provider_capy.listeners import stopper
from airflow_provider_capy.listeners.decisions import Cause, Stop
from airflow_provider_capy.listeners.stopper import Stopper
from tests.unit.listeners.memory import at_work, stopped

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.unit.listeners.memory import Store

USERS = "au0123456789abcdef0123456789abcdef"


async def stop(store: Store, *rows: int, by: Stopper | None = None) -> list[str | None]:
    """Stop the threads of some rows, all at the same time."""
    by = by or Stopper()
    stops = [Stop(store.rows[row], (store.rows[row],), Cause.RUN_MARKED_FAILED) for row in rows or store.rows]
    done = await asyncio.gather(*map(by.stop, stops))
    assert by._clients._open == {}
    return done


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == stopper.__name__ and record.levelname == "WARNING"
    ]


def carrying(reference: str) -> dict[str, Any]:
    return {"prompt": f"Work\n\nAirflow reference: {reference}", "origin": "api"}


async def test_the_thread_of_a_create_without_an_answer_is_found_by_its_reference(
    capy: EmulatorControl, store: Store
) -> None:
    [ours] = at_work(capy, **carrying("af1"))
    at_work(capy, **carrying("af2"))
    store.keep(None, reference="af1")
    assert await stop(store) == [ours]
    assert stopped(capy) == {ours}


@pytest.mark.parametrize("skew", [0, 600, -600], ids=["one clock", "Capy's is ahead", "Capy's is behind"])
@pytest.mark.parametrize(("age", "is_ours"), [(20, True), (60, False), (1000, False)])
@pytest.mark.parametrize(
    ("reference", "may_be_older"), [("af1", True), (USERS, False)], ids=["the task's own", "the user's own"]
)
async def test_a_reference_of_the_users_own_may_be_that_of_an_older_thread(
    reference: str, may_be_older: bool, age: float, is_ours: bool, skew: float, capy: EmulatorControl, store: Store
) -> None:
    capy.fault("clock", seconds=skew)
    [thread_id] = at_work(capy, age=age, **carrying(reference))
    store.keep(None, reference=reference, intended_at=time.time() - 30)
    found = thread_id if is_ours or may_be_older else None
    assert await stop(store) == [found]
    assert stopped(capy) == ({thread_id} if found else set())


async def test_a_thread_of_unknown_age_is_not_stopped_for_a_reference_that_others_may_have(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    capy.fault("distort", "listThreads", patch='{"createdAt": "a while ago"}')
    [thread_id] = at_work(capy, **carrying(USERS))
    store.keep(None, reference=USERS, intended_at=time.time() - 30)
    assert (await stop(store), stopped(capy)) == ([None], set())
    assert [
        line
        for line in warnings(caplog)
        if f"Thread {thread_id} carries the reference and was not stopped: its age" in line
    ]


async def test_nobodys_thread_is_stopped_because_a_search_is_not_exact(capy: EmulatorControl, store: Store) -> None:
    at_work(capy, **carrying("af2"))
    capy.fault("best_match")
    store.keep(None, reference="af1", sent_at=time.time())
    assert (await stop(store), stopped(capy)) == ([None], set())


async def test_the_thread_of_a_create_whose_process_tells_it_after_all_is_stopped(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(None, reference="af1")
    stopping = asyncio.ensure_future(stop(store))
    await asyncio.sleep(0.15)
    store.write(row, thread_id=thread_id)
    assert await stopping == [thread_id]
    assert stopped(capy) == {thread_id}


@pytest.mark.parametrize(("age", "answer"), [(10.0, None), (10_000.0, "")])
async def test_a_create_whose_thread_nobody_finds_is_given_up_only_when_it_is_old(
    age: float, answer: str | None, capy: EmulatorControl, store: Store
) -> None:
    store.keep(None, reference="af1", sent_at=time.time() - age)
    assert (await stop(store), stopped(capy)) == ([answer], set())


async def test_a_lookup_that_fails_is_repeated_by_its_own_pace_alone(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    capy.fault("status", "listThreads", status=503)
    store.keep(None, reference="af1", sent_at=time.time())
    assert await stop(store) == [None]
    # The client's own attempts would take seconds of the time in which it is to be found.
    assert len(capy.requests("listThreads")) == len(store.asked) > 1
    assert len([line for line in warnings(caplog) if "The reference af1 could not be looked up" in line]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 502, "body": "html"},
        {"kind": "status", "status": 429, "retry_after": 0},
        {"kind": "reset"},
        {"kind": "error_after", "status": 500},
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}",
)
async def test_a_capy_that_fails_for_a_while_is_sat_out(
    fault: dict[str, Any], capy: EmulatorControl, store: Store
) -> None:
    for operation in ("getThread", "stopThread"):
        capy.fault(operation=operation, times=12, **fault)
    [thread_id] = at_work(capy)
    store.keep(thread_id)
    assert await stop(store) == [thread_id]
    assert stopped(capy) == {thread_id}


async def test_one_that_cannot_be_stopped_keeps_no_other_at_work(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopper, "STOP_WITHIN", 1.0)
    forbidden, missing, fine = at_work(capy, 3)
    capy.fault("status", "stopThread", status=403, match=forbidden)
    store.keep(forbidden)
    store.keep(missing, "b", capy_conn_id="nowhere")
    store.keep(fine, "c")
    assert await stop(store) == [None, None, fine]
    assert len([line for line in warnings(caplog) if "may still be at work" in line]) == 2
    assert capy.token not in caplog.text


async def test_the_same_failure_is_told_once_an_hour(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopper, "STOP_WITHIN", 0.5)
    capy.fault("status", "stopThread", status=403)
    first, second = (store.keep(thread_id, thread_id) for thread_id in at_work(capy, 2))
    by = Stopper()
    told = []
    for rows in [(first,), (first,), (first, second)]:
        assert set(await stop(store, *rows, by=by)) == {None}
        told.append(len(warnings(caplog)))
    assert told == [1, 1, 2]
    assert stopper.COMPLAIN_EVERY == 3600
    monkeypatch.setattr(stopper, "COMPLAIN_EVERY", 0.0)
    await stop(store, first, by=by)
    assert len(warnings(caplog)) == 3


async def test_many_are_asked_beside_each_other_and_not_all_at_once(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = 0
    clients = set()
    send = AsyncCapyClient.send

    async def counted(self: AsyncCapyClient, *args: Any, **kwargs: Any) -> Any:
        nonlocal now, most
        clients.add(self)
        now += 1
        most = max(most, now)
        try:
            return await send(self, *args, **kwargs)
        finally:
            now -= 1

    monkeypatch.setattr(AsyncCapyClient, "send", counted)
    ids = at_work(capy, 100)
    for number, thread_id in enumerate(ids):
        store.keep(thread_id, map_index=number)
    assert await stop(store) == ids
    assert stopped(capy) == set(ids)
    assert IN_FLIGHT / 2 < most <= IN_FLIGHT
    assert len(clients) == 1


async def test_a_token_that_is_rotated_while_others_are_stopped_is_renewed_once(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = Stopper()
    ids = at_work(capy, 20)
    rows = [store.keep(thread_id, map_index=number) for number, thread_id in enumerate(ids)]
    connection = capy.connection_json()
    async with by._clients.lent("capy_default", stopper.CapyHook()) as client:
        # One that is at it has opened the client; the others come after the rotation.
        await client.send(get_thread(ids[0]))
        capy.organisation(token="capy_rotated")
        monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", connection.replace(capy.token, "capy_rotated"))
        done = await asyncio.gather(
            *(by.stop(Stop(store.rows[row], (store.rows[row],), Cause.RUN_MARKED_FAILED)) for row in rows)
        )
    assert done == ids
    assert stopped(capy) == set(ids)
    assert by._clients._open == {}
