"""One wait: fed with answers, it says what to do next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy import exceptions
from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.exceptions import (
    CapyConnectError,
    CapyNoAnswerError,
    CapyRateLimitError,
    CapyRequestError,
    CapyResponseError,
    CapyServerError,
)
from airflow_provider_capy.lifecycle import SECOND_LOOK_SECONDS, Outcome, Policy
from airflow_provider_capy.waiting import Step, Wait, describe

NOW = 1_800_000_000.0
LONG_AGO = "2020-01-01T00:00:00Z"
PASSING = [
    CapyConnectError("no route"),
    CapyNoAnswerError("no answer"),
    CapyResponseError("not JSON", status_code=200),
    CapyRateLimitError("slow down", status_code=429),
    CapyServerError("oops", status_code=500),
]
FINAL = [
    exceptions.CapyUnauthorizedError("no", status_code=401),
    exceptions.CapyForbiddenError("no", status_code=403),
    exceptions.CapyNotFoundError("no", status_code=404),
    exceptions.CapyConflictError("no", status_code=409),
    exceptions.CapyValidationError("no", status_code=422),
    exceptions.CapyAPIError("no", status_code=418),
]


def thread(run_state: str = "running", **fields: Any) -> Thread:
    fields = {"id": "jam_1", "projectId": "prj_1", "runState": run_state, "createdAt": LONG_AGO, **fields}
    return Thread.model_validate(fields)


def wait(**arguments: Any) -> Wait:
    defaults: dict[str, Any] = {
        "thread_url": lambda project_id: f"https://capy/{project_id or '-'}/jam_1",
        "policy": Policy(),
        "poll_interval": 10.0,
        "draw": lambda: 0.5,
    }
    return Wait("jam_1", **{**defaults, **arguments})


def test_a_thread_at_work_is_looked_at_again_after_the_interval() -> None:
    assert wait().saw(thread(), NOW) == Step(look_again_in=10.0, line="Thread jam_1 is running")


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
def test_the_interval_is_spread_by_a_tenth(draw: float, seconds: float) -> None:
    assert wait(draw=lambda: draw).saw(thread(), NOW).look_again_in == pytest.approx(seconds)


@given(st.floats(0, 1, exclude_max=True), st.floats(0.1, 3600))
def test_the_spread_never_leaves_its_bounds(draw: float, interval: float) -> None:
    step = wait(draw=lambda: draw, poll_interval=interval).saw(thread(), NOW)
    assert 0.9 * interval <= step.look_again_in <= 1.1 * interval


def test_a_settled_thread_ends_the_wait_with_its_summary() -> None:
    step = wait().saw(thread("ready"), NOW)
    assert step.event is not None
    assert (step.event.outcome, step.event.thread_url, step.event.thread["run_state"]) == (
        Outcome.READY,
        "https://capy/prj_1/jam_1",
        "ready",
    )


def test_a_second_look_comes_soon() -> None:
    step = wait().saw(thread("ready", createdAt="no date"), NOW)
    assert (step.look_again_in, step.soon) == (SECOND_LOOK_SECONDS, True)


def test_a_second_look_comes_no_later_than_the_interval() -> None:
    assert wait(poll_interval=1.0).saw(thread("ready", createdAt="no date"), NOW).look_again_in == 1.0


def test_the_pause_ends_at_the_deadline() -> None:
    assert wait(deadline=NOW + 4).saw(thread(), NOW).look_again_in == 4.0


def test_the_look_at_the_deadline_still_counts() -> None:
    step = wait(deadline=NOW).saw(thread("ready"), NOW + 1)
    assert step.event is not None
    assert step.event.outcome is Outcome.READY


@pytest.mark.parametrize("late", [0.0, 5.0])
def test_a_thread_at_work_at_the_deadline_is_a_timeout(late: float) -> None:
    event = wait(deadline=NOW).saw(thread(), NOW + late).event
    assert event is not None
    assert (event.outcome, event.thread["outcome"], event.thread["run_state"]) == (
        Outcome.TIMEOUT,
        "timeout",
        "running",
    )


def test_a_failed_poll_at_the_deadline_is_a_timeout_that_tells_the_last_good_look() -> None:
    waiting = wait(deadline=NOW + 10)
    waiting.saw(thread(), NOW)
    step = waiting.failed(PASSING[0], NOW + 10)
    assert step.event is not None
    assert (step.event.outcome, step.event.thread["run_state"], step.warning) == (Outcome.TIMEOUT, "running", True)


def test_a_timeout_without_any_look_has_no_summary() -> None:
    event = wait(deadline=NOW).failed(PASSING[0], NOW).event
    assert event is not None
    assert (event.outcome, event.thread, event.thread_url) == (Outcome.TIMEOUT, {}, "https://capy/-/jam_1")


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_five_failed_polls_in_a_row_are_tolerated_and_the_sixth_is_not(error: CapyRequestError) -> None:
    waiting = wait()
    steps = [waiting.failed(error, NOW + number) for number in range(6)]
    assert [step.event is None for step in steps] == [True] * 5 + [False]
    assert [step.warning for step in steps] == [True] * 5 + [False]
    event = steps[-1].event
    assert event is not None
    assert event.failure is not None
    assert (event.outcome, event.failure.failures, event.failure.at_once) == (Outcome.POLL_FAILED, 6, False)


def test_a_good_poll_forgives_the_failed_ones_and_says_so() -> None:
    waiting = wait()
    waiting.saw(thread(), NOW)
    for number in range(5):
        assert waiting.failed(PASSING[0], NOW + number).event is None
    assert waiting.saw(thread(), NOW + 6).line == "Thread jam_1 is running"
    assert waiting.failed(PASSING[0], NOW + 7).line == (
        "Poll of thread jam_1 failed (1 in a row, 5 tolerated): no route"
    )


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_what_will_not_pass_ends_the_wait_at_once(error: CapyRequestError) -> None:
    event = wait(tolerated_failures=None).failed(error, NOW).event
    assert event is not None
    assert event.failure is not None
    assert (event.outcome, event.failure.at_once) == (Outcome.POLL_FAILED, True)


def test_any_number_of_failures_can_be_tolerated() -> None:
    waiting = wait(tolerated_failures=None)
    assert [waiting.failed(PASSING[0], NOW).event for _ in range(50)] == [None] * 50


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, 10.0), (3.0, 10.0), (25.0, 25.0)])
def test_retry_after_is_the_least_pause(retry_after: float | None, seconds: float) -> None:
    error = CapyRateLimitError("slow down", status_code=429, retry_after=retry_after)
    assert wait().failed(error, NOW).look_again_in == seconds


def test_retry_after_does_not_reach_beyond_the_deadline() -> None:
    error = CapyRateLimitError("slow down", status_code=429, retry_after=25.0)
    assert wait(deadline=NOW + 2).failed(error, NOW).look_again_in == 2.0


def test_each_change_of_state_is_told_once() -> None:
    waiting = wait()
    course = [
        thread("queued"),
        thread("queued"),
        thread("running"),
        thread("running", title="another title"),
        thread("waiting", waitingOn=["ci"]),
        thread("waiting", waitingOn=["ci"]),
        thread("waiting", waitingOn=["review"]),
        thread("ready", pendingWakeups=1),
    ]
    assert [waiting.saw(look, NOW).line for look in course] == [
        "Thread jam_1 is queued",
        None,
        "Thread jam_1 is running",
        None,
        "Thread jam_1 is waiting (on ci)",
        None,
        "Thread jam_1 is waiting (on review)",
        "Thread jam_1 is ready (1 wake-up pending)",
    ]


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (thread("running", status="archived"), "running (archived)"),
        (thread("archived", status="archived"), "archived"),
        (thread("blocked", blockedOn=["auth", "permission"]), "blocked (needs auth, permission)"),
        (thread("waiting", waitingOn=["ci"], pendingWakeups=2), "waiting (on ci; 2 wake-ups pending)"),
    ],
)
def test_a_state_in_words(look: Thread, words: str) -> None:
    assert describe(look) == words


courses = st.lists(
    st.sampled_from(
        [
            thread("queued"),
            thread("running"),
            thread("ready", createdAt="no date"),
            thread("ready", createdAt="no date", waitingOn=["ci"]),
            thread("meditating"),
            PASSING[0],
            PASSING[3],
        ]
    ),
    max_size=12,
)


@given(courses)
def test_a_wait_that_goes_on_in_another_process_says_the_same(course: list[Any]) -> None:
    whole, steps = wait(), []
    remembered: dict[str, Any] | None = None
    for number, seen in enumerate(course):
        part = wait(remembered=remembered)
        take = [w.failed if isinstance(seen, CapyRequestError) else w.saw for w in (whole, part)]
        one, other = take[0](seen, NOW + number), take[1](seen, NOW + number)
        steps.append((one.event and one.event.outcome, one.look_again_in, one.line))
        assert steps[-1] == (other.event and other.event.outcome, other.look_again_in, other.line)
        if one.event is not None:
            return
        remembered = json.loads(json.dumps(part.remembered()))
