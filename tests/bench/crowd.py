"""Ten thousand waits in one process for ten intervals and more, against the emulator: does every verdict arrive, does anything leak?

Run as ``python -m tests.bench.crowd [WAITS] [INTERVAL] [ROUNDS]``, in the project's own environment; with ``--churn N``, so many
waits come and go instead, up to 500 at a time: those that last are cancelled, the others end, and nothing may grow.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from typing import Any

import psutil

from airflow_provider_capy.emulator.server import EmulatorProcess
from airflow_provider_capy.polling.registry import registry
from airflow_provider_capy.triggers.thread import CapyThreadTrigger


async def event_of(thread_id: str, interval: float) -> Any:
    trigger = CapyThreadTrigger(thread_id=thread_id, project_id="prj_demo", poll_interval=interval, stop_on_kill=False)
    [event] = [event async for event in trigger.run()]
    return event.payload["outcome"]  # type: ignore[index]


def look() -> dict[str, float]:
    gc.collect()
    process = psutil.Process()
    return {
        "rss_mb": round(process.memory_info().rss / 1e6, 1),
        "fds": process.num_fds(),
        "tasks": len(asyncio.all_tasks()),
    }


async def main(control: Any, waits: int, interval: float, rounds: int) -> None:
    for turn in range(rounds):
        # All of them work for ten intervals, then they settle within three.
        ids = control.create(copies=waits, origin="api", life="default", seconds=12 * interval)
        before, began, used = look(), time.time(), time.process_time()
        waiting = [asyncio.ensure_future(event_of(thread_id, interval)) for thread_id in ids]
        await asyncio.sleep(5 * interval)
        middle = look()
        outcomes = Counter(await asyncio.gather(*waiting))
        requests = Counter(request["operation"] for request in control.requests())
        print(
            json.dumps(
                {"round": turn, "outcomes": outcomes, "seconds": round(time.time() - began, 1),
                 "cpu_s": round(time.process_time() - used, 1), "requests": requests,
                 "rss_mb_per_1000": round((middle["rss_mb"] - before["rss_mb"]) * 1000 / waits, 1),
                 "before": before, "middle": middle, "after": look(), "nothing_left": registry().is_empty}
            ),
            flush=True,
        )  # fmt: skip
        control.reset()


async def churn(control: Any, waits: int) -> None:
    """Let so many waits come and go, and look ten times on the way."""
    done, working = (
        control.create(copies=20, origin="api", seconds=0, age=60),
        control.create(copies=80, life="forever"),
    )
    came, began, outcomes = 0, time.time(), Counter[str]()
    while came < waits:
        batch = [asyncio.ensure_future(event_of(random.choice(working), 0.5)) for _ in range(480)]
        batch += [asyncio.ensure_future(event_of(thread_id, 0.5)) for thread_id in done]
        # Some are gone before they began, some after a look or two.
        await asyncio.sleep(random.choice((0.0, 0.05, 0.2)))
        for wait in batch[: random.randrange(480)]:
            wait.cancel()
        await asyncio.wait(batch[480:])
        for wait in batch:
            wait.cancel()
        ended = await asyncio.gather(*batch, return_exceptions=True)
        outcomes.update(one if isinstance(one, str) else type(one).__name__ for one in ended)
        before, came = came, came + len(batch)
        if came * 10 // waits > before * 10 // waits:
            row = {"came": came, "seconds": round(time.time() - began), **look(), "nothing_left": registry().is_empty}
            print(json.dumps({**row, "outcomes": outcomes}), flush=True)


if __name__ == "__main__":
    churned = int(sys.argv[2]) if sys.argv[1:2] == ["--churn"] else 0
    given = [float(argument) for argument in sys.argv[1:]] if not churned else []
    given += [10_000.0, 5.0, 2.0][len(given) :]
    import structlog

    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    with EmulatorProcess() as emulator:
        os.environ["AIRFLOW_CONN_CAPY_DEFAULT"] = emulator.control.connection_json()
        run = (
            churn(emulator.control, churned)
            if churned
            else main(emulator.control, int(given[0]), given[1], int(given[2]))
        )
        asyncio.run(run)
