"""Replies that are not what the contract promises: made on demand, from the reply that would have been right."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.kinds import ErrorAfter, Huge, NotJson, Outcome, Status
from airflow_provider_capy.emulator.messages import Reply, failure, json_reply
from airflow_provider_capy.emulator.wire import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

_CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    422: "validation_error",
    429: "too_many_requests",
    500: "internal_error",
}
_PAGE = (
    "<!doctype html><title>{0}</title><h1>{0}</h1><p>This page was sent by something between you and the service.</p>"
)
_OK = 200
_NOT_MODIFIED = 304
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z"')


def instead(outcome: Outcome | None, now: float) -> Reply | None:
    """Give the reply that is sent without processing the call at all.

    Args:
        outcome: What befalls the call.
        now: Epoch seconds, for dates.

    Returns:
        The reply; None when the call is to be processed.
    """
    if isinstance(outcome, Status):
        return _error(outcome.status, outcome.body, outcome.code, outcome.message, _retry_after(outcome, now))
    if isinstance(outcome, NotJson) and not outcome.processed:
        return _page(_OK)
    return None


def afterwards(outcome: Outcome | None, reply: Reply) -> Reply:
    """Change the reply of a call that was processed.

    Args:
        outcome: What befalls the call.
        reply: The right reply.

    Returns:
        The reply to send.
    """
    if isinstance(outcome, ErrorAfter):
        return _error(outcome.status, outcome.body, "", "The emulator was told to fail after the fact")
    if isinstance(outcome, NotJson):
        return _page(_OK)
    if isinstance(outcome, Huge):
        return _padded(reply, int(outcome.megabytes * 1024 * 1024))
    return reply


def distorted(reply: Reply, patch: str) -> Reply:
    """Apply a JSON merge patch to every thread of a good answer, or to what else it is about."""
    if reply.status != _OK:
        return reply
    answer, changes = json.loads(reply.body), json.loads(patch)
    if "items" in answer and "items" not in changes:
        answer["items"] = [_merged(item, changes) for item in answer["items"]]
    else:
        answer = _merged(answer, changes)
    return json_reply(answer, reply.status, reply.headers)


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), change)
    return merged


def on_another_clock(reply: Reply, seconds: float, now: float) -> Reply:
    """Answer as of a clock that is so many seconds ahead: every time in the answer, and its ``Date``.

    Args:
        reply: The right reply.
        seconds: How far it is ahead.
        now: Epoch seconds on our clock.
    """

    def shifted(found: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(f"{found[1].decode()}+00:00")
        return f'"{timestamp(moment.timestamp() + seconds)}"'.encode()

    date = ("date", formatdate(now + seconds, usegmt=True))
    return replace(reply, body=_TIME.sub(shifted, reply.body), headers=(*reply.headers, date))


def drifted(reply: Reply) -> Reply:
    """Rewrite a good answer the way a later version of the API might give it.

    What it means stays the same: states in which a thread has come to rest are left alone.
    """
    if reply.status != _OK:
        return reply
    answer = json.loads(reply.body)
    for thread in answer.get("items", [answer]):
        _drift(thread)
    answer["requestId"] = "req_from_the_future"
    return json_reply(answer, reply.status, reply.headers)


def _drift(thread: dict[str, Any]) -> None:
    thread["usage"] = {"credits": 12.5, "models": ["one-of-tomorrow"]}
    if thread.get("status") == "active":
        thread["status"] = "busy"
    if thread.get("runState") == "running":
        thread["runState"] = "thinking"
    if thread.get("waitingOn"):
        thread["waitingOn"] = [*thread["waitingOn"], "deployment"]
    if "createdAt" in thread:
        thread["createdAt"] = "a moment ago"
    _each(thread, "tasks", lambda task: task | {"assignee": None, "status": _later(task["status"])})
    _each(thread, "participants", lambda user: user | {"userType": "agent"})
    _each(thread, "pullRequests", lambda pull: pull | {"mergeable": "unknown", "state": f"{pull['state']}_again"})
    _each(thread, "tags", lambda tag: tag | {"color": "ultraviolet"})


def _later(task_status: str) -> str:
    return "in_design" if task_status == "in_progress" else task_status


def _each(thread: dict[str, Any], name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if name in thread:
        thread[name] = [change(item) for item in thread[name]]


def _error(status: int, body: str, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    if body == "html":
        page = _page(status)
        return Reply(page.status, page.body, page.content_type, headers)
    reply = failure(status, code or _CODES.get(status, "error"), message, headers=headers)
    if body == "empty" or status == _NOT_MODIFIED:
        return replace(reply, body=b"")
    return replace(reply, body=reply.body[: len(reply.body) // 2]) if body == "half" else reply


def _page(status: int) -> Reply:
    return Reply(status, _PAGE.format(f"{status} from a proxy").encode(), "text/html; charset=utf-8")


def _retry_after(fault: Status, now: float) -> tuple[tuple[str, str], ...]:
    if fault.retry_after_date is not None:
        return (("retry-after", formatdate(now + fault.retry_after_date, usegmt=True)),)
    return () if fault.retry_after is None else (("retry-after", str(fault.retry_after)),)


def _padded(reply: Reply, size: int) -> Reply:
    answer = json.loads(reply.body)
    answer["padding"] = "x" * max(0, size - len(reply.body))
    return json_reply(answer, reply.status, reply.headers)
