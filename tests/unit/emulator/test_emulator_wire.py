"""Whatever comes over the wire, the emulator stays up and never answers 500."""

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINE_END = b"\r\n"


def send(control, data, *, half_close=True):
    """Send raw bytes and give back whatever comes."""
    host, port = control.addresses.origin.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def request(control, line, *headers, body=b""):
    authorization = f"Authorization: Bearer {control.token}".encode()
    fixed = [line, b"Host: x", b"Connection: close", authorization, b"Content-Length: %d" % len(body), *headers]
    return send(control, LINE_END.join(fixed) + 2 * LINE_END + body, half_close=False)


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET /api/v1/threads/" + b"x" * 20_000 + b" HTTP/1.1", 404),
        (b"GET /api/v1/threads/%00%ff%fe HTTP/1.1", 404),
        (b"GET /api/v1/threads/a%2Fb HTTP/1.1", 404),
        (b"GET /api/v1/threads/ HTTP/1.1", 404),
        (b"GET /api/v1/threads// HTTP/1.1", 404),
        (b"GET /api/../../etc/passwd HTTP/1.1", 404),
        (b"GET /assets/..%2fapp.py HTTP/1.1", 404),
        (b"GET /api/v1/threads?projectId=%ff&q=%00&limit=1&limit HTTP/1.1", 422),
        (b"GET /api/v1/threads?projectId=a;b=c&%3D&&==&limit=%31 HTTP/1.1", 200),
        (b"GET /api/v1/threads?projectId=p&cursor=AAAA HTTP/1.1", 422),
        (b"GET /api/v1/threads?projectId=p&cursor=bmFuIDE HTTP/1.1", 200),
        (b"HEAD /api/v1/threads?projectId=p HTTP/1.1", 405),
        (b"OPTIONS /api/v1/threads HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"GET /_emulator/threads/%00 HTTP/1.1", 404),
        (b"GET /pull/a/b/99999999999999999999999 HTTP/1.1", 404),
        (b"GET /project/%3Cscript%3E/captain/%22%3E HTTP/1.1", 404),
    ],
)
def test_odd_requests_get_an_ordinary_refusal(capy_emulator, line, expected):
    assert status(request(capy_emulator, line)) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"Expect: 100-continue",
        b"Authorization: \xff\xfe",
        b"Cookie: " + b"a" * 20_000,
        b"User-Agent: \xe9\xff",
        b"Upgrade: websocket\r\nConnection: Upgrade",
        b"Content-Type: application/json; charset=\x80",
        b"X-Empty:",
    ],
)
def test_odd_headers_never_break_it(capy_emulator, header):
    answer = request(capy_emulator, b"POST /api/v1/threads HTTP/1.1", header, body=b'{"projectId":"p","prompt":"x"}')
    assert b" 500 " not in answer.split(LINE_END, 1)[0]
    assert capy_emulator.health()["status"] == "ok"


def test_a_head_request_of_a_page_has_no_body(capy_emulator):
    answer = request(capy_emulator, b"HEAD / HTTP/1.1")
    assert status(answer) == 200
    assert answer.endswith(2 * LINE_END)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(capy_emulator):
    send(capy_emulator, b"POST /api/v1/threads HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert capy_emulator.requests() == []
    assert capy_emulator.health()["status"] == "ok"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=300))
def test_random_bytes_never_break_it(capy_emulator, noise):
    assert b"HTTP/1.1 5" not in send(capy_emulator, noise)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300))
def test_random_bodies_are_refused(capy_emulator, body):
    answer = request(capy_emulator, b"POST /api/v1/threads HTTP/1.1", b"Content-Type: application/json", body=body)
    assert status(answer) == 422


def test_the_random_bytes_left_it_up(capy_emulator):
    assert capy_emulator.health()["status"] == "ok"
