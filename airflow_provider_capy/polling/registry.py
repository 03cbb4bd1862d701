"""Where the waits of one triggerer meet: one client and one poll for all on the same connection."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from airflow.sdk.configuration import conf

from airflow_provider_capy.polling.poll import Poll
from airflow_provider_capy.polling.poller import Poller
from airflow_provider_capy.polling.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from airflow_provider_capy.api.client import AsyncCapyClient
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.waiting import Wait

# How many GETs of a connection may be under way at once: [capy] poll_requests.
IN_FLIGHT = 32


async def _open_client(hook: CapyHook) -> AsyncCapyClient:
    # The poll bounds how many there are; idle ones outlive an interval, since a new one costs a handshake.
    return await hook.aclient(httpx.Limits(max_connections=None, keepalive_expiry=600.0))


class Registry:
    """The polls of one event loop.

    Args:
        open_client: makes the client of a connection.
        in_flight: see :class:`~airflow_provider_capy.polling.poll.Poll`.
        clock: gives epoch seconds.
        draw: gives a number in [0, 1).
    """

    def __init__(
        self,
        *,
        open_client: Callable[[CapyHook], Awaitable[AsyncCapyClient]] = _open_client,
        in_flight: int = IN_FLIGHT,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._open_client = open_client
        self._in_flight, self._clock, self._draw = in_flight, clock, draw
        self._pollers: dict[Poller, str] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept open for anybody."""
        return not self._pollers

    @asynccontextmanager
    async def joined(self, hook: CapyHook, wait: Wait, project_id: str | None) -> AsyncIterator[Waiter]:
        """Let a wait take part in the poll of its connection for as long as the block lasts.

        Args:
            hook: the connection, looked up.
            wait: the wait.
            project_id: the thread's project, if it is known.

        Raises:
            CapyError: the client could not be opened.
        """
        poller = await self._poller(hook)
        poller.join(waiter := Waiter(wait, project_id))
        try:
            yield waiter
        finally:
            poller.poll.leave(waiter)
            if not poller.poll.size and self._pollers.pop(poller, None) is not None:
                # A task of its own, which a cancelled wait does not take with it.
                await asyncio.wait({asyncio.ensure_future(poller.close())})

    async def _poller(self, hook: CapyHook) -> Poller:
        """Return the poll of a connection: never another one's, which may come to say something else."""
        settings = (await hook.asettings()).client
        for poller, conn_id in self._pollers.items():
            if conn_id == hook.capy_conn_id and poller.client.settings == settings:
                return poller
        poll = Poll(settings.retry, self._draw, self._in_flight)
        poller = Poller(await self._open_client(hook), poll, self._clock)
        self._pollers[poller] = hook.capy_conn_id
        return poller


# Tests have a loop each, a triggerer has one for life.
_REGISTRIES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Registry] = weakref.WeakKeyDictionary()


def registry() -> Registry:
    """Return the running loop's registry."""
    loop = asyncio.get_running_loop()
    if loop not in _REGISTRIES:
        _REGISTRIES[loop] = Registry(in_flight=max(conf.getint("capy", "poll_requests", fallback=IN_FLIGHT), 1))
    return _REGISTRIES[loop]
