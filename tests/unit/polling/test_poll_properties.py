"""Random worlds: whatever pages show, hide or break, no wait ends otherwise than single GETs would end it."""

from __future__ import annotations

from typing import Any
from unittest import mock
from zlib import crc32

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_capy.lifecycle import START_RACE_SECONDS, Outcome, Policy
from airflow_provider_capy.polling.poll import Now, Poll
from tests.unit.polling.virtual import FakeCapy, Life, Triggerer, Waiter, plain_looks, run

HORIZON = 400.0
QUIET_FROM = 200.0

AT_WORK = ["running", "queued", "waiting", "stopping", "blocked"]


@st.composite
def lives(draw: st.DrawFn) -> Life:
    steps: list[tuple[float, dict[str, Any]]] = []
    when = 0.0
    for _ in range(draw(st.integers(0, 4))):
        state: dict[str, Any] = {"runState": draw(st.sampled_from([*AT_WORK, "ready"]))}
        if state["runState"] == "ready":
            state |= draw(st.sampled_from([{}, {"pendingWakeups": 1}, {"waitingOn": ["ci"]}]))
        if draw(st.booleans()):
            state["tasks"] = [{"id": "1", "identifier": "A-1", "status": draw(st.sampled_from(["error", "completed"]))}]
        steps.append((when, state))
        when += draw(st.floats(0.5, 60.0))
    # Every thread settles before the world turns quiet, so that every wait has to end.
    last = draw(st.sampled_from(["ready", "archived"]))
    steps.append((min(when, 190.0), {"runState": last}))
    project, origin = draw(st.sampled_from(["p", "p", "p", "q"])), draw(st.sampled_from(["api", "api", "web"]))
    return Life(steps, project, origin, created=draw(st.sampled_from([-1000.0, -1.0])))


@st.composite
def faults(draw: st.DrawFn) -> tuple[float, float, str]:
    begins = draw(st.floats(0.0, 150.0))
    what = draw(st.sampled_from(["down", "limit", "list", "list", "deny", "t0", "t1", "t2"]))
    # Several may follow one another closely enough to be one outage.
    return begins, begins + draw(st.floats(0.1, 15.0)), what


@st.composite
def mangling(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["honest", "honest", "hides", "stale", "odd", "lies"]))
    period = draw(st.floats(3.0, 40.0))

    def mangle(thread_id: str, item: dict[str, Any], now: float) -> dict[str, Any] | None:
        moody = (crc32(thread_id.encode()) + int(now / period)) % 3 == 0
        if kind == "honest" or not moody:
            return item
        if kind == "hides":
            return None
        if kind == "odd":
            return None if now < 0 else {"id": thread_id, "runState": item["runState"], "later": {"a": [1]}}
        if kind == "lies":
            return {**item, "runState": "ready"}
        return {**item, "runState": "archived" if item["runState"] == "ready" else "running"}

    return mangle


@st.composite
def waiters(draw: st.DrawFn, threads: int) -> Waiter:
    return Waiter(
        f"t{draw(st.integers(0, threads - 1))}",
        interval=draw(st.sampled_from([2.0, 5.0, 10.0, 30.0])),
        starts=draw(st.floats(0.0, 60.0)),
        leaves=draw(st.sampled_from([None, None, None, 30.0, 100.0])),
        deadline=draw(st.sampled_from([None, None, 90.0])),
        project=draw(st.sampled_from(["p", "p", None])),
        policy=Policy(draw(st.sampled_from(["fail", "wait"])), draw(st.booleans())),
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[FakeCapy, list[Waiter], int]:
    count = draw(st.integers(1, 12))
    capy = FakeCapy(
        {f"t{number}": draw(lives()) for number in range(count)},
        page=draw(st.integers(1, 6)),
        faults=draw(st.lists(faults(), max_size=3)),
        mangle=draw(mangling()),
        others=draw(st.sampled_from([0, 0, 0, 7, 1000])),
    )
    return capy, draw(st.lists(waiters(count), min_size=1, max_size=20)), draw(st.integers(0, 999))


def live(world: tuple[FakeCapy, list[Waiter], int]) -> tuple[FakeCapy, list[Waiter], Triggerer]:
    capy, waiting, seed = world

    async def main() -> Triggerer:
        triggerer = Triggerer(capy, seed=seed)
        await triggerer.run(waiting, HORIZON)
        return triggerer

    return capy, waiting, run(main)


# The virtual clock makes a world of 400 seconds a matter of milliseconds; a busy machine may still take its time.
worldly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def last_get(capy: FakeCapy, waiter: Waiter) -> Any:
    """The last answer to a GET of this thread that had come when the wait ended."""
    gets = [r for r in capy.requests if r.thread_id == waiter.thread_id and r.ok and r.at <= (waiter.ended or 0)]
    return gets[-1] if gets else None


def could_be_settled(life: Life, when: float) -> bool:
    """Whether some wait that looked by GETs alone, before and at this time, would believe that the thread is ready."""
    state = life.at(when)
    if state["runState"] != "ready" or state.get("pendingWakeups") or state.get("waitingOn"):
        return False
    past = [(begins, fields) for begins, fields in life.steps if begins <= when]
    worked = any(fields["runState"] in {"running", "waiting", "blocked"} for _, fields in past)
    old = when - life.created >= START_RACE_SECONDS - 0.1
    return bool(worked or state.get("tasks") or old)


@worldly
@given(worlds())
def test_no_wait_ends_otherwise_than_a_get_says(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    capy, waiting, _ = live(world)
    for waiter in waiting:
        if waiter.event is None:
            continue
        outcome, life = waiter.event.outcome, capy.lives[waiter.thread_id]
        get = last_get(capy, waiter)
        if outcome is Outcome.TIMEOUT:
            assert waiter.deadline is not None
            assert waiter.ended >= waiter.deadline
            continue
        if outcome is Outcome.POLL_FAILED:
            # An outage ends a wait no sooner than it would have ended a wait of its own.
            answered = get.at if get is not None else waiter.began
            assert waiter.ended - answered >= waiter.tolerated
            continue
        state = life.at(get.at + 0.01)
        if outcome is Outcome.ARCHIVED:
            assert state["runState"] == "archived"
        elif outcome is Outcome.BLOCKED:
            assert (state["runState"], waiter.policy.on_blocked) == ("blocked", "fail")
        else:
            assert could_be_settled(life, get.at + 0.01)
            failed = any(task["status"] == "error" for task in state.get("tasks", []))
            assert (outcome is Outcome.TASK_ERROR) == (failed and waiter.policy.fail_on_task_error)


@worldly
@given(worlds())
def test_every_wait_that_stays_gets_its_event(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    _, waiting, _ = live(world)
    for waiter in waiting:
        assert waiter.error is None
        if waiter.leaves is None:
            assert waiter.event is not None
            assert waiter.ended < HORIZON - 1


@worldly
@given(worlds())
def test_requests_cost_no_more_than_single_gets(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    world[0].faults, world[0].mangle = [], None
    capy, waiting, _ = live(world)
    settled = sum(waiter.event is not None for waiter in waiting)
    # To look again at what one look does not prove (the start race, a block) is the judge's own wish, also for a wait alone.
    second = 8 * len(waiting)
    assert len(capy.requests) <= sum(map(plain_looks, waiting)) + settled + second


@worldly
@given(worlds())
def test_pages_that_are_not_true_cost_little(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    world[0].faults = []
    capy, waiting, _ = live(world)
    # One GET more each time, until the list has not paid.
    plain = sum(map(plain_looks, waiting))
    assert len(capy.requests) <= plain * (1 + 1 / 8) + 8 * len(waiting)


@worldly
@given(worlds())
def test_nothing_is_left_when_the_last_wait_has_gone(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    capy, _, triggerer = live(world)
    assert triggerer.registry.is_empty
    assert capy.opened == capy.closed
    assert capy.in_flight == 0


@worldly
@given(worlds())
def test_few_requests_are_in_flight(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    capy, _, _ = live(world)
    # One client serves the projects of a connection: each has one page and up to seven GETs, here of at most two.
    assert capy.busiest <= 3 * 8


@worldly
@given(worlds())
def test_nobody_is_ever_forgotten(world: tuple[FakeCapy, list[Waiter], int]) -> None:
    tick = Poll.tick

    def checked(poll: Poll, now: Now) -> Any:
        yield from tick(poll, now)
        asked_for = {*poll._queue, *poll._asked}
        for thread_id, waiters in poll._waiters.items():
            for waiter in waiters:
                is_due = waiter.key is not None and waiter in poll._lists[waiter.key].due
                assert waiter.ticket or is_due or waiter in poll._held or (waiter.is_asking and thread_id in asked_for)
        for a_list in poll._lists.values():
            # Who waits for a walk has one, which ends, or a time at which it asks for itself.
            assert a_list.walk is not None or all(waiter.ticket for waiter in a_list.due)

    with mock.patch.object(Poll, "tick", checked):
        _, waiting, _ = live(world)
    assert not any(waiter.is_alone for waiter in waiting)
