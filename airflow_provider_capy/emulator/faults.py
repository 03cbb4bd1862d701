"""Which fault, if any, befalls a request: the kinds that can be asked for and the book that keeps count of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from airflow_provider_capy.emulator.orders import Order, Seconds


class _Fault(Order):
    """What every fault has.

    Attributes:
        operation: The operation it befalls; ``*`` is any.
        times: How often it happens; None is until it is cleared.
        skip: How many of the first matching calls are spared.
        probability: How likely it is on each call that is not spared.
        seed: Makes the probability repeatable.
        match: A part of the prompt or id of the thread (of the query, for lists) the call is about; empty is any.
    """

    operation: Literal["createAndStartThread", "getThread", "listThreads", "stopThread", "*"] = "*"
    times: Annotated[int, Field(ge=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: int | None = None
    match: str = ""


class Status(_Fault):
    """Answer a status instead of processing the call.

    ``retry_after`` is sent as it is: seconds, or any text. ``retry_after_date`` is seconds from now, sent as an HTTP date.
    """

    kind: Literal["status"]
    status: Annotated[int, Field(ge=400, le=599)] = 503
    body: Literal["json", "html"] = "json"
    code: str = ""
    message: str = "The emulator was told to answer this"
    retry_after: int | float | Annotated[str, Field(pattern=r"^[ -~]*$")] | None = None
    retry_after_date: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None


class ErrorAfter(_Fault):
    """Process the call, then answer an error all the same."""

    kind: Literal["error_after"]
    status: Annotated[int, Field(ge=500, le=599)] = 500
    body: Literal["json", "html"] = "json"


class Lost(_Fault):
    """Process the call, then close the connection without an answer."""

    kind: Literal["lost"]


class Reset(_Fault):
    """Reset the connection instead of processing the call."""

    kind: Literal["reset"]


class Truncate(_Fault):
    """Process the call, send half of the answer's body and reset the connection."""

    kind: Literal["truncate"]


class NotJson(_Fault):
    """Answer 200 with a web page; ``processed`` tells whether the call was processed before."""

    kind: Literal["not_json"]
    processed: bool = True


class Huge(_Fault):
    """Process the call and pad the answer to this size."""

    kind: Literal["huge"]
    megabytes: Annotated[float, Field(gt=0, le=1024)] = 10.0


class Slow(_Fault):
    """Process the call at once, and answer only after this many real seconds."""

    kind: Literal["slow"]
    seconds: Seconds


class SlowBefore(_Fault):
    """Process the call only after this many real seconds."""

    kind: Literal["slow_before"]
    seconds: Seconds


class StopConflict(_Fault):
    """Answer 409 to a stop of a thread that is not running."""

    kind: Literal["stop_conflict"]


class ListLag(_Fault):
    """Leave threads whose prompt or id contains ``match`` out of lists for this many real seconds after their creation."""

    kind: Literal["list_lag"]
    seconds: Seconds


class Drift(_Fault):
    """Answer as a later version would: fields and values the contract does not know, and a time that is no date."""

    kind: Literal["drift"]


# At most one of these befalls a call, in the order they were asked for; all of the others that are due do.
Outcome: TypeAlias = Status | ErrorAfter | Lost | Reset | Truncate | NotJson | Huge
Fault: TypeAlias = Annotated[
    Status | ErrorAfter | Lost | Reset | Truncate | NotJson | Huge | Slow | SlowBefore | StopConflict | ListLag | Drift,
    Field(discriminator="kind"),
]
FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)
"""Reads a fault from JSON."""


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
        drift: Whether the answer is one of a later version.
    """

    outcome: Outcome | None = None
    wait_before: float = 0.0
    wait_after: float = 0.0
    stop_conflict: bool = False
    lags: list[tuple[float, str]] = field(default_factory=list)
    drift: bool = False


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
        case Drift():
            plan.drift = True
        case _:
            plan.outcome = fault
