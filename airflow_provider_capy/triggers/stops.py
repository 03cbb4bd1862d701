"""Where the stops of one triggerer meet: a cancelled run of a thousand waits has one client, and a bound on its requests."""

from __future__ import annotations

import asyncio
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_capy.flow import SharedClient, arun
from airflow_provider_capy.stopping import stop_and_confirm

if TYPE_CHECKING:
    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.stopping import StopReport

# A look that hangs must not use up the time of the stop (seconds).
READ_TIMEOUT = 6.0


class _Clients:
    """The clients of one event loop, each for as long as somebody uses it."""

    def __init__(self) -> None:
        self._open: dict[ClientSettings, tuple[SharedClient, int]] = {}

    def take(self, settings: ClientSettings) -> SharedClient:
        client, users = self._open.get(settings) or (SharedClient(settings), 0)
        self._open[settings] = (client, users + 1)
        return client

    async def give_back(self, settings: ClientSettings) -> None:
        client, users = self._open.pop(settings)
        if users > 1:
            self._open[settings] = (client, users - 1)
        else:
            await client.close()


# Tests have a loop each, a triggerer has one for life.
_CLIENTS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Clients] = weakref.WeakKeyDictionary()


async def stop(thread_id: str, settings: ClientSettings, *, budget: float, spare_blocked: bool) -> StopReport:
    """Stop a thread beside all the others that this triggerer stops.

    Args:
        thread_id: the thread.
        settings: how to reach Capy.
        budget: seconds after which it is given up.
        spare_blocked: whether a thread that waits for a person is left untouched.

    Raises:
        CapyRequestError: see :func:`~airflow_provider_capy.stopping.stop_and_confirm`.
    """
    quick = replace(settings, read_timeout=min(settings.read_timeout, READ_TIMEOUT))
    clients = _CLIENTS.setdefault(asyncio.get_running_loop(), _Clients())
    client = clients.take(quick)
    try:
        flow = stop_and_confirm(thread_id, until=time.time() + budget, clock=time.time, spare_blocked=spare_blocked)
        return await arun(flow, client)
    finally:
        await clients.give_back(quick)
