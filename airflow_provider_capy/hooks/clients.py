"""The clients of a hook: after a 401 they ask what the connection says by now, since tokens change under waits of hours."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_capy.api.client import AsyncCapyClient, CapyClient
from airflow_provider_capy.exceptions import CapyError, CapyUnauthorizedError, with_words
from airflow_provider_capy.killing import CapyKilledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.api.settings import ClientSettings

T = TypeVar("T")
# A look-up that takes longer counts as failed, and requests are under way no longer than so with what was replaced (seconds).
LONGEST, IN_USE = 60.0, 600.0


class HookClient(CapyClient):
    """A client that sends once more after a 401, which processed nothing, when its connection has changed meanwhile.

    Args:
        settings: what the connection says.
        look_up: looks the connection up again.
    """

    def __init__(self, settings: ClientSettings, look_up: Callable[[], ClientSettings]) -> None:
        super().__init__(settings)
        self._look_up = look_up

    def send(self, call: Call[T], retry: RetryLimits | None = None) -> T:
        """See :meth:`~airflow_provider_capy.api.CapyClient.send`."""
        try:
            return super().send(call, retry)
        except CapyUnauthorizedError as refused:
            try:
                if (settings := self._look_up()) == self.settings:
                    raise
                before = self._http
                super().__init__(settings)
            except (CapyKilledError, CapyUnauthorizedError):
                raise
            except Exception as failure:
                raise _told(refused, failure) from failure
        before.close()
        return super().send(call, retry)


class AsyncHookClient(AsyncCapyClient):
    """:class:`HookClient` for an event loop; whoever is refused at the same time shares one look-up.

    Args:
        settings: what the connection says.
        look_up: looks the connection up again.
        limits: see :class:`~airflow_provider_capy.api.AsyncCapyClient`.
    """

    def __init__(
        self,
        settings: ClientSettings,
        look_up: Callable[[], Awaitable[ClientSettings]],
        *,
        limits: httpx.Limits | None = None,
    ) -> None:
        super().__init__(settings, limits=limits)
        self._look_up = look_up
        self._limits = limits
        self._looking = asyncio.Lock()
        self._looked_up_at = 0.0
        # Requests of others may still be under way with them.
        self._replaced: list[tuple[float, httpx.AsyncClient]] = []

    async def send(self, call: Call[T], retry: RetryLimits | None = None) -> T:
        """See :meth:`~airflow_provider_capy.api.CapyClient.send`."""
        settings, began = self.settings, time.monotonic()
        try:
            return await super().send(call, retry)
        except CapyUnauthorizedError as refused:
            if not await self._has_changed(settings, began, refused):
                raise
        return await super().send(call, retry)

    async def _has_changed(self, settings: ClientSettings, began: float, refused: CapyUnauthorizedError) -> bool:
        async with self._looking:
            if self.settings is settings and self._looked_up_at < began:
                try:
                    if (found := await asyncio.wait_for(self._look_up(), LONGEST)) != settings:
                        before = self._http
                        super().__init__(found, limits=self._limits)
                        self._replaced.append((time.monotonic(), before))
                except Exception as failure:
                    self._looked_up_at = time.monotonic()
                    raise _told(refused, failure) from failure
                self._looked_up_at = time.monotonic()
                await self._close_the_old()
            return self.settings is not settings

    async def close(self) -> None:
        """Close the connections."""
        for _, http in self._replaced:
            await http.aclose()
        await self._http.aclose()

    async def _close_the_old(self) -> None:
        while self._replaced and self._replaced[0][0] < time.monotonic() - IN_USE:
            await self._replaced.pop(0)[1].aclose()


def _told(refused: CapyUnauthorizedError, failure: Any) -> CapyUnauthorizedError:
    # Ours name the connection and what is wrong with it.
    what = str(failure) if isinstance(failure, CapyError) else f"{type(failure).__name__}: {failure}"
    return with_words(refused, f"{refused}. After this 401: {what}")
