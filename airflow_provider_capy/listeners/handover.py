"""Brings what was heard out of Airflow's own loops: to a thread in an API server, to a process beside a scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_capy.listeners.ends import Ends

# A helper that ended is started again with the next end that is heard, at the earliest so many seconds after the last one.
RESTART_AFTER = 60.0

# DAG id, run id, task id and map index (of a task instance's end), the state (of a run's), whether a person has marked it.
End = tuple[str, str, "str | None", int, str, bool]


def hand_on(ends: list[End]) -> None:
    """Hand ends on to whoever stops threads; returns at once.

    People mark things in an API server, which does not fork: a thread serves it. Everything else ends in a scheduler,
    which does, and a lock that another thread holds at that moment stays locked in the child for ever: so it gets no
    thread, but a process of its own, to which it writes without ever waiting.
    """
    by_people = [end for end in ends if end[5]]
    if by_people:
        _thread().take(by_people)
    if others := [end for end in ends if not end[5]]:
        _helper().take(others)


def start_helper() -> None:
    """Start the process beside a scheduler, which looks for ends that nobody has heard, now and every few minutes."""
    _helper().take([])


class _Thread:
    """A thread with an event loop of its own."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._ready = threading.Event()
        self._ends: Ends | None = None
        threading.Thread(target=self._run, name="capy-run-ends", daemon=True).start()

    @property
    def is_usable(self) -> bool:
        return self._pid == os.getpid()

    def take(self, ends: list[End]) -> None:
        # Only the first end of a process waits here, for the event loop, not for what is imported in it.
        self._ready.wait(1.0)
        self._loop.call_soon_threadsafe(self._take, ends)

    def _take(self, ends: list[End]) -> None:
        if self._ends is None:
            from airflow_provider_capy.listeners.ends import Ends

            self._ends = Ends()
        self._ends.take(ends)

    def _run(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()


class _Helper:
    """A process that reads ends from its standard input; it ends by itself when this one is gone."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        command = [sys.executable, "-m", "airflow_provider_capy.listeners", str(self._pid)]
        # A session of its own: a Ctrl-C in a terminal is for the scheduler.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - ourselves
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._began = time.monotonic()

    @property
    def is_usable(self) -> bool:
        return self._pid == os.getpid() and self._process.poll() is None

    @property
    def is_young(self) -> bool:
        """Whether it is too early for another one: where none can start, none is started at every end of a run."""
        return self._pid == os.getpid() and time.monotonic() - self._began < RESTART_AFTER

    def take(self, ends: list[End]) -> None:
        # A line is shorter than what a pipe takes whole; one that it cannot take now is found by the next sweep.
        with suppress(OSError):
            for end in ends:
                os.write(self._pipe, json.dumps(end).encode() + b"\n")


_the_thread: _Thread | None = None
_the_helper: _Helper | None = None
_lock = threading.Lock()


def _thread() -> _Thread:
    global _the_thread  # noqa: PLW0603 - one for the process
    with _lock:
        if _the_thread is None or not _the_thread.is_usable:
            _the_thread = _Thread()
        return _the_thread


def _helper() -> _Helper:
    global _the_helper  # noqa: PLW0603 - one for the process
    if _the_helper is None or not (_the_helper.is_usable or _the_helper.is_young):
        _the_helper = _Helper()
    return _the_helper
