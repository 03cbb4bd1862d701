"""Starts processes that end for good: nothing a component forks may outlive the test that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.harness.guard import Guard


def session_members(session: int) -> list[psutil.Process]:
    """Return the living processes of a session, the orphaned ones included.

    Airflow gives every task a process group of its own, so a signal to the component's group would miss the tasks;
    the session holds them all, even when the process between has died.
    """
    members = []
    for process in psutil.process_iter(["status"]):
        # A zombie is only an exit code that nobody has collected: in a container that may stay so for ever.
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session:
                members.append(process)
    return members


def send(processes: Iterable[psutil.Process], signum: int) -> None:
    """Signal every process that still lives; psutil compares start times, so a reused pid is never hit."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def end_session(session: int, also: Iterable[psutil.Process] = (), timeout: float = 10.0) -> None:
    """Kill a session, and go on until no member is left: a process may have forked between the look and the kill."""
    deadline = time.monotonic() + timeout
    others = list(also)
    while True:
        left = [*session_members(session), *(process for process in others if _lives(process))]
        if not left:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"these processes survive SIGKILL: {left}")
        send(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.1)


def _status(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        if process.is_running():
            return str(process.status())
    return psutil.STATUS_DEAD


def _lives(process: psutil.Process) -> bool:
    return _status(process) not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


class Component:
    """One long-running process of Airflow, with everything it forks and a log file of its own.

    A component leads a session: a Ctrl-C in the terminal does not reach it, the harness alone decides when it ends.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        log_file: Path,
        guard: Guard | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._arguments = list(arguments)
        self._env = dict(env)
        self._directory = directory
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None
        # Known only until it has ended: afterwards the number may come to mean someone else's session.
        self._session: int | None = None
        # Strangers are those who left the session (bash tasks do); once their parent is dead nothing leads to them.
        self._strangers: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """The process id of the main process."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the main process, or None while it runs."""
        return self._started().poll()

    @property
    def running(self) -> bool:
        """Whether the main process runs; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def members(self) -> list[psutil.Process]:
        """Return every living process of the component: itself, its workers, the tasks they run."""
        if self._session is None:
            return []
        members = {process.pid: process for process in session_members(self._session)}
        for process in list(members.values()):
            with suppress(psutil.NoSuchProcess):
                members.update((child.pid, child) for child in process.children(recursive=True) if _lives(child))
        return list(members.values())

    def start(self) -> None:
        """Start the process; whatever an earlier one left behind is ended first."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running as process {self.pid}")
        self.finish(grace=0)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=self._directory,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._session = self._process.pid
        if self._guard is not None:
            self._guard.watch(self._session)

    def kill(self, signum: int = signal.SIGKILL, *, children: bool = False) -> None:
        """Signal the main process, as a platform does; with `children` all it forked too, as when a machine is lost."""
        if children:
            send(self.members(), signum)
        else:
            self._started().send_signal(signum)

    def freeze(self) -> None:
        """Stop the component and its children in their tracks, as a hung machine does; return when all stand still."""
        deadline = time.monotonic() + 10
        while moving := [process for process in self.members() if _status(process) != psutil.STATUS_STOPPED]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not stand still: {moving}")
            send(moving, signal.SIGSTOP)
            time.sleep(0.01)

    def thaw(self) -> None:
        """Let a frozen component go on."""
        self.kill(signal.SIGCONT, children=True)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until the main process has ended and return its exit code."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (process {self.pid}) still runs after {timeout:g} s") from None

    def restart(self, grace: float = 10.0) -> None:
        """End the component with all it forked, and start it anew."""
        self.stop(grace)
        self.start()

    def stop(self, grace: float = 10.0) -> None:
        """Ask the main process to end, and kill what is left of the session after the grace time."""
        self.ask_to_stop()
        self.finish(grace)

    def ask_to_stop(self) -> None:
        """Send SIGTERM without waiting, so that several components can end at the same time."""
        self._strangers = [process for process in self.members() if not _in_session(process, self.pid)]
        if self.running:
            # A frozen process would answer the SIGTERM only once it is thawed.
            self.thaw()
            self.kill(signal.SIGTERM)

    def finish(self, grace: float) -> None:
        """Give the main process the grace time, then kill it with everything it left behind."""
        if self._session is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._started().wait(grace)
        end_session(self._session, also=self._strangers)
        self._started().wait()
        if self._guard is not None:
            self._guard.release(self._session)
        self._session = None
        self._strangers = []

    def log_text(self) -> str:
        """Return everything the component has written to its standard output and error."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process


def _in_session(process: psutil.Process, session: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        return os.getsid(process.pid) == session
    return False
