"""Whatever goes wrong with what waits share, each is at least as well off as alone: the same worlds, lived both ways.

`CAPY_SCHEDULES` is how many worlds are tried (`make schedules`: ten thousand), `CAPY_SEED` which ones; a failure names its
own, and `CAPY_SCHEDULE` tries a single one again.
"""

from __future__ import annotations

import os
import random
from math import ceil, inf
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.lifecycle import START_RACE_SECONDS
from airflow_provider_capy.polling.poll import FETCHED_WITHIN
from airflow_provider_capy.waiting import JITTER, LONGEST_OUTAGE_PAUSE
from tests.property.two_ways import live, triggerer
from tests.property.worlds import AT_REST, RAW, SHORT_NO, Fault, draw_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.property.two_ways import Ended, Lived
    from tests.property.worlds import Planned, World

SCHEDULES = int(os.environ.get("CAPY_SCHEDULES", "300"))
SEED = int(os.environ["CAPY_SEED"])
# So that they go side by side.
PARTS = 6
pytestmark = pytest.mark.timeout(120 + SCHEDULES)

ATTEMPTS = RetryLimits().attempts
# Seconds: a page keeps looks waiting for 5, first looks and the probe of an outage come within 2, second looks within 3.
MOMENTS = 5.0 + 2.0 + 3.0


def latest(world: World, wait: Planned, alone: float) -> float:
    """Say when a wait that ended at a time alone has to end with others at the latest.

    From that time, or from when its own looks do not fail any more: two intervals with their spread, and :data:`MOMENTS`; the
    time that one request takes, as often as there are rounds of as many requests as may be in flight; half as long as its
    own looks could fail, five minutes at the most; as long as Capy asked to be left alone; as long as lists lag behind, and
    half an hour where they do so for good; and the start race, which is over at once for who happened to see a thread work.
    """
    unknown = [Fault(begins, ends, "unknown") for begins, ends, conn in world.unknown if conn == wait.conn]
    if world.rotations.get(wait.conn, 0.0) > world.revoked_at:
        unknown.append(Fault(world.revoked_at, world.rotations[wait.conn], 401))
    at, until = alone, -inf
    # Who still looks when something goes wrong is kept by that as well.
    while at > until:
        until = at
        begun = [fault for fault in world.faults if fault.begins < until]
        own = [fault for fault in begun if fault.concerns(wait)] + [fault for fault in unknown if fault.begins < until]
        at = max([alone, *(fault.over for fault in own if fault.over < inf)]) + slack(world, wait, begun, own, until)
    return at


def slack(world: World, wait: Planned, begun: list[Fault], own: list[Fault], until: float) -> float:
    two = 2 * wait.interval * (1 + JITTER)
    outage = min(covered(own, until) / 2, LONGEST_OUTAGE_PAUSE)
    asked = max([0.0, *(fault.retry_after or 0.0 for fault in begun if fault.operation != "listThreads")])
    lies = [lie for lie in world.lies if lie.begins < until]
    stale = max([0.0, *(min(lie.ends - lie.begins, FETCHED_WITHIN) for lie in lies if lie.what == "stale")])
    lags = max([0.0, *(lie.seconds for lie in lies if lie.what == "lags")])
    young = max(START_RACE_SECONDS + world.lives[wait.thread_id].created, 0.0)
    return two + MOMENTS + takes(world, begun) + outage + asked + stale + lags + young


def takes(world: World, faults: list[Fault]) -> float:
    """Return how many seconds GETs of all may take while these faults last."""
    longest = max([world.latency, *(fault.takes for fault in faults if fault.operation != "listThreads")])
    return ceil(len(world.lives) / world.in_flight) * longest


def covered(faults: list[Fault], until: float) -> float:
    """Return how many seconds these windows take up altogether."""
    total, end = 0.0, -inf
    for fault in sorted(faults, key=lambda fault: fault.begins):
        total += max(min(fault.over, until) - max(fault.begins, end), 0.0)
        end = max(end, fault.over)
    return total


def difference(world: World, wait: Planned, shared: Ended, alone: Ended) -> str:
    """Say in which way a wait was worse off with others than alone; empty when it was not."""
    # Who left, or gave up for something that passed, was not better off: what the other one came to is only to be true.
    lasting = [
        fault for fault in world.faults if isinstance(fault.what, int) and fault.ends == inf and fault.concerns(wait)
    ]
    passed = alone.outcome == "poll_failed" and not lasting and world.rotations.get(wait.conn, 0.0) < inf
    last = inf if passed or not alone.outcome else latest(world, wait, alone.at)
    since, state = world.lives[wait.thread_id].steps[-1]
    if shared.error is not None:
        how, fine = "raised", may_be_raised(world, wait, shared)
    elif shared.outcome == "timeout" and shared.at > last_moment(world, wait, shared):
        how, fine = "timed out late", False
    elif shared.outcome not in {"", "timeout", "poll_failed"} and (since > shared.at or state not in AT_REST):
        how, fine = "ended early", False
    elif shared.outcome in {"", alone.outcome}:
        at = shared.at if shared.outcome else wait.leaves or world.until
        how, fine = "ended late", at <= last
    elif shared.outcome == "poll_failed":
        how, fine = "gave up", may_fail(world, wait, shared, last)
    elif shared.outcome == "timeout":
        how, fine = "timed out", wait.deadline is not None and wait.deadline <= min(last, shared.at)
    else:
        how, fine = "ended otherwise", alone.outcome in {"timeout", "poll_failed", ""}
    return "" if fine else how


def last_moment(world: World, wait: Planned, shared: Ended) -> float:
    """Say when a wait that nobody settled has to be over: two rounds of requests after its deadline.

    One may just have begun before, and after a 401 a request is sent twice.
    """
    faults = [fault for fault in world.faults if fault.begins <= shared.at]
    return max(wait.deadline or inf, shared.began) + 2 * takes(world, faults) + MOMENTS


def may_be_raised(world: World, wait: Planned, shared: Ended) -> bool:
    """Whether what a client should never raise could meet a GET of this wait: for its own thread, while it waited."""
    own = [fault for fault in world.faults if fault.what in RAW and fault.concerns(wait)]
    return any(fault.begins <= shared.at and fault.over >= shared.began for fault in own)


def may_fail(world: World, wait: Planned, shared: Ended, last: float) -> bool:
    """Whether a wait might as well have given up alone, by other moments of its looks."""
    own = [fault for fault in world.faults if fault.concerns(wait) and fault.begins <= last]
    noes = [(fault.begins, fault.ends) for fault in own if isinstance(fault.what, int)]
    unknown = [(begins, ends) for begins, ends, conn in world.unknown if conn == wait.conn]
    if world.revoked_at <= min(last, shared.at):
        # Until the connection says so, and can be looked up.
        noes.append((world.revoked_at, world.rotations[wait.conn]))
        noes += [known for known in unknown if known[1] > world.revoked_at]
    # Two short ones may look like one that lasts.
    if sum(ends - begins for begins, ends in noes if ends > begins) > SHORT_NO:
        return True
    blind = covered(own, shared.at) + sum(ends - begins for begins, ends in unknown)
    blind += sum(2 * wait.interval + world.latency for fault in own) + 2 * wait.interval
    return wait.tolerated is not None and blind >= wait.tolerated


def check(world: World) -> None:
    shared, alone = live(world, shared=True), live(world, shared=False)
    assert not shared.left, f"left: {shared.left}"
    conns = len({wait.conn for wait in world.waits})
    # Three times as many may hang beside those that do not; whoever got what a client should never raise goes on alone.
    apart = sum(may_be_raised(world, *pair) for pair in zip(world.waits, shared.ends, strict=True))
    most = conns * (4 * world.in_flight + max(world.in_flight // 4, 1)) + apart
    assert shared.busiest <= most, f"{shared.busiest} requests were in flight at once"
    raised = [id(ended.error) for ended in shared.ends if ended.error is not None]
    assert len(raised) == len(set(raised)), "one object was raised in two waits"
    most = most_requests(world, shared, alone)
    assert len(shared.requests) <= most, f"{len(shared.requests)} requests, more than {most:.0f}"
    worse = []
    for wait, with_others, on_its_own in zip(world.waits, shared.ends, alone.ends, strict=True):
        if how := difference(world, wait, with_others, on_its_own):
            last = latest(world, wait, on_its_own.at)
            worse.append(f"{how}: {wait}\n  shared {with_others}\n  alone  {on_its_own}, until {last:.1f}")
    assert not worse, "\n".join(worse)


def most_requests(world: World, shared: Lived, alone: Lived) -> float:
    """A quarter more than alone; for each wait the pages that come to nothing and some second looks, and what it is longer.

    What a client does not send again, the poll asks for once more as it does after any other failure.
    """
    is_sent_once = any(fault.what in {"stranger", "certificate"} for fault in world.faults)
    most = (ATTEMPTS if is_sent_once else 1.25) * len(alone.requests)
    for wait, with_others, on_its_own in zip(world.waits, shared.ends, alone.ends, strict=True):
        longer = min(with_others.at, world.until) - min(on_its_own.at, world.until)
        most += 20.0 + ATTEMPTS * max(longer, 0.0) / wait.interval
    return most


def every(numbers: Iterator[int] | range, check: Callable[[World], None]) -> None:
    for number in numbers:
        world = draw_world(random.Random(f"{SEED}-{number}"), number)
        try:
            check(world)
        except Exception as error:
            told = "\n".join(
                [
                    *map(str, world.faults),
                    *map(str, world.lies),
                    *(f"{one}: {life}" for one, life in world.lives.items()),
                ][:80]
            )
            rest = {
                name: value for name, value in vars(world).items() if name not in {"lives", "waits", "faults", "lies"}
            }
            raise AssertionError(f"CAPY_SEED={SEED} CAPY_SCHEDULE={number}: {error}\n{rest}\n{told}") from error


@pytest.mark.parametrize("part", range(PARTS))
def test_every_wait_is_at_least_as_well_off_as_alone(part: int) -> None:
    single = os.environ.get("CAPY_SCHEDULE")
    numbers = range(part, SCHEDULES, PARTS) if single is None else range(int(single), int(single) + (part == 0))
    with triggerer():
        every(numbers, check)
