"""When a request is sent again: decided purely, and seen on the wire."""

import math
import random
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy import exceptions
from airflow_provider_capy.api import RetryLimits
from airflow_provider_capy.api.retry import (
    NO_RETRIES,
    RETRY_AFTER_CAP,
    may_send_again,
    parse_retry_after,
    policy,
    wait_before,
)
from airflow_provider_capy.emulator.server import EmulatorServer
from airflow_provider_capy.exceptions import (
    CapyConnectError,
    CapyNoAnswerError,
    CapyRateLimitError,
    CapyResponseError,
    CapyServerError,
)

from .conftest import PROMPT, QUICK
from .servers import THREAD, RawServer, free_port, resetting, saying, silent

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=timezone.utc)
OPERATIONS = {
    "createAndStartThread": lambda client: client.create_thread("prj_demo", PROMPT),
    "getThread": lambda client: client.get_thread("jam_1"),
    "listThreads": lambda client: client.list_threads("prj_demo"),
    "stopThread": lambda client: client.stop_thread("jam_1"),
}
SAFE = [name for name in OPERATIONS if name != "createAndStartThread"]


@pytest.mark.parametrize(
    ("kind", "safe", "unsafe"),
    [
        (exceptions.CapyConnectError, True, True),
        (exceptions.CapyCertificateError, False, False),
        (exceptions.CapyRateLimitError, True, True),
        (exceptions.CapyNoAnswerError, True, False),
        (exceptions.CapyServerError, True, False),
        (exceptions.CapyResponseError, False, False),
        (exceptions.CapyAPIError, False, False),
        (exceptions.CapyUnauthorizedError, False, False),
        (exceptions.CapyForbiddenError, False, False),
        (exceptions.CapyNotFoundError, False, False),
        (exceptions.CapyConflictError, False, False),
        (exceptions.CapyValidationError, False, False),
        (exceptions.CapyInputError, False, False),
        (ValueError, False, False),
        (KeyboardInterrupt, False, False),
    ],
)
def test_what_may_be_sent_again(kind, safe, unsafe):
    assert may_send_again(kind("x"), safe_to_retry=True) is safe
    assert may_send_again(kind("x"), safe_to_retry=False) is unsafe


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        ("nan", None),
        ("inf", RETRY_AFTER_CAP),
        ("-inf", 0.0),
        ("1e400", RETRY_AFTER_CAP),
        ("3600", 3600.0),
        ("86401", RETRY_AFTER_CAP),
        ("9" * 6000, RETRY_AFTER_CAP),
        ("0x10", None),
        ("Sun, 22 Nov 2026 04:00:09 GMT", 9.0),
        ("Sun, 22 Nov 2026 04:00:09 -0000", 9.0),
        ("Sun, 22 Nov 2026 05:00:09 +0100", 9.0),
        ("Sun, 22 Nov 2026 03:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2099 04:00:00 GMT", RETRY_AFTER_CAP),
        ("Sunday, 22-Nov-26 04:00:09 GMT", 9.0),
        ("Sun, 99 Nov 2026 04:00:00 GMT", None),
        ("Sun, 22 Nov 99999999999999999999 04:00:00 GMT", None),
        ("Sun, 22 Nov 2026 04:00:00 +99999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", RETRY_AFTER_CAP),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_how_long_a_retry_after_is(header, seconds):
    assert parse_retry_after(header, NOW) == seconds


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_no_retry_after_breaks_a_request_or_sleeps_beyond_the_cap(header):
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP


@given(st.integers(-(10**9), 10**9) | st.integers(-60, 60), st.integers(-23, 23))
def test_every_date_is_a_retry_after(seconds, hours):
    moment = (NOW + timedelta(seconds=seconds)).astimezone(timezone(timedelta(hours=hours)))
    assert parse_retry_after(format_datetime(moment), NOW) == min(max(seconds, 0), RETRY_AFTER_CAP)


LIMITS = RetryLimits(base=0.5, cap=8.0)


@pytest.mark.parametrize(("attempt", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (5000, 8.0)])
@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.999])
def test_the_wait_is_drawn_from_the_whole_range(attempt, most, drawn):
    assert wait_before(attempt, CapyConnectError("x"), LIMITS, lambda: drawn) == drawn * most
    assert wait_before(attempt, None, LIMITS, lambda: drawn) == drawn * most


@pytest.mark.parametrize("kind", [CapyRateLimitError, CapyServerError])
def test_a_retry_after_is_kept_with_a_little_on_top(kind):
    error = kind("x", retry_after=7.0)
    assert wait_before(1, error, LIMITS, lambda: 0.0) == 7.0
    assert wait_before(1, error, LIMITS, lambda: 0.5) == 7.25
    assert wait_before(9, error, LIMITS, lambda: 0.999) == 8.0


def test_a_retry_after_of_nothing_is_jittered_all_the_same():
    assert wait_before(1, CapyRateLimitError("x", retry_after=0.0), LIMITS, lambda: 0.5) == 0.25


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, RETRY_AFTER_CAP))
def test_no_wait_is_longer_than_what_was_asked_and_the_cap(attempt, drawn, retry_after):
    wait = wait_before(attempt, CapyRateLimitError("x", retry_after=retry_after), LIMITS, lambda: drawn)
    assert math.isfinite(wait)
    assert (retry_after or 0.0) <= wait <= (retry_after or 0.0) + LIMITS.cap


def test_the_draws_of_a_policy_are_its_jitter():
    from tenacity import Retrying

    slept = []
    draws = iter([0.5, 1.0, 0.0, 0.7])
    retrying = Retrying(
        **policy(RetryLimits(attempts=4, base=1.0, cap=100.0), safe_to_retry=True, draw=lambda: next(draws)),
        sleep=slept.append,
    )

    def fail():
        raise CapyServerError("down")

    with pytest.raises(CapyServerError):
        retrying(fail)
    assert slept == [0.5, 2.0, 0.0]


def test_jitter_is_random_by_default():
    from tenacity import Retrying

    slept = []

    def fail():
        raise CapyServerError("down")

    random.seed(7)
    with pytest.raises(CapyServerError):
        Retrying(**policy(RetryLimits(attempts=30), safe_to_retry=True), sleep=slept.append)(fail)
    assert len({round(wait, 6) for wait in slept}) > 20
    assert 0 <= min(slept) < max(slept) <= 8.0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_429_is_tried_again_for_every_call(capy, capy_emulator, operation):
    (thread_id,) = capy_emulator.create()
    capy_emulator.fault("status", status=429, times=2)
    if operation in {"getThread", "stopThread"}:
        getattr(capy, "get_thread" if operation == "getThread" else "stop_thread")(thread_id)
    else:
        OPERATIONS[operation](capy)
    assert [sent["status"] for sent in capy_emulator.requests(operation)] == [429, 429, 200]
    assert len(capy_emulator.threads()) == (2 if operation == "createAndStartThread" else 1)


@pytest.mark.parametrize("fields", [{"retry_after": 1}, {"retry_after": "1.0"}, {"retry_after_date": 2.5}])
def test_a_retry_after_is_waited_for(capy, capy_emulator, fields):
    capy_emulator.fault("status", status=429, times=1, **fields)
    capy.list_page("prj_demo")
    first, second = capy_emulator.requests("listThreads")
    assert second["time"] - first["time"] >= 1.0


@pytest.mark.parametrize("value", ["nan", "-17", "soon", "", "Sun, 22 Nov 99999999999999999999 04:00:00 GMT"])
def test_a_retry_after_without_sense_is_no_obstacle(capy, capy_emulator, value):
    capy_emulator.fault("status", status=429, times=1, retry_after=value)
    capy.list_page("prj_demo")
    first, second = capy_emulator.requests("listThreads")
    assert second["time"] - first["time"] < 20


@pytest.mark.parametrize(
    ("value", "seconds"), [("1200", 1200.0), ("3600", 3600.0), ("inf", RETRY_AFTER_CAP), ("1e400", RETRY_AFTER_CAP)]
)
def test_a_retry_after_beyond_the_total_time_ends_the_call_at_once(client_of, capy_emulator, refused, value, seconds):
    capy_emulator.fault("status", status=429, retry_after=value)
    client = client_of(capy_emulator.api_url, capy_emulator.token, retry=RetryLimits(total=5.0))
    began = time.monotonic()
    with refused(CapyRateLimitError) as caught:
        client.get_thread("jam_1")
    assert time.monotonic() - began < 5
    assert caught.value.retry_after == seconds
    assert len(capy_emulator.requests()) == 1


FAULTS = {
    "503": ({"kind": "status", "status": 503}, CapyServerError),
    "502 with a web page": ({"kind": "status", "status": 502, "body": "html"}, CapyServerError),
    "500 after it was processed": ({"kind": "error_after"}, CapyServerError),
    "a reset": ({"kind": "reset"}, CapyNoAnswerError),
    "a lost answer": ({"kind": "lost"}, CapyNoAnswerError),
    "half an answer": ({"kind": "truncate"}, CapyNoAnswerError),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", SAFE)
def test_what_harms_nobody_is_tried_again(capy, capy_emulator, fault, operation):
    (thread_id,) = capy_emulator.create(life="forever")
    capy_emulator.fault(**FAULTS[fault][0], times=3)
    {
        "getThread": lambda: capy.get_thread(thread_id),
        "listThreads": lambda: capy.list_threads("prj_demo"),
        "stopThread": lambda: capy.stop_thread(thread_id),
    }[operation]()
    assert len(capy_emulator.requests(operation)) == 4


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", SAFE)
def test_the_number_of_tries_is_bounded(capy, capy_emulator, refused, fault, operation):
    order, kind = FAULTS[fault]
    # A refusal of a thread that does not exist is what would be lost; the fault is told apart from it by its class.
    (thread_id,) = capy_emulator.create(life="forever")
    capy_emulator.fault(**order)
    with refused(kind):
        {
            "getThread": lambda: capy.get_thread(thread_id),
            "listThreads": lambda: capy.list_threads("prj_demo"),
            "stopThread": lambda: capy.stop_thread(thread_id),
        }[operation]()
    assert len(capy_emulator.requests(operation)) == QUICK.attempts


@pytest.mark.parametrize("fault", FAULTS)
def test_a_create_that_may_have_been_processed_is_never_sent_again(capy, capy_emulator, refused, fault):
    order, kind = FAULTS[fault]
    capy_emulator.fault(**order)
    with refused(kind):
        capy.create_thread("prj_demo", PROMPT)
    assert len(capy_emulator.requests("createAndStartThread")) == 1
    assert len(capy_emulator.threads()) <= 1


def test_a_create_that_times_out_is_never_sent_again(client_of, capy_emulator, refused):
    capy_emulator.fault("slow", seconds=30)
    client = client_of(capy_emulator.api_url, capy_emulator.token, read_timeout=0.3)
    with refused(CapyNoAnswerError) as caught:
        client.create_thread("prj_demo", PROMPT)
    assert "ReadTimeout" in str(caught.value)
    assert "it may have been processed" in str(caught.value)
    assert len(capy_emulator.requests("createAndStartThread")) == 1
    assert len(capy_emulator.threads()) == 1


@pytest.mark.parametrize("operation", SAFE)
def test_what_times_out_is_tried_again(client_of, operation):
    good = saying(200, THREAD | {"items": [], "nextCursor": None, "hasMore": False})
    with RawServer(silent(0.8), silent(0.8), good) as server:
        OPERATIONS[operation](client_of(server.url, read_timeout=0.2))
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_refusal_that_will_not_change_is_not_tried_again(capy, capy_emulator, operation, status):
    capy_emulator.fault("status", status=status, retry_after=0)
    with pytest.raises(exceptions.api_error_class(status)):
        OPERATIONS[operation](capy)
    assert len(capy_emulator.requests(operation)) == 1


def test_the_total_time_is_bounded(client_of, capy_emulator, refused):
    capy_emulator.fault("status", status=429, retry_after=1)
    limits = RetryLimits(attempts=1000, total=2.5, base=0.001, cap=0.002)
    client = client_of(capy_emulator.api_url, capy_emulator.token, retry=limits)
    with refused(CapyRateLimitError):
        client.get_thread("jam_1")
    assert 1 < len(capy_emulator.requests()) <= 3


def test_a_client_without_patience_tries_once(client_of, capy_emulator):
    capy_emulator.fault("status", status=429)
    with pytest.raises(CapyRateLimitError):
        client_of(capy_emulator.api_url, capy_emulator.token, retry=NO_RETRIES).get_thread("jam_1")
    assert len(capy_emulator.requests()) == 1


def test_no_server_means_surely_not_processed(client_of, refused):
    port = free_port()
    with refused(CapyConnectError) as caught:
        client_of(f"http://127.0.0.1:{port}/api").create_thread("prj_demo", PROMPT)
    assert str(caught.value).startswith(f"POST /v1/threads never reached Capy at 127.0.0.1:{port}: ConnectError")
    assert str(caught.value).endswith("nothing was processed")


@pytest.mark.parametrize("operation", ["createAndStartThread", "listThreads"])
def test_a_server_that_comes_late_is_reached(client_of, operation):
    port = free_port()
    late = EmulatorServer(port=port)
    starting = threading.Timer(0.5, late.start)
    starting.start()
    limits = RetryLimits(attempts=200, total=60.0, base=0.2, cap=0.2)
    try:
        OPERATIONS[operation](client_of(f"http://127.0.0.1:{port}/api", late.control.token, retry=limits))
        assert len(late.control.requests(operation)) == 1
        assert len(late.control.threads()) == (operation == "createAndStartThread")
    finally:
        starting.join()
        late.stop()


def test_an_answer_that_cannot_be_read_is_not_asked_for_again(capy, capy_emulator, refused):
    capy_emulator.fault("not_json", processed=False)
    with refused(CapyResponseError):
        capy.get_thread("jam_1")
    assert len(capy_emulator.requests()) == 1


def test_the_error_of_the_last_try_is_raised(client_of):
    with (
        RawServer(saying(503), resetting(), saying(500, {"error": {"code": "c", "message": "last"}})) as server,
        pytest.raises(CapyServerError, match="500 c: last"),
    ):
        client_of(server.url, retry=RetryLimits(attempts=3, base=0.0)).get_thread("jam_1")
