"""Starts of threads as a task makes them, against an emulated Capy, with a store in memory and short patience."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.api.settings import ClientSettings
from airflow_provider_capy.creating import Patience
from airflow_provider_capy.identity import STORE_KEY, Record, TaskIdentity
from airflow_provider_capy.remembering import RecordStore
from airflow_provider_capy.starting import ThreadStart

if TYPE_CHECKING:
    from airflow_provider_capy.api import CapyClient
    from airflow_provider_capy.emulator.control import EmulatorControl

PROJECT = "prj_demo"
TASK = TaskIdentity("dag", "run", "task")
# The index of these tests lags by tenths of seconds where Capy's may lag by seconds.
QUICK = Patience(index_lag=1.0, shared_lag=0.2, first_pause=0.02, longest_pause=0.1, between=0.01)
LIMITS = RetryLimits(attempts=2, total=5.0, base=0.01, cap=0.02)
LOG = logging.getLogger("tests.starts")


@dataclass
class MemoryStore:
    """Airflow's task state store, in memory.

    Attributes:
        values: what is stored, as JSON.
        broken: which of ``get`` and ``set`` fail.
        failure: what they fail with.
        broken_after: how many ``set`` go well before that.
        deaf: whether it takes no writes in and has nothing to say, as for a try that another one has replaced.
        kill: what a signal handler raises in the middle of a ``set``.
        retentions: what was asked for at each ``set``.
    """

    values: dict[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    broken_after: int = 0
    failure: BaseException = field(default_factory=lambda: ConnectionError("the API server is away"))
    deaf: bool = False
    kill: Exception | None = None
    retentions: list[Any] = field(default_factory=list)

    def get(self, key: str, default: Any = None) -> Any:
        if "get" in self.broken:
            raise self.failure
        return default if self.deaf or key not in self.values else json.loads(self.values[key])

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if "set" in self.broken and len(self.retentions) >= self.broken_after:
            raise self.failure
        if self.kill is not None:
            raise self.kill
        if not self.deaf:
            self.values[key] = json.dumps(value)
        self.retentions.append(retention)

    @property
    def record(self) -> Record | None:
        return Record.read(json.loads(self.values[STORE_KEY])) if STORE_KEY in self.values else None


@dataclass
class Hook:
    """What a start needs of a hook."""

    client: CapyClient
    capy_conn_id: str = "capy_default"

    def send(self, call: Any, retry: RetryLimits | None = None) -> Any:
        return self.client.send(call, retry)

    def thread_url(self, thread_id: str, project_id: str | None) -> str:
        return f"https://capy.example/{project_id}/{thread_id}"


def settings_for(capy: EmulatorControl, **changes: Any) -> ClientSettings:
    base = {"token": SecretStr(capy.token), "base_url": capy.api_url, "retry": LIMITS, "read_timeout": 5.0}
    return ClientSettings(**{**base, **changes})


def start(client: Any, store: MemoryStore | None, **changes: Any) -> ThreadStart:
    """One try of a task; every argument of :class:`ThreadStart` can be changed, and the prompt."""
    prompt = changes.pop("prompt", "Fix the tests")
    known: dict[str, Any] = {
        "hook": Hook(client),
        "store": RecordStore(store, Record),
        "task": TASK,
        "clear_number": 0,
        "max_tries": 2,
        "project_id": PROJECT,
        "fields": {"prompt": prompt},
        "durable": True,
        "reference": None,
        "fail_on_task_error": False,
        "stop_on_kill": True,
        "log": LOG,
        "patience": QUICK,
        "clock": time.time,
        "sleep": time.sleep,
    }
    return ThreadStart(**{**known, **changes})
