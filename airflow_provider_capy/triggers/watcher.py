"""Where the waits of one triggerer process meet: one connection look-up, one client and one poller for all that belong together."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from airflow_provider_capy.api.client import AsyncCapyClient
from airflow_provider_capy.triggers.group import Group
from airflow_provider_capy.triggers.seat import Seat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.waiting import Wait

# How long a connection that was looked up serves new waits, and a failed look-up the others who asked for it (seconds).
KNOWN_FOR = 300.0
FAILED_FOR = 5.0
# After a 401 a connection is looked up again, at most this often (seconds).
RENEWED_AFTER = 10.0
# Idle connections outlive an interval: a new one costs a handshake. Servers close theirs earlier if they like.
LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=8, keepalive_expiry=600.0)


def _open_client(settings: ClientSettings) -> AsyncCapyClient:
    return AsyncCapyClient(settings, limits=LIMITS)


class Line:
    """One client, shared by all groups whose connections say the same; closed when the last of them has ended.

    Args:
        desk: where it is kept.
        hook: the connection it was made from.
        settings: what that connection says.
    """

    def __init__(self, desk: Desk, hook: CapyHook, settings: ClientSettings) -> None:
        self.hook = hook
        self.settings = settings
        self.client = desk.open_client(settings)
        self.limits: RetryLimits = settings.retry
        self.clock = desk.clock
        self.draw = desk.draw
        self._desk = desk
        self._groups: dict[str | None, Group] = {}
        self._users = 0

    def group(self, project_id: str | None) -> Group:
        """Return the group of a project, made when there is none."""
        if project_id not in self._groups:
            self._users += 1
            self._groups[project_id] = Group(self, project_id)
        return self._groups[project_id]

    def forget(self, group: Group) -> None:
        """Let nobody join a group any more that is about to end."""
        if self._groups.get(group.project_id) is group:
            del self._groups[group.project_id]

    async def release(self) -> None:
        """End a group's use of the client."""
        self._users -= 1
        if not self._users:
            self._desk.forget(self)
            await self.client.close()

    def move(self, seat: Seat, group: Group, project_id: str | None) -> None:
        """Let a wait go from its group to the one of another project."""
        group.leave(seat)
        self.group(project_id).join(seat, seat.due, seat.latest)

    async def moved(self, group: Group) -> bool:
        """After a 401: move a group's waits when their connection says something else by now.

        Returns:
            whether it does.
        """
        hook = await self._desk.renewed(self.hook)
        settings = (await hook.asettings()).client
        if settings == self.settings:
            return False
        line = self._desk.line(hook, settings)
        for seat in group.everybody():
            group.leave(seat)
            line.group(group.project_id).join(seat)
        return True


class Desk:
    """Where the waits of one event loop meet.

    Args:
        open_client: makes a client.
        clock: gives epoch seconds.
        draw: gives a number in [0, 1).
    """

    def __init__(
        self,
        *,
        open_client: Callable[[ClientSettings], AsyncCapyClient] = _open_client,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.open_client = open_client
        self.clock = clock
        self.draw = draw
        self._lines: dict[ClientSettings, Line] = {}
        self._known: dict[str, tuple[CapyHook | Exception, float]] = {}
        self._asking: dict[str, asyncio.Task[CapyHook]] = {}

    async def hook(self, conn_id: str) -> CapyHook:
        """Return a connection, looked up; thousands that ask at once share one look-up.

        Raises:
            AirflowNotFoundException: no such connection.
            CapyInputError: a field of it is wrong.
        """
        found, until = self._known.get(conn_id, (None, 0.0))
        if found is None or time.monotonic() >= until:
            return await self._looked_up(conn_id)
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        return found

    async def renewed(self, hook: CapyHook) -> CapyHook:
        """Return a connection looked up anew, or a moment ago."""
        found, until = self._known.get(hook.capy_conn_id, (None, 0.0))
        if found is not None and found is not hook and until - KNOWN_FOR + RENEWED_AFTER > time.monotonic():
            return await self.hook(hook.capy_conn_id)
        return await self._looked_up(hook.capy_conn_id)

    async def _looked_up(self, conn_id: str) -> CapyHook:
        # A task of its own: whoever happened to ask first may be cancelled, the others wait on.
        task = self._asking.get(conn_id)
        if task is None:
            task = self._asking[conn_id] = asyncio.ensure_future(_look_up(conn_id))
            task.add_done_callback(lambda done: self._note(conn_id, done))
        return await asyncio.shield(task)

    def _note(self, conn_id: str, task: asyncio.Task[CapyHook]) -> None:
        del self._asking[conn_id]
        if task.cancelled():
            return
        error, now = task.exception(), time.monotonic()
        if error is None:
            self._known[conn_id] = (task.result(), now + KNOWN_FOR)
        elif isinstance(error, Exception):
            self._known[conn_id] = (error, now + FAILED_FOR)

    def line(self, hook: CapyHook, settings: ClientSettings) -> Line:
        """Return the line to where a connection leads, made when there is none."""
        if settings not in self._lines:
            self._lines[settings] = Line(self, hook, settings)
        return self._lines[settings]

    def forget(self, line: Line) -> None:
        """Forget a line that is about to be closed."""
        if self._lines.get(line.settings) is line:
            del self._lines[line.settings]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept open for anybody."""
        return not self._lines and not self._asking

    @asynccontextmanager
    async def seat(
        self, hook: CapyHook, settings: ClientSettings, wait: Wait, project_id: str | None
    ) -> AsyncIterator[Seat]:
        """Give a wait its place for as long as the block lasts.

        Args:
            hook: the connection, looked up.
            settings: what it says about the client.
            wait: the wait.
            project_id: the thread's project, if it is known.
        """
        seat = Seat(wait)
        self.line(hook, settings).group(project_id or None).join(seat)
        try:
            yield seat
        finally:
            group = seat.group
            group.leave(seat)
            if not group.size:
                await group.closed()


async def _look_up(conn_id: str) -> CapyHook:
    from airflow_provider_capy.hooks.capy import CapyHook

    hook = CapyHook(conn_id)
    await hook.asettings()
    return hook


# Tests have a loop each, a triggerer has one for life.
_DESKS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Desk] = weakref.WeakKeyDictionary()


def desk() -> Desk:
    """Return the running loop's desk."""
    return _DESKS.setdefault(asyncio.get_running_loop(), Desk())
