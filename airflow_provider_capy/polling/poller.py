"""Drives a poll: its loop, its client, its tasks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_capy.api import calls
from airflow_provider_capy.api.glances import glance_at_threads
from airflow_provider_capy.api.requests import ListThreadsQuery
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.polling.lists import Walk
from airflow_provider_capy.polling.poll import Now, Poll

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from airflow_provider_capy.api.client import AsyncCapyClient
    from airflow_provider_capy.api.glances import GlancePage
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.polling.waiter import Waiter

log = logging.getLogger(__name__)

PAGE = 100
# From this share of the loop's time on, measured over so many seconds, it counts as busy.
BUSY, MEASURED_OVER = 0.7, 0.25


class Poller:
    """Asks on behalf of the waits of one connection, for as long as there are any.

    Args:
        client: theirs; closed at the end.
        in_flight: see :class:`~airflow_provider_capy.polling.poll.Poll`.
        clock: gives epoch seconds.
        draw: gives a number in [0, 1).
    """

    def __init__(
        self, client: AsyncCapyClient, *, in_flight: int, clock: Callable[[], float], draw: Callable[[], float]
    ) -> None:
        self._poll = Poll(client.settings.retry, draw, in_flight)
        self._client = client
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._turns_at = float("inf")
        self._is_busy, self._measured = False, (time.thread_time(), self._loop.time())

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._poll.size

    @property
    def settings(self) -> ClientSettings:
        """What the connection says, as far as its client knows."""
        return self._client.settings

    def join(self, waiter: Waiter) -> None:
        """Take a wait in."""
        self._poll.join(waiter, self._now())
        self._set_alarm()

    def leave(self, waiter: Waiter) -> None:
        """Let a wait go."""
        self._poll.leave(waiter)

    async def close(self) -> None:
        """End what is under way, and close the client."""
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._client.close()

    def _now(self) -> Now:
        return Now(self._loop.time(), self._clock())

    def _turn(self) -> None:
        self._turns_at = float("inf")
        self._do(self._tick)

    def _tick(self) -> None:
        used, at = time.thread_time(), self._loop.time()
        if at - self._measured[1] >= MEASURED_OVER:
            self._is_busy = used - self._measured[0] > BUSY * (at - self._measured[1])
            self._measured = used, at
        for request in self._poll.tick(self._now(), is_busy=self._is_busy):
            self._start(self._read(request) if isinstance(request, Walk) else self._get(request))
        self._set_alarm()

    def _set_alarm(self) -> None:
        at = self._poll.next_at(self._now())
        if at < self._turns_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._turns_at = at
            self._alarm = self._loop.call_at(at, self._turn)

    def _do(self, step: Callable[..., None], *given: Any) -> None:
        try:
            step(*given)
        except Exception:
            log.exception("The shared poll broke: its %d waits go on alone", self._poll.size)
            for waiter in self._poll.everybody():
                waiter.tell(None)
                self._poll.leave(waiter)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # A task of nobody's context: what it logs belongs to no single task's log.
        task = contextvars.Context().run(self._loop.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _get(self, thread_id: str) -> None:
        answer: Thread | Exception
        try:
            answer = await self._client.send(calls.get_thread(thread_id), NO_RETRIES)
        except Exception as error:  # noqa: BLE001 - also what is nobody's mistake but ours is this thread's alone
            answer = error
        self._do(self._poll.got, thread_id, answer, self._now())
        self._do(self._tick)

    async def _read(self, walk: Walk) -> None:
        key = walk.key
        answer: GlancePage | CapyRequestError
        try:
            query = ListThreadsQuery(
                project_id=key.project_id, limit=PAGE, status=key.status or None, origin=key.origin, cursor=walk.cursor
            )
            answer = await self._client.send(glance_at_threads(query), NO_RETRIES)
        except CapyRequestError as error:
            answer = error
        except Exception as error:
            log.exception("Project %s cannot be listed", key.project_id)
            answer = CapyRequestError(f"{type(error).__name__}: {error}")
        self._do(self._poll.got_page, walk, answer, self._now())
        self._do(self._tick)
