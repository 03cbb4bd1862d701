"""Whether a deploy waited is decided by these times, so they must not flatter it."""

from __future__ import annotations

import pytest

from airflow_provider_capy.api import Thread
from tests.demo.watching import WatchedThread


def _thread(run_state: str, updated: str = "", **fields: object) -> Thread:
    body = {
        "id": "jam_1",
        "projectId": "prj_1",
        "status": "idle",
        "runState": run_state,
        "updatedAt": updated,
        **fields,
    }
    return Thread.model_validate(body)


def _seen(*looks: tuple[float, Thread]) -> WatchedThread:
    thread = WatchedThread("jam_1", "create")
    for now, seen in looks:
        thread.saw(seen, now)
    return thread


def test_a_thread_at_work_is_not_ready() -> None:
    assert _seen((10, _thread("running"))).ready_since is None


def test_a_thread_is_ready_when_capy_says_that_it_became_so() -> None:
    ready = _thread("ready", "1970-01-01T00:00:15Z")
    assert _seen((10, _thread("running")), (20, ready)).ready_since == 15


@pytest.mark.parametrize("updated", ["1970-01-01T00:00:05Z", "1970-01-01T00:00:25Z", "soon", ""])
def test_a_time_that_does_not_fit_what_was_seen_is_not_believed(updated: str) -> None:
    assert _seen((10, _thread("running")), (20, _thread("ready", updated))).ready_since == 20


def test_a_thread_that_goes_on_was_not_ready() -> None:
    ready = _thread("ready")
    assert _seen((10, ready), (20, _thread("running")), (30, ready), (40, ready)).ready_since == 30


def test_a_ready_thread_with_a_wake_up_pending_is_at_work() -> None:
    assert _seen((10, _thread("ready", pendingWakeups=1))).ready_since is None


def test_an_archived_thread_is_at_rest_whatever_its_stale_state() -> None:
    assert _seen((10, _thread("running", status="archived"))).rested == 10


def test_only_a_change_is_told() -> None:
    thread = WatchedThread("jam_1", "create")
    looks = [_thread("running"), _thread("running"), _thread("ready")]
    assert [thread.saw(seen, now) for now, seen in enumerate(looks)] == [True, False, True]
