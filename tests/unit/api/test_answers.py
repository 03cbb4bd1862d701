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
from airflow_provider_capy.foreign_text import LONGEST_TEXT, MOST_ITEMS

from .conftest import PROMPT, TOKEN
from .servers import THREAD, RawServer, raw, received, resetting, saying, sending

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
@pytest.mark.parametrize("body", [HTML, b"", b'{"error": {"code": "not_f', b'{"message": "no Route matched"}'])
def test_a_refusal_by_something_else_than_capy_is_no_word_of_capy(client_of, refused, status, kind, body):
    kept = status == 429 or status >= 500
    with RawServer(saying(status, body)) as server, refused(kind if kept else CapyResponseError) as caught:
        client_of(server.url, retry=NO_RETRIES).get_thread("jam_1")
    assert caught.value.status_code == status
    assert "<" not in str(caught.value)
    if kept:
        assert (caught.value.code, caught.value.details) == ("", None)
        assert f"Capy answered {status} without saying why" in str(caught.value)
    else:
        start = f"GET /v1/threads/jam_1: answered {status} without Capy's error body: a proxy or load balancer"
        assert str(caught.value).startswith(start)


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
        ({"error": {"code": "c_2", "message": {"a": 1}, "details": {"n": 2**64}}}, "c_2", '{"a": 1}', {"n": None}),
        (b'{"error": {"code": "c", "message": "a\\u0000\x01\xff", "details": NaN}}', "c", "a\ufffd\ufffd\ufffd", None),
        (b'{"error": {"code": "c", "message": "m", "details": ' + b"9" * 5000 + b"}}", "c", "m", None),
        ({"error": {"code": 5, "message": None, "more": 1}}, "", "", None),
        ({"error": {"code": "Not Found", "message": 7}}, "", "7", None),
        ({"error": {"code": "404", "message": 7}}, "", "7", None),
        ({"error": {"code": "x" * 65, "message": 7}}, "", "7", None),
        ({"error": {}}, "", "", None),
        ({"error": "just words"}, "", "just words", None),
        ({"error": None}, "", "", None),
        ({"message": "elsewhere"}, "", "", None),
        (["no", "object"], "", "", None),
        (b"", "", "", None),
        (b"{", "", "", None),
        (b"\xff\xfe\x00", "", "", None),
        (b'{"error": {"code": "\\ud83e", "message": "cut \\ud83e"}}', "", "cut \ufffd", None),
        (b"[" * 100_000, "", "", None),
    ],
)
def test_a_refusal_is_read_as_far_as_it_can_be(client_of, body, code, message, details):
    for status in (422, 500):
        error = error_of(client_of, status, body)
        str(error).encode()
        if status == 422 and not code:
            # Said in a form that is not Capy's, it is not Capy's word.
            assert type(error) is CapyResponseError
            continue
        assert type(error) is exceptions.api_error_class(status)
        assert (error.code, error.details) == (code, details)
        assert message in str(error)


def test_long_messages_and_details_are_cut(client_of):
    details = {"why": "y" * 50_000, "all": list(range(10_000))}
    error = error_of(client_of, 422, {"error": {"code": "c", "message": "m" * 50_000, "details": details}})
    assert (len(error.details["why"]), error.details["all"]) == (LONGEST_TEXT, list(range(MOST_ITEMS)))
    assert len(str(error)) < 2000
    many = error_of(client_of, 422, {"error": {"code": "c", "details": ["y" * 50_000] * 100}}).details
    assert (len(many), many[:5]) == (LONGEST_TEXT, '["yyy')


def test_an_echo_that_is_not_shown_is_not_in_the_details_either(client_of, refused):
    body = {"error": {"code": "c", "message": "m", "details": {"pad": "x" * 1900, "value": [PROMPT]}}}
    with RawServer(saying(422, body)) as server, refused(CapyValidationError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", PROMPT)
    assert caught.value.details is None


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
        f"\u2026{PROMPT[3:40]}",
        f"\u2026{PROMPT[-30:]} is not wanted",
        PROMPT.upper(),
        PROMPT.replace(" ", "  "),
        json.dumps(json.dumps(PROMPT)),
        f"\u2026{TOKEN[9:]}",
        f"{TOKEN[:14]}\u2026",
    ],
)
@pytest.mark.parametrize("place", ["message", "details"])
def test_what_repeats_the_prompt_or_the_token_is_withheld(client_of, refused, echo, place):
    body = {"code": "c", "message": "m", "details": None}
    body[place] = {"received": [{"value": echo, echo: 1}]} if place == "details" else echo
    with RawServer(saying(422, {"error": body})) as server, refused(CapyValidationError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", PROMPT)
    assert "Capy answered 422 c: (its words are withheld: they repeat what was sent)" in str(caught.value)
    assert (caught.value.code, caught.value.details) == ("c", None)
    assert "confidential" not in str(caught.value).lower()


def test_words_that_every_message_may_hold_are_shown(client_of, refused):
    body = {"error": {"code": "validation_error", "message": "Tag does not exist", "details": {"tag": "billing"}}}
    prompt = "Where a tag does not exist, say that the billing module has a validation error."
    with RawServer(saying(422, body)) as server, refused(CapyValidationError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", prompt)
    assert 'validation_error: Tag does not exist {"tag": "billing"}' in str(caught.value)
    assert caught.value.details == {"tag": "billing"}


def test_an_echo_of_a_megabyte_is_found_in_no_time(client_of):
    prompt = "The same words again and again. " * 32_000
    body = {"error": {"code": "too_large", "message": prompt[7:], "details": {"value": prompt[::-1]}}}
    began = time.process_time()
    with RawServer(saying(422, body)) as server, pytest.raises(CapyValidationError, match="withheld"):
        client_of(server.url, TOKEN).create_thread("prj_1", prompt)
    assert time.process_time() - began < 2


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
    assert "a redirect to (its words are withheld" in str(caught.value)
    assert "login" not in str(caught.value)


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


def test_an_answer_is_read_up_to_the_bound(client_of):
    with RawServer(saying(200, padded(LIMIT))) as server:
        assert client_of(server.url, max_answer_bytes=LIMIT).get_thread("jam_1").id == "jam_1"


def test_an_answer_beyond_the_bound_is_refused(client_of, refused):
    with RawServer(saying(200, padded(LIMIT + 1))) as server, refused(CapyResponseError) as caught:
        client_of(server.url, max_answer_bytes=LIMIT).get_thread("jam_1")
    assert "larger than 100000 bytes" in str(caught.value)
    assert (caught.value.status_code, len(server.requests)) == (200, 1)


BOMB = zlib.compressobj(9, wbits=31)
BOMBS = {
    "unfolds": [*(BOMB.compress(bytes(1 << 20)) for _ in range(96)), BOMB.flush()],
    "goes on behind its end": [gzip.compress(json.dumps(THREAD).encode()), *[bytes(1 << 20)] * 64],
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_nothing_compressed_is_asked_for_and_a_bomb_unfolds_within_bounds(client_of, refused, bomb):
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {sum(map(len, BOMBS[bomb]))}\r\n\r\n"
    with RawServer(sending(head.encode(), *BOMBS[bomb])) as server, refused(CapyResponseError) as caught:
        client = client_of(server.url, max_answer_bytes=1 << 20)
        tracemalloc.start()
        began = time.process_time()
        try:
            client.get_thread("jam_1")
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert "the answer is larger than 1048576 bytes; refused" in str(caught.value)
    assert peak < 8 << 20
    assert time.process_time() - began < 2


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_what_a_proxy_has_packed_unasked_is_read(client_of, encoding):
    body = gzip.compress(json.dumps(THREAD).encode())
    with RawServer(saying(200, body, content_encoding=encoding)) as server:
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"


def test_a_refusal_that_a_proxy_has_packed_is_capys(client_of):
    body = gzip.compress(b'{"error": {"code": "not_found", "message": "No such thread"}}')
    with RawServer(saying(404, body, content_encoding="gzip")) as server, pytest.raises(CapyNotFoundError):
        client_of(server.url).get_thread("jam_1")


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("br", "which was not asked for"),
        ("gzip, gzip", "which was not asked for"),
        ("\xff" * 300, "which was not asked for"),
        ("gzip", "cannot be unpacked"),
    ],
)
def test_an_encoding_that_was_not_asked_for_is_refused(client_of, refused, encoding, says):
    body = json.dumps(THREAD).encode()
    with RawServer(saying(200, body, content_encoding=encoding)) as server, refused(CapyResponseError) as caught:
        client_of(server.url).get_thread("jam_1")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


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


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "a body": (OK + b"content-length: 100000\r\n\r\n", b"x"),
    "a header": (OK + b"x-long: ", b"y"),
    "headers": (OK, b"x-one: more\r\n"),
    "answers that are none yet": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
}


# What comes without a pause is bounded by its size, but for answers that are thrown away.
@pytest.mark.parametrize(("drip", "pause"), [*((drip, 0.05) for drip in DRIPS), ("answers that are none yet", 0.0)])
def test_what_drips_in_for_ever_is_given_up(client_of, refused, drip, pause):
    head, drop = DRIPS[drip]

    def script(connection):
        connection.sendall(head)
        until = time.monotonic() + 15
        while time.monotonic() < until:
            connection.sendall(drop)
            time.sleep(pause)

    began = time.monotonic()
    with RawServer(script) as server, refused(CapyNoAnswerError) as caught:
        client_of(server.url, read_timeout=0.2, connect_timeout=0.2).create_thread("prj_1", PROMPT)
        assert time.monotonic() - began < 5
    assert "ReadTimeout" in str(caught.value)
    assert "may have been processed" in str(caught.value)
    assert len(server.requests) == 1


def test_a_connection_that_is_used_again_has_its_whole_time_again(client_of):
    answer = raw(200, json.dumps(THREAD).encode(), connection="keep-alive")

    def script(connection):
        for _ in range(4):
            time.sleep(0.25)
            connection.sendall(answer)
            received(connection)

    with RawServer(script) as server:
        client = client_of(server.url, read_timeout=0.3, connect_timeout=0.1)
        for _ in range(4):
            assert client.get_thread("jam_1").id == "jam_1"
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
            # Without its body nobody knows whether a 401 is Capy's.
            with pytest.raises(CapyResponseError if status == 401 else exceptions.api_error_class(status)) as caught:
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


@pytest.mark.parametrize(
    ("field", "title"),
    [
        (b'"Fix \\u0000 byte"', "Fix \ufffd byte"),
        (b'"Fix \x00\x1b byte"', "Fix \ufffd\ufffd byte"),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"\\ud83e\\udd9b \\ud83e"', "\U0001f99b \ufffd"),
        (b'"\xed\xa0\xbe"', "\ufffd\ufffd\ufffd"),
        (b"NaN", None),
        (b"[-Infinity, 1e999]", "[-Infinity, Infinity]"),
        (b"9" * 5000, None),
        (b'"' + b"x" * 3_000_000 + b'"', "x" * 1999 + "\u2026"),
    ],
)
def test_a_title_of_anything_ends_no_wait(client_of, field, title):
    body = (
        b'{"id": "jam_1", "runState": "ready", "pullRequests": [{"number": 18446744073709551616}], "title": '
        + field
        + b"}"
    )
    with RawServer(saying(200, body)) as server:
        thread = client_of(server.url).get_thread("jam_1")
    assert (thread.run_state, thread.pull_requests[0].number) == ("ready", None)
    assert thread.title == title or title is None
    json.dumps(thread.model_dump(), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("operation", ["get", "list", "stop", "create"])
def test_an_answer_as_deep_as_it_is_long_is_unreadable(client_of, refused, operation):
    body = b'{"id": "jam_1", "runState": "ready", "items": [], "new": ' + b'{"a":[' * 100_000
    with RawServer(saying(200, body)) as server, refused(CapyResponseError):
        ask(client_of(server.url, TOKEN), operation)


@pytest.mark.parametrize("operation", ["get", "stop"])
def test_an_answer_about_another_thread_is_no_answer(client_of, refused, operation):
    body = {"id": "jam_2", "runState": "ready", "status": "idle"}
    with RawServer(saying(200, body)) as server, refused(CapyResponseError) as caught:
        ask(client_of(server.url, TOKEN), operation)
    assert "the answer is about another thread, 'jam_2'" in str(caught.value)


@pytest.mark.parametrize("thread_id", ["a/b", "", "None", "j\x00"])
def test_a_created_thread_that_no_request_can_name_is_unreadable(client_of, refused, thread_id):
    with RawServer(saying(200, {"id": thread_id})) as server, refused(CapyResponseError) as caught:
        client_of(server.url, TOKEN).create_thread("prj_1", PROMPT)
    assert "is not of the expected shape: id" in str(caught.value)


CREATED = {"createdAt": "2026-11-22T04:05:06.250Z"}


@pytest.mark.parametrize(
    ("date", "age"),
    [("Sun, 22 Nov 2026 04:05:16 GMT", 9.75), ("Sun, 22 Nov 2026 04:00:00 GMT", 0.0), ("yesterday", None), ("", None)],
)
def test_the_age_of_a_thread_comes_from_the_answer_alone(client_of, date, age):
    page = {"items": [THREAD | CREATED], "nextCursor": None, "hasMore": False}
    with RawServer(*[saying(200, body, date=date) for body in (THREAD | CREATED, THREAD | CREATED, page)]) as server:
        client = client_of(server.url)
        got = [client.create_thread("prj_1", "Do it"), client.get_thread("jam_1"), *client.list_threads("prj_1")]
    assert [thread.age for thread in got] == [age] * 3


def test_a_thread_of_the_emulator_is_as_old_as_it_says(capy, capy_emulator):
    (thread_id,) = capy_emulator.create(life="forever", age=3600)
    assert 3590 < capy.get_thread(thread_id).age < 7200
