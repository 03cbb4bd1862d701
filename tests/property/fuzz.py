"""Answers in which one thing is wrong, and everything that this package makes of them for Airflow to keep."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx

from airflow_provider_capy.events import WaitEvent, error_of
from airflow_provider_capy.exceptions import CapyError, CapyRequestError
from airflow_provider_capy.flow import run
from airflow_provider_capy.identity import STORE_KEY
from airflow_provider_capy.lifecycle import Outcome, Policy
from airflow_provider_capy.stopping import stop_and_confirm
from airflow_provider_capy.waiting import Wait
from tests.property.clock import Clock
from tests.unit.starts import MemoryStore, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_capy.api import CapyClient
    from airflow_provider_capy.hooks.capy import CapyHook

THREAD = "jam_1"
GOOD: dict[str, Any] = {
    "id": THREAD,
    "projectId": "prj_demo",
    "title": "A title",
    "status": "idle",
    "runState": "ready",
    "waitingOn": [],
    "blockedOn": ["permission"],
    "pendingWakeups": 0,
    "participants": [{"userId": "u", "userType": "human", "firstParticipatedAt": "", "lastParticipatedAt": ""}],
    "tags": [{"name": "bug", "color": "red"}],
    "tasks": [{"id": "t", "threadIndex": 1, "identifier": "X-1", "title": "A", "status": "error"}],
    "pullRequests": [
        {
            "number": 1,
            "url": "https://git.example/pull/1",
            "repoFullName": "a/b",
            "state": "open",
            "headRef": "x",
            "baseRef": "main",
            "draft": False,
        }
    ],
    "slackThreads": [{"teamId": "T", "channelId": "C", "threadTs": "1.0", "url": "https://slack.example"}],
    "createdAt": "2026-11-01T00:00:00.000Z",
    "updatedAt": "2026-11-01T00:00:00.000Z",
}
STATES: list[dict[str, Any]] = [
    {},
    {"runState": "running"},
    {"runState": "blocked"},
    {"status": "archived"},
]
ANSWERS: dict[str, dict[str, Any]] = {
    "createAndStartThread": {**GOOD, "slack": GOOD["slackThreads"][0]},
    "getThread": GOOD,
    "listThreads": {"items": [GOOD], "nextCursor": None, "hasMore": False},
    "stopThread": {"id": THREAD, "status": "idle"},
    "error": {
        "error": {"code": "not_found", "message": "Thread not found", "details": [{"path": "a", "message": "b"}]}
    },
}
ERRORS = (400, 401, 403, 404, 409, 422, 429, 500)


def nested(levels: int) -> Any:
    value: Any = "deep"
    for level in range(levels):
        value = [value] if level % 2 else {"more": value}
    return value


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, -(2**64), 10**400, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "ready",
        "0",
        "\u0000",
        "Fix \u0000 byte",
        "\ud83d",
        "\udc00\ud83d",
        "\x1b[2J",
        "\u2028\r\n",
        "x" * 50_000,
    ),
    *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-99-99T00:00:00Z", "-99999999999", "https://[::1"),
    *([], {}, [None], [[]], [{}], ["\u0000"], [1, "\ud83d"], [None] * 2000, {"\u0000": "\ud800"}, {"id": 2**64}),
    *(nested(60), nested(900)),
]
# What no value in a place can say.
RAW = [
    b"",
    b"null",
    b"0",
    b'"text"',
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"id": "jam_1", "title": "\xff"}',
    b"[" * 100_000,
    b'{"id": ' + b"9" * 5000,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Name every place in an answer."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def mutations(answer: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Change an answer in every place, one at a time: another value, no value, and a key that nobody knows."""
    for path in places(answer):
        for number, value in enumerate(VALUES):
            yield f"{'.'.join(map(str, path))} = value {number}", _encoded(_changed(answer, path, value))
        if path:
            yield f"{'.'.join(map(str, path))} left out", _encoded(_changed(answer, path, ...))
    yield "unknown keys", _encoded({**answer, "\u0000\ud800": nested(300), "usage": float("nan")})
    yield "the same key twice", _encoded(answer)[:-1] + b',"id":"\\u0000"}'
    for number, body in enumerate(RAW):
        yield f"raw {number}", body


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _changed(answer: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(answer)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return changed


@contextmanager
def answering(status: int, bodies: dict[str, bytes]) -> Iterator[None]:
    """Let every client of ours get these bodies, by operation; what is not named is answered well."""
    good = {name: _encoded(answer) for name, answer in ANSWERS.items()}

    def answer(_transport: Any, request: httpx.Request) -> httpx.Response:
        operation = _operation(request)
        body = bodies.get(operation)
        stream = httpx.ByteStream(good[operation] if body is None else body)
        return httpx.Response(200 if body is None else status, stream=stream)

    with mock.patch.object(httpx.HTTPTransport, "handle_request", answer):
        yield


def _operation(request: httpx.Request) -> str:
    if request.method == "POST":
        return "stopThread" if request.url.path.endswith("/stop") else "createAndStartThread"
    return "listThreads" if request.url.path.endswith("/threads") else "getThread"


def in_state(body: bytes, state: dict[str, Any]) -> bytes:
    """Return an answer with some fields set, where it is one that has fields."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return body
    # What was changed stays so.
    unchanged = {
        name: value for name, value in state.items() if isinstance(answer, dict) and answer.get(name) == GOOD[name]
    }
    return _encoded({**answer, **unchanged}) if unchanged else body


def kept_after_looks(client: CapyClient, now: float, policies: Sequence[str]) -> Iterator[Any]:
    """Yield what a wait leaves for Airflow after looks at this thread, and what its error says."""
    for on_blocked in policies:
        wait = Wait(
            THREAD,
            thread_url=lambda project_id: f"https://capy.example/{project_id}",
            policy=Policy(on_blocked, fail_on_task_error=on_blocked == "fail"),  # type: ignore[arg-type]
            poll_interval=30.0,
        )
        for later in (0.0, 10.0, 40.0):
            try:
                step = wait.saw(client.get_thread(THREAD), now + later)
            except CapyRequestError as error:
                yield str(error)
                step = wait.failed(error, now + later)
            yield step.line
            yield json.loads(json.dumps(wait.remembered(), allow_nan=False))
            if step.event is not None:
                yield from kept_of_an_event(step.event)
                break
        else:
            # What a deadline makes of it.
            wait.deadline = now
            event = wait.failed(CapyRequestError("gone"), now + 80.0).event
            if event is not None:
                yield from kept_of_an_event(event)


def kept_of_an_event(event: WaitEvent) -> Iterator[Any]:
    payload = event.payload()
    yield dict(payload)
    yield event.thread
    yield event.thread_url
    read = WaitEvent.read(json.loads(json.dumps(payload)), THREAD)
    assert read.outcome is event.outcome
    if read.outcome is not Outcome.READY:
        yield str(error_of(read))


def kept_after_a_create(hook: CapyHook) -> Iterator[Any]:
    """Yield what a create leaves: the record in the store, the id and the link; or the error's words."""
    store, clock = MemoryStore(), Clock()
    silent = SimpleNamespace(info=_nothing, warning=_nothing, error=_nothing, exception=_nothing)
    try:
        record = start(None, store, hook=hook, clock=clock.time, sleep=clock.sleep, log=silent).get()
    except CapyError as error:
        yield str(error)
    else:
        yield record.thread_id
        yield record.thread_url
    yield json.loads(store.values.get(STORE_KEY, "null"))


def kept_after_a_stop(client: CapyClient) -> Iterator[Any]:
    """Yield what a stop reports."""
    clock = Clock()
    try:
        report = run(stop_and_confirm(THREAD, until=clock.now + 10.0, clock=clock.time), client, clock.sleep)
    except CapyError as error:
        yield str(error)
    else:
        yield report.xcom()
        yield report.in_words


def kept_after_a_list(client: CapyClient) -> Iterator[Any]:
    """Yield what of a list of threads goes any further: their ids."""
    try:
        yield [thread.id for thread in client.list_page("prj_demo").items]
    except CapyError as error:
        yield str(error)


def _nothing(*_: Any, **__: Any) -> None:
    logging.getLogger("tests.fuzz")
