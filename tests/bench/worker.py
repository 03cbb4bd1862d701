"""One row of the table: N triggers of one kind inside Airflow's own ``TriggerRunner.run_trigger``, in a process of its own.

Run as ``python -m tests.bench.worker ROW N INTERVAL INTERVALS OVER PORT``; the last line it prints is the measurement.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from tests.bench.rows import OTHERS, ROWS, STOP, environment


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss() -> float:
    return psutil.Process().memory_info().rss / 1e6


class Server:
    def __init__(self, port: int) -> None:
        self._base = f"https://localhost:{port}"
        self._trust = ssl.create_default_context()

    def plan(self, **plan: Any) -> None:
        urlopen(Request(f"{self._base}/_plan", json.dumps(plan).encode()), context=self._trust).read()

    def stats(self) -> dict[str, Any]:
        return json.loads(urlopen(f"{self._base}/_stats", context=self._trust).read())


class Lag:
    """How late the loop is, sampled every 5 ms."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            self.samples.append((loop.time() - before - 0.005) * 1000)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def spread(arrivals: list[float], interval: float) -> float:
    """The busiest twentieth of an interval against the mean: 1 is even, 20 is all at once."""
    if not arrivals:
        return 0.0
    bins: dict[int, int] = {}
    for arrival in arrivals:
        bins[int(arrival / (interval / 20))] = bins.get(int(arrival / (interval / 20)), 0) + 1
    return max(bins.values()) / (len(arrivals) / max(len(range(min(bins), max(bins) + 1)), 1))


async def measure(row: str, n: int, interval: float, intervals: float, over: float, server: Server) -> dict[str, Any]:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    runner = TriggerRunner()
    make = ROWS[row](interval)
    lag = Lag()
    await _warm_up()
    server.plan(threads=n, others=OTHERS.get(row, 0), settle_at=None, over=over)
    gc.collect()
    base, started, used = rss(), time.time(), cpu()
    ticker = asyncio.ensure_future(lag.run())
    tasks: dict[int, asyncio.Task[None]] = {}
    for number in range(n):
        # As the supervisor hands them over: fifty, then a turn of the loop.
        if number and number % 50 == 0:
            await asyncio.sleep(0)
        runner.triggers[number] = {"task": None, "is_watcher": False, "name": f"t{number}", "events": 0}  # type: ignore[typeddict-item]
        tasks[number] = asyncio.ensure_future(runner.run_trigger(number, make(number)))
    await asyncio.sleep(0)
    while row != "idle" and not (await asyncio.to_thread(server.stats))["requests"]:  # noqa: ASYNC110 - the server is another process
        await asyncio.sleep(0.01)
    start = {"start_s": time.time() - started, "start_cpu_ms": (cpu() - used) * 1000 / n}
    # Steady: after everybody has looked once, or two intervals.
    await asyncio.sleep(2 * interval)
    first = await asyncio.to_thread(server.stats)
    used, began = cpu(), time.time()
    await asyncio.sleep(intervals * interval)
    used, elapsed = cpu() - used, time.time() - began
    after = await asyncio.to_thread(server.stats)
    memory = rss()
    looks = n * elapsed / interval
    result = {
        "row": row,
        "n": n,
        "interval": interval,
        **start,
        "requests": (after["requests"] - first["requests"]) / looks,
        "connections": after["connections"],
        "connections_per_look": (after["connections"] - first["connections"]) / looks,
        "cpu_ms": used * 1000 / looks,
        "core": used / elapsed,
        "rss_mb_per_1000": (memory - base) * 1000 / n,
        "spread": spread(after["arrivals"][first["requests"] :], interval),
    }
    lags = list(lag.samples)
    result |= {"lag_p50": quantile(lags, 0.5), "lag_p99": quantile(lags, 0.99), "lag_max": max(lags)}
    if row == "idle":
        STOP.set()
        await asyncio.gather(*tasks.values())
    else:
        result |= await drain(runner, tasks, n, interval, over, server)
    ticker.cancel()
    return result


async def _warm_up() -> None:
    # The first look-up of a process loads half of Airflow, whoever makes it: it is nobody's cost.
    from airflow.sdk import BaseHook

    await BaseHook.aget_connection("capy_default")


async def drain(
    runner: Any, tasks: dict[int, Any], n: int, interval: float, over: float, server: Server
) -> dict[str, Any]:
    before = await asyncio.to_thread(server.stats)
    settle_at = time.time() + 0.5
    await asyncio.to_thread(server.plan, settle_at=settle_at, over=over)
    used, seen, late = cpu(), set(), []
    limit = time.time() + over + 20 * interval + 60
    while len(seen) < n and time.time() < limit:
        while runner.events:
            number = runner.events.popleft().trigger_id
            seen.add(number)
            late.append((time.time() - settle_at - over * ((number * 7919) % n) / n) / interval)
        await asyncio.sleep(0.002)
    after = await asyncio.to_thread(server.stats)
    took = time.time() - settle_at
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return {
        "settled": len(seen) / n,
        "late_p50": quantile(late, 0.5),
        "late_p99": quantile(late, 0.99),
        "drain_s": took,
        "settle_cpu_ms": (cpu() - used) * 1000 / n,
        "settle_requests": (after["requests"] - before["requests"]) / n,
        "connections_all": after["connections"],
    }


def main() -> None:
    row, n, interval, intervals, over, port = sys.argv[1:7]
    os.environ.update(environment(int(port)))
    import structlog
    from airflow.sdk.log import configure_logging

    sink = Path(os.devnull).open("wb")  # noqa: SIM115 - for the life of the process
    configure_logging(json_output=True, output=sink)
    del structlog
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    result = asyncio.run(measure(row, int(n), float(interval), float(intervals), float(over), Server(int(port))))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
