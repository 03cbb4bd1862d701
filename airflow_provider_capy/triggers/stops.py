"""Where the stops of one triggerer meet: a cancelled run of a thousand waits has one client, and a bound on its requests."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING

from airflow_provider_capy.flow import SharedClients, arun
from airflow_provider_capy.stopping import stop_and_confirm

if TYPE_CHECKING:
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.stopping import StopReport

# A look that hangs must not use up the time of the stop (seconds).
READ_TIMEOUT = 6.0


# Tests have a loop each, a triggerer has one for life.
_CLIENTS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SharedClients] = weakref.WeakKeyDictionary()


async def stop(thread_id: str, hook: CapyHook, *, budget: float, spare_blocked: bool) -> StopReport:
    """Stop a thread beside all the others that this triggerer stops.

    Args:
        thread_id: the thread.
        hook: its connection.
        budget: seconds after which it is given up.
        spare_blocked: whether a thread that waits for a person is left untouched.

    Raises:
        CapyRequestError: see :func:`~airflow_provider_capy.stopping.stop_and_confirm`.
    """
    settings = (await hook.asettings()).client
    clients = _CLIENTS.setdefault(asyncio.get_running_loop(), SharedClients())
    async with clients.lent(settings, hook, read_timeout=min(settings.read_timeout, READ_TIMEOUT)) as client:
        flow = stop_and_confirm(thread_id, until=time.time() + budget, clock=time.time, spare_blocked=spare_blocked)
        return await arun(flow, client)
