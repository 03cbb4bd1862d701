"""A world whose time jumps from one event to the next, with a Capy in it that can lie, shift and fail."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying

from airflow_provider_capy.api import calls
from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.api.retry import RetryLimits, policy
from airflow_provider_capy.api.settings import ClientSettings
from airflow_provider_capy.exceptions import CapyRequestError, CapyServerError, api_error_class
from airflow_provider_capy.lifecycle import Policy
from airflow_provider_capy.polling.registry import Registry
from airflow_provider_capy.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.events import WaitEvent

EPOCH = 1_800_000_000.0
LATENCY = 0.01


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: when nothing is ready, its clock goes on to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        select = self._selector.select

        def jump(timeout: float | None = None) -> list[Any]:
            events = select(0)
            if not events:
                if timeout is None:
                    raise RuntimeError("everybody waits and nothing will ever happen: a wake-up was lost")
                self.elapsed += timeout
            return events

        self._selector.select = jump  # type: ignore[method-assign]

    def time(self) -> float:
        return self.elapsed


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in virtual time and leave nothing behind."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def epoch() -> float:
    return EPOCH + now()


@dataclass
class Life:
    """What becomes of a thread: (seconds, fields) in the order of time, and since when it exists."""

    steps: list[tuple[float, dict[str, Any]]]
    project: str = "p"
    origin: str = "api"
    created: float = -1000.0

    def at(self, when: float) -> dict[str, Any]:
        state = self.steps[0][1]
        for begins, fields in self.steps:
            if begins <= when:
                state = fields
        return state


class _Aged(Thread):
    """A thread whose answer's date is the virtual time."""

    @property
    def age(self) -> float:
        assert self.created is not None
        return epoch() - self.created.timestamp()


STATUS = {"running": "active", "queued": "active", "archived": "archived"}


@dataclass
class Request:
    at: float
    operation: str
    thread_id: str | None
    ok: bool = False
    state: dict[str, Any] | None = None
    params: dict[str, Any] = field(default_factory=dict)


class FakeCapy:
    """Answers as Capy would at the virtual time; newest threads first, `page` of them a page.

    `faults` are (from, to, what): "down" (503), "limit" (429), "list" (lists answer 503), "deny" (lists answer 403), or a
    thread's id (its GET answers 500). `mangle` may change what a page shows, or leave it out by returning None.
    """

    def __init__(
        self,
        lives: dict[str, Life],
        *,
        page: int = 100,
        faults: list[tuple[float, float, str]] | None = None,
        mangle: Callable[[str, dict[str, Any], float], dict[str, Any] | None] | None = None,
        others: int = 0,
    ) -> None:
        self.lives = lives
        self.page = page
        self.faults = faults or []
        self.mangle = mangle
        self.others = others
        self.requests: list[Request] = []
        self.in_flight = self.busiest = self.opened = self.closed = 0

    def __repr__(self) -> str:
        return f"FakeCapy({self.lives}, page={self.page}, faults={self.faults}, others={self.others})"

    def client(self, settings: ClientSettings) -> FakeCapy:
        self.settings = settings
        self.opened += 1
        return self

    async def close(self) -> None:
        await asyncio.sleep(LATENCY)
        self.closed += 1

    async def send(self, call: Call[Any], retry: RetryLimits | None = None) -> Any:
        limits = policy(retry or self.settings.retry, safe_to_retry=call.safe_to_retry, draw=lambda: 0.5)
        return await AsyncRetrying(**limits)(self._once, call)

    async def _once(self, call: Call[Any]) -> Any:
        thread_id = call.path.rsplit("/", 1)[1] if call.operation == "getThread" else None
        request = Request(now(), call.operation, thread_id, params=dict(call.params))
        self.requests.append(request)
        self.in_flight += 1
        self.busiest = max(self.busiest, self.in_flight)
        try:
            await asyncio.sleep(LATENCY)
            answer = self._answer(request)
        finally:
            self.in_flight -= 1
        request.ok = True
        return answer

    def _answer(self, request: Request) -> Any:
        for begins, ends, what in self.faults:
            if begins <= now() < ends:
                self._befall(what, request)
        if request.thread_id is not None:
            if request.thread_id not in self.lives:
                raise _error(404)
            request.state = self._item(request.thread_id, now())
            return _Aged.model_validate(request.state)
        return self._page(request.params)

    def _befall(self, what: str, request: Request) -> None:
        if what in {"down", request.thread_id}:
            raise CapyServerError("503", status_code=503)
        if what == "limit":
            raise _error(429)
        if what in {"list", "deny"} and request.thread_id is None:
            raise _error(503 if what == "list" else 403)

    def _item(self, thread_id: str, when: float) -> dict[str, Any]:
        life = self.lives[thread_id]
        state = life.at(when)
        run_state = state["runState"]
        created = EPOCH + life.created
        return {
            "id": thread_id,
            "projectId": life.project,
            "status": STATUS.get(run_state, "idle"),
            "createdAt": _iso(created),
            **state,
        }

    def _page(self, params: dict[str, Any]) -> dict[str, Any]:
        when = now()
        chosen = []
        for thread_id, life in self.lives.items():
            item = self._item(thread_id, when)
            if life.project != params["projectId"]:
                continue
            if params.get("origin") not in {None, life.origin}:
                continue
            if params.get("status") not in {None, item["status"]}:
                continue
            chosen.append(item)
        start = int(params.get("cursor") or 0)
        end = start + self.page
        # The others' threads come first, and there is no need to make them.
        shown = chosen[max(start - self.others, 0) : max(end - self.others, 0)]
        items = []
        for item in shown:
            mangled = self.mangle(item["id"], item, when) if self.mangle else item
            if mangled is not None:
                items.append(mangled)
        more = end < len(chosen) + self.others
        return {"items": items, "nextCursor": str(end) if more else None, "hasMore": more}


@lru_cache(maxsize=100)
def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _error(status: int) -> CapyRequestError:
    return api_error_class(status)(str(status), status_code=status)


@dataclass
class Waiter:
    """One wait and what became of it."""

    thread_id: str
    interval: float = 10.0
    starts: float = 0.0
    leaves: float | None = None
    deadline: float | None = None
    project: str | None = "p"
    policy: Policy = field(default_factory=Policy)
    tolerated: float | None = 60.0
    event: WaitEvent | None = None
    began: float = 0.0
    ended: float | None = None
    is_alone: bool = False
    error: BaseException | None = None
    lines: list[str] = field(default_factory=list)


class Triggerer:
    """Waiters at one desk, as the triggers of one process would be."""

    def __init__(self, capy: FakeCapy, *, seed: int = 0, retry: RetryLimits | None = None) -> None:
        from pydantic import SecretStr

        self.capy = capy
        self.settings = ClientSettings(SecretStr("t"), retry=retry or RetryLimits())
        self.registry = Registry(open_client=self.client, clock=epoch, draw=random.Random(seed).random)

    async def client(self, hook: Any) -> Any:
        return self.capy.client((await hook.asettings()).client)

    def hook(self, conn_id: str = "c") -> Any:
        async def asettings() -> Any:
            return SimpleNamespace(client=self.settings)

        return SimpleNamespace(capy_conn_id=conn_id, asettings=asettings)

    async def wait(self, waiter: Waiter) -> None:
        await asyncio.sleep(waiter.starts)
        waiter.began = now()
        wait = Wait(
            waiter.thread_id,
            thread_url=lambda _: "",
            policy=waiter.policy,
            poll_interval=waiter.interval,
            deadline=None if waiter.deadline is None else EPOCH + waiter.deadline,
            tolerate_outage=waiter.tolerated,
            draw=lambda: 0.5,
        )
        try:
            async with self.registry.joined(self.hook(), wait, waiter.project) as place:
                while waiter.event is None and (step := await place.next()) is not None:
                    if step.line:
                        waiter.lines.append(step.line)
                    waiter.event = step.event
            if waiter.event is None:
                await self.alone(wait, waiter)
        except Exception as error:  # noqa: BLE001 - for the test to look at
            waiter.error = error
        finally:
            waiter.ended = now()

    async def alone(self, wait: Wait, waiter: Waiter) -> None:
        """Go on as a trigger does that nobody shares with any more."""
        waiter.is_alone = True
        while waiter.event is None:
            try:
                step = wait.saw(await self.capy.send(calls.get_thread(wait.thread_id)), epoch())
            except CapyRequestError as error:
                step = wait.failed(error, epoch())
            waiter.event = step.event
            await asyncio.sleep(0.0 if step.event else step.look_again_in)

    async def run(self, waiters: list[Waiter], until: float) -> None:
        """Let all of them wait, cancel those that leave early, and everybody else at the end."""
        tasks = [asyncio.ensure_future(self.wait(waiter)) for waiter in waiters]
        loop = asyncio.get_running_loop()
        for waiter, task in zip(waiters, tasks, strict=True):
            loop.call_at(until if waiter.leaves is None else waiter.leaves, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)


def plain_looks(waiter: Waiter) -> float:
    """How many GETs a wait of its own would have made in the time it took, at the most."""
    if waiter.ended is None:  # cancelled before it began
        return 0.0
    return 1 + (waiter.ended - waiter.began) / waiter.interval
