"""Ten thousand waits in one process for ten intervals and more, against the emulator: does every verdict arrive, does anything leak?

Run as ``python -m tests.bench.crowd [WAITS] [INTERVAL] [ROUNDS]``, in the project's own environment.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import psutil

from airflow_provider_capy.emulator.server import EmulatorProcess
from airflow_provider_capy.polling.registry import registry
from airflow_provider_capy.triggers.thread import CapyThreadTrigger


async def event_of(thread_id: str, interval: float) -> Any:
    trigger = CapyThreadTrigger(thread_id=thread_id, project_id="prj_demo", poll_interval=interval)
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


if __name__ == "__main__":
    given = [float(argument) for argument in sys.argv[1:]] + [10_000.0, 5.0, 2.0][len(sys.argv) - 1 :]
    import structlog

    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    with EmulatorProcess() as emulator:
        os.environ["AIRFLOW_CONN_CAPY_DEFAULT"] = emulator.control.connection_json()
        asyncio.run(main(emulator.control, int(given[0]), given[1], int(given[2])))
