"""The stopper against an emulated Capy: what an end calls for is stopped, and every record of it knows."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy import stopping
from airflow_provider_capy.api import AsyncCapyClient
from airflow_provider_capy.flow import IN_FLIGHT
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners import stopper
from airflow_provider_capy.listeners.decisions import Row
from airflow_provider_capy.listeners.stopper import Stopper
from airflow_provider_capy.listeners.store import dumped
from airflow_provider_capy.records import OPEN, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.listeners.handover import End

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate
MARKED_FAILED: End = ("dag", "run", None, -1, "failed", True)
FAILED: End = ("dag", "run", None, -1, "failed", False)


def at_work(capy: EmulatorControl, copies: int = 1, **fields: Any) -> list[str]:
    return capy.create(life="forever", copies=copies, age=60, **fields)


async def seen_to(stopping_: Stopper, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        await asyncio.sleep(0.02)
        if stopping_.is_idle:
            return
        assert time.monotonic() < deadline


async def hear(*ends: End) -> None:
    one = Stopper()
    one.take(ends)
    await seen_to(one)
    assert one._clients == {}


async def sweep() -> None:
    one = Stopper()
    one.sweep()
    await seen_to(one)


def stopped(capy: EmulatorControl) -> set[str]:
    return {thread["id"] for thread in capy.threads() if thread["stops"]}


async def test_what_an_end_calls_for_is_stopped_and_the_rest_goes_on(capy: EmulatorControl, store: Store) -> None:
    held, dispatched, decided, spared, elsewhere = at_work(capy, 5)
    rows = [
        store.keep(held),
        store.keep(dispatched, "b", fate=DISPATCHED),
        store.keep(decided, "c", fate=LEFT),
        store.keep(spared, "d", stop_on_kill=False),
        store.keep(elsewhere, "e", run_id="another"),
    ]
    await hear(FAILED)
    assert stopped(capy) == {held}
    await hear(MARKED_FAILED)
    assert stopped(capy) == {held, dispatched}
    assert [store.fate(row) for row in rows] == [STOPPED, STOPPED, LEFT, HELD, HELD]
    assert [store.rows[row].record.stopped_by for row in rows[:3]] == [
        "the run failed",
        "the run was marked failed",
        "",
    ]


async def test_the_word_is_there_before_the_request_and_the_rest_after_it(capy: EmulatorControl, store: Store) -> None:
    [thread_id] = at_work(capy, stop_seconds=0.3)
    row, sensors = store.keep(thread_id), store.keep(thread_id, "sensor")
    await hear(MARKED_FAILED)
    [asked] = capy.stops(thread_id)
    assert [(one, fate) for one, fate, _ in store.told] == [
        (row, STOPPING),
        (sensors, STOPPING),
        (row, STOPPED),
        (sensors, STOPPED),
    ]
    assert max(store.told[0][2], store.told[1][2]) <= asked + 0.001
    assert store.told[2][2] >= capy.thread(thread_id)["stopped"]


async def test_a_thread_that_is_not_seen_at_rest_stays_about_to_be_stopped(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopper, "STOP_WITHIN", 0.5)
    [stubborn] = at_work(capy, stop_seconds=1000)
    row = store.keep(stubborn)
    await hear(MARKED_FAILED)
    assert (store.fate(row), stopped(capy)) == (STOPPING, {stubborn})
    # The next sweep goes on with it.
    capy.set_life(stubborn, "forever")
    await sweep()
    assert store.fate(row) == STOPPED


@pytest.mark.parametrize(
    ("others", "is_stopped", "fate"),
    [
        ({"thread_url": "https://capy"}, True, STOPPED),
        ({"fate": LEFT}, False, LEFT),
    ],
    ids=["still held", "decided by now"],
)
async def test_a_record_that_somebody_else_has_written_into_is_read_again(
    others: dict[str, Any], is_stopped: bool, fate: Fate, capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(thread_id)
    store.contested[row] = others
    await hear(FAILED)
    assert (store.fate(row), bool(stopped(capy))) == (fate, is_stopped)
    assert store.rows[row].record.thread_url == others.get("thread_url", "")


async def test_the_thread_of_a_record_that_was_deleted_meanwhile_is_stopped_all_the_same(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = at_work(capy)
    store.keep(thread_id)
    compare_and_set = store.compare_and_set

    def deleted(changes: Any) -> list[bool]:
        store.rows.clear()
        return compare_and_set(changes)

    monkeypatch.setattr(store, "compare_and_set", deleted)
    await hear(MARKED_FAILED)
    assert stopped(capy) == {thread_id}


async def test_the_thread_of_a_create_without_an_answer_is_found_by_its_reference(
    capy: EmulatorControl, store: Store
) -> None:
    [ours] = at_work(capy, prompt="Work\n\nAirflow reference: af1", origin="api")
    at_work(capy, prompt="Work\n\nAirflow reference: af2", origin="api")
    row = store.keep(None, reference="af1")
    await hear(MARKED_FAILED)
    assert stopped(capy) == {ours}
    assert (store.fate(row), store.rows[row].record.thread_id) == (STOPPED, ours)


async def test_the_thread_of_a_create_whose_process_tells_it_after_all_is_stopped(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(None, reference="af1")
    one = Stopper()
    one.take([MARKED_FAILED])
    await asyncio.sleep(0.15)
    store.write(row, thread_id=thread_id)
    await seen_to(one)
    assert stopped(capy) == {thread_id}


@pytest.mark.parametrize(("age", "fate"), [(10.0, STOPPING), (10_000.0, SETTLED)])
async def test_a_create_whose_thread_nobody_finds_is_given_up_only_when_it_is_old(
    age: float, fate: Fate, capy: EmulatorControl, store: Store
) -> None:
    row = store.keep(None, reference="af1", sent_at=time.time() - age)
    await hear(MARKED_FAILED)
    assert (store.fate(row), stopped(capy)) == (fate, set())


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
    row = store.keep(thread_id)
    await hear(MARKED_FAILED)
    assert (store.fate(row), stopped(capy)) == (STOPPED, {thread_id})


async def test_one_that_cannot_be_stopped_keeps_no_other_at_work(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forbidden, missing, fine = at_work(capy, 3)
    capy.fault("status", "stopThread", status=403, match=forbidden)
    rows = [store.keep(forbidden), store.keep(missing, "b", capy_conn_id="nowhere"), store.keep(fine, "c")]
    await hear(MARKED_FAILED)
    assert [store.fate(row) for row in rows] == [STOPPING, STOPPING, STOPPED]
    warnings = [record.getMessage() for record in caplog.records if record.name == stopper.__name__]
    assert len([line for line in warnings if "may still be at work" in line]) == 2
    assert capy.token not in caplog.text


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
    for number, thread_id in enumerate(at_work(capy, 200)):
        store.keep(thread_id, map_index=number)
    await hear(MARKED_FAILED)
    assert len(stopped(capy)) == 200
    assert {row.record.fate for row in store.rows.values()} == {STOPPED}
    assert IN_FLIGHT / 2 < most <= IN_FLIGHT
    assert len(clients) == 1


async def test_an_end_that_is_heard_again_while_its_threads_are_being_stopped_asks_once(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy, stop_seconds=0.5)
    store.keep(thread_id)
    one = Stopper()
    for _ in range(4):
        one.take([MARKED_FAILED, ("dag", "run", "work", -1, "", True)])
        one.sweep()
        await asyncio.sleep(0.08)
    await seen_to(one)
    assert len(capy.stops(thread_id)) == 1


@pytest.mark.parametrize(("end", "is_stopped"), [(MARKED_FAILED, True), (FAILED, False)])
async def test_what_a_person_did_is_waited_for_until_it_is_committed(
    end: End, is_stopped: bool, capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(thread_id, run_state="running")
    one = Stopper()
    one.take([end])
    await asyncio.sleep(0.1)
    assert stopped(capy) == set()
    store.rows[row] = replace(store.rows[row], run_state="failed")
    await seen_to(one)
    assert bool(stopped(capy)) is is_stopped


async def test_a_task_instance_that_was_marked_and_cleared_at_once_is_not_waited_for_without_end(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    store.keep(thread_id, run_state="running", task_state=None)
    await hear(("dag", "run", "work", -1, "", True))
    assert stopped(capy) == set()


async def test_a_run_without_threads_asks_nobody(capy: EmulatorControl, store: Store) -> None:
    await hear(MARKED_FAILED, FAILED)
    assert (capy.requests(), store.told) == ([], [])


async def test_a_database_that_is_away_is_told_and_left_to_the_next_sweep(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    [thread_id] = at_work(capy)
    store.keep(thread_id)
    store.failures = 1
    await hear(MARKED_FAILED)
    assert "the next sweep looks for them again" in caplog.text
    assert stopped(capy) == set()
    await sweep()
    assert stopped(capy) == {thread_id}


@pytest.mark.parametrize(
    ("fields", "marked", "is_stopped"),
    [
        ({"run_state": "success"}, False, True),
        ({"run_state": "failed"}, False, True),
        ({"run_state": "failed", "fate": STOPPING}, False, True),
        ({"run_state": "running", "task_state": "failed"}, False, True),
        ({"run_state": "running", "task_state": "success", "owner": "g.wait"}, False, False),
        ({"run_state": "failed", "task_state": "success", "owner": "g.wait"}, False, True),
        ({"run_state": "running", "task_state": "up_for_retry"}, False, False),
        ({"run_state": "failed", "fate": DISPATCHED}, True, True),
        ({"run_state": "failed", "fate": DISPATCHED}, False, False),
        ({"run_state": "success", "fate": DISPATCHED}, True, False),
    ],
    ids=str,
)
async def test_a_sweep_sees_to_what_nobody_has_heard(
    fields: dict[str, Any], marked: bool, is_stopped: bool, capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(thread_id, **fields)
    before, store.marked = store.fate(row), marked
    await sweep()
    assert (bool(stopped(capy)), store.fate(row)) == (is_stopped, STOPPED if is_stopped else before)


async def test_a_thread_whose_finish_a_task_has_seen_is_not_said_to_have_been_stopped(
    capy: EmulatorControl, store: Store
) -> None:
    [finished] = capy.create(seconds=0, age=60)
    store.keep(finished, "dispatch", fate=DISPATCHED, task_state="success")
    sensors = store.keep(finished, "sensor", fate=SETTLED, task_state="success")
    await hear(MARKED_FAILED)
    # A sensor that is cleared now must not fail: it saw the thread finish, and nobody has stopped it.
    assert (store.fate(sensors), stopped(capy)) == (SETTLED, set())
