"""Ends leave Airflow's own loops at once: to a thread where people mark things, to a process beside a scheduler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.listeners import ends, handover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_capy.listeners.handover import End

BY_PERSON: End = ("dag", "run", None, -1, "failed", True)
BY_ITSELF: End = ("dag", "run", None, -1, "failed", False)


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Heard(list[Any]):
    """Takes the place of what stops threads."""

    def take(self, heard: list[End]) -> None:
        self.append((threading.current_thread().name, heard))


@pytest.fixture(autouse=True)
def nobody_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_the_thread", None)
    monkeypatch.setattr(handover, "_the_helper", None)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    heard = Heard()
    monkeypatch.setattr(ends, "Ends", lambda: heard)
    yield heard
    if handover._the_thread is not None:
        loop = handover._the_thread._loop
        loop.call_soon_threadsafe(loop.stop)
        until(lambda: not loop.is_running())
        loop.close()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path / "heard")
    monkeypatch.setattr(subprocess, "Popen", child.popen)
    yield child
    for process in child.processes:
        process.stdin.close()
        process.kill()
        process.wait()


class Child:
    """Starts, instead of the helper, a process that writes down what it reads, or one that reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path, self.commands, self.processes, self.reads = path, [], [], True
        self._popen = subprocess.Popen

    def popen(self, command: list[str], **options: Any) -> Any:
        self.commands.append((command, options))
        path = str(self.path)
        code = f"import sys\nfor line in sys.stdin:\n  f = open({path!r}, 'a'); f.write(line); f.close()"
        args = [sys.executable, "-c", code if self.reads else "import time; time.sleep(600)"]
        self.processes.append(self._popen(args, **options))
        return self.processes[-1]

    def heard(self, lines: int) -> list[Any]:
        def complete() -> list[str]:
            read = self.path.read_text().splitlines() if self.path.exists() else []
            return read if len(read) >= lines else []

        return [tuple(json.loads(line)) for line in until(complete)]


def test_what_a_person_has_marked_goes_to_a_thread_and_starts_no_process(heard: Heard, child: Child) -> None:
    handover.hand_on([BY_PERSON])
    handover.hand_on([BY_PERSON, BY_PERSON])
    assert until(lambda: heard[1:] and heard) == [
        ("capy-run-ends", [BY_PERSON]),
        ("capy-run-ends", [BY_PERSON, BY_PERSON]),
    ]
    assert child.commands == []


def test_what_ended_by_itself_goes_to_the_process_and_starts_no_thread(heard: Heard, child: Child) -> None:
    before = threading.active_count()
    handover.hand_on([BY_ITSELF])
    handover.hand_on([BY_ITSELF] * 2)
    assert child.heard(3) == [BY_ITSELF] * 3
    [(command, options)] = child.commands
    assert command == [sys.executable, "-m", "airflow_provider_capy.listeners", str(os.getpid())]
    assert options["start_new_session"] is True
    assert (heard, threading.active_count()) == ([], before)


def test_each_end_goes_its_own_way(heard: Heard, child: Child) -> None:
    handover.hand_on([BY_ITSELF, BY_PERSON])
    assert child.heard(1) == [BY_ITSELF]
    assert until(lambda: heard) == [("capy-run-ends", [BY_PERSON])]


def test_the_longest_names_arrive_whole(child: Child) -> None:
    longest: End = ("d" * 250, "r" * 250, "t" * 250, 1023, "failed", False)
    handover.hand_on([longest] * 50)
    assert child.heard(50) == [longest] * 50


def test_a_process_that_does_not_read_holds_nobody_up(child: Child) -> None:
    child.reads = False
    handover.start_helper()
    began = time.monotonic()
    handover.hand_on([BY_ITSELF] * 10_000)
    assert time.monotonic() - began < 5
    # What it could not take, the next sweep finds.
    assert handover._the_helper.is_usable
    handover.hand_on([BY_ITSELF])


def test_a_process_that_has_died_is_replaced_and_not_at_every_end(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    handover.start_helper()
    child.processes[0].send_signal(signal.SIGKILL)
    child.processes[0].wait()
    handover.hand_on([BY_ITSELF])
    assert len(child.processes) == 1
    monkeypatch.setattr(handover, "RESTART_AFTER", 0.0)
    handover.hand_on([BY_ITSELF])
    assert child.heard(1) == [BY_ITSELF]
    assert len(child.processes) == 2


def test_a_fork_has_neither_of_its_parents(heard: Heard, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    handover.start_helper()
    handover.hand_on([BY_PERSON])
    until(lambda: heard)
    the_thread, the_helper = handover._the_thread, handover._the_helper
    assert (the_thread.is_usable, the_helper.is_usable) == (True, True)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert (the_thread.is_usable, the_helper.is_usable) == (False, False)
