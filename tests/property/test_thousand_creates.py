"""A thousand tasks start their threads over a bad network, and Capy has a thousand threads."""

from __future__ import annotations

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_capy.api import CapyClient
from airflow_provider_capy.creating import Patience
from airflow_provider_capy.emulator.server import EmulatorProcess
from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.identity import TaskIdentity
from tests.property.model import Crash, Store
from tests.unit.starts import LIMITS, settings_for, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth

TASKS = 1000
AT_ONCE = 24
TRIES = 12
LAG = 0.15
PATIENCE = Patience(index_lag=0.6, shared_lag=0.1, first_pause=0.05, longest_pause=0.1)

# On every create and lookup, each with its probability: what may have been processed, and what was not.
CREATE_FAULTS: list[tuple[str, float, dict[str, Any]]] = [
    ("lost", 0.06, {}),
    ("error_after", 0.06, {"status": 500}),
    ("error_after", 0.03, {"status": 502, "body": "html"}),
    ("truncate", 0.04, {}),
    ("not_json", 0.03, {}),
    ("huge", 0.003, {"megabytes": 9.0}),
    ("status", 0.05, {"status": 503}),
    ("status", 0.02, {"status": 504, "body": "html"}),
    ("reset", 0.03, {}),
    ("status", 0.08, {"status": 429, "retry_after": 0}),
    ("status", 0.02, {"status": 422}),
]
REFUSED_CONNECTIONS = 0.05


@pytest.fixture(scope="module")
def process() -> Iterator[EmulatorProcess]:
    with EmulatorProcess(speed=20.0) as process:
        yield process


@pytest.fixture
def capy(process: EmulatorProcess) -> EmulatorControl:
    process.control.reset()
    return process.control


@pytest.fixture(scope="module")
def nowhere() -> Iterator[str]:
    """A port on which nobody listens, and nobody will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/api"


@dataclass
class Fate:
    """How a task ended.

    Attributes:
        tries: how many it took.
        thread_id: its thread; empty when it failed.
        errors: what its tries failed with.
    """

    tries: int = 0
    thread_id: str = ""
    errors: list[str] = field(default_factory=list)


class Workers:
    """Drives tasks through their tries, as an Airflow with many workers does.

    Args:
        capy: the emulator.
        nowhere: where a connection is refused.
        tries: how many each task has.
    """

    def __init__(self, capy: EmulatorControl, nowhere: str, tries: int) -> None:
        self._settings = settings_for(capy)
        self._nowhere = settings_for(capy, base_url=nowhere)
        self._tries = tries
        self._clients = threading.local()
        self._open: list[CapyClient] = []

    def work(self, number: int) -> Fate:
        draw = random.Random(number)
        store, fate = Store(), Fate()
        while fate.tries < self._tries and not fate.thread_id:
            fate.tries += 1
            refused = draw.random() < REFUSED_CONNECTIONS
            one = start(
                self._client(refused=refused),
                store,  # type: ignore[arg-type]
                task=TaskIdentity("dag", "run", "task", number),
                prompt=f"task {number}",
                patience=PATIENCE,
            )
            try:
                fate.thread_id = one.get().thread_id or ""
            except CapyError as error:
                fate.errors.append(str(error))
        return fate

    def all(self, tasks: int) -> list[Fate]:
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return list(pool.map(self.work, range(tasks)))
        finally:
            for client in self._open:
                client.close()

    def _client(self, *, refused: bool) -> CapyClient:
        name = "nowhere" if refused else "capy"
        if not hasattr(self._clients, name):
            setattr(self._clients, name, CapyClient(self._nowhere if refused else self._settings))
            self._open.append(getattr(self._clients, name))
        client: CapyClient = getattr(self._clients, name)
        return client


def spoil(capy: EmulatorControl) -> None:
    for seed, (kind, probability, fields) in enumerate(CREATE_FAULTS):
        capy.fault(kind, "createAndStartThread", probability=probability, seed=seed, **fields)
    capy.fault("status", "listThreads", probability=0.08, seed=100, status=503)
    capy.fault("list_lag", "listThreads", seconds=LAG)


def reference(thread: ThreadTruth) -> str:
    return thread["prompt"].rpartition("Airflow reference: ")[2]


@pytest.mark.timeout(240)
def test_a_thousand_tasks_have_a_thousand_threads(capy: EmulatorControl, nowhere: str) -> None:
    spoil(capy)
    fates = Workers(capy, nowhere, TRIES).all(TASKS)
    threads = capy.threads()
    fired = {fault["kind"]: fault["fired"] for fault in capy.faults()}
    assert len(threads) == TASKS
    assert sorted(fate.thread_id for fate in fates) == sorted(thread["id"] for thread in threads)
    # It was a bad network indeed.
    assert min(fired.values()) > 0
    assert sum(fate.tries > 1 for fate in fates) > TASKS / 10
    assert sum(bool(fate.errors) for fate in fates) > TASKS / 10


def test_nobody_fails_and_pays_without_knowing_what_for(capy: EmulatorControl, nowhere: str) -> None:
    spoil(capy)
    # Lookups that find nothing, too: every lost answer stays lost.
    capy.fault("list_lag", "listThreads", seconds=600)
    fates = Workers(capy, nowhere, 1).all(300)
    paid = {reference(thread): thread["id"] for thread in capy.threads()}
    known = {fate.thread_id for fate in fates}
    failed = " ".join(error for fate in fates for error in fate.errors)
    unknown = {word for word, thread_id in paid.items() if thread_id not in known}
    assert unknown, "no answer was lost"
    assert {word for word in unknown if word not in failed} == set()


# Any schedule, over HTTP

steps = st.fixed_dictionaries(
    {
        "dies": st.sampled_from(["", "", "before_intent", "after_intent", "before_id", "after_id"]),
        "create": st.sampled_from(["", "lost", "error_after", "truncate", "not_json", "status", "reset"]),
        "list": st.sampled_from(["", "", "status"]),
        "lag": st.sampled_from([0.0, LAG]),
        "cleared": st.booleans(),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(steps, min_size=1, max_size=3))
def test_any_schedule_over_http(process: EmulatorProcess, schedule: list[dict[str, Any]]) -> None:
    capy = process.control
    capy.reset()
    capy.script(life="forever", stop_seconds=0.0)
    store, clears, last = Store(), 0, ""
    with CapyClient(settings_for(capy, retry=LIMITS)) as client:
        for step in [*schedule, {"dies": "", "create": "", "list": "", "lag": 0.0, "cleared": False}]:
            capy.clear_faults()
            for operation, kind in (("createAndStartThread", step["create"]), ("listThreads", step["list"])):
                if kind:
                    capy.fault(kind, operation, times=2 if operation == "listThreads" else 1)
            capy.fault("list_lag", "listThreads", seconds=step["lag"])
            clears += step["cleared"]
            store.die_at = step["dies"]
            one = start(client, store, patience=PATIENCE, clear_number=clears, max_tries=2 + clears)  # type: ignore[arg-type]
            try:
                last = one.get().thread_id or ""
            except (Crash, CapyError):
                last = ""
            threads = capy.threads()
            assert len({reference(thread) for thread in threads}) == len(threads)
            assert sum(thread["run_state"] != "ready" for thread in threads) <= 1
            for thread in threads:
                record = store.record
                assert thread["run_state"] == "ready" or (record is not None and record.reference == reference(thread))
    assert [thread["id"] for thread in capy.threads() if thread["run_state"] != "ready"] == [last]
