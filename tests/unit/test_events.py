"""What crosses the triggerer, and what a task makes of it."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from airflow_provider_capy import exceptions
from airflow_provider_capy.events import WaitEvent, error_of
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyEventError,
    CapyPollError,
    CapyRequestError,
    CapyResponseError,
    CapyThreadArchivedError,
    CapyThreadBlockedError,
    CapyThreadError,
    CapyThreadTaskError,
    CapyThreadTimeoutError,
)
from airflow_provider_capy.lifecycle import Outcome

URL = "https://capy/p/jam_1"
REQUEST_ERRORS = [
    kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, CapyRequestError)
]


def event(outcome: Outcome, **fields: Any) -> WaitEvent:
    return WaitEvent(outcome=outcome, thread_id="jam_1", thread_url=URL, **fields)


def through_the_database(value: WaitEvent) -> WaitEvent:
    return WaitEvent.read(json.loads(json.dumps(value.payload())), value.thread_id)


@pytest.mark.parametrize("outcome", Outcome)
def test_an_event_comes_back_as_it_went(outcome: Outcome) -> None:
    sent = event(outcome, thread={"run_state": "ready", "tasks": [{"status": "error"}]})
    assert through_the_database(sent) == sent


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
def test_a_request_error_comes_back_with_its_class_and_attributes(kind: type[CapyRequestError]) -> None:
    fields: dict[str, Any] = {"method": "GET", "path": "/v1/threads/jam_1"}
    if issubclass(kind, CapyAPIError):
        fields |= {"status_code": 499, "code": "some_code", "details": {"why": ["this"]}}
    elif issubclass(kind, CapyResponseError):
        fields |= {"status_code": 200}
    raised = kind("It failed", **fields)
    sent = WaitEvent.failed("jam_1", URL, raised)
    back = error_of(through_the_database(sent))
    assert type(back) is kind
    assert str(back) == "It failed"
    assert {name: getattr(back, name) for name in fields} == fields


def test_a_fired_event_shows_no_title_in_the_log() -> None:
    fired = event(Outcome.READY, thread={"title": "the secret plan"}).payload()
    assert (repr(fired), fired["thread"]["title"]) == ("jam_1: ready", "the secret plan")


def test_whatever_is_in_an_event_the_database_takes_it() -> None:
    thread = {
        "title": "Fix \0 byte \ud83d",
        "tasks": [{"title": "x" * 2_000_000}] * 2000,
        "pull_requests": [{"number": 2**64}],
    }
    cause = CapyAPIError(
        "no\0", details={"deep": [[[[[[[[[["\0"]]]]]]]]]], "nan": float("nan"), "large": ["y" * 9000] * 900}
    )
    failure = WaitEvent.failed("jam_1", URL, cause).failure
    text = json.dumps(event(Outcome.POLL_FAILED, thread=thread, failure=failure).payload(), allow_nan=False)
    assert "\\u0000" not in text
    assert "\\ud83d" not in text
    assert len(text) < 1_000_000


def test_an_error_class_that_nobody_knows_becomes_a_request_error() -> None:
    sent = WaitEvent.failed("jam_1", URL, CapyRequestError("It failed"))
    dumped = sent.model_dump(mode="json")
    for foreign in ("CapyThreadError", "Any", "annotations", "NoSuchError"):
        dumped["failure"]["error"] = foreign
        assert type(error_of(WaitEvent.read(dumped, "jam_1"))) is CapyRequestError


@pytest.mark.parametrize("status_code", [502, 503])
def test_an_outage_names_how_long_it_lasted_and_the_last_reason(status_code: int) -> None:
    cause = exceptions.api_error_class(status_code)("Capy answered", status_code=status_code)
    sent = WaitEvent.failed("jam_1", URL, cause, blind=3600.4)
    error = error_of(through_the_database(sent))
    assert isinstance(error, CapyPollError)
    assert str(error) == f"Thread jam_1 could not be looked at for 3600 s: {URL}. Last: Capy answered"
    assert (type(error.__cause__), error.thread_id, error.thread_url) == (type(cause), "jam_1", URL)


def test_a_failure_whose_reason_was_lost_is_still_a_failure() -> None:
    error = error_of(event(Outcome.POLL_FAILED))
    assert isinstance(error, CapyThreadError)
    assert str(error) == "Polling thread jam_1 failed for a reason that was lost"


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "",
        "ready",
        [],
        {},
        {"outcome": "ready"},
        {"outcome": "success", "thread_id": "jam_1"},
        {"outcome": "ready", "thread_id": None},
        {"status": "success", "thread_id": "jam_1"},
        {"outcome": "ready", "thread_id": "jam_1", "thread": "all fine"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("thread_id", ["jam_1", ""])
def test_what_is_not_our_event_is_an_error(garbage: Any, thread_id: str) -> None:
    with pytest.raises(CapyEventError, match=r"event that is not ours .* nothing is known about .*thread"):
        WaitEvent.read(garbage, thread_id)


def test_the_event_of_another_thread_is_an_error() -> None:
    with pytest.raises(CapyEventError, match=r"event of thread jam_1, but this task waits for jam_2$"):
        WaitEvent.read(event(Outcome.READY).model_dump(mode="json"), "jam_2")


def test_a_task_that_knows_its_thread_no_more_takes_the_event() -> None:
    assert WaitEvent.read(event(Outcome.READY).model_dump(mode="json"), "") == event(Outcome.READY)


def test_fields_of_a_later_version_are_no_fault() -> None:
    later = {**event(Outcome.READY).model_dump(mode="json"), "cost": 3}
    assert WaitEvent.read(later, "jam_1") == event(Outcome.READY)


@pytest.mark.parametrize(
    ("ended", "kind", "message"),
    [
        (
            event(Outcome.ARCHIVED, thread={"run_state": "running"}),
            CapyThreadArchivedError,
            f"Thread jam_1 was archived (its run state still reads 'running'), which is not a success: {URL}",
        ),
        (
            event(Outcome.ARCHIVED, thread={"run_state": "archived"}),
            CapyThreadArchivedError,
            f"Thread jam_1 was archived, which is not a success: {URL}",
        ),
        (
            event(Outcome.BLOCKED, thread={"blocked_on": ["auth", "permission"]}),
            CapyThreadBlockedError,
            f"Thread jam_1 is blocked on auth, permission; a person must act: {URL}",
        ),
        (
            event(Outcome.BLOCKED, thread={"blocked_on": []}),
            CapyThreadBlockedError,
            f"Thread jam_1 is blocked on a person; a person must act: {URL}",
        ),
        (
            event(Outcome.TASK_ERROR, thread={"tasks": [{"identifier": "ENG-1", "status": "error"}, {"status": "ok"}]}),
            CapyThreadTaskError,
            f"Thread jam_1 is ready, but its task ENG-1 failed: {URL}",
        ),
        (
            event(Outcome.TIMEOUT, thread={"run_state": "running"}),
            CapyThreadTimeoutError,
            f"Thread jam_1 had not settled in time, last seen 'running': {URL}",
        ),
        (
            event(Outcome.TIMEOUT),
            CapyThreadTimeoutError,
            f"Thread jam_1 had not settled in time, never seen: {URL}",
        ),
    ],
)
def test_each_error_says_what_happened_and_where_to_look(
    ended: WaitEvent, kind: type[CapyThreadError], message: str
) -> None:
    error = error_of(through_the_database(ended))
    assert isinstance(error, CapyThreadError)
    assert (type(error), str(error), error.thread_id, error.thread_url) == (kind, message, "jam_1", URL)


def test_a_success_that_is_asked_for_its_error_says_so() -> None:
    assert str(error_of(event(Outcome.READY))) == f"Thread jam_1 ended as ready, which is no failure: {URL}"
