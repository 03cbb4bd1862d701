"""No sequence of answers, Capy's or a stranger's, costs a healthy thread: in every way of waiting, stopping and going on.

`CAPY_SEQUENCES` is how many are tried (`make sequences`: ten thousand), `CAPY_SEED` which ones; a failure names its own.
"""

from __future__ import annotations

import json
import logging
import os
import random
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_capy import stopping
from airflow_provider_capy.creating import PATIENCE
from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.flow import run
from airflow_provider_capy.hooks import look_ups
from airflow_provider_capy.identity import STORE_KEY, Record
from airflow_provider_capy.lifecycle import Fate, Outcome, Policy
from airflow_provider_capy.polling import registry as polls
from airflow_provider_capy.stopping import Found
from airflow_provider_capy.triggers.thread import CapyThreadTrigger
from airflow_provider_capy.waiting import Wait
from tests.property.clock import Clock, Loop
from tests.property.known import KnownHook, new_hook
from tests.property.sky import DAY, PROJECT, THREAD, Answer, Sky, draw_script, under
from tests.unit.starts import MemoryStore, start
from tests.unit.worker import TASK_ID, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.events import WaitEvent

SEQUENCES = int(os.environ.get("CAPY_SEQUENCES", "400"))
# The tests below share them.
WAYS = 8
SEED = int(os.environ["CAPY_SEED"])
# One request that is under way when the deadline comes may be sent again for so long, and take a read timeout more.
REQUEST = 60.0 + 35.0
TI = SimpleNamespace(
    id="ti", dag_id="dag", run_id="run", task_id=TASK_ID, map_index=-1, try_number=1, context_carrier=None
)
pytestmark = pytest.mark.timeout(120 + SEQUENCES)


@pytest.fixture(autouse=True)
def _supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    # What is tried here by the thousand logs every failure.
    monkeypatch.setattr(logging.root, "disabled", True)


def drawn(way: str, number: int) -> tuple[random.Random, Sky]:
    chance = random.Random(f"{SEED}-{way}-{number}")
    clock = Clock()
    ready_at = clock.now + chance.choice([0.0, 100.0, 3000.0, 20_000.0])
    return chance, Sky(clock, draw_script(chance), ready_at)


def every(way: str, check: Callable[[random.Random, Sky], None]) -> None:
    for number in range(max(1, SEQUENCES // WAYS)):
        chance, sky = drawn(way, number)
        try:
            with under(sky):
                check(chance, sky)
        except Exception as error:
            began = sky.seen[0].time if sky.seen else 0.0
            log = "\n".join(
                f"{seen.time - began:9.1f} {seen.shown - began:9.1f} {seen.method:4} {seen.answer}"
                for seen in sky.seen[-60:]
            )
            raise AssertionError(f"CAPY_SEED={SEED}, {way} {number}: {error!r}\n{log}") from error


# Waits


def on_a_worker(wait: Wait, clock: Clock, _sky: Sky) -> WaitEvent:
    """Wait as a worker does that keeps its process, or a sensor that pokes."""
    with new_hook().client as client:
        while True:
            event, pause = look(wait, client, clock)
            if event is not None:
                return event
            clock.sleep(pause)


def again_and_again(wait: Wait, clock: Clock, sky: Sky) -> WaitEvent:
    """Wait as a sensor does that reschedules itself: each look begins anew with what is remembered as JSON."""
    while True:
        with new_hook().client as client:
            event, pause = look(wait, client, clock)
        if event is not None:
            return event
        clock.sleep(pause)
        wait = new_wait(wait.poll_interval, wait.deadline, sky, remembered=json.loads(json.dumps(wait.remembered())))


def look(wait: Wait, client: Any, clock: Clock) -> tuple[WaitEvent | None, float]:
    try:
        step = wait.saw(client.get_thread(THREAD), clock.time())
    except CapyError as error:
        step = wait.failed(error, clock.time())  # type: ignore[arg-type]
    return step.event, step.look_again_in


def new_wait(poll_interval: float, deadline: float | None, _sky: Sky, **more: Any) -> Wait:
    return Wait(
        THREAD,
        thread_url=lambda _: "https://capy.example",
        policy=Policy(),
        poll_interval=poll_interval,
        deadline=deadline,
        **more,
    )


def check_wait(sky: Sky, event: WaitEvent, deadline: float, poll_interval: float) -> None:
    now = sky.clock.now
    if event.outcome is Outcome.READY:
        assert sky.clock.true >= sky.ready_at, "ready before the thread was"
    else:
        assert event.outcome is Outcome.TIMEOUT, event
        assert now >= deadline, f"given up {deadline - now:.0f} s before the deadline"
    # Nobody knows beforehand that the clock will be set.
    assert now <= deadline + REQUEST + sky.leapt
    assert sky.sent("POST") == [], "a wait changed something"
    check_pace(sky, deadline, poll_interval)


def check_pace(sky: Sky, deadline: float, poll_interval: float) -> None:
    for before, after in zip(sky.seen, sky.seen[1:], strict=False):
        told = min(before.answer.told, deadline - before.shown)
        gap = after.time - before.time
        assert gap >= told - 1.0, f"asked again after {gap:.1f} s where {told:.0f} s were asked for"
    # Four attempts each, and a second look here and there, also at each no.
    lasted = sky.clock.true - sky.seen[0].time if sky.seen else 0.0
    noes = sum(seen.answer.is_no for seen in sky.seen)
    assert len(sky.seen) <= 4 * (lasted / (0.9 * poll_interval) + 5 + noes) + 20


@pytest.mark.parametrize("way", [on_a_worker, again_and_again], ids=lambda way: way.__name__)
def test_no_wait_on_a_worker_ends_but_by_capys_word(way: Callable[[Wait, Clock, Sky], WaitEvent]) -> None:
    def check(chance: random.Random, sky: Sky) -> None:
        poll_interval = chance.choice([5.0, 30.0, 300.0])
        deadline = sky.clock.now + chance.choice([600.0, 3 * 3600.0, DAY])
        check_wait(sky, way(new_wait(poll_interval, deadline, sky), sky.clock, sky), deadline, poll_interval)

    every(way.__name__, check)


def no(status: int) -> Answer:
    return Answer("status", status)


PAGE, OUTAGE = Answer("status", 404, "html"), Answer("reset")


@pytest.mark.parametrize("way", [on_a_worker, again_and_again], ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "script",
    [
        [no(403), OUTAGE, no(404), OUTAGE, no(404)],
        [no(403), no(404), no(403), no(404)] * 5,
        [no(404), *[OUTAGE] * 16, no(404)],
        [no(404), PAGE] * 10,
        [no(404), *[Answer("status", 429, retry_after="9", told=9.0)] * 4] * 4,
        [no(401), replace(no(401), step=1200.0)],
        [no(422), no(422), replace(no(409), step=1200.0), replace(no(409), step=-1200.0), no(422), no(422)],
    ],
    ids=range(7),
)
def test_no_no_ends_a_wait_that_was_not_said_three_times_in_a_row(
    way: Callable[[Wait, Clock, Sky], WaitEvent], script: list[Answer]
) -> None:
    clock = Clock()
    sky = Sky(clock, list(script), clock.now + 20_000.0)
    with under(sky):
        event = way(new_wait(30.0, clock.now + DAY, sky), clock, sky)
    assert event.outcome is Outcome.READY
    assert [seen.answer for seen in sky.seen[: len(script)]] == script, "it was not all said"


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with_others"])
def test_no_wait_in_a_triggerer_ends_but_by_capys_word(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CAPY__SHARED_POLLER", str(shared))

    def check(chance: random.Random, sky: Sky) -> None:
        poll_interval = chance.choice([5.0, 30.0, 300.0])
        deadline = sky.clock.now + chance.choice([600.0, 3 * 3600.0, DAY])
        loop = Loop(sky.clock)
        try:
            event = loop.run_until_complete(triggered(loop, chance, sky, deadline, poll_interval))
        finally:
            loop.close()
        check_wait(sky, event, deadline, poll_interval)

    every(f"triggerer-{shared}", check)


async def triggered(loop: Loop, chance: random.Random, sky: Sky, deadline: float, poll_interval: float) -> WaitEvent:
    from airflow_provider_capy.events import WaitEvent

    polls._REGISTRIES[loop] = polls.Registry(clock=sky.clock.time)
    # Not to be looked up at first, and now and then later, when a 401 has it looked up again.
    fails_until, fails = sky.clock.true + chance.choice([0.0, 0.0, 3.0, 60.0, 2000.0]), chance.choice([0.0, 0.0, 0.5])

    class Hook(KnownHook):
        @classmethod
        async def aget_connection(cls, conn_id: str) -> Any:
            if (sky.clock.true < fails_until or chance.random() < fails) and sky.could_not_ask():
                raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR))
            return cls.get_connection(conn_id)

    trigger = CapyThreadTrigger(
        thread_id=THREAD,
        project_id=PROJECT if chance.random() < 0.5 else None,
        poll_interval=poll_interval,
        deadline=deadline,
    )
    trigger.task_instance = TI  # type: ignore[assignment]
    with mock.patch.object(look_ups, "CapyHook", Hook):
        events = [event async for event in trigger.run()]
    assert len(events) == 1
    return WaitEvent.read(events[0].payload, THREAD)


# Stops


def test_no_stop_takes_a_thread_for_gone_or_for_stopped_that_is_at_work() -> None:
    def check(chance: random.Random, sky: Sky) -> None:
        until = sky.clock.now + chance.choice([5.0, 18.0, 60.0, 600.0])
        flow = stopping.stop_and_confirm(
            THREAD,
            until=until,
            clock=sky.clock.time,
            spare_blocked=chance.random() < 0.3,
            ask_first=chance.random() < 0.3,
        )
        with new_hook().client as client:
            report = run(flow, client, sky.clock.sleep)
        blocked = sky.seen[-1].answer.kind == "blocked"
        if report.is_over and not blocked:
            assert report.result is not Found.GONE, report
            assert sky.is_at_rest, report
        elif not report.is_over:
            assert sky.clock.now >= until - 5.0, "given up early"
        assert sky.sent("POST", "/stop") or sky.clock.true >= sky.ready_at or blocked, "never asked to stop"
        assert len(sky.sent("POST")) == len(sky.sent("POST", "/stop"))

    every("stop", check)


def test_a_no_that_was_said_once_has_not_stood_however_long_ago_that_was() -> None:
    clock = Clock()
    refused, page = Answer("status", 404, "capy", "40", 40.0), Answer("status", 404, "html")
    sky = Sky(clock, [page, refused, *[page] * 40], clock.now + DAY)
    with under(sky), new_hook().client as client:
        report = run(stopping.stop_and_confirm(THREAD, until=clock.now + 60.0, clock=clock.time), client, clock.sleep)
    assert report.result is Found.NOT_CONFIRMED


def test_a_stop_that_is_only_asked_for_believes_no_stranger() -> None:
    def check(_chance: random.Random, sky: Sky) -> None:
        sky.script = [answer for answer in sky.script if not answer.is_no]
        with new_hook().client as client, suppress(CapyError):
            report = run(stopping.request_stop(THREAD), client, sky.clock.sleep)
            assert (report.result, sky.stopped_at is not None) == (Found.REQUESTED, True)

    every("request", check)


# Going on with a thread that is known


def test_no_retry_starts_a_second_thread_or_stops_the_first() -> None:
    def check(chance: random.Random, sky: Sky) -> None:
        store = MemoryStore()
        known = Record(
            reference="af1",
            nonce="n",
            generation=0,
            clear_number=0,
            max_tries=2,
            project_id=PROJECT,
            intended_at=sky.clock.now - 121.0,
            thread_id=THREAD,
            fate=Fate.HELD,
        )
        store.set(STORE_KEY, known.model_dump(mode="json"))
        sky.ready_at += DAY
        got = tries_until_it_is_known(sky, store)
        assert got == THREAD
        assert sky.sent("POST") == []

    every("retry", check)


def test_no_answer_to_a_create_makes_a_second_one() -> None:
    def check(chance: random.Random, sky: Sky) -> None:
        sky.exists = False
        sky.ready_at += DAY
        tries_until_it_is_known(sky, MemoryStore())
        assert sky.creates == 1
        assert sky.sent("POST", "/stop") == []

    every("create", check)


def tries_until_it_is_known(sky: Sky, store: MemoryStore) -> str | None:
    """Start as a task does, and try again five minutes later, until a try knows its thread."""
    for _ in range(100):
        hook = new_hook()
        try:
            # As a worker's time passes.
            began = start(None, store, hook=hook, clock=sky.clock.time, sleep=sky.clock.sleep, patience=PATIENCE)
            return began.get().thread_id
        except CapyError:
            assert sky.creates <= 1
        finally:
            hook.close()
        sky.clock.sleep(300.0)
    raise AssertionError("a hundred tries were not enough")
