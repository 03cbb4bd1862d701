"""Reading is tolerant: what is new, null or of another type ends no wait."""

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from airflow_provider_capy.api.glances import GlancePage
from airflow_provider_capy.api.models import CreatedThread, ErrorAnswer, Thread, ThreadPage, parse_timestamp
from airflow_provider_capy.foreign_text import LONGEST_TEXT, clean_text

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


DATE = "Sun, 22 Nov 2026 04:05:16 GMT"


@pytest.mark.parametrize("model", [Thread, CreatedThread])
@pytest.mark.parametrize(
    ("created", "date", "age"),
    [
        ("2026-11-22T04:05:06.500Z", DATE, 9.5),
        ("2026-11-22T05:05:06+01:00", DATE, 10.0),
        ("2026-11-22T04:06:00Z", DATE, 0.0),
        ("9999-12-31T23:59:59Z", DATE, 0.0),
        ("a moment ago", DATE, None),
        (None, DATE, None),
        ("2026-11-22T04:05:06Z", "", None),
        ("2026-11-22T04:05:06Z", "yesterday", None),
    ],
)
def test_the_age_of_a_thread_is_told_by_one_clock(model, created, date, age):
    thread = model.model_validate(LEAST | {"createdAt": created}, context={"date": date})
    assert thread.age == age
    assert thread.model_copy(update={"title": "other"}).age == age
    assert "answered" not in str(thread.model_dump())


def test_a_thread_that_no_answer_brought_has_no_age():
    assert Thread.model_validate(LEAST | {"createdAt": "2026-11-22T04:05:06Z"}).age is None


def test_every_thread_of_a_page_has_an_age():
    page = ThreadPage.model_validate(
        {"items": [LEAST | {"createdAt": "2026-11-22T04:05:06Z"}] * 2}, context={"date": DATE}
    )
    assert [thread.age for thread in page.items] == [10.0, 10.0]


NASTY = "a\x00\x1b\ud83e" + "x" * 3_000_000


def leaves(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("number", [2**53, 2**64, -(2**64), 10**4000, float("nan"), float("inf")])
def test_no_text_and_no_number_of_a_thread_is_more_than_a_database_takes(number):
    thread = Thread.model_validate(
        LEAST
        | dict.fromkeys(("projectId", "title", "status", "runState", "createdAt", "updatedAt"), NASTY)
        | {
            "waitingOn": [NASTY],
            "blockedOn": [{"kind": NASTY}],
            "tags": [{"name": NASTY, "more": NASTY}],
            "participants": [{"userId": NASTY}],
            "pullRequests": [{"number": number, "url": NASTY, "state": number}],
            "tasks": [{"title": NASTY, "threadIndex": number}],
            "slackThreads": [{"url": NASTY}],
            "later": {NASTY: [NASTY, number]},
        }
    )
    assert (thread.pull_requests[0].number, thread.tasks[0].thread_index) == (None, None)
    for leaf in leaves(thread.model_dump()):
        assert leaf is None or isinstance(leaf, (bool, int, str))
        if isinstance(leaf, str):
            assert len(leaf) <= LONGEST_TEXT
            assert clean_text(leaf) == leaf
        else:
            assert abs(leaf or 0) < 2**53


@pytest.mark.parametrize("model", [Thread, CreatedThread])
@pytest.mark.parametrize("thread_id", ["../x", "a/b", "a?b", "a b", "", ".", "None", "j\x00", "x" * 257, "\ud83e"])
def test_a_thread_whose_id_no_request_can_name_is_unreadable(model, thread_id):
    with pytest.raises(ValidationError):
        model.model_validate(LEAST | {"id": thread_id})


@pytest.mark.parametrize("wakeups", [2**53, 2**64, 10**4000, float("inf")])
def test_more_wakeups_than_can_be_counted_are_many(wakeups):
    assert Thread.model_validate(LEAST | {"pendingWakeups": wakeups}).pending_wakeups == 2**53 - 1


@pytest.mark.parametrize(
    "odd",
    [
        *(
            {"id": "j\x00"},
            {"runState": "\x1b"},
            {"status": "x" * 2001},
            {"projectId": "\x9f"},
            {"waitingOn": ["\x00"]},
        ),
        *(
            {"blockedOn": ["\x7f"]},
            {"pendingWakeups": 2**64},
            {"pullRequests": [{"url": "\x00"}]},
            {"runState": "\ud83e"},
        ),
    ],
)
def test_an_item_that_is_not_clean_is_not_glanced_at_and_spoils_no_neighbour(odd):
    page = TypeAdapter(GlancePage).validate_python(
        {"items": [LEAST | odd, LEAST, LEAST | {"runState": "\u00e9\n\t\U0001f99b"}]}
    )
    assert [item and item["runState"] for item in page["items"]] == [None, "running", "\u00e9\n\t\U0001f99b"]


@pytest.mark.parametrize("page", [ThreadPage, GlancePage])
def test_a_cursor_goes_back_as_it_came_or_not_at_all(page):
    cursor = "=\x00&" + "x" * 5000
    read = TypeAdapter(page).validate_python({"items": [], "nextCursor": cursor})
    assert (read["nextCursor"] if isinstance(read, dict) else read.next_cursor) == cursor
    with pytest.raises(ValidationError):
        TypeAdapter(page).validate_python({"items": [], "nextCursor": "c\ud83e"})
