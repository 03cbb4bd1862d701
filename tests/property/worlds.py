"""Worlds for waits that share a poll or wait alone: threads, waits, and what goes wrong when; drawn from one random source."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.lifecycle import TOLERATED_OUTAGE
from tests.unit.polling.virtual import Life

if TYPE_CHECKING:
    import random

# A whole request takes one connect and two read timeouts at the most.
LONGEST_REQUEST = 65.0
INTERVALS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
# What says nothing of the thread; "raw" is what a client should never raise.
PASSING = ("connect", "certificate", "reset", "stranger", "limit", "down")
RAW = ("tls", "runtime", "value")
NOES = (401, 403, 404, 409, 422)
# Capy's own no ends a wait once it has stood for 30 s: here it passes sooner than that, or stays.
SHORT_NO = 20.0
# The state that comes last in a life stays, so that whoever looks later sees the same.
AT_WORK: tuple[dict[str, Any], ...] = (
    {"runState": "running"},
    {"runState": "running"},
    {"runState": "queued"},
    {"runState": "waiting", "waitingOn": ["ci"]},
    {"runState": "ready", "pendingWakeups": 1},
    {"runState": "later", "status": "active"},
    {"runState": "running", "pullRequests": [{"url": "https://git/1", "number": 1}]},
)
AT_REST: tuple[dict[str, Any], ...] = (
    {"runState": "ready"},
    {"runState": "ready", "tasks": [{"id": "1", "identifier": "A-1", "status": "error"}]},
    {"runState": "archived"},
    {"runState": "ready", "status": "archived"},
    {"runState": "blocked", "blockedOn": ["permission"]},
)


@dataclass(frozen=True)
class Fault:
    """What befalls requests from one moment to another.

    Attributes:
        what: "slow", or one of PASSING, RAW, NOES.
        operation: "getThread", "listThreads", or "" for both.
        threads: whose GETs; ``None`` for everybody's.
        conn: on which connection; empty for each.
        takes: seconds that the answer takes.
    """

    begins: float
    ends: float
    what: str | int
    operation: str = ""
    threads: frozenset[str] | None = None
    conn: str = ""
    takes: float = 0.01
    retry_after: float | None = None

    def hits(self, when: float, operation: str, thread_id: str | None, conn: str) -> bool:
        return (
            self.begins <= when < self.ends
            and self.operation in {"", operation}
            and (self.threads is None or thread_id in self.threads)
            and self.conn in {"", conn}
        )

    @property
    def over(self) -> float:
        """When the last of its answers comes."""
        return self.ends + self.takes

    def concerns(self, wait: Planned) -> bool:
        """Whether it can befall the GETs of this wait."""
        return self.hits(self.begins, "getThread", wait.thread_id, wait.conn)


@dataclass(frozen=True)
class Lie:
    """What lists do not show as it is: "stale" (as it was at `begins`), "lags", "hides", "shifts", "ends" what does not."""

    begins: float
    ends: float
    what: str
    seconds: float = 0.0
    every: int = 1


@dataclass(frozen=True)
class Planned:
    """One wait."""

    thread_id: str
    conn: str
    project: str | None
    interval: float
    starts: float
    leaves: float | None
    deadline: float | None
    tolerated: float | None
    on_blocked: str
    fail_on_task_error: bool


@dataclass
class World:
    """Everything that is the same whether waits share a poll or not.

    Attributes:
        unknown: when which connection cannot be looked up.
        rotations: when the token of a connection changes; the old one is refused from `revoked_at` on.
        others: threads of other people that lists show first.
    """

    lives: dict[str, Life]
    waits: list[Planned]
    faults: list[Fault]
    lies: list[Lie]
    unknown: list[tuple[float, float, str]]
    rotations: dict[str, float]
    page: int
    others: int
    latency: float
    in_flight: int
    seed: int
    scale: float
    revoked_at: float = inf
    until: float = 0.0


def draw_world(chance: random.Random, seed: int) -> World:
    """Draw one."""
    scale = chance.choice(INTERVALS)
    crowd = chance.random() < 0.01
    count = 400 if crowd else chance.choice([1, 2, 3, 4, 5, 6, 8, 8, 12, 12, 20, 60])
    looks = 4.0 if count > 20 else 12.0
    ids = [f"t{number}" for number in range(count)]
    faults = [_fault(chance, ids, scale, looks) for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 5]))]
    moments = [looks * scale, *(fault.ends for fault in faults if fault.ends < inf)]
    world = World(
        lives={one: _life(chance, scale, moments, f"p{one}" if crowd else "") for one in ids},
        waits=[],
        faults=faults,
        lies=[_lie(chance, scale, looks) for _ in range(chance.choice([0, 0, 1, 1, 2]))],
        unknown=[],
        rotations={},
        page=chance.choice([2, 5, 100, 100]),
        others=chance.choice([0, 0, 0, 7, 200]),
        latency=chance.choice([0.01, 0.01, 0.01, 0.2, 3.0]),
        in_flight=chance.choice([4, 32, 32, 32]),
        seed=seed,
        scale=scale,
    )
    conns = chance.choice([["c"], ["c"], ["c", "d"]])
    if chance.random() < 0.3:
        _rotate(chance, world, conns, looks)
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        begins = chance.choice([0.0, 0.0, chance.uniform(0.0, looks * scale)])
        world.unknown.append((begins, begins + chance.choice([1.0, 7.0, 40.0, 300.0]), chance.choice(conns)))
    more = chance.choice([0, 0, 1, 3]) if count <= 20 else 0
    for thread_id in [*ids, *(chance.choice(ids) for _ in range(more))]:
        world.waits.append(_wait(chance, world, thread_id, conns, moments))
    ends = [*moments, world.revoked_at, *(life.steps[-1][0] for life in world.lives.values())]
    ends += [end for wait in world.waits for end in (wait.deadline, wait.leaves) if end is not None]
    ends += [lie.begins for lie in world.lies]
    world.until = max(end for end in ends if end < inf) + 30.0 * scale + 8000.0
    return world


def _life(chance: random.Random, scale: float, moments: list[float], project: str) -> Life:
    rests = chance.choice(moments) * chance.choice([0.0, chance.random(), chance.random(), 1.0, 1.1])
    steps = [(0.0, chance.choice(AT_WORK[:4]))]
    steps += [(chance.uniform(0.0, rests), chance.choice(AT_WORK)) for _ in range(chance.choice([0, 0, 1, 3]))]
    steps.sort(key=lambda step: step[0])
    if chance.random() < 0.85:
        steps.append((rests, chance.choice([AT_REST[0], *AT_REST])))
    project = project or chance.choice(["p", "p", "p", "p", "q"])
    return Life(steps, project, chance.choice(["api", "api", "api", "web"]), chance.choice([-1000.0, -1.0]))


def _fault(chance: random.Random, ids: list[str], scale: float, looks: float) -> Fault:
    begins = chance.choice([0.0, chance.uniform(0.0, looks * scale), chance.uniform(0.0, looks * scale)])
    operation = chance.choice(["", "getThread", "listThreads", "listThreads"])
    threads = None
    if operation == "getThread" and chance.random() < 0.7:
        threads = frozenset(chance.sample(ids, min(chance.choice([1, 1, 2, 3, 4, 8]), len(ids))))
    what: str | int = chance.choice(["slow", "slow", *PASSING, *PASSING, chance.choice(RAW), chance.choice(NOES)])
    lasts = chance.choice([chance.uniform(0.1, 3.0) * scale, chance.uniform(0.1, 3.0) * scale, 5.0, 60.0, 700.0])
    if what == "limit":
        # Nothing slows who is told that there are too many of them, but a Retry-After.
        lasts = min(lasts, 5.0 * scale)
    elif operation == "listThreads" or what == "slow" or threads is not None:
        # The others look as usual all the time.
        lasts = min(lasts, looks * 2.0 * scale)
    retry_after = chance.choice([None, None, 0.0, 3.0, 45.0, 200.0]) if what in {"limit", "down"} else None
    if operation == "listThreads" and chance.random() < 0.2:
        lasts = inf
    elif isinstance(what, int) and operation != "listThreads":
        lasts = min(lasts, SHORT_NO) if threads is None or chance.random() < 0.7 else inf
    takes = chance.choice([0.01, 0.01, 0.01, 1.0, 5.0, 30.0, LONGEST_REQUEST])
    if what == "slow":
        takes = chance.choice([0.5, 3.0, 20.0, LONGEST_REQUEST - 1.0])
    elif isinstance(what, int):
        takes = 0.01
    conn = chance.choice(["", "", "", "c"])
    return Fault(begins, begins + lasts, what, operation, threads, conn, takes, retry_after)


def _lie(chance: random.Random, scale: float, looks: float) -> Lie:
    begins = chance.choice([0.0, chance.uniform(0.0, looks * scale)])
    what = chance.choice(["stale", "lags", "lags", "hides", "hides", "shifts", "ends"])
    lasts = chance.choice([2.0, 6.0, 20.0]) * scale
    # For good costs half an hour of pages: not where they come three a second.
    if what != "lags" and chance.random() < 0.3 and (what != "stale" or scale >= 10.0):
        lasts = inf
    return Lie(begins, begins + lasts, what, chance.choice([0.5, 2.0, 8.0]) * scale, chance.choice([1, 1, 2, 3]))


def _rotate(chance: random.Random, world: World, conns: list[str], looks: float) -> None:
    world.revoked_at = chance.uniform(0.0, looks * world.scale)
    for conn in conns:
        # Before the old one is revoked, shortly after, or (the others) never.
        world.rotations[conn] = world.revoked_at + chance.choice([-2.0 * world.scale, -0.1, 0.0, 5.0, SHORT_NO - 5.0])
    if len(conns) > 1 and chance.random() < 0.5:
        world.rotations[conns[1]] = inf


def _wait(chance: random.Random, world: World, thread_id: str, conns: list[str], moments: list[float]) -> Planned:
    life, scale = world.lives[thread_id], world.scale
    goes_on = life.steps[-1][1] not in AT_REST
    starts = chance.choice([0.0, 0.0, chance.uniform(0.0, 4.0 * scale)])
    deadline = starts + chance.uniform(0.5, 14.0) * scale if chance.random() < 0.25 else None
    leaves = starts + chance.uniform(0.0, 10.0) * scale if chance.random() < 0.15 else None
    if goes_on and deadline is None and leaves is None:
        leaves = max(chance.choice(moments), starts) + 3.0 * scale
    interval = scale * chance.choice([1.0, 1.0, 1.0, 0.5, 3.0])
    return Planned(
        thread_id,
        chance.choice(conns),
        chance.choice([life.project] * 6 + [None, "", "  ", "wrong"]),
        min(max(interval, INTERVALS[0]), INTERVALS[-1]),
        starts,
        leaves,
        deadline,
        chance.choice([TOLERATED_OUTAGE, TOLERATED_OUTAGE, None, 30.0]),
        "wait" if goes_on or life.steps[-1][1]["runState"] != "blocked" else chance.choice(["fail", "skip"]),
        chance.random() < 0.5,
    )
