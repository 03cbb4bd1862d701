"""Drives the poll of one connection: its loop, its client, its tasks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from math import inf
from typing import TYPE_CHECKING

from airflow_provider_capy.api import calls
from airflow_provider_capy.api.glances import glance_at_threads
from airflow_provider_capy.api.requests import ListThreadsQuery
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.polling.lists import Walk
from airflow_provider_capy.polling.poll import Now, Poll

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.client import AsyncCapyClient
    from airflow_provider_capy.polling.waiter import Waiter

log = logging.getLogger(__name__)

PAGE = 100


class Poller:
    """Asks on behalf of the waits of one connection, for as long as there are any.

    Args:
        client: theirs; closed at the end.
        poll: says what to ask for.
        clock: gives epoch seconds.
    """

    def __init__(self, client: AsyncCapyClient, poll: Poll, clock: Callable[[], float]) -> None:
        self.client, self.poll = client, poll
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._turns_at = inf

    def join(self, waiter: Waiter) -> None:
        """Take a wait in."""
        self._do(self.poll.join, waiter)

    async def close(self) -> None:
        """End what is under way, and close the client."""
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.client.close()

    def _do(self, step: Callable[..., None] | None = None, *given: Any) -> None:
        """Feed the poll, send what it wants sent, and have it turn again when it wants to."""
        now = Now(self._loop.time(), self._clock())
        try:
            if step is not None:
                step(*given, now)
            for wanted in self.poll.tick(now):
                # A task of nobody's context: what it logs belongs to no single task's log.
                work = self._read(wanted) if isinstance(wanted, Walk) else self._get(wanted)
                self._tasks.add(task := contextvars.Context().run(self._loop.create_task, work))
                task.add_done_callback(self._tasks.discard)
            at = self.poll.next_at(now)
        except Exception:
            log.exception("The shared poll broke: its %d waits go on alone", self.poll.size)
            self.poll.end()
            return
        if at < self._turns_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._turns_at, self._alarm = at, self._loop.call_at(at, self._turn)

    def _turn(self) -> None:
        self._turns_at = inf
        self._do()

    async def _get(self, thread_id: str) -> None:
        self._do(self.poll.got, thread_id, await self._answer(lambda: calls.get_thread(thread_id)))

    async def _read(self, walk: Walk) -> None:
        project_id, status, origin = walk.of.key

        def page() -> Call[Any]:
            query = {"project_id": project_id, "status": status or None, "origin": origin, "cursor": walk.cursor}
            return glance_at_threads(ListThreadsQuery(limit=PAGE, **query))

        answer = await self._answer(page)
        if isinstance(answer, Exception) and not isinstance(answer, CapyRequestError):
            answer = CapyRequestError(f"{type(answer).__name__}: {answer}")
        self._do(self.poll.got_page, walk, answer)

    async def _answer(self, call: Callable[[], Call[Any]]) -> Any:
        try:
            return await self.client.send(call(), NO_RETRIES)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the concern of those who asked for this
            return error
