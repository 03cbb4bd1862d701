"""Writes the demo's progress, one line after the other: as good to read in a terminal as in the log of a CI."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

TONES = {"good": "32", "bad": "31", "warn": "33", "head": "1", "faint": "2"}


class Console:
    """Lines with the time since the start; coloured only where a person looks on.

    Args:
        stream: where to write; standard output by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._began = time.monotonic()
        self._coloured = self._stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    @property
    def seconds(self) -> float:
        """How long the demo has been going."""
        return time.monotonic() - self._began

    def head(self, text: str) -> None:
        """Begin a part."""
        self.write(f"\n{self._painted(text, 'head')}")

    def line(self, what: str, text: str, tone: str = "") -> None:
        """Tell one thing that happened."""
        when = self._painted(f"{self.seconds:6.1f} s", "faint")
        self.write(f"{when}  {what:<8} {self._painted(text, tone)}")

    def more(self, text: str) -> None:
        """Add to the line before."""
        self.write(f"{'':20}{text}")

    def verdict(self, text: str, *, good: bool) -> None:
        """Tell whether something that should be seen was seen."""
        mark = self._painted("  seen ", "good") if good else self._painted("NOT SEEN", "bad")
        self.write(f"{mark:>8}  {text}")

    def write(self, text: str) -> None:
        """Write as it is."""
        print(text, file=self._stream, flush=True)

    def _painted(self, text: str, tone: str) -> str:
        if not (self._coloured and tone):
            return text
        return f"\033[{TONES[tone]}m{text}\033[0m"
