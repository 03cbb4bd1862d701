"""A create is sent once, and a lost answer is looked up, whatever goes wrong on the wire."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capy.api import CapyClient
from airflow_provider_capy.api.models import Thread, ThreadPage
from airflow_provider_capy.api.requests import CreateThreadBody
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.creating import (
    PATIENCE,
    Patience,
    create_once,
    find_shared,
    look_up,
    was_surely_not_processed,
)
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyConnectError,
    CapyCreateUnknownError,
    CapyNoAnswerError,
    CapyRateLimitError,
    CapyReferenceError,
    CapyRequestError,
    CapyResponseError,
    CapyServerError,
    CapyValidationError,
)
from airflow_provider_capy.flow import Ask, Flow, Pause, run
from airflow_provider_capy.identity import reference_from, with_reference
from tests.unit.starts import PROJECT, QUICK, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl

REFERENCE = "af0123456789abcdef0123456789abcdef"
BODY = CreateThreadBody(project_id=PROJECT, prompt=with_reference("Fix it", REFERENCE))


@pytest.fixture
def client(capy_emulator: EmulatorControl) -> Iterator[CapyClient]:
    with CapyClient(settings_for(capy_emulator)) as client:
        yield client


def create(client: CapyClient, reference: str | None = REFERENCE, **changes: Any) -> Any:
    known = {"clock": time.time, "patience": QUICK}
    return run(create_once(BODY, reference=reference, **{**known, **changes}), client)


def posts(capy: EmulatorControl) -> int:
    return len(capy.requests("createAndStartThread"))


def test_the_default_patience() -> None:
    assert Patience(index_lag=30.0, shared_lag=10.0, first_pause=1.0, longest_pause=5.0, between=0.2) == PATIENCE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CapyConnectError("refused"), True),
        (CapyRateLimitError("429", status_code=429), True),
        (CapyValidationError("422", status_code=422), True),
        (CapyAPIError("402", status_code=402), True),
        (CapyAPIError("408", status_code=408), False),
        (CapyServerError("500", status_code=500), False),
        (CapyServerError("503", status_code=503), False),
        (CapyNoAnswerError("reset"), False),
        (CapyResponseError("not JSON", status_code=200), False),
        (CapyResponseError("a redirect", status_code=302), False),
    ],
    ids=str,
)
def test_what_surely_started_nothing(error: CapyRequestError, expected: bool) -> None:
    assert was_surely_not_processed(error) is expected


def test_a_create_that_works_is_one_request(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    created = create(client)
    assert [thread["id"] for thread in capy_emulator.threads()] == [created.id]
    assert [request["operation"] for request in capy_emulator.requests()] == ["createAndStartThread"]


LOST: list[tuple[str, dict[str, Any]]] = [
    ("lost", {}),
    ("error_after", {"status": 500}),
    ("error_after", {"status": 502, "body": "html"}),
    ("truncate", {}),
    ("not_json", {}),
    ("huge", {"megabytes": 9.0}),
]


@pytest.mark.parametrize(("kind", "fields"), LOST, ids=str)
def test_a_lost_answer_is_looked_up_and_its_thread_adopted(
    client: CapyClient, capy_emulator: EmulatorControl, kind: str, fields: dict[str, Any]
) -> None:
    capy_emulator.fault(kind, "createAndStartThread", times=1, **fields)
    capy_emulator.fault("list_lag", "listThreads", seconds=0.3)
    found = create(client)
    assert [thread["id"] for thread in capy_emulator.threads()] == [found.id]
    assert posts(capy_emulator) == 1


def test_an_answer_that_comes_too_late_is_a_lost_one(capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("slow", "createAndStartThread", seconds=30, times=1)
    with CapyClient(settings_for(capy_emulator, read_timeout=0.5)) as client:
        found = create(client)
    assert [thread["id"] for thread in capy_emulator.threads()] == [found.id]


def test_an_index_that_lags_by_seconds_is_waited_for(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("lost", "createAndStartThread", times=1)
    capy_emulator.fault("list_lag", "listThreads", seconds=4)
    found = create(client, patience=PATIENCE)
    assert [thread["id"] for thread in capy_emulator.threads()] == [found.id]
    # 1 + 1.5 + 2.25 seconds apart.
    assert len(capy_emulator.requests("listThreads")) <= 5


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 504, "body": "html"}),
        ("reset", {}),
        ("not_json", {"processed": False}),
    ],
    ids=str,
)
def test_what_may_have_been_processed_and_was_not_is_an_unknown_outcome(
    client: CapyClient, capy_emulator: EmulatorControl, kind: str, fields: dict[str, Any]
) -> None:
    capy_emulator.fault(kind, "createAndStartThread", times=1, **fields)
    with pytest.raises(
        CapyCreateUnknownError,
        match=rf"may have been started.*No thread was found within 1 s.*{REFERENCE}.*next try looks",
    ):
        create(client)
    assert (capy_emulator.threads(), posts(capy_emulator)) == ([], 1)


def test_an_index_that_lags_for_ever_is_an_unknown_outcome(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("lost", "createAndStartThread")
    capy_emulator.fault("list_lag", "listThreads", seconds=600)
    with pytest.raises(CapyCreateUnknownError, match=f"may have been started.*It carries the reference {REFERENCE}"):
        create(client)
    assert posts(capy_emulator) == 1


def test_a_lookup_that_fails_as_well_is_an_unknown_outcome(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("lost", "createAndStartThread")
    capy_emulator.fault("status", "listThreads", status=500)
    with pytest.raises(CapyCreateUnknownError, match=f"Looking the thread up failed as well.*500.*{REFERENCE}"):
        create(client)
    assert posts(capy_emulator) == 1


def test_429_is_sent_again_since_it_started_nothing(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=429, retry_after=0, times=1)
    create(client)
    assert (len(capy_emulator.threads()), posts(capy_emulator)) == (1, 2)


@pytest.mark.parametrize(("status", "kind"), [(422, CapyValidationError), (429, CapyRateLimitError)])
def test_a_refusal_is_raised_without_a_lookup(
    client: CapyClient, capy_emulator: EmulatorControl, status: int, kind: type[CapyAPIError]
) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=status)
    with pytest.raises(kind):
        create(client)
    assert (capy_emulator.threads(), capy_emulator.requests("listThreads")) == ([], [])


def test_a_capy_that_is_not_there_started_nothing(capy_emulator: EmulatorControl) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{holder.getsockname()[1]}/api"
        with CapyClient(settings_for(capy_emulator, base_url=base_url)) as client, pytest.raises(CapyConnectError):
            create(client)


def test_without_a_reference_a_lost_answer_says_where_to_look(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.fault("lost", "createAndStartThread")
    with pytest.raises(
        CapyCreateUnknownError, match=f"may have been started.*durable=False.*Look in project {PROJECT}"
    ):
        create(client, reference=None)
    assert (posts(capy_emulator), capy_emulator.requests("listThreads")) == (1, [])


def test_two_threads_with_the_reference_are_an_error_that_lists_them(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    first, second = capy_emulator.create(with_reference("Fix it", REFERENCE), origin="api", copies=2)
    flow = look_up(REFERENCE, project_id=PROJECT, until=0.0, clock=time.time)
    with pytest.raises(CapyReferenceError, match="2 threads") as caught:
        run(flow, client)
    assert first in str(caught.value)
    assert second in str(caught.value)


def test_a_lookup_asks_for_what_was_made_through_the_api_only(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.create(f"somebody quotes {REFERENCE}", origin="web")
    flow = look_up(REFERENCE, project_id=PROJECT, until=0.0, clock=time.time)
    assert run(flow, client) is None
    query = capy_emulator.requests("listThreads")[0]["query"]
    assert query == {"projectId": PROJECT, "origin": "api", "q": REFERENCE, "limit": "100"}


def test_each_look_is_as_patient_as_asked_for() -> None:
    for retry in (None, NO_RETRIES):
        flow = look_up(REFERENCE, project_id=PROJECT, until=0.0, clock=time.time, retry=retry)
        asked = next(flow)
        assert isinstance(asked, Ask)
        assert asked.retry is retry


def test_looks_become_rarer_and_end_in_time() -> None:
    now = [0.0]
    flow = look_up(REFERENCE, project_id=PROJECT, until=12.0, clock=lambda: now[0])
    pauses = []
    asked = next(flow)
    while asked is not None:
        assert isinstance(asked, Ask)
        paused = next_step(flow, type("Page", (), {"items": []})())
        asked = None
        if paused is not None:
            assert isinstance(paused, Pause)
            pauses.append(paused.seconds)
            now[0] += paused.seconds
            asked = next_step(flow, None)
    assert pauses == [1.0, 1.5, 2.25, 3.375, 3.875]


def next_step(flow: Any, answer: Any) -> Any:
    """The flow's next step, or ``None`` when it has ended with nothing."""
    try:
        return flow.send(answer)
    except StopIteration as ended:
        return ended.value


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "reset"}, {"kind": "not_json"}], ids=str)
def test_a_capy_that_fails_for_a_while_is_sat_out_by_a_lookup(
    fault: dict[str, Any], client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.fault("lost", "createAndStartThread", times=1)
    capy_emulator.fault(operation="listThreads", times=5, **fault)
    found = create(client)
    assert [thread["id"] for thread in capy_emulator.threads()] == [found.id]


def test_a_lookup_that_is_told_to_come_back_later_does() -> None:
    now = [0.0]
    flow = look_up(REFERENCE, project_id=PROJECT, until=30.0, clock=lambda: now[0])
    next(flow)
    paused = flow.throw(CapyRateLimitError("429", status_code=429, retry_after=20.0))
    assert paused == Pause(20.0)
    now[0] = 20.0
    next(flow)
    assert flow.throw(CapyRateLimitError("429", status_code=429, retry_after=1200.0)) == Pause(10.0)
    now[0] = 30.0
    next(flow)
    with pytest.raises(CapyRateLimitError):
        flow.throw(CapyRateLimitError("429", status_code=429))


def test_whether_the_search_is_exact_is_asked_before_a_hit_is_believed(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(BODY.prompt, origin="api")
    assert run(look_up(REFERENCE, project_id=PROJECT, until=0.0, clock=time.time), client).id == thread_id
    first, second = (request["query"]["q"] for request in capy_emulator.requests("listThreads"))
    assert (first, second[:2], len(second)) == (REFERENCE, "af", len(REFERENCE))
    assert second != first
    capy_emulator.fault("best_match")
    with pytest.raises(CapyReferenceError, match="not exact"):
        run(look_up(REFERENCE, project_id=PROJECT, until=0.0, clock=time.time), client)


# The user's own reference


def carrying(text: str, generation: int = 0) -> str:
    return with_reference("Fix it", reference_from(text, generation))


def flowing(answer: bool) -> Flow[bool]:
    """A flow that asks nothing."""
    yield from ()
    return answer


def shared(client: CapyClient, generation: int = 0) -> tuple[str | None, int]:
    flow = find_shared(
        "OPS-1",
        generation,
        project_id=PROJECT,
        counts=lambda thread: flowing(thread.status != "archived"),
        clock=time.time,
        patience=QUICK,
    )
    found, generation = run(flow, client)
    return (found.id if found is not None else None), generation


def test_nobody_has_used_the_reference_yet(client: CapyClient) -> None:
    assert shared(client) == (None, 0)


def test_a_thread_that_was_just_started_under_it_is_waited_for(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(carrying("OPS-1"), origin="api")
    capy_emulator.fault("list_lag", "listThreads", seconds=0.1)
    assert shared(client) == (thread_id, 0)


def test_a_thread_that_ended_badly_is_followed_by_the_next_generation(
    client: CapyClient, capy_emulator: EmulatorControl
) -> None:
    [first] = capy_emulator.create(carrying("OPS-1"), origin="api")
    capy_emulator.archive(first)
    assert shared(client) == (None, 1)
    [second] = capy_emulator.create(carrying("OPS-1", 1), origin="api")
    assert shared(client) == (second, 1)


def test_the_last_generation_counts(client: CapyClient, capy_emulator: EmulatorControl) -> None:
    capy_emulator.create(carrying("OPS-1"), origin="api")
    [second] = capy_emulator.create(carrying("OPS-1", 1), origin="api")
    assert shared(client) == (second, 1)
    capy_emulator.archive(second)
    assert shared(client) == (None, 2)


def test_generations_without_end_are_an_error_and_no_loop() -> None:
    thread = Thread.model_validate({"id": "jam_1", "runState": "archived", "projectId": PROJECT})
    flow = find_shared("OPS-1", 0, project_id=PROJECT, counts=lambda _: flowing(False), clock=time.time)
    asked: set[str] = set()
    pauses: list[float] = []

    def drive() -> None:
        step: Any = next(flow)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = flow.send(None)
            else:
                # A word that nobody has follows each that is one of ours.
                is_ours = len(asked) == len(pauses)
                asked.add(step.call.params["q"]) if is_ours else None
                step = flow.send(ThreadPage(items=[thread] if is_ours else []))

    with pytest.raises(CapyReferenceError, match=r"100 threads carry 'OPS-1'.*Nothing was started.*another reference"):
        drive()
    assert (len(asked), pauses) == (100, [0.2] * 100)
