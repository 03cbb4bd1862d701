"""Every field of every answer, each in turn, is replaced by what it never is: errors of ours, and nothing unclean, come out."""

import copy
import json

import httpx
import pytest
from pydantic import SecretStr

from airflow_provider_capy.api import ClientSettings, calls
from airflow_provider_capy.api.answers import Answer
from airflow_provider_capy.api.glances import glance_at_threads
from airflow_provider_capy.api.requests import CreateThreadBody, ListThreadsQuery
from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.foreign_text import clean_text

QUERY = ListThreadsQuery(project_id="prj_1")
THREAD = {
    "id": "jam_1",
    "projectId": "prj_1",
    "title": "t",
    "status": "idle",
    "runState": "ready",
    "pendingWakeups": 0,
    "waitingOn": ["ci"],
    "blockedOn": None,
    "createdAt": "2026-11-22T04:05:06Z",
    "updatedAt": "u",
    "later": {"a": 1},
    "participants": [{"userId": "u", "userType": "human", "firstParticipatedAt": "f", "lastParticipatedAt": "l"}],
    "tags": [{"name": "a", "color": "b"}],
    "tasks": [{"id": "t", "threadIndex": 1, "identifier": "i", "title": "x", "status": "queued"}],
    "pullRequests": [{"number": 1, "url": "u", "repoFullName": "r", "state": "open", "headRef": "h", "draft": False}],
    "slackThreads": [{"teamId": "t", "channelId": "c", "threadTs": "1", "url": "u"}],
    "slack": {"teamId": "t", "url": "u"},
}
PAGE = {"items": [THREAD], "nextCursor": "c", "hasMore": True}
ANSWERS = {
    "get": (calls.get_thread("jam_1"), THREAD),
    "list": (calls.list_threads(QUERY), PAGE),
    "glance": (glance_at_threads(QUERY), PAGE),
    "stop": (calls.stop_thread("jam_1"), {"id": "jam_1", "status": "idle"}),
    "create": (calls.create_thread(CreateThreadBody(project_id="prj_1", prompt="do it")), THREAD),
}
REFUSAL = {"error": {"code": "not_found", "message": "m", "details": {"a": [1]}}}


def deep(levels):
    return json.loads("[" * levels + "]" * levels)


ODD = [
    *(None, True, 0, -1, 2**53, 2**64, -(2**70), 10**400, 1.5, 1e308, float("nan"), float("inf"), [], {}, [None], [[]]),
    *("", "1", "\x00", "\x1b[2J", "\ud83e", "\U0001f99b", "x" * 100_000, ["\x00"], {"\x00": "\x00"}, {"id": "\x00"}),
    *(deep(150), deep(600)),
]


def places(value, before=()):
    yield before
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*before, key))


def replaced(value, place, odd):
    if not place:
        return odd
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return value


def spellings(value):
    escaped = json.dumps(value).encode()
    plain = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return {escaped, plain, escaped.replace(b"\\u0000", b"\x00"), escaped[: len(escaped) // 2]}


def outcome(call, status, body):
    headers = {"date": "Sun, 22 Nov 2026 04:00:09 GMT", "retry-after": "7"}
    answer = Answer(call, ClientSettings(SecretStr("capy_of-these-tests")), httpx.Response(status, headers=headers))
    answer.take(body)
    try:
        return answer.concluded()
    except CapyError as error:
        return error


def assert_clean(value):
    if isinstance(value, dict):
        # A cursor goes back as it came, and nowhere else.
        for key, item in value.items():
            assert clean_text(key) == key
            if key not in {"next_cursor", "nextCursor"}:
                assert_clean(item)
    elif isinstance(value, list):
        for item in value:
            assert_clean(item)
    elif isinstance(value, str):
        assert clean_text(value) == value
    else:
        assert value is None or abs(value) < 2**53


@pytest.mark.parametrize("status", [200, 404, 422, 429, 500])
@pytest.mark.parametrize("operation", ANSWERS)
def test_whatever_stands_in_a_field_nothing_unclean_gets_through(operation, status):
    call, good = ANSWERS[operation]
    base = good if status == 200 else REFUSAL
    read = 0
    for place in places(base):
        for odd in ODD:
            for body in spellings(replaced(base, place, odd)):
                got = outcome(call, status, body)
                if isinstance(got, CapyError):
                    assert len(str(got)) < 2500
                    assert clean_text(str(got), 2500) == str(got)
                    assert_clean(getattr(got, "details", None))
                else:
                    read += 1
                    assert_clean(got if isinstance(got, dict) else got.model_dump())
    assert read > 20 or status != 200
