"""The process beside a scheduler hears what it writes, sweeps by itself, and ends with it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.listeners import __main__ as helper
from airflow_provider_capy.listeners import ends
from tests.harness.settings import with_bytecode, without_airflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

END = ["dag", "run", None, -1, "failed", True]


class Heard:
    """Takes the place of what sees to ends."""

    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.sweeps = 0
        self.is_idle = True

    def take(self, heard: list[Any]) -> None:
        self.ends += heard

    def sweep(self) -> None:
        self.sweeps += 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    heard = Heard()
    monkeypatch.setattr(ends, "Ends", lambda: heard)
    monkeypatch.setattr(helper, "LOOK_FOR_PARENT_EVERY", 0.02)
    return heard


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The scheduler's end of it; the helper's is its standard input."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield write


async def until(what: Any) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_what_the_scheduler_writes_is_heard_and_its_end_is_the_helpers(heard: Heard, pipe: int) -> None:
    serving = asyncio.ensure_future(helper._serve(os.getppid()))
    os.write(pipe, json.dumps(END).encode() + b"\n")
    await until(lambda: heard.ends)
    os.write(pipe, (json.dumps(END) + "\n").encode() * 2)
    os.close(pipe)
    await asyncio.wait_for(serving, 30)
    assert heard.ends == [END] * 3


async def test_it_sweeps_at_its_start_and_every_few_minutes(
    heard: Heard, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert helper.SWEEP_EVERY <= 240
    serving = asyncio.ensure_future(helper._serve(os.getppid()))
    await until(lambda: heard.sweeps)
    await asyncio.sleep(0.1)
    assert heard.sweeps == 1
    monkeypatch.setattr(helper, "SWEEP_EVERY", 0.05)
    await until(lambda: heard.sweeps > 2)
    os.close(pipe)
    await asyncio.wait_for(serving, 30)


async def test_a_scheduler_that_is_gone_is_noticed_although_its_workers_hold_the_pipe(heard: Heard, pipe: int) -> None:
    os.write(pipe, json.dumps(END).encode() + b"\n")
    await asyncio.wait_for(helper._serve(1), 30)
    os.close(pipe)
    assert heard.ends == [END]


@pytest.mark.parametrize("in_time", [True, False])
async def test_what_is_under_way_is_brought_to_its_end_within_a_bound(
    in_time: bool, heard: Heard, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "FINISH_WITHIN", 30.0 if in_time else 0.1)
    heard.is_idle = False
    os.close(pipe)
    serving = asyncio.ensure_future(helper._serve(os.getppid()))
    if in_time:
        await asyncio.sleep(0.1)
        assert not serving.done()
        heard.is_idle = True
    await asyncio.wait_for(serving, 25)


def test_a_helper_of_its_own_ends_with_its_scheduler(tmp_path: Path) -> None:
    environment = {**with_bytecode(without_airflow(os.environ)), "AIRFLOW_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_capy.listeners", str(os.getpid())],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(120) == 0
