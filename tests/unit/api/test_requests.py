"""What is sure to be refused is refused before it is sent, by name, value and fix."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy.api import calls
from airflow_provider_capy.api.requests import CreateThreadBody, ListThreadsQuery, checked, thread_id_in_path
from airflow_provider_capy.exceptions import CapyInputError

from .conftest import PROMPT

REPO = {"repo_full_name": "acme/web", "branch": "main"}

NATIVE = "if native rendering made it so, give the task render_template_as_native_obj=False"

REFUSED_CREATES = [
    ({"prompt": ""}, "prompt: is empty: say what the agent is to do (a template may have rendered to nothing)"),
    ({"prompt": " \n\t"}, "prompt: is empty: say what the agent is to do (a template may have rendered to nothing)"),
    ({"prompt": None}, "prompt: is missing"),
    ({"prompt": [PROMPT]}, f"prompt: is of type list, not text; {NATIVE}"),
    ({"prompt": PROMPT.encode()}, "prompt: is bytes, not text; decode it"),
    ({"prompt": f"{PROMPT}\ud83e"}, "prompt: holds half of a character (a lone surrogate), which cannot be sent; cut it elsewhere"),
    ({"project_id": ""}, "project_id: '' is empty"),
    ({"project_id": 5.5}, f"project_id: 5.5 is of type float, not text; {NATIVE}"),
    ({"project_id": None}, "project_id: is missing"),
    ({"promt": PROMPT}, "promt: is no field of this request; check its spelling"),
    ({"model": " "}, "model: ' ' is empty"),
    ({"model": 1.1}, f"model: 1.1 is of type float, not text; {NATIVE}"),
    ({"model": True}, f"model: True is of type bool, not text; {NATIVE}"),
    ({"speed": ""}, "speed: '' is empty"),
    ({"build_model": ""}, "build_model: '' is empty"),
    ({"build_speed": b"fast"}, "build_speed: b'fast' is bytes, not text; decode it"),
    ({"reasoning": ""}, "reasoning.mode: '' is empty"),
    ({"reasoning": 3.5}, "reasoning: 3.5 is not an object such as {'mode': 'high'}"),
    ({"reasoning": {"mod": "high"}}, "reasoning.mode: is missing; reasoning.mod: is no field of this request; check its spelling"),
    ({"build_reasoning": ["high"]}, "build_reasoning: ['high'] is not an object such as {'mode': 'high'}"),
    ({"repos": REPO}, "repos: {'repo_full_name': 'acme/web', 'branch': 'main'} is not a list; put a single one into [ ]"),
    ({"repos": ["acme/web"]}, "repos.0: 'acme/web' is not an object such as {'repo_full_name': 'owner/name', 'branch': 'main'}"),
    ({"repos": [REPO, {"repo_full_name": "acme/api"}]}, "repos.1.branch: is missing"),
    ({"repos": [REPO | {"branch": ""}]}, "repos.0.branch: '' is empty"),
    ({"repos": [REPO | {"branch": None}]}, f"repos.0.branch: None is of type NoneType, not text; {NATIVE}"),
    ({"repos": [{"repoFullName": 5.5, "branch": "main"}]}, f"repos.0.repo_full_name: 5.5 is of type float, not text; {NATIVE}"),
    ({"repos": [REPO | {"ref": "main"}]}, "repos.0.ref: is no field of this request; check its spelling"),
    ({"browser_snapshot_ids": "snap_1"}, "browser_snapshot_ids: 'snap_1' is not a list; put a single one into [ ]"),
    ({"browser_snapshot_ids": [1.5]}, f"browser_snapshot_ids.0: 1.5 is of type float, not text; {NATIVE}"),
    ({"attachment_urls": ["trace.log"]}, "attachment_urls.0: 'trace.log' is no absolute URL, e.g. https://example.com/trace.log"),
    ({"attachment_urls": ["https://[x"]}, "attachment_urls.0: 'https://[x' is no absolute URL, e.g. https://example.com/trace.log"),
    ({"tags": "abc"}, "tags: 'abc' is not a list; put a single one into [ ]"),
    ({"tags": ["ok", "No"]}, "tags.1: 'No' is no tag: 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or a digit"),
    ({"tags": ["-a"]}, "tags.0: '-a' is no tag: 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or a digit"),
    ({"tags": ["a\n"]}, "tags.0: 'a\\n' is no tag: 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or a digit"),
    ({"tags": ["a" * 65]}, f"tags.0: '{'a' * 65}' is no tag: 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or a digit"),
    ({"tags": ["t"] * 21}, f"tags: {repr(['t'] * 21)[:97]}... has 21 entries, Capy takes 20 at the most"),
    ({"slack": ""}, "slack.channel: '' is empty"),
    ({"slack": 5.5}, "slack: 5.5 is not an object such as {'channel': 'C0123456789'}"),
    ({"slack": {"channel": "C1", "thread": "t"}}, "slack.thread: is no field of this request; check its spelling"),
    ({"impersonate_user_email": "ada"}, "impersonate_user_email: 'ada' is not an e-mail address that Capy accepts, e.g. ada@example.com"),
    ({"impersonate_user_email": "a..b@example.com"}, "impersonate_user_email: 'a..b@example.com' is not an e-mail address that Capy accepts, e.g. ada@example.com"),
    ({"impersonate_user_email": "ada@example.com\n"}, "impersonate_user_email: 'ada@example.com\\n' is not an e-mail address that Capy accepts, e.g. ada@example.com"),
    ({"reliability_investigation_id": "rel_1"}, "reliability_investigation_id: 'rel_1' is no reliability investigation: 'rel_' and 40 of 0-9, a-f"),
    ({"model": " ", "tags": "x"}, "model: ' ' is empty; tags: 'x' is not a list; put a single one into [ ]"),
]  # fmt: skip

REFUSED_LISTS = [
    ({"limit": 0}, "limit: 0 is below 1, the least that is taken"),
    ({"limit": 101}, "limit: 101 is not 100 or less, the most that is taken"),
    ({"limit": True}, "limit: True is not a whole number"),
    ({"limit": "5.5"}, "limit: '5.5' is not a whole number"),
    ({"limit": 5.5}, "limit: 5.5 is not a whole number"),
    ({"limit": []}, "limit: [] is not a whole number"),
    ({"limit": ""}, "limit: '' is not a whole number"),
    ({"pr_number": False}, "pr_number: False is not a whole number"),
    ({"pr_number": 2**53}, "pr_number: 9007199254740992 is not 9007199254740991 or less, the most that is taken"),
    ({"pr_number": -(2**53)}, "pr_number: -9007199254740992 is below -9007199254740991, the least that is taken"),
    ({"pr_number": "9" * 5000}, f"pr_number: '{'9' * 96}... is too large"),
    ({"status": ""}, "status: '' is empty"),
    ({"branch": 5.5}, f"branch: 5.5 is of type float, not text; {NATIVE}"),
    ({"slack_thread_ts": 1700000000.0001}, f"slack_thread_ts: 1700000000.0001 is of type float, not text; {NATIVE}"),
    ({"author_id": " "}, "author_id: ' ' is empty"),
    ({"author_email": "ada"}, "author_email: 'ada' is not an e-mail address that Capy accepts, e.g. ada@example.com"),
    ({"author_id": "u", "author_email": "a@b.co"}, "author_id and author_email exclude each other: give one of them"),
    ({"participant_id": "u", "participant_email": "a@b.co"}, "participant_id and participant_email exclude each other: give one of them"),
    ({"origin": ""}, "origin: '' is empty"),
    ({"pr_state": ""}, "pr_state: '' is empty"),
    ({"tag": ""}, "tag: '' is empty"),
    ({"tag": ["a"]}, f"tag: ['a'] is of type list, not text; {NATIVE}"),
    ({"slack_channel_id": ""}, "slack_channel_id: '' is empty"),
    ({"q": "\udead"}, "q: '\\udead' holds half of a character (a lone surrogate), which cannot be sent; cut it elsewhere"),
    ({"qq": "x"}, "qq: is no field of this request; check its spelling"),
    ({"cursor": 5.5}, f"cursor: 5.5 is of type float, not text; {NATIVE}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "says"), REFUSED_CREATES, ids=[str(number) for number in range(len(REFUSED_CREATES))]
)
def test_a_create_that_is_sure_to_be_refused_is_not_sent(capy, capy_emulator, refused, fields, says):
    with refused(CapyInputError) as caught:
        capy.create_thread(**{"project_id": "prj_1", "prompt": PROMPT, **fields})
    assert str(caught.value) == says
    assert capy_emulator.requests() == []


@pytest.mark.parametrize(("filters", "says"), REFUSED_LISTS, ids=[str(number) for number in range(len(REFUSED_LISTS))])
def test_a_list_that_is_sure_to_be_refused_is_not_sent(capy, capy_emulator, refused, filters, says):
    for operation in (capy.list_page, capy.list_threads):
        with refused(CapyInputError) as caught:
            operation("prj_1", **filters)
        assert str(caught.value) == says
    assert capy_emulator.requests() == []


def test_every_enum_is_free_text_and_capy_is_the_authority():
    later = "a-value-of-tomorrow"
    body = checked(
        CreateThreadBody, project_id="p", prompt="x", model=later, speed=later, reasoning=later, build_model=later
    )
    assert body.wire() == {
        "projectId": "p",
        "prompt": "x",
        "model": later,
        "speed": later,
        "reasoning": {"mode": later},
        "buildModel": later,
    }
    query = checked(ListThreadsQuery, project_id="p", status=later, origin=later, pr_state=later)
    assert query.wire() == {"projectId": "p", "status": later, "origin": later, "prState": later}


def test_whole_numbers_may_be_templated():
    query = checked(ListThreadsQuery, project_id="p", limit="5", pr_number=" 12 ")
    assert query.wire() == {"projectId": "p", "limit": 5, "prNumber": 12}


def test_lists_may_be_any_sequence():
    body = checked(CreateThreadBody, project_id="p", prompt="x", tags=("a", "b"), repos=(REPO,))
    assert body.wire()["tags"] == ["a", "b"]
    assert body.wire()["repos"] == [{"repoFullName": "acme/web", "branch": "main"}]


def test_neither_a_request_nor_a_call_shows_its_prompt():
    body = checked(CreateThreadBody, project_id="p", prompt=PROMPT)
    for value in (body, calls.create_thread(body)):
        assert "confidential" not in repr(value) + str(value)


def test_only_a_create_is_not_safe_to_send_twice():
    body = checked(CreateThreadBody, project_id="p", prompt="x")
    query = checked(ListThreadsQuery, project_id="p")
    made = [calls.create_thread(body), calls.get_thread("j"), calls.list_threads(query), calls.stop_thread("j")]
    assert [(call.operation, call.method, call.path, call.safe_to_retry) for call in made] == [
        ("createAndStartThread", "POST", "/v1/threads", False),
        ("getThread", "GET", "/v1/threads/j", True),
        ("listThreads", "GET", "/v1/threads", True),
        ("stopThread", "POST", "/v1/threads/j/stop", True),
    ]


@given(st.text())
def test_an_id_that_is_taken_stays_one_segment_of_the_path(text):
    try:
        thread_id = thread_id_in_path(text)
    except CapyInputError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", thread_id)
    assert thread_id.strip(".")


@pytest.mark.parametrize(
    "thread_id", ["jam_1", "j", "9f3c6d1e-0000-4000-8000-1234567890ab", "a.b~c-d", "...a", "x" * 256]
)
def test_ids_as_capy_makes_them_are_taken(thread_id):
    assert thread_id_in_path(thread_id) == thread_id


def test_whole_numbers_stand_for_their_digits_in_every_text():
    repo = {"repo_full_name": 1, "branch": 2}
    body = checked(
        CreateThreadBody, project_id=3, prompt=4, model=5, reasoning=6, repos=[repo], tags=[7], slack=8, build_speed=9
    )
    assert body.wire() == {
        "projectId": "3",
        "prompt": "4",
        "model": "5",
        "reasoning": {"mode": "6"},
        "repos": [{"repoFullName": "1", "branch": "2"}],
        "tags": ["7"],
        "slack": {"channel": "8"},
        "buildSpeed": "9",
    }
    query = checked(
        ListThreadsQuery, project_id=1, status=2, branch=3, tag=4, q=5, author_id=6, cursor=7, pr_number="8"
    )
    assert query.wire() == {
        "projectId": "1",
        "status": "2",
        "branch": "3",
        "tag": "4",
        "q": "5",
        "authorId": "6",
        "cursor": "7",
        "prNumber": 8,
    }


def test_a_threads_web_address_is_taken_for_its_id():
    assert thread_id_in_path("https://capy.ai/project/p/captain/jam_1?tab=1") == "jam_1"
    assert calls.get_thread("https://capy.ai/jam_1").path == calls.get_thread("jam_1").path
