"""Connections that many waits of one event loop need at once: looked up once for all, and never raised as one object."""

from __future__ import annotations

import asyncio
import time
import weakref

from airflow_provider_capy.exceptions import CapyError, CapyLookUpError
from airflow_provider_capy.hooks.capy import CapyHook

# How long a connection that was looked up serves new waits, and a failed look-up those who ask for it again (seconds).
KNOWN_FOR = 300.0
FAILED_FOR = 4.0
# A look-up that takes longer counts as failed (seconds); the first one of a triggerer takes up to 20.
LONGEST = 60.0


class LookUps:
    """The look-ups of one event loop."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[CapyHook | CapyError, float]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def hook(self, conn_id: str) -> CapyHook:
        """Return a connection, looked up; thousands that ask at once share one look-up.

        Raises:
            CapyInputError: a field of it is wrong.
            CapyLookUpError: it could not be looked up, which says nothing about the connection.
        """
        if time.monotonic() >= self._known.get(conn_id, (None, 0.0))[1]:
            if conn_id not in self._asking:
                # A task of its own: whoever happened to ask first may be cancelled, the others wait on.
                self._asking[conn_id] = asyncio.ensure_future(self._look_up(conn_id))
            await asyncio.wait({self._asking[conn_id]})
        found, _ = self._known[conn_id]
        if isinstance(found, CapyError):
            # One object that thousands raise gathers thousands of tracebacks.
            raise type(found)(str(found))
        return found

    async def _look_up(self, conn_id: str) -> None:
        hook = CapyHook(conn_id)
        found: CapyHook | CapyError = CapyLookUpError(f"Looking the connection {conn_id!r} up was broken off")
        lasts = FAILED_FOR
        try:
            await asyncio.wait_for(hook.asettings(), LONGEST)
            found, lasts = hook, KNOWN_FOR
        except asyncio.TimeoutError:
            found = CapyLookUpError(f"The connection {conn_id!r} could not be looked up within {LONGEST:.0f} s")
        except CapyError as error:
            found = error.with_traceback(None)
        finally:
            # Whatever ends this, a secrets backend that cancels itself too: those who wait for it go on.
            self._known[conn_id] = found, time.monotonic() + lasts
            del self._asking[conn_id]


# Tests have a loop each, a triggerer has one for life.
_LOOK_UPS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LookUps] = weakref.WeakKeyDictionary()


def look_ups() -> LookUps:
    """Return the running loop's look-ups."""
    return _LOOK_UPS.setdefault(asyncio.get_running_loop(), LookUps())
