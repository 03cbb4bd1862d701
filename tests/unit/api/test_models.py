"""Reading is tolerant: what is new, null or of another type ends no wait."""

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_provider_capy.api.models import CreatedThread, ErrorAnswer, Thread, ThreadPage, parse_timestamp

LEAST = {"id": "jam_1", "runState": "running"}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T04:05:06.789Z", datetime(2026, 11, 22, 4, 5, 6, 789000, timezone.utc)),
        ("2026-11-22T04:05:06Z", datetime(2026, 11, 22, 4, 5, 6, tzinfo=timezone.utc)),
        ("2026-11-22T06:05:06+02:00", datetime(2026, 11, 22, 4, 5, 6, tzinfo=timezone.utc)),
        ("2026-11-22T04:05:06", datetime(2026, 11, 22, 4, 5, 6, tzinfo=timezone.utc)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=timezone.utc)),
        ("", None),
        ("a moment ago", None),
        ("1700000000", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_a_timestamp_is_read_where_it_can_be(text, moment):
    assert parse_timestamp(text) == moment
    assert Thread.model_validate(LEAST | {"createdAt": text}).created == moment


@given(st.text())
def test_no_timestamp_breaks_anything(text):
    moment = parse_timestamp(text)
    assert moment is None or moment.tzinfo is timezone.utc


def test_a_thread_needs_an_id_and_a_run_state_only():
    thread = Thread.model_validate(LEAST)
    assert thread.model_dump() == {
        "id": "jam_1",
        "project_id": "",
        "title": None,
        "status": "",
        "run_state": "running",
        "waiting_on": [],
        "blocked_on": [],
        "pending_wakeups": 0,
        "participants": [],
        "tags": [],
        "created_at": "",
        "tasks": [],
        "pull_requests": [],
        "slack_threads": [],
        "updated_at": "",
    }


LISTS = ["waitingOn", "blockedOn", "participants", "tags", "tasks", "pullRequests", "slackThreads"]


def test_lists_and_numbers_may_be_null():
    nulls = dict.fromkeys([*LISTS, "pendingWakeups", "title", "projectId", "status", "createdAt", "updatedAt"])
    assert Thread.model_validate(LEAST | nulls).model_dump() == Thread.model_validate(LEAST).model_dump()


def test_unknown_fields_and_values_survive():
    thread = Thread.model_validate(
        LEAST
        | {"runState": "thinking", "usage": {"credits": 1}, "tags": [{"name": "a", "color": "mauve", "icon": "x"}]}
    )
    assert (thread.run_state, thread.model_extra) == ("thinking", {"usage": {"credits": 1}})
    assert (thread.tags[0].color, thread.tags[0].model_extra) == ("mauve", {"icon": "x"})


def test_a_text_that_became_something_else_is_kept_as_text():
    thread = Thread.model_validate(
        LEAST | {"createdAt": 1700000000, "title": 5, "waitingOn": [{"kind": "ci"}], "tags": [{"name": None}]}
    )
    assert (thread.created_at, thread.title, thread.waiting_on) == ("1700000000", "5", ['{"kind": "ci"}'])
    assert thread.tags[0].name == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [("tags", ["nightly"]), ("participants", 3), ("pullRequests", "none"), ("slackThreads", {"a": 1})],
)
def test_what_decides_nothing_may_be_unreadable(field, value):
    thread = Thread.model_validate(LEAST | {field: value})
    assert thread.model_dump() == Thread.model_validate(LEAST).model_dump()


def test_what_decides_nothing_may_be_unreadable_deep_inside():
    pull = {"number": "many", "draft": None, "url": "https://x.y/1"}
    thread = Thread.model_validate(LEAST | {"pullRequests": [pull], "tasks": [{"status": "error", "threadIndex": "x"}]})
    assert (thread.pull_requests[0].number, thread.pull_requests[0].draft) == (None, False)
    assert thread.pull_requests[0].url == "https://x.y/1"
    assert (thread.tasks[0].status, thread.tasks[0].thread_index) == ("error", None)


@pytest.mark.parametrize(
    "broken",
    [
        {"id": ""},
        {"id": None},
        {"id": 5},
        {"runState": None},
        {"runState": 5},
        {"tasks": ["t"]},
        {"tasks": "t"},
        {"waitingOn": "ci"},
        {"blockedOn": {"auth": True}},
        {"pendingWakeups": "many"},
        {"pendingWakeups": [1]},
    ],
)
def test_what_decides_must_be_readable(broken):
    with pytest.raises(ValidationError):
        Thread.model_validate(LEAST | broken)


@pytest.mark.parametrize("broken", [{"items": None}, {"items": [LEAST, {}]}, {"hasMore": "perhaps"}])
def test_a_page_is_read_whole_or_not_at_all(broken):
    with pytest.raises(ValidationError):
        ThreadPage.model_validate({"items": [LEAST], "nextCursor": "c", "hasMore": True} | broken)


def test_a_cursor_that_became_a_number_is_one_still():
    assert ThreadPage.model_validate({"items": [], "nextCursor": 5, "hasMore": True}).next_cursor == "5"


@given(st.dictionaries(st.sampled_from([*LISTS, "runState", "title", "slack", "status", "pendingWakeups", "new"]), st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text())))  # fmt: skip
def test_a_created_thread_is_read_whatever_else_it_holds(fields):
    assert CreatedThread.model_validate({"id": "jam_1", **fields}).id == "jam_1"


def test_models_cannot_be_changed():
    with pytest.raises(ValidationError):
        Thread.model_validate(LEAST).id = "other"


@pytest.mark.parametrize("body", [{}, {"error": None}, {"error": 5}, [], None])
def test_what_is_no_error_of_capy_is_not_taken_for_one(body):
    with pytest.raises(ValidationError):
        ErrorAnswer.model_validate(body)
