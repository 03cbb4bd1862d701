"""The ASGI application: sends every request to the API, the control interface or the pages, and lets faults befall it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator import connection
from airflow_provider_capy.emulator.admin import PREFIX, Admin
from airflow_provider_capy.emulator.api import Api, Call
from airflow_provider_capy.emulator.contract import contract
from airflow_provider_capy.emulator.distortion import afterwards, distorted, drifted, instead, on_another_clock
from airflow_provider_capy.emulator.faults import Subject
from airflow_provider_capy.emulator.kinds import BlackHole, Lost, Reset, SlowHead, Truncate
from airflow_provider_capy.emulator.messages import BadJsonError, Reply, failure
from airflow_provider_capy.emulator.pages import page

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.connection import Receive, Scope, Send
    from airflow_provider_capy.emulator.faults import Plan
    from airflow_provider_capy.emulator.journal import Entry
    from airflow_provider_capy.emulator.messages import Request
    from airflow_provider_capy.emulator.world import World

_FOR_EVER = 1e9

DROPPED = "dropped"
"""What the log says of a request whose connection ended before its answer."""


class Emulator:
    """The application.

    Args:
        world: What the emulator remembers.
        origin: Its own origin, such as ``http://127.0.0.1:8010``.
    """

    def __init__(self, world: World, origin: str) -> None:
        self.closing = asyncio.Event()
        self._world = world
        self._contract = contract()
        self._api = Api(world, self._contract, origin)
        self._admin = Admin(world, origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            request = await connection.read(scope, receive)
        except connection.ClientGoneError:
            return
        if _below(request.path, self._contract.base_path):
            await self._serve_api(request, receive, send)
        elif _below(request.path, PREFIX):
            await connection.write(send, self._admin.answer(request))
        else:
            await connection.write(send, page(request, self._world))

    async def _serve_api(self, request: Request, receive: Receive, send: Send) -> None:
        now = self._world.clock()
        entry = self._world.journal.begin(request, now)
        resolved = self._contract.resolve(request.method, request.path.removeprefix(self._contract.base_path))
        if isinstance(resolved, frozenset):
            reply = _no_operation(request, resolved)
            entry.status = reply.status
            await connection.write(send, reply)
            return
        operation, path = resolved
        call = Call(operation, path, request, now)
        entry.operation = operation.id
        entry.thread_id = self._world.journal.blot(path["threadId"]) if "threadId" in path else None
        plan = self._world.faults.plan(self._subject(call))
        reply_or_none = await self._process(call, plan, entry, receive)
        if reply_or_none is None:
            entry.status = DROPPED
            await connection.reset(receive, request)
            return
        await self._deliver(request, reply_or_none, plan, entry, receive, send)

    async def _process(self, call: Call, plan: Plan, entry: Entry, receive: Receive) -> Reply | None:
        # A service goes on with what it has taken in, whether or not somebody still waits for the answer.
        if plan.wait_before and not await self._pause(plan.wait_before):
            return None
        if isinstance(plan.outcome, BlackHole):
            await self._pause(_FOR_EVER, receive)
            return None
        if isinstance(plan.outcome, Reset):
            return None
        now = self._world.clock()
        reply = instead(plan.outcome, now)
        if reply is None:
            reply, thread = self._api.answer(Call(call.operation, call.path, call.request, now), plan)
            entry.thread_id = thread.id if thread else entry.thread_id
            reply = drifted(reply) if plan.drift else reply
            for patch in plan.patches:
                reply = distorted(reply, patch)
            reply = afterwards(plan.outcome, reply)
        if plan.skew:
            reply = on_another_clock(reply, plan.skew, now)
        if plan.wait_after and not await self._pause(plan.wait_after, receive):
            return None
        return reply

    async def _deliver(
        self, request: Request, reply: Reply, plan: Plan, entry: Entry, receive: Receive, send: Send
    ) -> None:
        if isinstance(plan.outcome, Lost):
            entry.status = DROPPED
            await connection.drop(receive, request)
        elif isinstance(plan.outcome, Truncate):
            entry.status = DROPPED
            await connection.write_half(send, receive, request, reply)
        elif isinstance(plan.outcome, SlowHead):
            entry.status = reply.status
            if not await connection.write_slowly(receive, request, reply, plan.outcome):
                entry.status = DROPPED
        else:
            entry.status = DROPPED if connection.is_gone(request) else reply.status
            await connection.write(send, reply)

    async def _pause(self, seconds: float, receive: Receive | None = None) -> bool:
        """Wait; tells whether the call is still to be served.

        It is not once the emulator ends or has forgotten everything, nor when ``receive`` is given and the client has left.
        """
        era = self._world.era
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.closing.wait())]
        if receive is not None:
            ends.append(asyncio.ensure_future(connection.disconnected(receive)))
        done, pending = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return not done and era == self._world.era

    def _subject(self, call: Call) -> Subject:
        if call.operation.id == "listThreads":
            return Subject(
                call.operation.id, " ".join(f"{name}={value}" for name, value in call.request.query), at_rest=False
            )
        if call.operation.id == "createAndStartThread":
            return Subject(call.operation.id, _prompt(call.request), at_rest=False)
        thread = self._world.threads.get(call.path["threadId"])
        if thread is None:
            return Subject(call.operation.id, call.path["threadId"], at_rest=False)
        return Subject(call.operation.id, f"{thread.id}\n{thread.prompt}", at_rest=thread.now(call.now).over)


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _prompt(request: Request) -> str:
    try:
        body = request.json()
    except BadJsonError:
        return ""
    return str(body.get("prompt", "")) if isinstance(body, dict) else ""


def _no_operation(request: Request, allowed: frozenset[str]) -> Reply:
    if not allowed:
        return failure(404, "not_found", f"The API has no path {request.path[:200]}")
    methods = ", ".join(sorted(allowed))
    return failure(405, "method_not_allowed", f"Use {methods}", headers=(("allow", methods),))
