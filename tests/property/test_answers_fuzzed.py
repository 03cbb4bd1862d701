"""Whatever is wrong in an answer: only this package's errors are raised, and Airflow can keep all that comes of it."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from airflow.sdk.execution_time import comms, task_runner

from airflow_provider_capy.exceptions import CapyError
from tests.property import fuzz
from tests.property.clock import Clock
from tests.property.known import new_hook
from tests.property.sky import Sky, under
from tests.unit.worker import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)


# Airflow keeps XComs and events in rows of its database.
LONGEST = 1_000_000


def seed() -> str:
    """Return what the draws begin with; it is the same all over a run, unless nobody has set it."""
    return os.environ.setdefault("CAPY_SEED", "0")


def everything_kept() -> Iterator[tuple[str, Any]]:
    """Yield where something was wrong in an answer, and each thing that is kept after it.

    Every place is given every value once; in which state the thread is, or which error it is, is drawn, unless
    `CAPY_FUZZ` is ``all``.
    """
    hook, chance = new_hook(), random.Random(seed())
    clock = Clock()

    def some(of: Sequence[Any]) -> Sequence[Any]:
        return of if os.environ.get("CAPY_FUZZ") == "all" else [chance.choice(of)]

    # The clock alone: answers come from elsewhere, and nobody sleeps between tries.
    with under(Sky(clock, [], 0.0)), hook.client as client:
        for where, body in fuzz.mutations(fuzz.GOOD):
            for state in some(fuzz.STATES):
                with fuzz.answering(200, {"getThread": fuzz.in_state(body, state)}):
                    looks = fuzz.kept_after_looks(client, clock.now, some(("fail", "wait")))
                    yield from ((f"getThread {state} {where}", kept) for kept in looks)
        for operation, kept_after in {
            "createAndStartThread": lambda: fuzz.kept_after_a_create(hook),
            "stopThread": lambda: fuzz.kept_after_a_stop(client),
            "listThreads": lambda: fuzz.kept_after_a_list(client),
        }.items():
            for where, body in fuzz.mutations(fuzz.ANSWERS[operation]):
                with fuzz.answering(200, {operation: body}):
                    yield from ((f"{operation} {where}", kept) for kept in kept_after())
        for where, body in fuzz.mutations(fuzz.ANSWERS["error"]):
            for status in some(fuzz.ERRORS):
                with fuzz.answering(status, dict.fromkeys(fuzz.ANSWERS, body)):
                    for kept in (
                        *fuzz.kept_after_looks(client, clock.now, ["fail"]),
                        *fuzz.kept_after_a_stop(client),
                        *fuzz.kept_after_a_create(hook),
                    ):
                        yield f"{status} {where}", kept


@pytest.mark.timeout(600)
def test_airflow_can_keep_whatever_comes_of_an_answer() -> None:
    refused, count = [], 0
    for where, kept in everything_kept():
        count += 1
        if why := why_refused(kept):
            refused.append(f"{where}: {why}")
    assert count > 5000
    assert refused == [], f"CAPY_SEED={seed()}"


def why_refused(kept: Any) -> str:
    """Say why Airflow could not keep a value: as JSON, as UTF-8, in PostgreSQL's jsonb, in a message to its supervisor."""
    try:
        text = json.dumps(kept, allow_nan=False, ensure_ascii=False)
        text.encode()
        comms._RequestFrame(1, {"type": "SetXCom", "value": kept}).as_bytes()
        msgspec.msgpack.decode(msgspec.msgpack.encode(kept))
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if "\\u0000" in json.dumps(kept).replace("\\\\", ""):
        return "a NUL"
    return f"{len(text)} characters" if len(text) > LONGEST else ""


@pytest.mark.parametrize("name", ["", "\u0000", "\ud800", "half \ud83d", "x" * 100_000, "model_extra", "__class__"])
@pytest.mark.parametrize("inside", ["", "tasks", "pullRequests", "tags", "participants"])
def test_a_field_that_nobody_knows_makes_no_answer_unreadable(name: str, inside: str) -> None:
    unknown = {name: [fuzz.nested(300), float("nan"), 2**64, {name: name}]}
    answer = {**fuzz.GOOD, inside: [{**fuzz.GOOD[inside][0], **unknown}]} if inside else {**fuzz.GOOD, **unknown}
    with new_hook().client as client, fuzz.answering(200, {"getThread": json.dumps(answer).encode()}):
        thread = client.get_thread(fuzz.THREAD)
    assert (thread.run_state, thread.title, len(thread.tasks)) == ("ready", "A title", 1)


@pytest.mark.parametrize("error", [None, "x", 1, {}, {"outcome": "ready"}, {"outcome": "ready", "thread_id": 1}])
def test_an_event_that_is_not_ours_is_an_error_of_ours(error: Any) -> None:
    from airflow_provider_capy.events import WaitEvent

    with pytest.raises(CapyError):
        WaitEvent.read(error, fuzz.THREAD)
