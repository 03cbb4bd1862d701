"""Drives a procedure that is written once for both worlds: a generator says what to ask and how long to pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_capy.exceptions import CapyError, CapyRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Sequence

    from typing_extensions import Self

    from airflow_provider_capy.api import AsyncCapyClient, CapyClient
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.hooks.capy import CapyHook


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a call; the generator gets the answer, or the ``CapyRequestError`` thrown in."""

    call: Call[Any]
    retry: RetryLimits | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Sleep for some seconds."""

    seconds: float


R = TypeVar("R")
Flow = Generator["Ask | Pause", Any, R]


def run(flow: Flow[R], client: CapyClient | CapyHook, sleep: Callable[[float], None] = time.sleep) -> R:
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


async def arun(flow: Flow[R], client: AsyncCapyClient | SharedClient) -> R:
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


# As many requests as are in flight at the same time, of everybody who shares a client.
IN_FLIGHT = 32


class SharedClient:
    """A client for many procedures at once: beside each other they have no more than so many requests in flight.

    Args:
        client: sends them.
        in_flight: requests at the same time.
    """

    def __init__(self, client: AsyncCapyClient, in_flight: int = IN_FLIGHT) -> None:
        self._client = client
        self._gate = asyncio.Semaphore(in_flight)
        # While some threads are looked at again, others are still to be asked to stop: those go first.
        self._looks = asyncio.Semaphore(max(1, in_flight // 4))

    @classmethod
    async def opened(cls, hook: CapyHook, **changes: Any) -> Self:
        """Return one for a connection; ``changes`` as in :meth:`~airflow_provider_capy.hooks.capy.CapyHook.new_client`."""
        from httpx import Limits

        return cls(await hook.aclient(Limits(max_connections=None, max_keepalive_connections=IN_FLIGHT), **changes))

    async def send(self, call: Call[Any], retry: RetryLimits | None = None) -> Any:
        """Send a call when it is its turn; see :meth:`~airflow_provider_capy.api.AsyncCapyClient.send`."""
        if call.method != "GET":
            async with self._gate:
                return await self._client.send(call, retry)
        async with self._looks, self._gate:
            return await self._client.send(call, retry)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class SharedClients:
    """The shared clients of one event loop, each open for as long as somebody uses it."""

    def __init__(self) -> None:
        self._open: dict[Hashable, tuple[asyncio.Task[SharedClient], int]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept open for anybody."""
        return not self._open

    @asynccontextmanager
    async def lent(self, key: Hashable, hook: CapyHook, **changes: Any) -> AsyncIterator[SharedClient]:
        """Lend the client of a key, opened with the hook of whoever comes first."""
        opened, users = self._open.get(key) or (asyncio.ensure_future(SharedClient.opened(hook, **changes)), 0)
        self._open[key] = (opened, users + 1)
        try:
            # Whoever came first may be cancelled, the others wait on.
            yield await asyncio.shield(opened)
        finally:
            opened, users = self._open.pop(key)
            if users > 1:
                self._open[key] = (opened, users - 1)
            elif opened.done() and not opened.cancelled() and opened.exception() is None:
                await opened.result().close()


async def arun_all(flows: Sequence[Flow[R]], hook: CapyHook) -> list[R | CapyError]:
    """Drive several flows beside each other through one client.

    Returns:
        in the order of the flows, what each returned, or the ``CapyError`` that ended it.
    """
    client = await SharedClient.opened(hook)

    async def ended(flow: Flow[R]) -> R | CapyError:
        try:
            return await arun(flow, client)
        except CapyError as error:
            return error

    try:
        return await asyncio.gather(*map(ended, flows))
    finally:
        await client.close()
