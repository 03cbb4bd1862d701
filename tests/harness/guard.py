"""Ends an Airflow whose owner died too suddenly to do it: the components lead their own sessions and would live on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.processes import end_session

if TYPE_CHECKING:
    from collections.abc import Iterable


class Guard:
    """A helper process at the other end of a pipe: when its owner is gone the pipe closes, and it kills the sessions.

    It covers what neither `finally` nor `atexit` can: SIGKILL, `os._exit`, a runner out of memory.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, session: int) -> None:
        """End this session when the owner dies."""
        self._tell(f"+{session}\n")

    def release(self, session: int) -> None:
        """Forget a session that has ended: its id may come to mean someone else."""
        self._tell(f"-{session}\n")

    def close(self) -> None:
        """End the guard; a session that was not released is killed now."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(timeout=30)

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the guard has no pipe")
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


def watched_at_the_end(lines: Iterable[str]) -> set[int]:
    """Return the sessions that were watched and not released when the lines ended."""
    sessions: set[int] = set()
    for line in lines:
        session = int(line[1:])
        if line.startswith("+"):
            sessions.add(session)
        else:
            sessions.discard(session)
    return sessions


def main() -> None:
    """Wait for the owner's end."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.chdir("/")
    for session in watched_at_the_end(sys.stdin):
        end_session(session)


if __name__ == "__main__":
    main()
