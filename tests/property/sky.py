"""A Capy behind the weather: raw answers by a script under the real clients.

Whatever client of ours sends a request, its transport asks the :class:`Sky`: it answers as Capy would, or as the script says.
"""

from __future__ import annotations

import json
import sys
import time as real_time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
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
# What the rules leave open: an outage is tolerated for an hour, and a no of Capy's believed after three answers in a row
# that are alike and spread over half a minute.
LONGEST_OUTAGE = 3000.0
LONGEST_NO = 20.0
MOST_NOES = 2
# So many failures in a row the attempts of one look may hide from whoever counts the noes.
MOST_HIDDEN = 3
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
        step: seconds by which the wall clock is set forward or back right before.
    """

    kind: str = "good"
    status: int = 200
    body: str = "capy"
    retry_after: str | None = None
    told: float = 0.0
    processed: bool = False
    step: float = 0.0

    @property
    def is_no(self) -> bool:
        """Whether it is a no of Capy's own, which would be true if it stood."""
        return self.kind == "status" and self.body == "capy" and self.status in NOES

    @property
    def is_sent_again(self) -> bool:
        """Whether a client of ours may send the request again before it tells anybody."""
        if self.kind == "status":
            return self.status == 429 or self.status >= 500
        return self.kind in {"reset", "refused", "timeout"}


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
NOES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict", 422: "validation_error"}
CODES = {**NOES, 429: "too_many_requests"}
STEPS = [side * seconds for side in (-1.0, 1.0) for seconds in (2.0, 20.0, 60.0, 600.0, 1800.0, 3600.0)]
RETRY_AFTER: list[tuple[str, float]] = [
    *((text, float(text)) for text in ("0", "1", "7", "1.5", "90", "1200", "5000", "86400")),
    *((text, 0.0) for text in ("-5", "soon", "", "NaN", "inf", "9" * 40, "1e9", "Wed, 99 Foo 2026 00:00:00 GMT")),
]


def draw_answer(chance: random.Random) -> Answer:
    """Draw what may befall a request while the thread is healthy; a no of Capy's does not last, see :class:`Sky`."""
    kind = chance.choices(
        ["status", "no", "good", "reset", "refused", "timeout", "slow", "html", "empty", "half", "blocked"],
        [50, 15, 8, 8, 6, 6, 3, 3, 2, 2, 2],
    )[0]
    if kind not in {"status", "no"}:
        return Answer(kind, processed=chance.random() < 0.5)
    status = chance.choice([404, 404, 429, 502, 503, *NOES, *[chance.randrange(300, 600)] * 12])
    body = chance.choice(["capy", "capy", *BODIES])
    if kind == "no":
        status, body = chance.choice([404, *NOES]), "capy"
    if body == "capy" and 400 <= status < 500 and status not in CODES:
        body = "html"
    text, told = chance.choice([(None, 0.0)] * len(RETRY_AFTER) + RETRY_AFTER)
    if text is not None and chance.random() < 0.2:
        told = float(chance.choice([-60, 30, 600]))
        text, told = formatdate(real_time.time() + told, usegmt=True), max(told - 1.0, 0.0)
    obeyed = told if status == 429 or status >= 500 else 0.0
    return Answer("status", status, body, text, obeyed, processed=chance.random() < 0.5)


def draw_script(chance: random.Random) -> list[Answer]:
    """Draw a sequence: single faults, stretches of one and the same, and of several in turn; at times the clock is set."""
    script: list[Answer] = []
    clock_is_set = chance.random() < 0.3
    for _ in range(chance.randrange(1, 12)):
        turn = [draw_answer(chance) for _ in range(chance.choice([1, 1, 1, 1, 2, 3]))]
        stretch = turn * chance.choice([1, 1, 1, 2, 5, 12])
        if clock_is_set and chance.random() < 0.5:
            at = chance.randrange(len(stretch))
            stretch[at] = replace(stretch[at], step=chance.choice(STEPS))
        script += stretch
    return script


@dataclass
class Seen:
    """One request, and what came of it: at Capy's time, and at the one that our wall clock showed."""

    time: float
    shown: float
    method: str
    path: str
    answer: Answer


@dataclass
class _Stretch:
    """Answers in a row that are alike in some way: since when they come, by either clock, and how many there were."""

    time: float
    shown: float
    kind: int = 0
    answers: int = 0
    hidden: int = 0

    def lasted(self, clock: Clock) -> float:
        """Return how long it has lasted by now, as whoever reads the worse of the clocks must think."""
        self.shown = min(self.shown, clock.now)
        return max(clock.true - self.time, clock.now - self.shown)


@dataclass
class Sky:
    """Capy, with one thread that works until it is ready, and the weather before it.

    No outage lasts longer than is tolerated. A no of Capy's may come at any time, mixed with other noes, with outages and
    with strangers' answers; but the same no to the same request, with no look in between that ended otherwise, comes either :data:`MOST_NOES` times at the most
    or within :data:`LONGEST_NO`.

    Attributes:
        clock: its time.
        script: what befalls the next requests.
        ready_at: when the thread is ready by itself.
        exists: whether there is a thread already.
        prompt: of the thread, once there is one.
        creates: how many creates were processed.
        stopped_at: when a stop was first processed.
        seen: every request.
        leapt: seconds by which the wall clock was set forward, all in all.
    """

    clock: Clock
    script: list[Answer]
    ready_at: float
    exists: bool = True
    prompt: str = ""
    creates: int = 0
    stopped_at: float | None = None
    seen: list[Seen] = field(default_factory=list)
    leapt: float = 0.0
    born: float = field(init=False)
    _outage: _Stretch | None = None
    _denials: dict[tuple[str, str], _Stretch] = field(default_factory=dict)
    _was_blocked: bool = False

    def __post_init__(self) -> None:
        self.born = self.clock.true - 120.0

    @property
    def is_at_rest(self) -> bool:
        stopped = self.stopped_at is not None and self.clock.true >= self.stopped_at + STOP_TAKES
        return stopped or self.clock.true >= self.ready_at

    def sent(self, method: str, ending: str = "") -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method and seen.path.endswith(ending)]

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert len(self.seen) < MOST_REQUESTS, "asked again and again"
        answer = self._drawn((request.method, request.url.path))
        self.seen.append(Seen(self.clock.true, self.clock.now, request.method, request.url.path, answer))
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

    def _drawn(self, asked: tuple[str, str]) -> Answer:
        answer = self.script.pop(0) if self.script else GOOD
        self.clock.step(answer.step)
        self.leapt += max(answer.step, 0.0)
        if not self.script:
            # Good looks alone show nothing new.
            self.ready_at = min(self.ready_at, self.clock.true + LONGEST_REST)
        if answer.kind in {"good", "slow", "blocked"} or self._would_be_believed(answer, asked):
            self._outage = None
            self._denials.pop(asked, None)
            # Twice in a row it would be true.
            self._was_blocked = answer.kind == "blocked" and not self._was_blocked
            return answer if answer.kind == "slow" or self._was_blocked else GOOD
        return answer

    def could_not_ask(self) -> bool:
        """Count what fails before anything is sent as a part of an outage; returns whether that may go on."""
        self._outage = self._outage or _Stretch(self.clock.true, self.clock.now)
        return self._outage.lasted(self.clock) <= LONGEST_OUTAGE

    def _would_be_believed(self, answer: Answer, asked: tuple[str, str]) -> bool:
        self._outage = self._outage or _Stretch(self.clock.true, self.clock.now)
        is_outage = self._outage.lasted(self.clock) > LONGEST_OUTAGE
        denial = self._denials.get(asked)
        if not answer.is_no:
            if denial is not None:
                denial.hidden += 1
                if not answer.is_sent_again or denial.hidden > MOST_HIDDEN:
                    del self._denials[asked]
            return is_outage
        if denial is None or denial.kind != answer.status:
            denial = self._denials[asked] = _Stretch(self.clock.true, self.clock.now, answer.status)
        denial.answers, denial.hidden = denial.answers + 1, 0
        return is_outage or (denial.lasted(self.clock) > LONGEST_NO and denial.answers > MOST_NOES)

    def _good(self, request: httpx.Request, *, blocked: bool) -> bytes:
        return json.dumps(self._processed(request, blocked=blocked)).encode()

    def _processed(self, request: httpx.Request, *, blocked: bool) -> dict[str, Any]:
        if request.method == "POST" and request.url.path.endswith("/stop"):
            self.stopped_at = self.clock.true if self.stopped_at is None else self.stopped_at
            return {"id": THREAD, "status": "active"}
        if request.method == "POST":
            self.creates, self.exists, self.born = self.creates + 1, True, self.clock.true
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
