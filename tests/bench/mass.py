"""A mass cancel in a real Airflow on PostgreSQL: from the click that marks a run failed to the stop of each of its threads.

Two scenes: a run of a thousand deferred waits, and one of three hundred that wait in the triggerer and on workers, or are
in the middle of a create. Run as ``python -m tests.bench.mass``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx

from tests.bench.pilot import INTERVAL, defer, fly
from tests.bench.stage import Stage, quantile, stage, table

if TYPE_CHECKING:
    from sqlalchemy.engine import Row

    from airflow_provider_capy.emulator.control import ThreadTruth

DEFERRED, ON_WORKERS, CREATING = 150, 75, 75
# So many tasks on workers at the same time wait, and so many create.
AT_ONCE = 16
# Until then a create stays in flight: processed at once and answered late, or processed late.
IN_FLIGHT = {"answered late": ("slow", 100.0), "begun late": ("slow_before", 60.0)}
JUDGED_AFTER, SWEPT_AFTER = 120.0, 300.0
ASKED_WITHIN = (15.0, 60.0)
FLOOR_IN_FLIGHT = 32

# The pilot shows how a worker leaves a deferred wait. What is paused, no scheduler touches before its waits are in place.
DAGS = f"""\
from airflow.sdk import DAG
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator


def waits(task_id, prompts, deferrable=True, **settings):
    CapyCreateThreadOperator.partial(
        task_id=task_id, wait_for_completion=True, deferrable=deferrable, poke_interval={INTERVAL}, **settings
    ).expand(prompt=prompts)


with DAG("pilot", schedule=None):
    waits("deferred", ["pilot"])
with DAG("crowd", schedule=None, is_paused_upon_creation=True):
    waits("deferred", [f"deferred {{number}}" for number in range(WAITS)])
with DAG("mixed", schedule=None, is_paused_upon_creation=True):
    waits("deferred", [f"deferred {{number}}" for number in range({DEFERRED})])
    waits("worker", [f"worker {{number}}" for number in range({ON_WORKERS})], False,
          max_active_tis_per_dagrun={AT_ONCE}, priority_weight=9)
    kinds = {list(IN_FLIGHT)}
    waits("creating", [f"creating {{number}}, {{kinds[number % 2]}}" for number in range({CREATING})],
          max_active_tis_per_dagrun={AT_ONCE})
"""


def click(place: Stage, dag_id: str, run: str) -> tuple[float, float]:
    """Mark the run failed; return when that was clicked and how long it took."""
    clicked = time.time()
    with httpx.Client(base_url=place.airflow.url, timeout=300, trust_env=False) as client:
        client.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run}", json={"state": "failed"}).raise_for_status()
    return clicked, time.time() - clicked


def crowd(place: Stage, pilot: Row[Any], waits: int) -> dict[str, Any]:
    """Cancel a run of deferred waits."""
    run = defer(place, pilot, "crowd", waits)
    before = max((request["number"] for request in place.capy.requests()), default=0)
    clicked, took = click(place, "crowd", run)
    while time.time() < clicked + ASKED_WITHIN[-1] + 5:
        time.sleep(2)
        threads = [thread for thread in place.capy.threads() if thread["prompt"] == "deferred"]
        if all(thread["stops"] for thread in threads):
            # Long enough for a second one to ask as well.
            time.sleep(5)
            break
    threads = [thread for thread in place.capy.threads() if thread["prompt"] == "deferred"]
    requests = place.capy.requests(after=before)
    stops = [request for request in requests if request["operation"] == "stopThread"]
    return {
        "row": "marked failed", "took": took, **distribution(threads, clicked), "requests": len(requests),
        "tcp": len({request["client_port"] for request in stops}),
    }  # fmt: skip


def distribution(threads: list[ThreadTruth], clicked: float) -> dict[str, Any]:
    """When the threads were first asked to stop, in seconds after the click, or after a creation that came later."""
    first = [thread["stops"][0] - max(clicked, thread["created"]) for thread in threads if thread["stops"]]
    found: dict[str, Any] = {"threads": len(threads), "asked": len(first), "median": quantile(first, 0.5)}
    found |= {"p95": quantile(first, 0.95), "longest": max(first, default=float("nan"))}
    for limit in ASKED_WITHIN:
        found[f"not_{limit:g}"] = len(threads) - sum(after <= limit for after in first)
    return {**found, "stops": sum(len(thread["stops"]) for thread in threads)}


def floor(place: Stage, waits: int) -> dict[str, Any]:
    """What the emulator takes for as many stops of a bare client, which has nothing to find out."""
    ids = place.capy.create("floor", copies=waits, origin="api", life="forever")

    async def stop_all() -> None:
        limits = httpx.Limits(max_connections=FLOOR_IN_FLIGHT)
        headers = {"Authorization": f"Bearer {place.capy.token}"}
        async with httpx.AsyncClient(
            base_url=place.capy.api_url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as client:
            await asyncio.gather(*(client.post(f"v1/threads/{thread}/stop") for thread in ids))

    began = time.time()
    asyncio.run(stop_all())
    return {
        "row": "floor",
        **distribution([thread for thread in place.capy.threads() if thread["prompt"] == "floor"], began),
    }


def mixed(place: Stage, pilot: Row[Any]) -> dict[str, Any]:
    """Cancel a run whose waits are everywhere; tell how many threads are at work in the end."""
    for words, (kind, seconds) in IN_FLIGHT.items():
        place.capy.fault(kind, "createAndStartThread", match=words, seconds=seconds)
    earlier = {thread["id"] for thread in place.capy.threads()}
    run = defer(place, pilot, "mixed", DEFERRED)

    def in_flight() -> int:
        return sum(request["status"] is None for request in place.capy.requests("createAndStartThread"))

    def threads() -> list[ThreadTruth]:
        return [thread for thread in place.capy.threads() if thread["id"] not in earlier]

    # Sooner or later the first of the creates is through; with few cores that is before the last has begun.
    until = time.time() + 150
    while time.time() < until and in_flight() < AT_ONCE:
        time.sleep(1)
    states = Counter(state for state in place.airflow.task_states("mixed", run).values())
    at_click = {
        "in_flight": in_flight(),
        "before": len(threads()),
        "running": states["running"],
        "deferred": states["deferred"],
    }
    clicked, took = click(place, "mixed", run)
    left = {}
    for after in (JUDGED_AFTER, SWEPT_AFTER):
        while time.time() < clicked + after:
            time.sleep(2)
        left[after] = Counter(thread["prompt"].split()[0] for thread in threads() if not thread["over"])
        if not left[after]:
            break
    found = threads()
    late = sum(thread["created"] > clicked for thread in found)
    names = {
        after: ", ".join(f"{count} {name}" for name, count in kinds.items()) or "0" for after, kinds in left.items()
    }
    return {
        "row": "mixed", "took": took, **at_click, **distribution(found, clicked), "late": late,
        "left": names[JUDGED_AFTER], "swept": names.get(SWEPT_AFTER, "0"), "orphans": sum(left[JUDGED_AFTER].values()),
    }  # fmt: skip


SECONDS = {
    "threads": "{threads}",
    "asked": "{asked}",
    "median s": "{median:.2f}",
    "p95 s": "{p95:.2f}",
    "longest s": "{longest:.2f}",
}
CROWD = {
    "row": "{row}", "the request s": "{took:.1f}", **SECONDS, "of floor's longest": "{ratio:.1f}", "not within 15 s": "{not_15}",
    "60 s": "{not_60}", "stop requests": "{stops}", "requests": "{requests}", "connections": "{tcp}",
}  # fmt: skip
MIXED = {
    "deferred at the click": "{deferred}", "on workers": "{running}", "of them creating": "{in_flight}", "the request s": "{took:.1f}",
    **SECONDS, "not within 60 s": "{not_60}", "created after the click": "{late}", "at work after 120 s": "{left}", "300 s": "{swept}",
}  # fmt: skip


def main() -> int:
    """Cancel, and print who was asked when; 1 when a thread of the mixed run is left at work."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mass", description=__doc__)
    parser.add_argument("--waits", type=int, default=1000, help="deferred task instances of the first scene")
    parser.add_argument("--mixed-only", action="store_true", help="only the second scene")
    parser.add_argument("--off", action="store_true", help="without the listener, to compare")
    options = parser.parse_args()
    env = {
        "AIRFLOW__CORE__MAX_MAP_LENGTH": str(max(options.waits, 1024)),
        "AIRFLOW__CORE__PARALLELISM": str(2 * AT_ONCE + 2),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "10000",
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "10000",
        "AIRFLOW__TRIGGERER__CAPACITY": str(2 * max(options.waits, 1000)),
    }
    with stage({"mass.py": DAGS.replace("WAITS", str(options.waits))}, env=env, on=not options.off) as place:
        pilot = fly(place)
        if not options.mixed_only:
            floored, found = floor(place, options.waits), crowd(place, pilot, options.waits)
            found["ratio"] = found["longest"] / floored["longest"]
            print(table(CROWD, [floored, found]), "\n", flush=True)
        found = mixed(place, pilot)
        print(table(MIXED, [found]))
    return int(found["orphans"] > 0)


if __name__ == "__main__":
    sys.exit(main())
