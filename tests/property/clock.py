"""Time that passes when somebody sleeps, and an event loop on it: hours of waiting take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
import time as real_time
from typing import Any


class Clock:
    """Time that passes when somebody sleeps; stands for the module ``time`` where the code under test reads it."""

    def __init__(self) -> None:
        self._began = real_time.time()
        # Apart, since an event loop trips over what is lost to rounding in epoch seconds.
        self.passed = 0.0
        self.off = 0.0

    @property
    def now(self) -> float:
        """Epoch seconds, as the wall clock of this machine shows them."""
        return self.true + self.off

    @property
    def true(self) -> float:
        """Epoch seconds, as Capy's clock shows them."""
        return self._began + self.passed

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back, as a time server does."""
        self.off += seconds

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.passed

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0, seconds
        self.passed += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout is None:
            raise AssertionError("everybody waits for somebody else")
        if not found:
            self._clock.sleep(max(timeout or 0.0, 1e-6))
        return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop on that clock: where nothing is left to do, it is the time of the next alarm."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._clock_of_test = clock

    def time(self) -> float:
        return self._clock_of_test.passed
