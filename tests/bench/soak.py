"""A stream of run ends on LocalExecutor and CeleryExecutor: does anything hang, is anything left over, does anything grow?

Runs that fail, succeed, are marked failed, or are cancelled while they have a thread; they are marked at any moment of
their life. Run as ``python -m tests.bench.soak``; the exit code is 1 for a hang, a zombie, a thread of Capy left at work,
or a growth that does not come back.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from sqlalchemy import text

from tests.bench.stage import OURS, Stage, stage, table
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Iterator

EXECUTORS = {"LocalExecutor": False, "CeleryExecutor": True}
OPEN_RUNS = 8
TICK = 0.3
WARM_UP = 60.0
# A marked run is so many seconds old at most: queued, starting, creating, deferred.
OLDEST = 10.0
OVER_WITHIN, AT_REST_WITHIN = 120.0, 300.0
SETTLE, LOOKS = 30.0, 6
ZOMBIE_AFTER = 20.0
# What pools and caches may still take on after the warm-up; a leak with each end is many times that.
SLACK = {"threads": 8, "files": 12, "processes": 2, "connections": 6}

# Two tasks at once: Celery's executor forks to send more than one.
DAGS = """\
import time
from airflow.sdk import DAG, task
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator


def fail():
    raise ValueError("as it should")


def succeed():
    pass


def stay():
    time.sleep(600)


for name, what in (("fails", fail), ("succeeds", succeed), ("marked", stay)):
    with DAG(name, schedule=None):
        for number in range(2):
            task(task_id=f"{name}_{number}")(what)()
with DAG("cancelled", schedule=None):
    CapyCreateThreadOperator(
        task_id="wait", prompt="{{ run_id }}", wait_for_completion=True, deferrable=True, poke_interval=2
    )
"""
MARKED = frozenset({"marked", "cancelled"})
CONNECTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
COMPLAINTS = ("error while calling listener", "error calling listener", f"/{OURS}/listeners/")
COLUMNS = {name: f"{{{name}}}" for name in ("what", "start", "middle", "end", "verdict")}


@dataclass
class Stream:
    """Runs that start, and end one way or another."""

    place: Stage
    kinds: Iterator[str] = field(default_factory=lambda: cycle(("fails", "marked", "succeeds", "cancelled")))
    chance: random.Random = field(default_factory=lambda: random.Random(8))
    # When each open run is to be marked.
    open: dict[tuple[str, str], float] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    refused: int = 0

    def flow(self, seconds: float) -> None:
        """Let runs start and end."""
        until = time.time() + seconds
        while time.time() < until:
            self._tick(starting=True)
            time.sleep(TICK)

    def dry_up(self) -> None:
        """Let what has started come to its end, or be found hung."""
        until = time.time() + OVER_WITHIN
        while self.open and time.time() < until:
            self._tick(starting=False)
            time.sleep(TICK)

    def _tick(self, *, starting: bool) -> None:
        try:
            for dag_id, run in list(self.open):
                self._attend(dag_id, run)
            if starting and len(self.open) < OPEN_RUNS:
                kind = next(self.kinds)
                self.open[kind, self.place.airflow.trigger(kind)] = time.time() + self.chance.uniform(0, OLDEST)
        except httpx.TransportError:
            self.unanswered += 1

    def _attend(self, dag_id: str, run: str) -> None:
        if self.place.airflow.run_state(dag_id, run) in RUN_OVER:
            del self.open[dag_id, run]
            self.ended[dag_id] += 1
        elif dag_id in MARKED and time.time() > self.open[dag_id, run]:
            try:
                self.place.airflow.mark_run(dag_id, run, "failed")
            except AirflowError as error:
                # A click locks task instances first and then their run, Airflow's scheduler the other way round: now and
                # then PostgreSQL refuses one of them, and a person clicks again.
                if "deadlock detected" not in str(error):
                    raise
                self.refused += 1


def zombies(place: Stage) -> set[psutil.Process]:
    """Return the dead children that nobody collects."""

    def dead() -> Iterator[psutil.Process]:
        for component in place.airflow.components.values():
            for process in psutil.Process(component.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if process.status() == psutil.STATUS_ZOMBIE:
                        yield process

    seen = set(dead())
    time.sleep(ZOMBIE_AFTER)
    return seen & set(dead())


def look(place: Stage) -> dict[str, int]:
    """What is there: the least of several looks, for parsers and pools come and go."""
    time.sleep(SETTLE)
    least: dict[str, int] = {}
    for _ in range(LOOKS):
        for name, count in counts(place).items():
            least[name] = min(count, least.get(name, count))
        time.sleep(2)
    return least


def counts(place: Stage) -> dict[str, int]:
    """Count once."""
    components = place.airflow.components
    found = {"all: processes": sum(len(component.members()) for component in components.values())}
    watched = {name: psutil.Process(components[name].pid) for name in ("scheduler", "api-server")}
    for child in watched["scheduler"].children():
        with suppress(psutil.NoSuchProcess):
            if f"{OURS}.listeners" in " ".join(child.cmdline()):
                watched["helper"] = child
    for name, process in watched.items():
        found |= {f"{name}: threads": process.num_threads(), f"{name}: files": process.num_fds()}
    with place.database.begin() as session:
        found["database: connections"] = session.scalar(CONNECTIONS)
    return found


def growths(looks: list[dict[str, int]]) -> Iterator[dict[str, Any]]:
    """Compare the looks: after the warm-up, half-way, and at the end."""
    start, middle, end = looks
    for name in end:
        before = max(start.get(name, 0), middle.get(name, 0))
        grown = end[name] - before > SLACK[name.split(": ")[1]]
        yield {
            "what": name, "start": start.get(name, 0), "middle": middle.get(name, 0), "end": end[name],
            "verdict": "GROWS" if grown else "",
        }  # fmt: skip


def left_at_work(place: Stage) -> int:
    """How many of Capy's threads are at work although every run is over, once the last stops had their time."""
    until = time.time() + AT_REST_WITHIN
    while (left := sum(not thread["over"] for thread in place.capy.threads())) and time.time() < until:
        time.sleep(5)
    return left


def complaints(place: Stage) -> Counter[str]:
    """Lines of the processes' logs that speak of a listener's error."""
    return Counter(
        name
        for name, component in place.airflow.components.items()
        for line in component.log_text().lower().splitlines()
        if any(words in line for words in COMPLAINTS)
    )


def soak(executor: str, minutes: float) -> bool:
    """Soak one Airflow, print what came of it, and tell whether all is well."""
    env = {"AIRFLOW__CELERY__SYNC_PARALLELISM": "4"}
    with stage({"soak.py": DAGS}, env=env, celery=EXECUTORS[executor], quick=True) as place:
        stream, looks, before = Stream(place), [], 0
        for seconds in (WARM_UP, minutes * 30, minutes * 30):
            print(f"{executor}: {seconds:.0f} s ...", file=sys.stderr, flush=True)
            before = stream.ended.total()
            stream.flow(seconds)
            stream.dry_up()
            if dead := [name for name, component in place.airflow.components.items() if not component.running]:
                print(f"{executor}: dead: {', '.join(dead)}")
                return False
            looks.append(look(place))
        rows, undead = list(growths(looks)), zombies(place)
        left, said = left_at_work(place), complaints(place)
        print(f"\n{executor}, {minutes:g} minutes, {stream.ended.total() - before} runs in the last half of them:\n")
        counted = {
            "runs ended": ", ".join(f"{count} {kind}" for kind, count in stream.ended.items()),
            "hung": len(stream.open), "zombies": len(undead), "requests unanswered": stream.unanswered,
            "clicks that a deadlock of Airflow refused": stream.refused,
            "threads of Capy left at work": f"{left} of {len(place.capy.threads())}",
            "complaints in the logs": ", ".join(f"{count} {name}" for name, count in said.items()) or "none",
        }  # fmt: skip
        print(*(f"* {name}: {count}" for name, count in counted.items()), sep="\n", end="\n\n")
        print(table(COLUMNS, rows), flush=True)
        print(*(place.airflow.describe_run(*run) for run in stream.open), *map(str, undead), sep="\n")
        return not (stream.open or undead or left or any(row["verdict"] for row in rows))


def main() -> int:
    """Soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each executor, after a minute of warm-up")
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS))
    options = parser.parse_args()
    results = [soak(executor, options.minutes) for executor in options.executors]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
