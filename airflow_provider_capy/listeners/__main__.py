"""The process beside a scheduler: hears from it which runs have ended, and looks every few minutes for those nobody heard."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time

SWEEP_EVERY = 120.0
LOOK_FOR_PARENT_EVERY = 1.0
# What is under way when the scheduler goes is brought to its end first, so long at the most (seconds).
FINISH_WITHIN = 60.0


async def _serve(parent: int) -> None:
    from airflow_provider_capy.listeners.ends import Ends

    ends = Ends()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def listen() -> None:
        while line := await reader.readline():
            ends.take([json.loads(line)])

    listening = loop.create_task(listen())
    swept = -SWEEP_EVERY
    # The pipe alone does not tell that the scheduler is gone: its workers have inherited the other end.
    while os.getppid() == parent and not listening.done():
        if time.monotonic() - swept >= SWEEP_EVERY:
            swept = time.monotonic()
            ends.sweep()
        await asyncio.wait({listening}, timeout=LOOK_FOR_PARENT_EVERY)
    until = time.monotonic() + FINISH_WITHIN
    # What the scheduler wrote before it went is still to be read.
    await asyncio.wait({listening}, timeout=LOOK_FOR_PARENT_EVERY)
    while not ends.is_idle and time.monotonic() < until:  # noqa: ASYNC110 - nobody is in a hurry any more
        await asyncio.sleep(LOOK_FOR_PARENT_EVERY)


def main() -> int:
    """Serve the scheduler whose process id is the one argument."""
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    # A plugin's listeners are for the scheduler; this process is no component of Airflow.
    logging.getLogger("airflow_provider_capy").setLevel(logging.INFO)
    try:
        asyncio.run(_serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
