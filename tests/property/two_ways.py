"""One world lived twice: by triggers that share a poll, and by triggers that wait alone."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

from pydantic import SecretStr

from airflow_provider_capy.api import wire
from airflow_provider_capy.api.client import AsyncCapyClient
from airflow_provider_capy.api.settings import ClientSettings
from airflow_provider_capy.exceptions import CapyLookUpError
from airflow_provider_capy.hooks import look_ups
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.hooks.settings import ConnectionSettings
from airflow_provider_capy.polling.registry import Registry
from airflow_provider_capy.triggers import thread as triggers
from tests.property.sky import _modules_with_time
from tests.property.troubled import TroubledCapy
from tests.unit.polling.virtual import EPOCH, epoch, now, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from airflow_provider_capy.api.calls import Call
    from tests.property.worlds import Planned, World
    from tests.unit.polling.virtual import Request


@dataclass
class Ended:
    """What became of one wait.

    Attributes:
        outcome: of its event; empty when it left before there was one.
        error: what came out of its trigger instead.
    """

    at: float = inf
    outcome: str = ""
    failure: str = ""
    error: BaseException | None = None
    began: float = 0.0


@dataclass
class Lived:
    """How a world went.

    Attributes:
        left: what was still there of what is shared when all had gone, in words.
    """

    ends: list[Ended] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    busiest: int = 0
    left: list[str] = field(default_factory=list)


class Ground:
    """What stands for a process: its hooks, and the clients that they opened."""

    here: ClassVar[Ground]

    def __init__(self, world: World, *, shared: bool) -> None:
        self.world, self.shared = world, shared
        self.capy = TroubledCapy(world)
        self.opened = self.closed = 0
        draw = random.Random(world.seed).random
        self.registry = Registry(clock=epoch, draw=draw, in_flight=world.in_flight)

    def settings(self, conn: str) -> ConnectionSettings:
        if any(begins <= now() < ends and conn == whose for begins, ends, whose in self.world.unknown):
            raise CapyLookUpError("The connection could not be looked up")
        token = "new" if now() >= self.world.rotations.get(conn, inf) else "old"
        return ConnectionSettings(conn, ClientSettings(SecretStr(token)), None, "http://w/{thread_id}")

    def open(self, limits: httpx.Limits) -> Any:
        # The closing of one that a wait has for itself is cut off with the wait.
        counts = 0 if limits.max_keepalive_connections == 0 else 1
        self.opened += counts

        async def aclose() -> None:
            await asyncio.sleep(self.world.latency)
            self.closed += counts

        return SimpleNamespace(aclose=aclose)


class _Hook(CapyHook):
    async def _alooked_up(self) -> ConnectionSettings:
        await asyncio.sleep(0.01)
        return self._keep(Ground.here.settings(self.capy_conn_id))

    async def aclient(self, *args: Any, **more: Any) -> Any:
        client: Any = await super().aclient(*args, **more)
        client.conn = self.capy_conn_id
        return client


async def _once(self: Any, call: Call[Any]) -> Any:
    return await Ground.here.capy.once(call, self.settings.token.get_secret_value(), self.conn)


def _opened(_make: Any, _settings: Any, **more: Any) -> Any:
    return Ground.here.open(**more)


class _Trigger(triggers.CapyThreadTrigger):
    log = mock.Mock()


@contextmanager
def triggerer() -> Iterator[None]:
    """Let triggers live in virtual time, on the ground that is under them."""
    time = SimpleNamespace(time=epoch, monotonic=now)
    with ExitStack() as stack:
        for module in _modules_with_time():
            stack.enter_context(mock.patch.object(module, "time", time))
        for where, name, what in (
            (wire, "opened", _opened),
            (AsyncCapyClient, "_once", _once),
            (look_ups, "CapyHook", _Hook),
            (triggers, "registry", lambda: Ground.here.registry),
            (triggers, "conf", SimpleNamespace(getboolean=lambda *_, **__: Ground.here.shared)),
            # What is tried here by the thousand logs every failure.
            (logging.root, "disabled", True),
        ):
            stack.enter_context(mock.patch.object(where, name, what))
        stack.enter_context(mock.patch.object(logging.getLogger("airflow_provider_capy"), "disabled", True))
        for name in ("lists", "poll", "poller"):
            log = logging.getLogger(f"airflow_provider_capy.polling.{name}")
            stack.enter_context(mock.patch.object(log, "disabled", True))
        yield


async def _wait(planned: Planned, ended: Ended) -> None:
    await asyncio.sleep(planned.starts)
    ended.began = now()
    trigger = _Trigger(
        thread_id=planned.thread_id,
        capy_conn_id=planned.conn,
        project_id=planned.project,
        poll_interval=planned.interval,
        deadline=None if planned.deadline is None else EPOCH + planned.deadline,
        on_blocked=planned.on_blocked,  # type: ignore[arg-type]
        fail_on_task_error=planned.fail_on_task_error,
        stop_on_kill=False,
        tolerate_outage=planned.tolerated,
    )
    try:
        [event] = [event async for event in trigger.run()]
        ended.outcome = event.payload["outcome"]
        ended.failure = (event.payload["failure"] or {}).get("error", "")
    except Exception as error:  # noqa: BLE001 - for the test to look at
        ended.error = error
    finally:
        ended.at = now()


def live(world: World, *, shared: bool) -> Lived:
    """Let the world's waits wait until each has ended or left."""
    Ground.here = ground = Ground(world, shared=shared)
    lived = Lived([Ended() for _ in world.waits], ground.capy.requests)
    random.seed(world.seed)

    async def main() -> None:
        tasks = [asyncio.ensure_future(_wait(*pair)) for pair in zip(world.waits, lived.ends, strict=True)]
        for planned, task in zip(world.waits, tasks, strict=True):
            at = world.until if planned.leaves is None else planned.leaves
            asyncio.get_running_loop().call_at(at, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        # A wait that is cancelled in the closing of a poll leaves that to a task.
        await asyncio.sleep(2 * world.latency)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        lived.left += [f"task {task.get_coro()}" for task in left]
        if not ground.registry.is_empty:
            lived.left.append("a poll")
        if ground.opened != ground.closed:
            lived.left.append(f"{ground.opened - ground.closed} clients")
        if ground.capy.in_flight:
            lived.left.append(f"{ground.capy.in_flight} requests")

    run(main)
    lived.busiest = ground.capy.busiest
    return lived
