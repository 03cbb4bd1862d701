"""Ends that were heard, and those that a sweep finds, against an emulated Capy: who has to know does, and who stops is asked."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners import stopper
from airflow_provider_capy.listeners.ends import Ends
from tests.unit.listeners.memory import at_work, stopped

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.listeners.handover import End
    from tests.unit.listeners.memory import Store

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate
MARKED_FAILED: End = ("dag", "run", None, -1, "failed", True)
FAILED: End = ("dag", "run", None, -1, "failed", False)


async def seen_to(one: Ends, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        await asyncio.sleep(0.02)
        if one.is_idle:
            return
        assert time.monotonic() < deadline


async def hear(*heard: End) -> Ends:
    one = Ends()
    one.take(heard)
    await seen_to(one)
    assert one._the_stopper is None or one._the_stopper._clients.is_empty
    return one


async def sweep(one: Ends | None = None) -> None:
    one = one or Ends()
    one.sweep()
    await seen_to(one)


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


async def test_an_end_that_is_heard_again_while_its_threads_are_being_stopped_asks_once(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy, stop_seconds=0.5)
    store.keep(thread_id)
    one = Ends()
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
    one = Ends()
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
    assert store.fate(sensors) == SETTLED


# Whoever else has to know


USERS = "au0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("fields", "fate"),
    [
        ({}, STOPPING),
        # All DAGs of one schedule have runs of the same id.
        ({"dag_id": "another", "run_id": "run"}, STOPPING),
        ({"fate": DISPATCHED}, DISPATCHED),
        ({"fate": SETTLED}, SETTLED),
        ({"fate": LEFT}, LEFT),
        ({"thread_id": "jam_another"}, HELD),
        ({"reference": "au1"}, HELD),
    ],
    ids=str,
)
async def test_whoever_waits_for_the_same_thread_in_another_run_hears_of_the_stop(
    fields: dict[str, Any], fate: Fate, capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    store.keep(thread_id, reference=USERS)
    known = {"thread_id": thread_id, "reference": USERS, "run_id": "another", "run_state": "running", "shared": True}
    row = store.keep(**{**known, **fields})
    await hear(MARKED_FAILED)
    assert stopped(capy) == {thread_id}
    assert store.fate(row) == fate
    assert store.rows[row].record.stopped_by == ("the run was marked failed" if fate is STOPPING else "")


async def test_a_reference_of_a_tasks_own_is_in_no_other_run(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [thread_id] = at_work(capy)
    store.keep(thread_id, reference="af1")
    monkeypatch.setattr(store, "sharing", None)
    await hear(MARKED_FAILED)
    assert stopped(capy) == {thread_id}


async def test_a_sibling_that_was_contested_hears_of_a_stop_that_is_under_way(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy, stop_seconds=0.3)
    row, sibling = store.keep(thread_id), store.keep(thread_id, "sensor")
    store.contested[sibling] = {"thread_url": "https://capy"}
    await hear(MARKED_FAILED)
    assert (store.fate(row), store.fate(sibling), len(capy.stops(thread_id))) == (STOPPED, STOPPING, 1)
    assert store.rows[sibling].record.thread_url == "https://capy"
    await sweep()
    assert store.fate(sibling) == STOPPED


@pytest.mark.parametrize(
    ("run_state", "wait", "fate"), [("failed", LEFT, LEFT), ("success", SETTLED, SETTLED), ("running", SETTLED, HELD)]
)
@pytest.mark.parametrize("how", ["heard", "swept"])
async def test_a_thread_that_was_handed_on_is_closed_with_its_run(
    how: str, run_state: str, wait: Fate, fate: Fate, capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    create = store.keep(thread_id, "g.create", owner="g.wait", task_state="success", run_state=run_state)
    store.keep(thread_id, "g.wait", fate=wait, run_state=run_state)
    await (hear(("dag", "run", None, -1, run_state, False)) if how == "heard" else sweep())
    assert (store.fate(create), stopped(capy), store.rows[create].record.stopped_by) == (fate, set(), "")


# Sweeps


async def test_what_a_sweep_has_judged_is_judged_again_only_when_it_has_changed(
    capy: EmulatorControl, store: Store
) -> None:
    [thread_id] = at_work(capy)
    row = store.keep(thread_id, fate=DISPATCHED, task_state="success")
    one = Ends()
    for _ in range(3):
        await sweep(one)
    assert (store.left, store.asked, stopped(capy)) == (3, ["run"], set())
    store.rows[row] = replace(store.rows[row], task_state="failed")
    await sweep(one)
    assert (store.asked, stopped(capy)) == (["run"] * 2, {thread_id})


async def test_a_thread_that_was_not_seen_at_rest_is_judged_again(
    capy: EmulatorControl, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopper, "STOP_WITHIN", 0.2)
    [thread_id] = at_work(capy, stop_seconds=1000)
    row = store.keep(thread_id, fate=STOPPING)
    one = Ends()
    await sweep(one)
    await sweep(one)
    assert (store.fate(row), store.asked) == (STOPPING, ["run"] * 2)
    capy.set_life(thread_id, "forever")
    await sweep(one)
    assert store.fate(row) == STOPPED


async def test_sweeps_do_not_overlap(store: Store) -> None:
    store.hold = threading.Event()
    one = Ends()
    for _ in range(3):
        one.sweep()
        await asyncio.sleep(0.02)
    store.hold.set()
    await seen_to(one)
    assert store.left == 1
    await sweep(one)
    assert store.left == 2


async def test_a_run_that_fails_keeps_a_sweep_from_no_other(
    capy: EmulatorControl, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = at_work(capy, 2)
    store.keep(broken, run_id="broken")
    store.keep(fine)
    store.broken = {"broken"}
    one = Ends()
    await sweep(one)
    assert stopped(capy) == {fine}
    assert "Run broken of DAG dag: its threads may still be at work" in caplog.text
    # The next sweep judges it again, although nothing about it has changed.
    store.broken = set()
    await sweep(one)
    assert stopped(capy) == {broken, fine}


# What it costs


async def test_a_process_in_which_nothing_is_to_be_stopped_has_nothing_of_capys_api() -> None:
    with mock.patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "airflow_provider_capy"]:
            del sys.modules[name]
        fresh: Any = importlib.import_module("airflow_provider_capy.listeners.ends")
        fresh.store.of_run = lambda *_: []
        one = fresh.Ends()
        one.take([MARKED_FAILED])
        await seen_to(one)
        ours = {name.partition(".")[2] for name in sys.modules if name.startswith("airflow_provider_capy.")}
    assert ours == {
        "exceptions",
        "foreign_text",
        "lifecycle",
        "listeners",
        "listeners.decisions",
        "listeners.ends",
        "listeners.store",
        "records",
    }
