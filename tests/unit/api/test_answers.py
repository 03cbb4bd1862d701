"""Every answer that is not what was asked for: refusals, and successes that cannot be read."""

import gzip
import json
import time
import tracemalloc
import zlib

import pytest

from airflow_provider_capy import exceptions
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyConflictError,
    CapyForbiddenError,
    CapyNoAnswerError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyResponseError,
    CapyServerError,
    CapyUnauthorizedError,
    CapyValidationError,
)

from .conftest import PROMPT, TOKEN
from .servers import THREAD, RawServer, raw, resetting, saying, sending

STATUSES = [
    (400, CapyAPIError),
    (401, CapyUnauthorizedError),
    (402, CapyAPIError),
    (403, CapyForbiddenError),
    (404, CapyNotFoundError),
    (405, CapyAPIError),
    (409, CapyConflictError),
    (418, CapyAPIError),
    (422, CapyValidationError),
    (429, CapyRateLimitError),
    (500, CapyServerError),
    (502, CapyServerError),
    (503, CapyServerError),
    (529, CapyServerError),
    (599, CapyServerError),
]
HTML = b"<!doctype html><title>502 Bad Gateway</title><h1>nginx</h1>"


def ask(client, operation):
    return {
        "create": lambda: client.create_thread("prj_1", PROMPT),
        "get": lambda: client.get_thread("jam_1"),
        "list": lambda: client.list_threads("prj_1"),
        "stop": lambda: client.stop_thread("jam_1"),
    }[operation]()


PLACES = {
    "create": ("POST", "/v1/threads"),
    "get": ("GET", "/v1/threads/jam_1"),
    "list": ("GET", "/v1/threads"),
    "stop": ("POST", "/v1/threads/jam_1/stop"),
}


@pytest.mark.parametrize("operation", PLACES)
@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_refusal_says_what_capy_said_and_where(capy, capy_emulator, refused, status, kind, operation):
    capy_emulator.fault("status", status=status, code="some_code", message="Some message")
    with refused(kind) as caught:
        ask(capy, operation)
    error = caught.value
    method, path = PLACES[operation]
    assert (error.status_code, error.code, error.method, error.path) == (status, "some_code", method, path)
    assert str(error).startswith(f"{method} {path}: Capy answered {status} some_code: Some message")


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_refusal_by_something_else_than_capy_keeps_its_meaning(capy, capy_emulator, refused, status, kind):
    capy_emulator.fault("status", status=status, body="html")
    with refused(kind) as caught:
        capy.get_thread("jam_1")
    assert (caught.value.status_code, caught.value.code, caught.value.details) == (status, "", None)
    assert f"Capy answered {status} without saying why" in str(caught.value)
    assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "check the token in the connection's password"), (403, "check its organisation"), (404, "check the id")],
)
def test_a_refusal_that_has_a_known_cause_says_what_to_check(capy, capy_emulator, status, hint):
    capy_emulator.fault("status", status=status)
    with pytest.raises(CapyAPIError, match=hint):
        capy.get_thread("jam_1")


def test_a_wrong_token_is_said_without_the_token(client_of, capy_emulator, refused):
    with refused(CapyUnauthorizedError) as caught:
        client_of(capy_emulator.api_url, TOKEN).get_thread("jam_1")
    assert caught.value.code == "unauthorized"


def test_a_thread_that_does_not_exist_is_not_found(capy, refused):
    with refused(CapyNotFoundError) as caught:
        capy.get_thread("jam_404")
    assert caught.value.code == "not_found"


def test_what_capy_refuses_is_shown_with_its_details(capy, refused):
    with refused(CapyValidationError) as caught:
        capy.create_thread("prj_1", PROMPT, model="a-model-of-tomorrow")
    assert "validation_error" in str(caught.value)
    assert "model" in str(caught.value)
    assert "model" in json.dumps(caught.value.details)


def test_an_unknown_tag_is_shown_by_name(capy, refused):
    with refused(CapyValidationError) as caught:
        capy.create_thread("prj_1", PROMPT, tags=["no-such-tag"])
    assert "Tag does not exist" in str(caught.value)
    assert "no-such-tag" in str(caught.value)


def test_a_stop_that_conflicts_says_so(capy, capy_emulator, refused):
    (thread_id,) = capy_emulator.create(age=3600)
    capy_emulator.fault("stop_conflict")
    with refused(CapyConflictError):
        capy.stop_thread(thread_id)


def error_of(client_of, status, body, **headers):
    with RawServer(saying(status, body, **headers)) as server, pytest.raises(exceptions.CapyError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", PROMPT)
    assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize(
    ("body", "code", "message", "details"),
    [
        ({"error": {"code": "c", "message": "m", "details": [1, None]}}, "c", "m", [1, None]),
        ({"error": {"code": 5, "message": None, "more": 1}}, "5", "", None),
        ({"error": {"code": {"a": 1}, "message": 7}}, '{"a": 1}', "7", None),
        ({"error": {}}, "", "", None),
        ({"error": "just words"}, "", "just words", None),
        ({"error": None}, "", "", None),
        ({"message": "elsewhere"}, "", "", None),
        (["no", "object"], "", "", None),
        (b"", "", "", None),
        (b"{", "", "", None),
        (b"\xff\xfe\x00", "", "", None),
        (b'{"error": {"code": "\\ud83e", "message": "cut \\ud83e"}}', "\ufffd", "cut \ufffd", None),
        (b"[" * 100_000, "", "", None),
    ],
)
def test_a_refusal_is_read_as_far_as_it_can_be(client_of, body, code, message, details):
    error = error_of(client_of, 422, body)
    assert type(error) is CapyValidationError
    assert (error.code, error.details) == (code, details)
    assert message in str(error)
    str(error).encode()


def test_long_messages_and_details_are_cut_in_the_text_and_whole_in_the_attribute(client_of):
    details = {"why": "y" * 50_000}
    error = error_of(client_of, 422, {"error": {"code": "c", "message": "m" * 50_000, "details": details}})
    assert error.details == details
    assert len(str(error)) < 4000


@pytest.mark.parametrize(
    "echo",
    [
        PROMPT,
        f"body.prompt: {PROMPT} is not wanted",
        f"too long: {PROMPT[:30]}\u2026",
        json.dumps({"prompt": PROMPT}),
        json.dumps({"prompt": PROMPT}, ensure_ascii=False),
        repr(PROMPT),
        f"Bearer {TOKEN} is not known",
        f"{TOKEN}{TOKEN}",
    ],
)
@pytest.mark.parametrize("place", ["code", "message", "details"])
def test_an_echo_of_the_prompt_or_the_token_is_hidden(client_of, refused, echo, place):
    body = {"code": "c", "message": "m", "details": None}
    body[place] = {"received": [{"value": echo, echo: 1}]} if place == "details" else echo
    with RawServer(saying(422, {"error": body})) as server, refused(CapyValidationError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", PROMPT)
    assert "***" in str(caught.value)
    assert "confidential" not in str(caught.value)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("operation", PLACES)
def test_a_redirect_is_refused_and_the_other_host_hears_nothing(client_of, refused, status, operation):
    with RawServer(saying(200, THREAD)) as other:
        elsewhere = f"{other.url}/v1/threads"
        with RawServer(saying(status, b"", location=elsewhere)) as server, refused(CapyResponseError) as caught:
            ask(client_of(server.url, TOKEN), operation)
    assert other.requests == []
    assert len(server.requests) == 1
    assert caught.value.status_code == status
    assert elsewhere in str(caught.value)
    assert "point the connection's host at the right base URL" in str(caught.value)


def test_a_redirect_that_echoes_the_token_does_not_show_it(client_of, refused):
    script = saying(302, b"", location=f"https://login.example.com/?token={TOKEN}")
    with RawServer(script) as server, refused(CapyResponseError) as caught:
        client_of(server.url, TOKEN).get_thread("jam_1")
    assert "token=***" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (HTML, "is not JSON"),
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ([], "is not of the expected shape: the whole"),
        (None, "is not of the expected shape: the whole"),
        ("text", "is not of the expected shape: the whole"),
        ({}, "is not of the expected shape: id, run_state"),
        ({"id": "", "runState": "ready"}, "is not of the expected shape: id"),
        ({"id": 7, "runState": "ready"}, "is not of the expected shape: id"),
        ({"id": "jam_1", "runState": None}, "is not of the expected shape: run_state"),
        ({"id": "jam_1", "runState": "ready", "tasks": ["t"]}, "is not of the expected shape: tasks"),
        ({"id": "jam_1", "runState": "ready", "pendingWakeups": "many"}, "expected shape: pending_wakeups"),
        ({"id": "jam_1", "runState": "ready", "waitingOn": "ci"}, "is not of the expected shape: waiting_on"),
    ],
)
def test_a_success_that_cannot_be_read_is_no_success(client_of, refused, body, says):
    with RawServer(saying(200, body)) as server, refused(CapyResponseError) as caught:
        client_of(server.url, TOKEN).get_thread("jam_1")
    assert says in str(caught.value)
    assert (caught.value.status_code, caught.value.method) == (200, "GET")
    assert len(server.requests) == 1


def test_a_page_that_lacks_its_items_is_no_empty_page(client_of, refused):
    with RawServer(saying(200, {"nextCursor": None, "hasMore": False})) as server, refused(CapyResponseError) as caught:
        client_of(server.url, TOKEN).list_threads("prj_1")
    assert "expected shape: items" in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"runState": None, "status": 5, "title": {"text": "t"}, "slack": "C1", "tags": ["nightly"]},
        {"pendingWakeups": "many", "waitingOn": "ci", "participants": 3, "createdAt": 1700000000},
    ],
)
def test_a_created_thread_is_not_lost_over_another_field_than_its_id(client_of, extra):
    with RawServer(saying(200, {"id": "jam_1", **extra})) as server:
        assert client_of(server.url).create_thread("prj_1", "Do it").id == "jam_1"


def test_a_stop_is_a_success_whatever_its_answer_holds(client_of):
    with RawServer(saying(200, {"ok": True})) as server:
        stopped = client_of(server.url).stop_thread("jam_1")
    assert (stopped.id, stopped.status, stopped.model_extra) == ("", "", {"ok": True})


@pytest.mark.parametrize("title", [b'"cut \\ud83e"', b'"\\udead\\ud83e\\udd9b"'])
def test_half_a_character_in_a_title_breaks_nothing(client_of, title):
    body = b'{"id": "jam_1", "runState": "ready", "title": ' + title + b"}"
    with RawServer(saying(200, body)) as server:
        thread = client_of(server.url).get_thread("jam_1")
    thread.title.encode()
    assert "\ufffd" in thread.title


def test_an_answer_with_a_byte_order_mark_is_read(client_of):
    with RawServer(saying(200, b"\xef\xbb\xbf" + json.dumps(THREAD).encode())) as server:
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"


LIMIT = 100_000


def padded(size):
    empty = len(json.dumps(THREAD | {"pad": ""}))
    return json.dumps(THREAD | {"pad": "x" * (size - empty)}).encode()


@pytest.mark.parametrize("zipped", [False, True])
def test_an_answer_is_read_up_to_the_bound(client_of, zipped):
    body = padded(LIMIT)
    script = saying(200, gzip.compress(body), content_encoding="gzip") if zipped else saying(200, body)
    with RawServer(script) as server:
        assert client_of(server.url, max_answer_bytes=LIMIT).get_thread("jam_1").id == "jam_1"


@pytest.mark.parametrize("zipped", [False, True])
def test_an_answer_beyond_the_bound_is_refused(client_of, refused, zipped):
    body = padded(LIMIT + 1)
    script = saying(200, gzip.compress(body), content_encoding="gzip") if zipped else saying(200, body)
    with RawServer(script) as server, refused(CapyResponseError) as caught:
        client_of(server.url, max_answer_bytes=LIMIT).get_thread("jam_1")
    assert "larger than 100000 bytes" in str(caught.value)
    assert (caught.value.status_code, len(server.requests)) == (200, 1)


def test_a_gzip_bomb_is_never_unfolded(client_of, refused):
    bomb = zlib.compressobj(9, wbits=31)
    small = b"".join([*(bomb.compress(bytes(1 << 20)) for _ in range(96)), bomb.flush()])
    assert len(small) < 1 << 20
    with RawServer(saying(200, small, content_encoding="gzip")) as server, refused(CapyResponseError) as caught:
        client = client_of(server.url, max_answer_bytes=1 << 20)
        tracemalloc.start()
        try:
            client.get_thread("jam_1")
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert "larger than 1048576 bytes" in str(caught.value)
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("encoding", "says"),
    [("br", "encoded as 'br'"), ("gzip, gzip", "encoded as 'gzip, gzip'"), ("GZIP", "cannot be decompressed")],
)
def test_an_encoding_that_cannot_be_read_is_refused(client_of, refused, encoding, says):
    body = json.dumps(THREAD).encode()
    with RawServer(saying(200, body, content_encoding=encoding)) as server, refused(CapyResponseError) as caught:
        client_of(server.url).get_thread("jam_1")
    assert says in str(caught.value)


@pytest.mark.parametrize("encoding", ["identity", ""])
def test_an_answer_that_says_it_is_not_encoded_is_read(client_of, encoding):
    with RawServer(saying(200, THREAD, content_encoding=encoding)) as server:
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"


def test_the_emulators_oversize_answer_is_refused_though_the_create_was_processed(capy, capy_emulator, refused):
    capy_emulator.fault("huge", megabytes=9)
    with refused(CapyResponseError):
        capy.create_thread("prj_1", PROMPT)
    assert len(capy_emulator.threads()) == 1
    assert len(capy_emulator.requests("createAndStartThread")) == 1


def test_a_web_page_instead_of_an_answer_is_refused_and_a_create_not_repeated(capy, capy_emulator, refused):
    capy_emulator.fault("not_json")
    with refused(CapyResponseError) as caught:
        capy.create_thread("prj_1", PROMPT)
    assert "is the connection's host the API and not a web page or a proxy?" in str(caught.value)
    assert len(capy_emulator.requests("createAndStartThread")) == 1


@pytest.mark.parametrize(
    "drops",
    [
        [b"x"] * 200,
        # Empty deflate blocks: bytes come in, nothing comes out.
        [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", *[b"\x00\x00\x00\xff\xff"] * 200],
    ],
)
def test_a_body_that_drips_in_is_given_up(client_of, refused, drops):
    encoding = "gzip" if drops[0][:1] == b"\x1f" else "identity"
    head = f"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\ncontent-encoding: {encoding}\r\n\r\n".encode()
    began = time.monotonic()
    with RawServer(sending(head, *drops, pause=0.05)) as server, refused(CapyNoAnswerError) as caught:
        client_of(server.url, read_timeout=0.2, connect_timeout=0.2).create_thread("prj_1", PROMPT)
    assert "came too slowly" in str(caught.value)
    assert "may have been processed" in str(caught.value)
    assert time.monotonic() - began < 8
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_refusal_whose_body_never_ends_is_still_that_refusal(client_of, status):
    head = f"HTTP/1.1 {status} X\r\ncontent-length: 100000\r\n\r\n".encode()
    slow = sending(head, *[b"x"] * 40, pause=0.05)
    large = saying(status, b"x" * (LIMIT + 1))
    broken = resetting(head, b"x")
    odd = saying(status, b"{}", content_encoding="br")
    for script in (slow, large, broken, odd):
        with RawServer(script) as server:
            client = client_of(
                server.url, read_timeout=0.2, connect_timeout=0.2, max_answer_bytes=LIMIT, retry=NO_RETRIES
            )
            with pytest.raises(exceptions.api_error_class(status)) as caught:
                client.create_thread("prj_1", PROMPT)
        assert caught.value.status_code == status


@pytest.mark.parametrize("header", ["content-length: 100000", "transfer-encoding: chunked"])
def test_a_success_that_breaks_off_is_no_answer(client_of, refused, header):
    head = f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode()
    with RawServer(sending(head, b"5\r\nhello\r\n")) as server, refused(CapyNoAnswerError):
        client_of(server.url).create_thread("prj_1", PROMPT)
    assert len(server.requests) == 1


def test_an_answer_with_a_body_after_its_end_is_read(client_of):
    with RawServer(sending(raw(200, json.dumps(THREAD).encode()) + b"HTTP/1.1 500 X\r\n\r\n")) as server:
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"
