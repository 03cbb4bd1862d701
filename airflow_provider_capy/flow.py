"""Drives a procedure that is written once for both worlds: a generator says what to ask and how long to pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_capy.exceptions import CapyError, CapyRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_capy.api import AsyncCapyClient, CapyClient
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.retry import RetryLimits


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a call; the generator gets the answer, or the ``CapyRequestError`` thrown in."""

    call: Call[Any]
    retry: RetryLimits | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep for some seconds."""

    seconds: float


class _Paused(Exception):  # noqa: N818 - no error: it gives the other flows their turn
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


R = TypeVar("R")
Flow = Generator["Ask | Pause", Any, R]


def run(flow: Flow[R], client: CapyClient, sleep: Callable[[float], None] = time.sleep) -> R:
    """Drive a flow in ordinary code and return its result; ``sleep`` is called with the seconds of a pause."""
    answer: Any = None
    error: CapyRequestError | None = None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            if isinstance(step, Ask):
                answer = client.send(step.call, step.retry)
            else:
                sleep(step.seconds)
        except CapyRequestError as raised:
            error = raised


def run_all(
    flows: Sequence[Flow[R]], client: CapyClient, sleep: Callable[[float], None] = time.sleep
) -> list[R | CapyError]:
    """Drive several flows beside each other: while one pauses, the others go on.

    Returns:
        in the order of the flows, what each returned, or the ``CapyError`` that ended it.
    """
    now = 0.0
    ended: dict[int, R | CapyError] = {}
    # When each goes on, in seconds of pauses since the beginning; requests in between only make it later.
    due = [(0.0, number) for number in range(len(flows))]

    def wait(seconds: float) -> None:
        raise _Paused(seconds)

    while due:
        due.sort()
        at, number = due.pop(0)
        if at > now:
            sleep(at - now)
            now = at
        try:
            ended[number] = run(flows[number], client, wait)
        except _Paused as pause:
            due.append((now + pause.seconds, number))
        except CapyError as error:
            ended[number] = error
    return [ended[number] for number in range(len(flows))]


async def arun(flow: Flow[R], client: AsyncCapyClient) -> R:
    """Drive a flow in an event loop and return its result."""
    answer: Any = None
    error: CapyRequestError | None = None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            if isinstance(step, Ask):
                answer = await client.send(step.call, step.retry)
            else:
                await asyncio.sleep(step.seconds)
        except CapyRequestError as raised:
            error = raised
