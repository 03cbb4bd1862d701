"""A Capy and an Airflow in memory, on a clock of their own, in which everything can go wrong at every step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_provider_capy.api.models import CreatedThread, StoppedThread, Thread, ThreadPage
from airflow_provider_capy.exceptions import (
    CapyConnectError,
    CapyNoAnswerError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyServerError,
)
from airflow_provider_capy.identity import STORE_KEY, Record
from tests.unit.starts import PROJECT

REFERENCE_LINE = "Airflow reference: "


class Crash(BaseException):
    """The process dies: nothing catches this, as nothing catches SIGKILL."""


@dataclass
class ModelThread:
    """One thread of the model."""

    id: str
    prompt: str
    created: float
    run_state: str = "running"
    status: str = "active"
    stopped: bool = False

    @property
    def reference(self) -> str:
        return self.prompt.rpartition(REFERENCE_LINE)[2]

    @property
    def at_rest(self) -> bool:
        return self.status == "archived" or self.run_state == "ready"

    def shape(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "projectId": PROJECT,
            "status": self.status,
            "runState": self.run_state,
            "createdAt": datetime.fromtimestamp(self.created, timezone.utc).isoformat(),
        }


@dataclass
class Capy:
    """Answers calls as a client does, with the faults that are set for the try.

    Attributes:
        threads: every thread there is, oldest first.
        now: epoch seconds.
        lag: seconds that lists lag behind.
        faults: what befalls an operation, in order; ``""`` is nothing.
        die_at: ``before_post``, ``after_post`` (processed, not answered) or nothing.
    """

    threads: list[ModelThread] = field(default_factory=list)
    now: float = 1_800_000_000.0
    lag: float = 0.0
    faults: dict[str, list[str]] = field(default_factory=dict)
    die_at: str = ""

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def send(self, call: Any, retry: Any = None) -> Any:  # noqa: ARG002 - the client's signature
        self.now += 0.1
        waiting = self.faults.get(call.operation, [])
        fault = waiting.pop(0) if waiting else ""
        if fault == "down":
            raise CapyConnectError("never reached Capy")
        if fault == "refused":
            raise CapyRateLimitError("429", status_code=429)
        if fault == "dropped":
            raise CapyNoAnswerError("it was sent and got no answer")
        if fault == "error":
            raise CapyServerError("503", status_code=503)
        answer = getattr(self, f"_{call.operation}")(call)
        if fault in {"lost", "error_after"}:
            raise (
                CapyNoAnswerError("the answer was lost") if fault == "lost" else CapyServerError("500", status_code=500)
            )
        return answer

    def _createAndStartThread(self, call: Any) -> CreatedThread:  # noqa: N802 - the operation's name
        if self.die_at == "before_post":
            raise Crash
        thread = ModelThread(f"jam_{len(self.threads)}", call.body["prompt"], self.now)
        self.threads.append(thread)
        if self.die_at == "after_post":
            raise Crash
        return CreatedThread.model_validate(thread.shape())

    def _listThreads(self, call: Any) -> ThreadPage:  # noqa: N802
        found = [thread for thread in self.threads if call.params["q"] in thread.prompt]
        shown = [Thread.model_validate(thread.shape()) for thread in found if self.now - thread.created >= self.lag]
        return ThreadPage(items=shown)

    def _getThread(self, call: Any) -> Thread:  # noqa: N802
        return Thread.model_validate(self.known(call.path.split("/")[-1]).shape())

    def _stopThread(self, call: Any) -> StoppedThread:  # noqa: N802
        thread = self.known(call.path.split("/")[-2])
        if not thread.at_rest:
            thread.run_state, thread.stopped = "ready", True
        return StoppedThread(id=thread.id, status="idle")

    def known(self, thread_id: str) -> ModelThread:
        for thread in self.threads:
            if thread.id == thread_id:
                return thread
        raise CapyNotFoundError("404", status_code=404)


@dataclass
class Store:
    """Airflow's task state store.

    Attributes:
        values: what is stored, as JSON.
        die_at: ``before_intent``, ``after_intent``, ``before_id``, ``after_id`` or nothing.
        deaf: whether this try was replaced by another one, so that it reads and writes nothing.
        broken_from: the write from which on they fail in this try; ``None`` for never.
    """

    values: dict[str, str] = field(default_factory=dict)
    die_at: str = ""
    deaf: bool = False
    broken_from: int | None = None
    writes: int = 0

    def get(self, key: str, default: Any = None) -> Any:
        return default if self.deaf or key not in self.values else json.loads(self.values[key])

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002 - the accessor's signature
        what = "intent" if value["thread_id"] is None else "id"
        if self.die_at == f"before_{what}":
            raise Crash
        self.writes += 1
        if self.broken_from is not None and self.writes > self.broken_from:
            raise ConnectionError("the API server is away")
        if not self.deaf:
            self.values[key] = json.dumps(value)
        if self.die_at == f"after_{what}":
            raise Crash

    @property
    def record(self) -> Record | None:
        return Record.read(json.loads(self.values.get(STORE_KEY, "null")))
