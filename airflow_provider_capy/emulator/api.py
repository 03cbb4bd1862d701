"""The four operations of the API: a request that reached its operation goes in, a reply comes out."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator import wire
from airflow_provider_capy.emulator.contract import Problem
from airflow_provider_capy.emulator.filters import conflicts, tests_for
from airflow_provider_capy.emulator.messages import BadJsonError, Reply, failure, invalid, json_reply
from airflow_provider_capy.emulator.threads import TOKEN_USER, Slack, Thread, User
from airflow_provider_capy.emulator.world import NewThread

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.contract import Contract, Operation
    from airflow_provider_capy.emulator.faults import Plan
    from airflow_provider_capy.emulator.messages import Request
    from airflow_provider_capy.emulator.world import World

_SLACK_CHANNEL = re.compile(r"[CDG][A-Z0-9]{8,}\Z")


@dataclass(frozen=True)
class Call:
    """A request whose operation is known.

    Attributes:
        operation: The operation.
        path: Its path parameters.
        request: The request.
        now: When it is processed, in epoch seconds.
    """

    operation: Operation
    path: dict[str, str]
    request: Request
    now: float


class Api:
    """The operations, on one world.

    Args:
        world: What the emulator remembers.
        contract: What requests have to look like.
        origin: The emulator's own origin, where pull request links lead.
    """

    def __init__(self, world: World, contract: Contract, origin: str) -> None:
        self._world = world
        self._contract = contract
        self._origin = origin

    def answer(self, call: Call, plan: Plan) -> tuple[Reply, Thread | None]:
        """Process a call.

        Args:
            call: The call.
            plan: What befalls it.

        Returns:
            The reply, and the thread the call was about.
        """
        if not self._authorized(call.request.header("authorization")):
            return failure(401, "unauthorized", "The API token is missing or not valid"), None
        if call.operation.id == "createAndStartThread":
            return self._create(call)
        if call.operation.id == "listThreads":
            return self._list(call, plan), None
        thread = self._world.threads.get(call.path["threadId"])
        if thread is None:
            return failure(404, "not_found", "Thread not found"), None
        if call.operation.id == "stopThread":
            return self._stop(thread, call.now, plan), thread
        return json_reply(wire.item(thread, call.now, self._origin)), thread

    def _authorized(self, header: str | None) -> bool:
        scheme, _, token = (header or "").partition(" ")
        expected = (self._world.organisation.token or self._world.token).encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("utf-8", "replace"), expected)

    def _create(self, call: Call) -> tuple[Reply, Thread | None]:
        media_type = (call.request.header("content-type") or "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            return invalid([Problem("", f"the body is {media_type or 'of no type'}: send application/json")]), None
        try:
            body = call.request.json()
        except BadJsonError as error:
            return invalid([Problem("", f"the body {error}")]), None
        problems = self._contract.body_problems(call.operation, body)
        if problems:
            return invalid(problems), None
        organisation = self._world.organisation
        if organisation.projects is not None and body["projectId"] not in organisation.projects:
            return failure(404, "not_found", "Project not found"), None
        unknown = (
            [] if organisation.tags is None else [tag for tag in body.get("tags", []) if tag not in organisation.tags]
        )
        if unknown:
            details = [{"path": "tags", "message": f"Tag does not exist: {tag}"} for tag in unknown]
            return failure(422, "validation_error", "Tag does not exist", details), None
        thread = self._world.start(_new_thread(body, call.now), call.now)
        return json_reply(wire.created(thread, call.now)), thread

    def _stop(self, thread: Thread, now: float, plan: Plan) -> Reply:
        at_rest = thread.now(now).over
        thread.stop(now)
        if at_rest and plan.stop_conflict:
            return failure(409, "conflict", "The thread is not running")
        return json_reply(wire.stopped(thread, now))

    def _list(self, call: Call, plan: Plan) -> Reply:
        query, problems = self._contract.read_query(call.operation, call.request.query)
        problems += conflicts(query)
        before: tuple[float, int] | None = None
        if query.get("cursor"):
            before = _read_cursor(query["cursor"])
            if before is None:
                problems.append(Problem("cursor", "is not one that a list answer gave out"))
        if problems:
            return invalid(problems)
        projects = self._world.organisation.projects
        if projects is not None and query["projectId"] not in projects:
            return failure(404, "not_found", "Project not found")
        tests = tests_for({name: value for name, value in query.items() if name != "q" or not plan.best_match})
        found = (
            thread
            for thread in self._world.threads.newest_first(query["projectId"], before)
            if not _lags(thread, call.now, plan.lags) and all(test(thread, call.now) for test in tests)
        )
        limit: int = query["limit"]
        threads = list(islice(found, limit + 1))
        more = len(threads) > limit
        return json_reply(
            {
                "items": [wire.item(thread, call.now, self._origin) for thread in threads[:limit]],
                "nextCursor": _write_cursor(threads[limit - 1].key) if more else None,
                "hasMore": more,
            }
        )


def _new_thread(body: dict[str, Any], now: float) -> NewThread:
    email = body.get("impersonateUserEmail")
    slack = body.get("slack")
    return NewThread(
        project_id=body["projectId"],
        prompt=body["prompt"],
        author=User(email, "human") if email else TOKEN_USER,
        tags=tuple(dict.fromkeys(body.get("tags", []))),
        repos=tuple((repo["repoFullName"], repo["branch"]) for repo in body.get("repos", [])),
        slack=Slack(_channel_id(slack["channel"]), f"{now:.6f}") if slack else None,
    )


def _channel_id(channel: str) -> str:
    if _SLACK_CHANNEL.match(channel):
        return channel
    return f"C{sha256(channel.encode('utf-8', 'replace')).hexdigest()[:10].upper()}"


def _lags(thread: Thread, now: float, lags: list[tuple[float, str]]) -> bool:
    return any(
        now - thread.created < seconds and (match in thread.prompt or match in thread.id) for seconds, match in lags
    )


def _write_cursor(key: tuple[float, int]) -> str:
    return base64.urlsafe_b64encode(f"{key[0]!r} {key[1]}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, int] | None:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        created, serial = text.split(" ")
        return float(created), int(serial)
    except ValueError:
        return None
