"""Which faults, if any, befall a request: the book of those that were asked for, which keeps count of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_capy.emulator.kinds import (
    BestMatch,
    Clock,
    Distort,
    Drift,
    Fault,
    ListLag,
    Outcome,
    Slow,
    SlowBefore,
    StopConflict,
)


@dataclass(frozen=True)
class Subject:
    """What faults are matched against.

    Attributes:
        operation: The ``operationId``.
        text: The prompt and id of the thread, or the query of a list.
        at_rest: Whether the call is about a thread that is not running.
    """

    operation: str
    text: str
    at_rest: bool


@dataclass
class Plan:
    """What befalls one call.

    Attributes:
        outcome: What replaces the ordinary answer.
        wait_before: Seconds before the call is processed.
        wait_after: Seconds between processing and answer.
        stop_conflict: Whether a stop of a thread at rest is a conflict.
        lags: Seconds threads are missing from lists, with the text that marks them.
        best_match: Whether lists search as one that shows what comes nearest.
        drift: Whether the answer is one of a later version.
        patches: JSON merge patches for a good answer, as texts.
        skew: Seconds that Capy's clock is ahead.
    """

    outcome: Outcome | None = None
    wait_before: float = 0.0
    wait_after: float = 0.0
    stop_conflict: bool = False
    lags: list[tuple[float, str]] = field(default_factory=list)
    best_match: bool = False
    drift: bool = False
    patches: list[str] = field(default_factory=list)
    skew: float = 0.0


class _Armed:
    def __init__(self, number: int, fault: Fault) -> None:
        self.number = number
        self.fault = fault
        self.calls = 0
        self.fired = 0
        self._random = random.Random(fault.seed)  # noqa: S311  # repeatable tests, no secrets

    def due(self, subject: Subject) -> bool:
        fault = self.fault
        if not self._concerns(subject) or (fault.times is not None and self.fired >= fault.times):
            return False
        self.calls += 1
        if self.calls <= fault.skip or (fault.probability < 1 and self._random.random() >= fault.probability):
            return False
        self.fired += 1
        return True

    def _concerns(self, subject: Subject) -> bool:
        fault = self.fault
        if fault.operation not in ("*", subject.operation):
            return False
        if isinstance(fault, ListLag):
            return subject.operation == "listThreads"
        if isinstance(fault, StopConflict):
            return subject.operation == "stopThread" and subject.at_rest and fault.match in subject.text
        return fault.match in subject.text


class FaultBook:
    """The faults that were asked for, with what has become of them."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._count = 0

    def add(self, fault: Fault) -> int:
        """Arm a fault and give it a number."""
        self._count += 1
        self._armed.append(_Armed(self._count, fault))
        return self._count

    def clear(self) -> None:
        """Disarm every fault."""
        self._armed.clear()

    def view(self) -> list[dict[str, Any]]:
        """Show every fault with its number, the calls that matched and how often it happened."""
        return [
            {**armed.fault.model_dump(), "id": armed.number, "calls": armed.calls, "fired": armed.fired}
            for armed in self._armed
        ]

    def plan(self, subject: Subject) -> Plan:
        """Decide what befalls a call, and count it."""
        plan = Plan()
        for armed in self._armed:
            fault = armed.fault
            if isinstance(fault, Outcome) and plan.outcome is not None:
                continue
            if armed.due(subject):
                _apply(plan, fault)
        return plan


def _apply(plan: Plan, fault: Fault) -> None:
    match fault:
        case Slow():
            plan.wait_after += fault.seconds
        case SlowBefore():
            plan.wait_before += fault.seconds
        case StopConflict():
            plan.stop_conflict = True
        case ListLag():
            plan.lags.append((fault.seconds, fault.match))
        case BestMatch():
            plan.best_match = True
        case Drift():
            plan.drift = True
        case Distort():
            plan.patches.append(fault.patch)
        case Clock():
            plan.skew += fault.seconds
        case _:
            plan.outcome = fault
