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
from airflow_provider_capy.lifecycle import SECOND_LOOK_SECONDS, STANDS_AFTER, Outcome, Policy
from airflow_provider_capy.waiting import LONGEST_OUTAGE_PAUSE, SHORTEST_PAUSE, Step, Wait, describe

NOW = 1_800_000_000.0
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
    worked_on = [{"status": "completed"}]
    fields = {"id": "jam_1", "projectId": "prj_1", "runState": run_state, "tasks": worked_on, **fields}
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
    step = wait().saw(thread("ready", tasks=[]), NOW)
    assert (step.look_again_in, step.soon) == (SECOND_LOOK_SECONDS, True)


def test_a_second_look_comes_no_later_than_the_interval() -> None:
    assert wait(poll_interval=1.0).saw(thread("ready", tasks=[]), NOW).look_again_in == 1.0


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


OUTAGES = [error for error in PASSING if not isinstance(error, CapyRateLimitError)]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_an_outage_is_tolerated_by_time_and_not_by_count(error: CapyRequestError) -> None:
    waiting = wait(tolerate_outage=3600.0)
    for seconds in range(0, 3600, 2):
        assert waiting.failed(error, NOW + seconds).event is None
    event = waiting.failed(error, NOW + 3600).event
    assert event is not None
    assert event.failure is not None
    assert (event.outcome, event.failure.blind, event.thread_is_gone) == (Outcome.POLL_FAILED, 3600.0, False)


def test_an_outage_that_may_not_be_is_the_end_at_once() -> None:
    event = wait(tolerate_outage=0.0).failed(PASSING[0], NOW).event
    assert event is not None
    assert event.outcome is Outcome.POLL_FAILED


def test_one_good_look_ends_an_outage_and_one_line_tells_so() -> None:
    waiting = wait(tolerate_outage=100.0)
    waiting.saw(thread(), NOW)
    for outage in (0, 200):
        for seconds in range(0, 99, 3):
            assert waiting.failed(PASSING[0], NOW + outage + seconds).event is None
        assert waiting.saw(thread(), NOW + outage + 99).line == "Thread jam_1 is seen again after 99 s: running"
    assert waiting.saw(thread(), NOW + 400).line is None


def test_an_outage_is_asked_about_ever_seldomer() -> None:
    waiting, now, pauses = wait(), NOW, []
    while now < NOW + 3000:
        pauses.append(waiting.failed(PASSING[0], now).look_again_in)
        now += pauses[-1]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1], len(pauses) < 20) == (10.0, LONGEST_OUTAGE_PAUSE, True)


def test_an_outage_warns_once_a_minute() -> None:
    waiting = wait(poll_interval=1.0)
    lines = [waiting.failed(PASSING[0], NOW + seconds).line for seconds in range(180)]
    assert [number for number, line in enumerate(lines) if line] == [0, 60, 120]
    assert lines[0] == "Thread jam_1 could not be looked at, which is tried again: no route"


def test_a_later_process_goes_on_with_the_outage() -> None:
    before = wait(tolerate_outage=100.0)
    before.failed(PASSING[0], NOW)
    waiting = wait(tolerate_outage=100.0, remembered=json.loads(json.dumps(before.remembered())))
    assert waiting.failed(PASSING[0], NOW + 30).line is None
    assert waiting.failed(PASSING[0], NOW + 100).event is not None


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_a_no_of_capys_own_is_believed_once_it_has_stood(error: CapyRequestError) -> None:
    waiting, now = wait(tolerate_outage=None), NOW
    looks = 0
    while (step := waiting.failed(error, now)).event is None:
        assert step.soon
        looks += 1
        now += step.look_again_in
    assert (now - NOW, looks) == (STANDS_AFTER, 6)
    assert step.event.failure is not None
    assert (step.event.outcome, step.event.failure.blind) == (Outcome.POLL_FAILED, None)
    assert step.event.thread_is_gone is isinstance(error, exceptions.CapyNotFoundError)


def test_a_no_right_after_the_create_is_forgotten_with_the_first_look() -> None:
    waiting = wait()
    for seconds in (0, 5, 29):
        assert waiting.failed(FINAL[2], NOW + seconds).event is None
    assert waiting.saw(thread(), NOW + 29.5).event is None
    assert waiting.failed(FINAL[2], NOW + 31).event is None


def test_what_says_when_to_come_back_is_no_outage() -> None:
    waiting = wait(tolerate_outage=60.0)
    later = CapyServerError("maintenance", status_code=503, retry_after=1200.0)
    slow_down = CapyRateLimitError("slow down", status_code=429, retry_after=1200.0)
    for number, error in enumerate([later, slow_down] * 20):
        step = waiting.failed(error, NOW + 1200 * number)
        assert (step.event, step.look_again_in) == (None, 1200.0)
    assert waiting.failed(CapyRateLimitError("slow down", status_code=429), NOW + 90_000).event is None


def test_a_state_that_nobody_knows_is_warned_of_once_with_the_link() -> None:
    waiting = wait()
    steps = [waiting.saw(thread("interrupted"), NOW + seconds) for seconds in range(3)]
    assert [step.warning for step in steps] == [True, False, False]
    assert steps[0].line == (
        "Thread jam_1 is interrupted, a state unknown here that is taken for work: https://capy/prj_1/jam_1"
    )


def test_an_interval_of_nothing_still_leaves_capy_some_peace() -> None:
    assert wait(poll_interval=0.0).saw(thread(), NOW).look_again_in == SHORTEST_PAUSE


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
            thread("ready", tasks=[]),
            thread("ready", tasks=[], waitingOn=["ci"]),
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


def test_another_no_than_the_last_begins_anew() -> None:
    waiting = wait()
    assert waiting.failed(FINAL[1], NOW).event is None
    assert waiting.failed(FINAL[2], NOW + STANDS_AFTER).event is None


def test_a_no_that_was_not_said_again_meanwhile_does_not_stand() -> None:
    waiting = wait()
    assert waiting.failed(FINAL[2], NOW).event is None
    for seconds in range(0, 600, 60):
        assert waiting.failed(PASSING[0], NOW + 1 + seconds).event is None
    assert waiting.failed(FINAL[2], NOW + 600).event is None


def test_two_answers_are_not_enough() -> None:
    waiting = wait()
    assert [waiting.failed(FINAL[2], NOW + seconds).event is None for seconds in (0, 40, 80)] == [True, True, False]


def test_an_answer_that_says_to_come_back_at_once_is_an_outage_like_any_other() -> None:
    waiting, error = wait(tolerate_outage=60.0), CapyServerError("oops", status_code=503, retry_after=0.0)
    assert waiting.failed(error, NOW).event is None
    assert waiting.failed(error, NOW + 60).event is not None
