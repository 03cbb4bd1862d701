"""The four operations over HTTP, with both clients."""

import asyncio
import gc
import threading

import httpx
import pytest
from pydantic import SecretStr

from airflow_provider_capy.api import AsyncCapyClient, CapyClient, ClientSettings, RetryLimits, calls, wire
from airflow_provider_capy.exceptions import CapyInputError, CapyResponseError, CapyServerError

from .conftest import PROMPT, QUICK, TOKEN
from .servers import THREAD, RawServer, saying

EVERY_FIELD = {
    "impersonate_user_email": "ada@example.com",
    "model": "claude-opus-4-8",
    "speed": "fast",
    "reasoning": {"mode": "high"},
    "build_model": "gpt-5.5",
    "build_speed": "standard",
    "build_reasoning": {"mode": "off"},
    "repos": [{"repo_full_name": "acme/web", "branch": "main"}, {"repo_full_name": "acme/api", "branch": "dev/1"}],
    "browser_snapshot_ids": ["snap_1", "snap_2"],
    "attachment_urls": ["https://example.com/a?b=c#d", "s3://bucket/key"],
    "tags": ["nightly", "a_b-c"],
    "slack": {"channel": "C0123456789"},
    "reliability_investigation_id": f"rel_{'0a' * 20}",
}
EVERY_FIELD_ON_THE_WIRE = {
    "projectId": "prj_1",
    "prompt": PROMPT,
    "impersonateUserEmail": "ada@example.com",
    "model": "claude-opus-4-8",
    "speed": "fast",
    "reasoning": {"mode": "high"},
    "buildModel": "gpt-5.5",
    "buildSpeed": "standard",
    "buildReasoning": {"mode": "off"},
    "repos": [{"repoFullName": "acme/web", "branch": "main"}, {"repoFullName": "acme/api", "branch": "dev/1"}],
    "browserSnapshotIds": ["snap_1", "snap_2"],
    "attachmentUrls": ["https://example.com/a?b=c#d", "s3://bucket/key"],
    "tags": ["nightly", "a_b-c"],
    "slack": {"channel": "C0123456789"},
    "reliabilityInvestigationId": f"rel_{'0a' * 20}",
}


def test_every_field_of_a_create_arrives_as_it_was_given(capy, capy_emulator):
    capy_emulator.organisation(tags=None)
    created = capy.create_thread("prj_1", PROMPT, **EVERY_FIELD)
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"] == EVERY_FIELD_ON_THE_WIRE
    assert sent["query"] == {}
    assert created.id == sent["thread_id"]


def test_a_create_sends_nothing_that_was_not_given(capy, capy_emulator):
    capy.create_thread("prj_1", "Do it", model=None, tags=None, repos=None)
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"] == {"projectId": "prj_1", "prompt": "Do it"}


def test_a_create_sends_what_is_empty_but_given(capy, capy_emulator):
    capy.create_thread("prj_1", "Do it", tags=[], repos=[])
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"] == {"projectId": "prj_1", "prompt": "Do it", "tags": [], "repos": []}


def test_short_spellings_and_the_apis_own_spelling_are_understood(capy, capy_emulator):
    capy.create_thread(
        "prj_1", "Do it", reasoning="high", slack="C1", repos=[{"repoFullName": "acme/web", "branch": "main"}]
    )
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"] == {
        "projectId": "prj_1",
        "prompt": "Do it",
        "reasoning": {"mode": "high"},
        "slack": {"channel": "C1"},
        "repos": [{"repoFullName": "acme/web", "branch": "main"}],
    }


def test_a_prompt_of_any_characters_arrives_whole(capy, capy_emulator):
    prompt = '\x00\x01\u2028 \U0001f9ab \ufeff "quoted" \\ {{ jinja }} \r\n' + "x" * 100_000
    capy.create_thread("prj_1", prompt)
    assert capy_emulator.threads()[0]["prompt"] == prompt


def test_the_created_thread_is_read(capy, capy_emulator):
    capy_emulator.organisation(tags=None)
    created = capy.create_thread("prj_1", "Do it", tags=["nightly"], slack="C1")
    assert (created.project_id, created.status, created.run_state) == ("prj_1", "active", "queued")
    assert [tag.name for tag in created.tags] == ["nightly"]
    assert created.slack.url.startswith("http")
    assert created.participants[0].user_type == "service_user"
    assert created.created.utcoffset().total_seconds() == 0


def test_a_thread_is_got_with_its_tasks_and_pull_requests(capy, capy_emulator):
    (thread_id,) = capy_emulator.create(life="several_prs", age=3600, tags=[], repos=[["acme/web", "main"]])
    thread = capy.get_thread(thread_id)
    truth = capy_emulator.thread(thread_id)
    assert (thread.id, thread.run_state, thread.title) == (thread_id, "ready", truth["title"])
    assert [task.status for task in thread.tasks] == ["completed"] * 3
    assert [pull.state for pull in thread.pull_requests] == ["open", "open", "closed"]
    assert [pull.draft for pull in thread.pull_requests] == [False, True, False]
    assert all(isinstance(pull.number, int) and pull.url.startswith("http") for pull in thread.pull_requests)


def test_a_stop_is_asked_for(capy, capy_emulator):
    (thread_id,) = capy_emulator.create(life="forever")
    stopped = capy.stop_thread(thread_id)
    assert stopped.id == thread_id
    (sent,) = capy_emulator.requests("stopThread")
    assert (sent["method"], sent["path"], sent["body"]) == ("POST", f"/api/v1/threads/{thread_id}/stop", None)
    assert len(capy_emulator.stops(thread_id)) == 1


@pytest.mark.parametrize(
    ("name", "value", "sent_as", "text"),
    [
        ("limit", 7, "limit", "7"),
        ("limit", "7", "limit", "7"),
        ("status", "idle", "status", "idle"),
        ("pr_number", 12, "prNumber", "12"),
        ("pr_number", "-3", "prNumber", "-3"),
        ("branch", "feature/a b&c=d+e%20", "branch", "feature/a b&c=d+e%20"),
        ("slack_thread_ts", "1700000000.000100", "slackThreadTs", "1700000000.000100"),
        ("author_id", "usr_1", "authorId", "usr_1"),
        ("author_email", "ada@example.com", "authorEmail", "ada@example.com"),
        ("participant_id", "usr_2", "participantId", "usr_2"),
        ("participant_email", "o'neil+x@example.co.uk", "participantEmail", "o'neil+x@example.co.uk"),
        ("origin", "api", "origin", "api"),
        ("pr_state", "merged", "prState", "merged"),
        ("tag", "nightly", "tag", "nightly"),
        ("slack_channel_id", "C0123456789", "slackChannelId", "C0123456789"),
        ("q", "\u201eHalley\u201c \U0001f9ab #1?", "q", "\u201eHalley\u201c \U0001f9ab #1?"),
    ],
)
def test_every_filter_arrives(capy, capy_emulator, name, value, sent_as, text):
    capy.list_page("prj_1", **{name: value})
    (sent,) = capy_emulator.requests("listThreads")
    assert sent["query"] == {"projectId": "prj_1", sent_as: text}
    assert sent["status"] == 200


def test_a_cursor_arrives(capy, capy_emulator):
    capy_emulator.create(copies=3)
    first = capy.list_page("prj_demo", limit=2)
    second = capy.list_page("prj_demo", limit=2, cursor=first.next_cursor)
    assert (len(first.items), first.has_more, len(second.items), second.has_more) == (2, True, 1, False)
    assert capy_emulator.requests("listThreads")[1]["query"]["cursor"] == first.next_cursor


def test_filters_find_what_they_describe(capy, capy_emulator):
    wanted = capy_emulator.create("needle", origin="api")
    capy_emulator.create("hay", origin="web")
    assert [thread.id for thread in capy.list_threads("prj_demo", q="needle", origin="api")] == wanted


@pytest.mark.parametrize(("limit", "pages"), [({}, 3), ({"limit": 50}, 5), ({"limit": None}, 13)])
def test_a_list_goes_through_all_pages(capy, capy_emulator, limit, pages):
    ids = capy_emulator.create(copies=250)
    listed = [thread.id for thread in capy.list_threads("prj_demo", **limit)]
    assert sorted(listed) == sorted(ids)
    assert len(capy_emulator.requests("listThreads")) == pages


def test_a_list_keeps_its_filters_on_every_page(capy, capy_emulator):
    capy_emulator.create("needle", copies=3)
    capy.list_threads("prj_demo", q="needle", limit=1)
    queries = [sent["query"] for sent in capy_emulator.requests("listThreads")]
    assert [(query["q"], query["limit"]) for query in queries] == [("needle", "1")] * 3


def page(ids, cursor, **more):
    return {"items": [THREAD | {"id": thread_id} for thread_id in ids], "nextCursor": cursor, **more}


def test_pages_that_shift_give_each_thread_once(client_of):
    pages = (page("ab", "1", hasMore=True), page("bc", "2", hasMore=True), page("ca", None, hasMore=False))
    with RawServer(*(saying(200, each) for each in pages)) as server:
        assert [thread.id for thread in client_of(server.url).list_threads("prj_1")] == ["a", "b", "c"]


def test_a_cursor_that_comes_again_is_an_error_and_not_a_loop(client_of, refused):
    pages = (page("a", "1", hasMore=True), page("b", "2", hasMore=True), page("c", "1", hasMore=True))
    with RawServer(*(saying(200, each) for each in pages)) as server, refused(CapyResponseError) as caught:
        client_of(server.url).list_threads("prj_1")
    assert "same cursor twice" in str(caught.value)
    assert len(server.requests) == 3


def test_a_page_that_does_not_say_whether_there_is_more_is_followed_by_its_cursor(client_of):
    with RawServer(saying(200, page("a", "1")), saying(200, page("b", None))) as server:
        assert [thread.id for thread in client_of(server.url).list_threads("prj_1")] == ["a", "b"]


def test_a_list_asks_for_no_page_that_nobody_reads(capy_emulator):
    capy_emulator.create(copies=5)
    with CapyClient(ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url)) as client:
        threads = client.list_threads("prj_demo", limit=2)
        assert capy_emulator.requests("listThreads") == []
        next(threads)
        assert len(capy_emulator.requests("listThreads")) == 1


def test_what_a_later_version_sends_survives(capy, capy_emulator):
    (thread_id,) = capy_emulator.create(life="forever", age=5, tags=[])
    capy_emulator.fault("drift")
    thread = capy.get_thread(thread_id)
    assert (thread.status, thread.run_state) == ("busy", "thinking")
    assert (thread.created_at, thread.created) == ("a moment ago", None)
    assert thread.model_extra["usage"] == {"credits": 12.5, "models": ["one-of-tomorrow"]}
    assert [(task.status, task.model_extra) for task in thread.tasks] == [("in_design", {"assignee": None})]
    assert thread.participants[0].user_type == "agent"


def test_a_request_says_who_asks_and_what_it_takes(client_of):
    with RawServer(saying(200, THREAD)) as server:
        client_of(server.url, user_agent="me/1").get_thread("jam_1")
    head = server.requests[0].decode().split("\r\n")
    assert head[0] == "GET /api/v1/threads/jam_1 HTTP/1.1"
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "authorization": f"bearer {TOKEN}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "me/1",
        "connection": "keep-alive",
    }


@pytest.mark.parametrize("tail", ["/api", "/api/", "/api//", "", "/", "/a/b/api"])
def test_the_path_follows_the_base_url_with_or_without_its_last_slash(client_of, tail):
    with RawServer(saying(200, THREAD)) as server:
        client_of(f"http://127.0.0.1:{server.port}{tail}").get_thread("jam_1")
    path = f"{tail.rstrip('/')}/v1/threads/jam_1"
    assert server.requests[0].startswith(f"GET {path} HTTP/1.1".encode())


@pytest.mark.parametrize(
    "thread_id",
    [
        *("", " ", ".", "..", "../x", "jam_1/../x?y", "jam_1/stop", "a?b", "a#b", "a%2fb", "%2e%2e", "a;b", "a\\b"),
        *("a\n", "a\r\nX: y", "j\u00e4m", "\uff0e\uff0e", "a\x00", "x" * 257, None, 1.5, True, ["jam_1"], b"jam_1"),
    ],
)
def test_an_id_that_could_reach_another_endpoint_is_refused(capy, capy_emulator, refused, thread_id):
    for operation in (capy.get_thread, capy.stop_thread):
        with refused(CapyInputError) as caught:
            operation(thread_id)
        assert str(caught.value).startswith("thread_id: ")
        assert "is not a thread id: letters, digits" in str(caught.value)
    assert capy_emulator.requests() == []


def test_a_long_wrong_id_is_not_shown_in_full(capy, refused):
    with refused(CapyInputError) as caught:
        capy.get_thread("?" * 10_000)
    assert len(str(caught.value)) < 400


def test_one_request_may_be_less_patient_than_the_client(capy, capy_emulator):
    capy_emulator.fault("status", status=503)
    with pytest.raises(CapyServerError):
        capy.send(calls.get_thread("jam_1"), RetryLimits(attempts=2, base=0.0))
    assert len(capy_emulator.requests()) == 2


def test_clients_close_with_their_context(capy_emulator):
    settings = ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url)
    with CapyClient(settings) as client:
        assert client.list_page("prj_demo").items == []
    assert client._http.is_closed

    async def use():
        async with AsyncCapyClient(settings) as client:
            assert (await client.list_page("prj_demo")).items == []
        return client._http.is_closed

    assert asyncio.run(use())


async def test_an_async_client_serves_many_tasks_at_once(capy_emulator):
    ids = capy_emulator.create(copies=40)
    capy_emulator.fault("slow", seconds=0.2)
    async with AsyncCapyClient(ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url)) as client:
        began = asyncio.get_running_loop().time()
        threads = await asyncio.gather(*(client.get_thread(thread_id) for thread_id in ids))
        took = asyncio.get_running_loop().time() - began
    assert [thread.id for thread in threads] == ids
    assert took < 40 * 0.2


async def until(condition):
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen within a minute")


async def test_a_cancel_during_the_pause_between_two_tries_ends_the_call_at_once(capy_emulator):
    capy_emulator.fault("status", status=429, retry_after=30)
    async with AsyncCapyClient(ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url)) as client:
        call = asyncio.ensure_future(client.get_thread("jam_1"))
        await until(lambda: capy_emulator.faults()[0]["fired"])
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)
        capy_emulator.clear_faults()
        assert (await client.list_page("prj_demo")).items == []
    assert len(capy_emulator.requests("getThread")) == 1


async def test_a_cancel_during_a_request_is_no_error_of_capy_and_leaves_the_client_usable(capy_emulator):
    capy_emulator.fault("slow", seconds=20, times=1)
    async with AsyncCapyClient(ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url)) as client:
        call = asyncio.ensure_future(client.get_thread("jam_1"))
        await until(lambda: capy_emulator.requests("getThread"))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)
        assert (await client.list_page("prj_demo")).items == []


async def test_an_answer_that_is_refused_midway_leaves_nothing_open(client_of, capy_emulator):
    (thread_id,) = capy_emulator.create()
    capy_emulator.fault("huge", megabytes=1, times=3)
    settings = ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url, max_answer_bytes=100_000)
    async with AsyncCapyClient(settings, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            with pytest.raises(CapyResponseError):
                await client.get_thread(thread_id)
        assert (await client.get_thread(thread_id)).id == thread_id
    gc.collect()


def test_all_clients_of_a_process_share_one_ssl_context():
    contexts = []
    workers = [threading.Thread(target=lambda: contexts.append(wire.ssl_context())) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(contexts) == 8
    assert wire.ssl_context() is wire.ssl_context()


def test_clients_of_many_threads_work_at_once(capy_emulator):
    ids = capy_emulator.create(copies=8)
    settings = ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url, retry=QUICK)
    got = []

    def work(thread_id):
        with CapyClient(settings) as client:
            got.append(client.get_thread(thread_id).id)

    workers = [threading.Thread(target=work, args=(thread_id,)) for thread_id in ids]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(got) == sorted(ids)


@pytest.mark.parametrize("spelling", ["https://capy.ai/project/prj_1/captain/{}", "{}"])
def test_a_thread_may_be_named_by_its_web_address(capy, capy_emulator, spelling):
    [thread_id] = capy_emulator.create(life="forever")
    named = spelling.format(thread_id)
    assert capy.get_thread(named).id == thread_id
    assert capy.stop_thread(named).id == thread_id
    assert len(capy_emulator.stops(thread_id)) == 1


@pytest.mark.parametrize("call", [calls.get_thread, calls.stop_thread])
def test_a_whole_number_names_the_thread_of_its_digits(call):
    assert (call(7).thread_id, "/threads/7" in call(7).path) == ("7", True)
