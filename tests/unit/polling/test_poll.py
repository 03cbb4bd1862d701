"""What waits that share a poller may count on, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.exceptions import CapyNoAnswerError, api_error_class
from airflow_provider_capy.lifecycle import Outcome, Policy
from tests.unit.polling import virtual
from tests.unit.polling.virtual import FakeCapy, Life, Triggerer, Waiter, plain_looks, run

if TYPE_CHECKING:
    from typing import Any

RUNNING = Life([(0.0, {"runState": "running"})])


def settling(when: float, **state: Any) -> Life:
    return Life([(0.0, {"runState": "running"}), (when, {"runState": "ready", **state})])


def watch(capy: FakeCapy, waiters: list[Waiter], until: float) -> Triggerer:
    async def main() -> Triggerer:
        triggerer = Triggerer(capy)
        await triggerer.run(waiters, until)
        return triggerer

    triggerer: Triggerer = run(main)
    assert triggerer.registry.is_empty
    assert (capy.opened, capy.in_flight) == (capy.closed, 0)
    return triggerer


def crowd(n: int, **more: Any) -> list[Waiter]:
    return [Waiter(f"t{number}", **more) for number in range(n)]


def operations(capy: FakeCapy) -> Counter[str]:
    return Counter(request.operation for request in capy.requests)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_threads_are_asked_for_singly(n: int) -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(n)})
    watch(capy, crowd(n), 100.0)
    assert set(operations(capy)) == {"getThread"}


def test_a_thousand_threads_cost_ten_pages_an_interval() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(1000)})
    watch(capy, crowd(1000), 100.0)
    assert operations(capy)["listThreads"] == 100
    # One of each walk, and everybody once in half an hour.
    assert 10 <= operations(capy)["getThread"] <= 100 + 1000 * 100 / 1800


def test_a_settled_thread_is_fetched_once() -> None:
    capy = FakeCapy({f"t{number}": settling(30.0, title="done") for number in range(100)})
    waiters = crowd(100)
    watch(capy, waiters, 200.0)
    assert 100 <= operations(capy)["getThread"] <= 110
    assert {(waiter.event.outcome, waiter.event.thread["title"]) for waiter in waiters} == {(Outcome.READY, "done")}


def test_threads_deep_in_a_crowded_project_cost_no_more_than_single_gets() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(100)}, others=100_000)
    waiters = crowd(100)
    watch(capy, waiters, 1000.0)
    assert len(capy.requests) <= sum(map(plain_looks, waiters))


def test_a_thread_that_wants_rare_looks_rides_along_with_its_neighbours() -> None:
    blocks = Life([(0.0, {"runState": "running"}), (100.0, {"runState": "blocked", "status": "active"})])
    capy = FakeCapy({f"t{number}": RUNNING for number in range(9)} | {"t9": blocks})
    waiters = [*crowd(9, interval=5.0), Waiter("t9", interval=600.0)]
    watch(capy, waiters, 200.0)
    assert waiters[9].ended < 110.0
    assert len([request for request in capy.requests if request.thread_id == "t9"]) <= 2 + 4


def test_threads_that_only_want_rare_looks_get_rare_looks() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(10)})
    watch(capy, crowd(10, interval=100.0), 1000.0)
    assert operations(capy)["listThreads"] == 10
    assert operations(capy)["getThread"] <= 12


def test_waits_on_the_same_thread_share_its_look() -> None:
    capy = FakeCapy({"t0": settling(50.0)})
    waiters = [Waiter("t0") for _ in range(2)]
    watch(capy, waiters, 200.0)
    assert [waiter.event.outcome for waiter in waiters] == [Outcome.READY, Outcome.READY]
    assert len(capy.requests) <= 11


def test_waits_without_a_project_learn_it_and_join() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(100)})
    watch(capy, crowd(100, project=None), 205.0)
    assert operations(capy)["getThread"] <= 130
    assert operations(capy)["listThreads"] <= 25


def test_threads_waiting_for_ci_are_found_among_the_idle_ones() -> None:
    capy = FakeCapy({f"t{number}": Life([(0.0, {"runState": "waiting", "status": "idle"})]) for number in range(100)})
    watch(capy, crowd(100), 205.0)
    assert operations(capy)["getThread"] <= 130
    assert {request.params.get("status") for request in capy.requests[-3:]} >= {"idle"}


def test_threads_started_by_others_are_found_without_the_origin_filter() -> None:
    lives = {f"t{number}": Life(RUNNING.steps, origin="web") for number in range(100)}
    capy = FakeCapy(lives)
    watch(capy, crowd(100), 205.0)
    assert not any("origin" in request.params for request in capy.requests[-3:] if request.operation == "listThreads")
    assert operations(capy)["getThread"] <= 200


def test_a_wait_that_leaves_disturbs_nobody() -> None:
    capy = FakeCapy({f"t{number}": settling(60.0) for number in range(20)})
    waiters = [*crowd(10, leaves=33.0), *[Waiter(f"t{number}") for number in range(10, 20)]]
    watch(capy, waiters, 200.0)
    assert [waiter.event is not None for waiter in waiters] == [False] * 10 + [True] * 10


def test_an_id_that_is_none_leaves_its_own_wait_alone() -> None:
    capy = FakeCapy({f"t{number}": settling(60.0) for number in range(5)})
    waiters = [*crowd(5), Waiter("../x"), Waiter("unknown")]
    watch(capy, waiters, 200.0)
    assert waiters[5].is_alone
    assert waiters[6].event.failure.status_code == 404
    assert [waiter.event.outcome for waiter in waiters[:5]] == [Outcome.READY] * 5


def test_an_error_in_one_judgement_leaves_its_own_wait_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Policy):
        @property
        def on_blocked(self) -> Any:
            raise RuntimeError("a bug in one judgement")

    lives = {f"t{number}": Life([(0.0, {"runState": "blocked"}), (50.0, {"runState": "ready"})]) for number in range(5)}
    capy = FakeCapy(lives)
    waiters = crowd(5, policy=Policy("wait"))
    waiters[0].policy = Broken.__new__(Broken)
    watch(capy, waiters, 200.0)
    assert waiters[0].is_alone
    assert [waiter.event.outcome for waiter in waiters[1:]] == [Outcome.READY] * 4


def test_a_thread_whose_get_always_fails_ends_its_own_wait_only() -> None:
    capy = FakeCapy({f"t{number}": settling(300.0) for number in range(20)}, faults=[(0.0, 1e9, "t7")])
    waiters = crowd(20)
    waiters[7].thread_id = "t7"
    watch(capy, waiters, 900.0)
    assert {waiter.event.outcome for waiter in waiters if waiter.thread_id != "t7"} == {Outcome.READY}
    assert waiters[7].event.outcome is Outcome.POLL_FAILED


def test_a_look_that_breaks_ends_nobody_who_shares_it() -> None:
    class Breaking(FakeCapy):
        is_broken = False

        async def _once(self, call: Any) -> Any:
            if call.thread_id == "t1" and not self.is_broken:
                self.is_broken = True
                raise RuntimeError("the client has been closed")
            return await super()._once(call)

    capy = Breaking({f"t{number}": settling(60.0) for number in range(5)})
    waiters = [*crowd(5, project=None), Waiter("t1", project=None)]
    watch(capy, waiters, 200.0)
    assert {waiter.thread_id for waiter in waiters if waiter.is_alone} == {"t1"}
    assert [waiter.event and waiter.event.outcome for waiter in waiters] == [Outcome.READY] * 6


def test_waits_on_the_same_thread_do_not_keep_each_other_awake_in_an_outage() -> None:
    capy = FakeCapy({"t0": settling(60.0)}, faults=[(20.0, 720.0, "down")])
    waiters = [Waiter("t0", interval=interval, tolerated=3600.0) for interval in (5.0, 10.0)]
    watch(capy, waiters, 2000.0)
    assert [waiter.event.outcome for waiter in waiters] == [Outcome.READY] * 2
    assert sum(not request.ok for request in capy.requests) < 150


def test_an_outage_of_answers_that_hang_ends_waits_as_soon_as_alone() -> None:
    class Hanging(FakeCapy):
        async def _once(self, call: Any) -> Any:
            await asyncio.sleep(65.0 if virtual.now() > 10.0 else 0.0)
            return await super()._once(call)

    capy = Hanging({f"t{number}": RUNNING for number in range(8)}, faults=[(10.0, 1e9, "down")])
    waiters = crowd(8, interval=1.0, tolerated=30.0)
    watch(capy, waiters, 2000.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.POLL_FAILED}
    # A look that took longer than one may take is not made once more: one that fails, and another one.
    assert max(waiter.ended for waiter in waiters) < 10.0 + 4 * 65.0


@pytest.mark.parametrize("what", ["limit", "down"])
def test_a_failing_server_slows_all_down_and_is_told_once(what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    capy = FakeCapy({f"t{number}": settling(300.0) for number in range(1000)}, faults=[(20.0, 50.0, what)])
    waiters = crowd(1000)
    watch(capy, waiters, 900.0)
    assert sum("slow down together" in record.message for record in caplog.records) == 1
    assert sum("go on after" in record.message for record in caplog.records) == 1
    assert sum(20.0 <= request.at < 50.0 for request in capy.requests) < 30
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.READY}
    assert max(len(waiter.lines) for waiter in waiters) <= 2


def test_an_outage_that_lasts_ends_every_wait_when_its_own_tolerance_is_over() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(50)}, faults=[(20.0, 1e9, "down")])
    waiters = crowd(50)
    watch(capy, waiters, 2000.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.POLL_FAILED}
    assert all(60.0 <= waiter.event.failure.blind < 100.0 for waiter in waiters)


def test_an_outage_is_asked_about_ever_seldomer_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    capy = FakeCapy({f"t{number}": settling(4000.0) for number in range(50)}, faults=[(20.0, 1820.0, "down")])
    waiters = crowd(50, tolerated=3600.0)
    watch(capy, waiters, 5000.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.READY}
    asked = [request.at for request in capy.requests if 20.0 <= request.at < 1820.0]
    assert len(asked) < 70
    assert sum(at < 320.0 for at in asked) > 2 * sum(at > 1520.0 for at in asked)
    assert max(len(waiter.lines) for waiter in waiters) <= 3


def test_capy_is_left_alone_for_as_long_as_it_asks_and_deadlines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    error = api_error_class(429)("429", status_code=429, retry_after=1200.0)
    capy = FakeCapy({f"t{number}": settling(1000.0) for number in range(20)}, faults=[(20.0, 1200.0, "limit")])
    monkeypatch.setattr(virtual, "_error", lambda _: error)
    waiters = [*crowd(19), Waiter("t19", deadline=500.0)]
    watch(capy, waiters, 3000.0)
    assert [waiter.event.outcome for waiter in waiters] == [*[Outcome.READY] * 19, Outcome.TIMEOUT]
    assert 500.0 <= waiters[19].ended < 502.0
    assert all(waiter.ended >= 1200.0 for waiter in waiters[:19])
    # A last look is made at the deadline.
    assert [int(request.at) for request in capy.requests if 40.0 <= request.at < 1200.0] == [500]


@pytest.mark.parametrize("what", ["list", "deny"])
def test_lists_that_fail_end_no_wait(what: str) -> None:
    capy = FakeCapy({f"t{number}": settling(300.0) for number in range(50)}, faults=[(0.0, 1e9, what)])
    waiters = crowd(50)
    watch(capy, waiters, 900.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.READY}
    assert len(capy.requests) <= sum(map(plain_looks, waiters))


def test_deadlines_are_kept_to_the_second() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(50)})
    waiters = crowd(50, deadline=44.0)
    watch(capy, waiters, 200.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.TIMEOUT}
    assert 44.0 <= max(waiter.ended for waiter in waiters) < 46.0


def test_first_looks_are_spread_when_everybody_is_asked_for_singly() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(200)}, faults=[(0.0, 1e9, "deny")])
    watch(capy, crowd(200), 9.0)
    seconds = Counter(int(request.at * 10) for request in capy.requests)
    assert max(seconds.values()) < 40


def test_waits_come_and_go_without_a_trace() -> None:
    capy = FakeCapy({f"t{number}": settling(5.0 + number / 10) for number in range(3000)})
    waiters = [
        Waiter(f"t{number}", starts=number / 10, leaves=None if number % 3 else number / 10 + 1)
        for number in range(3000)
    ]
    watch(capy, waiters, 1000.0)
    assert all(waiter.event is not None for waiter in waiters if waiter.leaves is None)


def test_a_wait_that_leaves_at_once_leaves_nothing() -> None:
    capy = FakeCapy({"t0": RUNNING})

    async def main() -> None:
        triggerer = Triggerer(capy)
        for _ in range(50):
            task = asyncio.ensure_future(triggerer.wait(Waiter("t0")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert triggerer.registry.is_empty

    run(main)
    assert capy.opened == capy.closed


def test_waits_that_begin_one_after_another_come_together() -> None:
    capy = FakeCapy({f"t{number}": RUNNING for number in range(1000)})
    waiters = [Waiter(f"t{number}", starts=(number * 7919 % 1000) / 100) for number in range(1000)]
    watch(capy, waiters, 105.0)
    late = Counter(request.operation for request in capy.requests if request.at > 40.0)
    assert late["listThreads"] <= 70
    assert late["getThread"] <= 7 + 1000 * 65 / 1800 * 1.2


def test_a_clock_that_is_set_forward_in_an_outage_ends_what_is_over_and_nothing_spins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capy = FakeCapy({f"t{number}": settling(500.0) for number in range(5)}, faults=[(20.0, 400.0, "down")])
    true = virtual.epoch
    monkeypatch.setattr(virtual, "epoch", lambda: true() + (3600.0 if virtual.now() > 100.0 else 0.0))
    waiters = [*crowd(4, tolerated=None), Waiter("t4", deadline=3000.0, tolerated=None)]
    watch(capy, waiters, 900.0)
    assert [waiter.event.outcome for waiter in waiters] == [*[Outcome.READY] * 4, Outcome.TIMEOUT]
    assert len(capy.requests) < 200


def test_a_probe_whose_wait_leaves_is_followed_by_another() -> None:
    capy = FakeCapy({f"t{number}": settling(300.0) for number in range(20)}, faults=[(20.0, 60.0, "down")])
    # One after the other leaves in the outage, among them those whose GETs are the probes.
    waiters = [Waiter(f"t{number}", leaves=22.0 + 2 * number if number < 15 else None) for number in range(20)]
    watch(capy, waiters, 900.0)
    assert [waiter.event.outcome for waiter in waiters[15:]] == [Outcome.READY] * 5
    assert max(waiter.ended for waiter in waiters[15:]) < 330.0


def test_a_page_takes_no_second_look_away_from_another_wait_on_the_same_thread() -> None:
    blocks = Life([(0.0, {"runState": "running"}), (30.0, {"runState": "blocked", "status": "active"})])
    capy = FakeCapy({f"t{number}": RUNNING for number in range(20)} | {"t20": blocks})
    waiters = [
        *crowd(20, interval=2.0),
        Waiter("t20", policy=Policy("wait")),
        Waiter("t20"),
        Waiter("t20", interval=3.0),
    ]
    watch(capy, waiters, 100.0)
    assert [waiter.event and waiter.event.outcome for waiter in waiters[20:]] == [
        None,
        Outcome.BLOCKED,
        Outcome.BLOCKED,
    ]
    assert max(waiter.ended for waiter in waiters[21:]) < 50.0


@pytest.mark.parametrize("latency", [0.3, 0.9])
def test_a_slow_capy_is_asked_as_much_at_once_as_keeps_looks_on_time(
    monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    monkeypatch.setattr(virtual, "LATENCY", latency)
    lives = {f"t{number}": Life([(0.0, {"runState": "running"})], project=f"p{number}") for number in range(400)}
    capy = FakeCapy(lives)
    watch(capy, [Waiter(f"t{number}", interval=30.0, project=f"p{number}") for number in range(400)], 400.0)
    looks: dict[str | None, list[float]] = {}
    for request in capy.requests:
        looks.setdefault(request.thread_id, []).append(request.at)
    assert max(times[0] for times in looks.values()) < 20.0
    assert max(after - before for times in looks.values() for before, after in pairwise(times)) < 1.3 * 30.0
    assert capy.busiest <= 32


def test_a_get_that_fails_is_made_again_although_a_deadline_is_kept_meanwhile() -> None:
    capy = FakeCapy({"t0": settling(50.0)}, faults=[(5.0, 20.0, "t0")])
    [waiter] = waiters = crowd(1, deadline=800.0)
    watch(capy, waiters, 900.0)
    assert waiter.event.outcome is Outcome.READY
    assert waiter.ended < 80.0


@pytest.mark.parametrize("takes", [0.01, 30.0])
def test_a_few_threads_without_an_answer_hold_nobody_else_up(monkeypatch: pytest.MonkeyPatch, takes: float) -> None:
    broken = {f"t{number}" for number in range(10)}

    class Partly(FakeCapy):
        async def _once(self, call: Any) -> Any:
            if call.path.rsplit("/", 1)[1] in broken:
                await asyncio.sleep(takes)
                raise CapyNoAnswerError("nothing")
            return await super()._once(call)

    capy = Partly({f"t{number}": settling(100.0 + number) for number in range(210)})
    waiters = crowd(210, tolerated=None)
    watch(capy, waiters, 1000.0)
    assert {waiter.event is None for waiter in waiters[:10]} == {True}
    assert {waiter.event.outcome for waiter in waiters[10:]} == {Outcome.READY}
    assert max(waiter.ended - 100.0 - number for number, waiter in enumerate(waiters) if number >= 10) < 45.0


def test_deadlines_are_kept_where_nobody_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(FakeCapy):
        async def _once(self, call: Any) -> Any:
            if virtual.now() > 20.0:
                await asyncio.sleep(30.0)
                raise CapyNoAnswerError("nothing")
            return await super()._once(call)

    capy = Hanging({f"t{number}": RUNNING for number in range(1000)})
    waiters = crowd(1000, deadline=600.0, tolerated=None)
    watch(capy, waiters, 3000.0)
    assert {waiter.event.outcome for waiter in waiters} == {Outcome.TIMEOUT}
    assert max(waiter.ended for waiter in waiters) < 600.0 + 2 * 65.0
