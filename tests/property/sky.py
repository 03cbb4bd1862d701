"""A Capy behind the weather: raw answers by a script under the real clients.

Whatever client of ours sends a request, its transport asks the :class:`Sky`: it answers as Capy would, or as the script says.
"""

from __future__ import annotations

import json
import sys
import time as real_time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.property.clock import Clock

THREAD = "jam_healthy"
PROJECT = "prj_demo"
# A test's own mistake, such as a wait that sleeps for ever, ends here.
MOST_REQUESTS = 5000
# What the rules leave open: an outage is tolerated for an hour, and Capy's own 404 believed after half a minute.
LONGEST_OUTAGE = 3000.0
LONGEST_404 = 20.0
STOP_TAKES = 2.0
LONGEST_REST = 400.0
DAY = 86400.0


@dataclass(frozen=True)
class Answer:
    """One answer of a script.

    Attributes:
        kind: ``good``, ``status``, ``reset``, ``refused``, ``timeout``, ``slow``, ``html``, ``empty``, ``half`` (these three with
            status 200) or ``blocked`` (for this look only, a thread that waits for a person).
        status: of ``status``.
        body: of ``status``: ``capy``, ``html``, ``empty``, ``half``, or another service's error.
        retry_after: its header.
        told: how many seconds that header surely asks for.
        processed: whether a call that changes something was processed before the answer was lost.
    """

    kind: str = "good"
    status: int = 200
    body: str = "capy"
    retry_after: str | None = None
    told: float = 0.0
    processed: bool = False


GOOD = Answer()
BODIES = {
    "html": b"<!doctype html><title>Not here</title><h1>An ingress</h1>",
    "empty": b"",
    "half": b'{"error": {"code": "not_fo',
    "text": b"default backend - 404",
    "message": b'{"message": "Not Found"}',
    "string": b'{"error": "not_found"}',
    "number": b'{"error": {"code": 404, "message": "Requested entity was not found."}}',
    "list": b'[{"error": {"code": "not_found", "message": "Thread not found"}}]',
    "null": b'{"error": null}',
}
CODES = {404: "not_found", 429: "too_many_requests"}
RETRY_AFTER: list[tuple[str, float]] = [
    *((text, float(text)) for text in ("0", "1", "7", "1.5", "90", "1200", "5000", "86400")),
    *((text, 0.0) for text in ("-5", "soon", "", "NaN", "inf", "9" * 40, "1e9", "Wed, 99 Foo 2026 00:00:00 GMT")),
]


def draw_answer(chance: random.Random) -> Answer:
    """Draw what may befall a request while the thread is healthy: all but Capy's own lasting refusals."""
    kind = chance.choices(
        ["status", "good", "reset", "refused", "timeout", "slow", "html", "empty", "half", "blocked"],
        [60, 8, 8, 6, 6, 3, 3, 2, 2, 2],
    )[0]
    if kind != "status":
        return Answer(kind, processed=chance.random() < 0.5)
    status = chance.choice([404, 404, 429, 502, 503, 401, 403, 409, 422, *[chance.randrange(300, 600)] * 12])
    body = chance.choice(["capy", "capy", *BODIES])
    if body == "capy" and 400 <= status < 500 and status not in CODES:
        body = "html"
    text, told = chance.choice([(None, 0.0)] * len(RETRY_AFTER) + RETRY_AFTER)
    if text is not None and chance.random() < 0.2:
        told = float(chance.choice([-60, 30, 600]))
        text, told = formatdate(real_time.time() + told, usegmt=True), max(told - 1.0, 0.0)
    obeyed = told if status == 429 or status >= 500 else 0.0
    return Answer("status", status, body, text, obeyed, processed=chance.random() < 0.5)


def draw_script(chance: random.Random) -> list[Answer]:
    """Draw a sequence: single faults, and stretches of one and the same."""
    script: list[Answer] = []
    for _ in range(chance.randrange(1, 12)):
        script += [draw_answer(chance)] * chance.choice([1, 1, 1, 2, 5, 12])
    return script


@dataclass
class Seen:
    """One request, and what came of it."""

    time: float
    method: str
    path: str
    answer: Answer


@dataclass
class Sky:
    """Capy, with one thread that works until it is ready, and the weather before it.

    Attributes:
        clock: its time.
        script: what befalls the next requests.
        ready_at: when the thread is ready by itself.
        exists: whether there is a thread already.
        prompt: of the thread, once there is one.
        creates: how many creates were processed.
        stopped_at: when a stop was first processed.
        seen: every request.
    """

    clock: Clock
    script: list[Answer]
    ready_at: float
    exists: bool = True
    prompt: str = ""
    creates: int = 0
    stopped_at: float | None = None
    seen: list[Seen] = field(default_factory=list)
    born: float = field(init=False)
    _bad_since: float | None = None
    _gone_since: float | None = None
    _was_blocked: bool = False

    def __post_init__(self) -> None:
        self.born = self.clock.now - 120.0

    @property
    def is_at_rest(self) -> bool:
        stopped = self.stopped_at is not None and self.clock.now >= self.stopped_at + STOP_TAKES
        return stopped or self.clock.now >= self.ready_at

    def sent(self, method: str, ending: str = "") -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method and seen.path.endswith(ending)]

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert len(self.seen) < MOST_REQUESTS, "asked again and again"
        answer = self._drawn()
        self.seen.append(Seen(self.clock.now, request.method, request.url.path, answer))
        self.clock.sleep({"slow": 20.0, "timeout": 30.0}.get(answer.kind, 0.05))
        if answer.kind in {"good", "slow", "blocked"}:
            return _raw(200, self._good(request, blocked=answer.kind == "blocked"))
        if answer.processed and request.method == "POST" and answer.kind not in {"refused", "status", "half"}:
            self._good(request, blocked=False)
        if answer.kind == "refused":
            raise httpx.ConnectError("[Errno 111] Connection refused", request=request)
        if answer.kind == "reset":
            raise httpx.ReadError("[Errno 104] Connection reset by peer", request=request)
        if answer.kind == "timeout":
            raise httpx.ReadTimeout("timed out", request=request)
        if answer.kind in {"html", "empty"}:
            return _raw(200, BODIES[answer.kind])
        if answer.kind == "half":
            good = self._good(request, blocked=False)
            return _raw(200, good[: len(good) // 2])
        return _refusal(answer)

    def _drawn(self) -> Answer:
        answer, now = (self.script.pop(0) if self.script else GOOD), self.clock.now
        if not self.script:
            # Good looks alone show nothing new.
            self.ready_at = min(self.ready_at, now + LONGEST_REST)
        is_404 = answer.status == 404 and answer.body == "capy" and answer.kind == "status"
        too_long = self._bad_since is not None and now - self._bad_since > LONGEST_OUTAGE
        believed = is_404 and self._gone_since is not None and now - self._gone_since > LONGEST_404
        if too_long or believed or answer.kind in {"good", "slow", "blocked"}:
            self._bad_since = self._gone_since = None
            # Twice in a row it would be true.
            self._was_blocked = answer.kind == "blocked" and not self._was_blocked
            return answer if answer.kind == "slow" or self._was_blocked else GOOD
        self._bad_since = now if self._bad_since is None else self._bad_since
        if is_404 and self._gone_since is None:
            self._gone_since = now
        return answer

    def _good(self, request: httpx.Request, *, blocked: bool) -> bytes:
        return json.dumps(self._processed(request, blocked=blocked)).encode()

    def _processed(self, request: httpx.Request, *, blocked: bool) -> dict[str, Any]:
        if request.method == "POST" and request.url.path.endswith("/stop"):
            self.stopped_at = self.clock.now if self.stopped_at is None else self.stopped_at
            return {"id": THREAD, "status": "active"}
        if request.method == "POST":
            self.creates, self.exists, self.born = self.creates + 1, True, self.clock.now
            self.prompt = json.loads(request.content)["prompt"]
            return self._thread(blocked=False)
        if request.url.path.endswith("/threads"):
            asked = request.url.params.get("q", "")
            items = [self._thread(blocked=False)] if self.exists and asked in self.prompt else []
            return {"items": items, "nextCursor": None, "hasMore": False}
        return self._thread(blocked=blocked and not self.is_at_rest)

    def _thread(self, *, blocked: bool) -> dict[str, Any]:
        rest = self.is_at_rest
        state = "ready" if rest else "blocked" if blocked else "running"
        return {
            "id": THREAD,
            "projectId": PROJECT,
            "title": "A title",
            "prompt": self.prompt,
            "status": "idle" if rest else "active",
            "runState": state,
            "waitingOn": [],
            "blockedOn": ["permission"] if blocked else [],
            "pendingWakeups": 0,
            "participants": [],
            "tags": [],
            "tasks": [{"id": "t", "identifier": "X-1", "title": "A", "status": "completed" if rest else "in_progress"}],
            "pullRequests": [],
            "createdAt": datetime.fromtimestamp(self.born, timezone.utc).isoformat().replace("+00:00", "Z"),
        }


def _raw(status: int, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    # As it comes over a wire: not yet read.
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def _refusal(answer: Answer) -> httpx.Response:
    headers = {} if answer.retry_after is None else {"retry-after": answer.retry_after}
    if 300 <= answer.status < 400:
        headers["location"] = "https://login.example/"
    error = {"code": CODES.get(answer.status, "internal_error"), "message": "So it is"}
    body = json.dumps({"error": error}).encode() if answer.body == "capy" else BODIES[answer.body]
    return _raw(answer.status, body, headers)


@contextmanager
def under(sky: Sky) -> Iterator[None]:
    """Let every client of ours send to the sky, and every module of ours read its clock."""

    async def answer(_self: Any, request: httpx.Request) -> httpx.Response:
        return sky.answer(request)

    with ExitStack() as stack:
        for module in _modules_with_time():
            stack.enter_context(mock.patch.object(module, "time", sky.clock))
        stack.enter_context(
            mock.patch.object(httpx.HTTPTransport, "handle_request", lambda _self, request: sky.answer(request))
        )
        stack.enter_context(mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", answer))
        yield


def _modules_with_time() -> list[Any]:
    ours = ("airflow_provider_capy.", "tenacity")
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith(ours) and ".emulator" not in name and getattr(module, "time", None) is real_time
    ]
