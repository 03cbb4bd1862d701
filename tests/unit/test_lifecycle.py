"""What one look at a thread says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.lifecycle import (
    SECOND_LOOK_SECONDS,
    START_RACE_SECONDS,
    Memory,
    Outcome,
    Policy,
    Verdict,
    checked_on_blocked,
    failed_tasks,
    judge,
    summary,
)

NOW = 1_800_000_000.0
KNOWN = ("running", "queued", "waiting", "blocked", "ready", "archived")


@dataclass(frozen=True)
class Task:
    status: str
    identifier: str = "ENG-1"
    id: str = "task_1"


@dataclass(frozen=True)
class Look:
    run_state: str
    status: str = "idle"
    waiting_on: list[str] = field(default_factory=list)
    pending_wakeups: int = 0
    tasks: list[Any] = field(default_factory=list)
    pull_requests: list[Any] = field(default_factory=list)
    age: float | None = 3600.0


def stood(seconds: float, state: str = "ready") -> Memory:
    return Memory(resting=state, since=NOW - seconds)


def outcome(look: Look, policy: Policy | None = None, memory: Memory | None = None) -> Outcome | None:
    return judge(look, memory or Memory(), policy or Policy(), NOW).outcome


@pytest.mark.parametrize("run_state", [*KNOWN, "stopping"])
def test_an_archived_thread_is_archived_whatever_its_run_state_still_reads(run_state: str) -> None:
    assert outcome(Look(run_state, "archived"), Policy("wait")) is Outcome.ARCHIVED


@pytest.mark.parametrize("status", ["active", "idle", "later"])
def test_an_archived_run_state_is_archived_whatever_the_status(status: str) -> None:
    assert outcome(Look("archived", status)) is Outcome.ARCHIVED


@pytest.mark.parametrize(
    ("on_blocked", "expected"),
    [("fail", Outcome.BLOCKED), ("skip", Outcome.BLOCKED), ("succeed", Outcome.BLOCKED), ("wait", None)],
)
def test_blocked_ends_the_wait_under_every_policy_but_wait(on_blocked: Any, expected: Outcome | None) -> None:
    assert outcome(Look("blocked"), Policy(on_blocked), stood(SECOND_LOOK_SECONDS, "blocked")) is expected


def test_a_blocked_that_resolves_itself_ends_no_wait() -> None:
    first = judge(Look("blocked"), Memory(), Policy(), NOW)
    assert (first.outcome, first.look_again_in) == (None, SECOND_LOOK_SECONDS)
    between = judge(Look("running"), first.memory, Policy(), NOW + 1).memory
    again = judge(Look("blocked"), between, Policy(), NOW + 10)
    assert again.outcome is None
    assert judge(Look("blocked"), again.memory, Policy(), NOW + 10 + SECOND_LOOK_SECONDS).outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    ("run_state", "at_work"), [("running", True), ("waiting", True), ("queued", False), ("settling", False)]
)
@pytest.mark.parametrize("status", ["active", "idle"])
def test_a_thread_that_has_not_settled_goes_on_whatever_its_status(run_state: str, at_work: bool, status: str) -> None:
    assert judge(Look(run_state, status), Memory(), Policy(), NOW) == Verdict(None, Memory(seen_at_work=at_work))


def test_an_old_ready_thread_is_ready() -> None:
    assert outcome(Look("ready")) is Outcome.READY


@pytest.mark.parametrize("look", [Look("ready", pending_wakeups=1), Look("ready", waiting_on=["ci"])])
def test_ready_that_is_about_to_run_again_goes_on(look: Look) -> None:
    assert judge(look, stood(1000), Policy(), NOW) == Verdict(None, Memory())


def young(**fields: Any) -> Look:
    return Look("ready", age=1.0, **fields)


def test_ready_right_after_the_create_asks_for_a_second_look() -> None:
    verdict = judge(young(), Memory(), Policy(), NOW)
    assert verdict == Verdict(None, stood(0), look_again_in=SECOND_LOOK_SECONDS)


def test_an_age_that_nobody_knows_proves_nothing() -> None:
    assert judge(Look("ready", age=None), Memory(), Policy(), NOW).look_again_in == SECOND_LOOK_SECONDS


@pytest.mark.parametrize(("age", "expected"), [(START_RACE_SECONDS - 0.1, None), (START_RACE_SECONDS, Outcome.READY)])
def test_the_start_race_is_over_by_capys_own_clock(age: float, expected: Outcome | None) -> None:
    assert outcome(Look("ready", age=age)) is expected


@pytest.mark.parametrize(("since", "expected"), [(START_RACE_SECONDS - 0.1, None), (START_RACE_SECONDS, Outcome.READY)])
def test_the_start_race_is_over_by_our_own_clock(since: float, expected: Outcome | None) -> None:
    assert outcome(young(), memory=stood(since)) is expected


def test_the_last_look_of_the_start_race_comes_when_it_is_over() -> None:
    assert judge(young(), stood(START_RACE_SECONDS - 1), Policy(), NOW).look_again_in == 1.0


def test_a_clock_that_is_set_back_makes_no_rest_last_longer() -> None:
    assert judge(young(), stood(-3600), Policy(), NOW).memory == stood(0)


@pytest.mark.parametrize(
    ("look", "memory"),
    [
        (young(tasks=[Task("completed")]), Memory()),
        (young(tasks=[Task("queued"), Task("error")]), Memory()),
        (young(pull_requests=["one"]), Memory()),
        (young(), Memory(seen_at_work=True)),
    ],
    ids=["a task", "a failed task", "a pull request", "seen at work"],
)
def test_the_start_race_is_over_by_a_trace_of_work(look: Look, memory: Memory) -> None:
    assert outcome(look, memory=memory) is Outcome.READY


@pytest.mark.parametrize("status", ["backlog", "queued", "in_progress", "later"])
def test_a_task_that_is_still_to_be_done_is_no_trace_of_work(status: str) -> None:
    assert outcome(young(tasks=[Task(status)])) is None
    assert outcome(young(tasks=[Task(status)]), memory=stood(START_RACE_SECONDS)) is Outcome.READY


def test_a_break_in_ready_starts_the_second_look_anew() -> None:
    first = judge(young(), Memory(), Policy(), NOW).memory
    between = judge(replace(young(), run_state="settling"), first, Policy(), NOW + 2).memory
    assert judge(young(), between, Policy(), NOW + START_RACE_SECONDS).outcome is None


@pytest.mark.parametrize(
    ("fails", "statuses", "expected"),
    [
        (True, ["error"], Outcome.TASK_ERROR),
        (True, ["completed", "error"], Outcome.TASK_ERROR),
        (True, ["completed"], Outcome.READY),
        (False, ["error"], Outcome.READY),
    ],
)
def test_a_failed_task_counts_when_it_shall(fails: bool, statuses: list[str], expected: Outcome) -> None:
    look = Look("ready", tasks=[Task(status) for status in statuses])
    assert outcome(look, Policy(fail_on_task_error=fails)) is expected


def test_a_failed_task_of_a_thread_at_work_goes_on() -> None:
    assert outcome(Look("running", tasks=[Task("error")]), Policy(fail_on_task_error=True)) is None


looks = st.builds(
    Look,
    run_state=st.sampled_from(KNOWN) | st.text(max_size=12),
    status=st.sampled_from(["active", "idle", "archived"]) | st.text(max_size=12),
    waiting_on=st.lists(st.text(max_size=4), max_size=2),
    pending_wakeups=st.integers(0, 3),
    tasks=st.lists(st.builds(Task, status=st.sampled_from(["error", "completed", "later"])), max_size=2),
    pull_requests=st.lists(st.just("one"), max_size=1),
    age=st.none() | st.floats(0, 100),
)
policies = st.builds(
    Policy, on_blocked=st.sampled_from(["fail", "skip", "succeed", "wait"]), fail_on_task_error=st.booleans()
)
memories = st.builds(
    Memory,
    seen_at_work=st.booleans(),
    resting=st.sampled_from(["", "ready", "blocked"]),
    since=st.floats(NOW - 100, NOW),
)


@given(looks, policies, memories)
def test_a_state_that_nobody_knows_never_ends_a_wait(look: Look, policy: Policy, memory: Memory) -> None:
    unknown = replace(look, run_state=f"x{look.run_state}", status=f"x{look.status}")
    assert judge(unknown, memory, policy, NOW).outcome is None


@given(looks, policies, memories)
def test_a_thread_that_is_not_at_rest_never_ends_a_wait(look: Look, policy: Policy, memory: Memory) -> None:
    verdict = judge(look, memory, policy, NOW)
    at_rest = {look.run_state, look.status} & {"archived", "blocked", "ready"}
    assert verdict.outcome is None or at_rest


@given(st.lists(looks, max_size=8), policies)
def test_what_was_seen_at_work_stays_seen(course: list[Look], policy: Policy) -> None:
    memory, seen = Memory(), False
    for number, look in enumerate(course):
        memory = judge(look, memory, policy, NOW + number).memory
        assert memory.seen_at_work >= seen
        seen = memory.seen_at_work


@given(looks, policies, memories)
def test_an_ended_wait_asks_for_no_further_look(look: Look, policy: Policy, memory: Memory) -> None:
    verdict = judge(look, memory, policy, NOW)
    assert verdict.outcome is None or verdict.look_again_in is None


def thread(**fields: Any) -> Thread:
    return Thread.model_validate({"id": "jam_1", "runState": "ready", **fields})


def test_failed_tasks_are_named_by_identifier_or_id() -> None:
    tasks = [
        {"id": "t1", "identifier": "ENG-1", "status": "error"},
        {"id": "t2", "status": "error"},
        {"id": "t3", "identifier": "ENG-3", "status": "completed"},
    ]
    assert failed_tasks(thread(tasks=tasks)) == ["ENG-1", "t2"]


def test_of_two_thousand_tasks_the_failed_ones_are_shown() -> None:
    statuses = ["completed"] * 1999 + ["error"]
    tasks = [
        {"identifier": f"ENG-{number}", "status": status, "title": "x" * 9000} for number, status in enumerate(statuses)
    ]
    shown = summary(thread(title="y" * 2_000_000, tasks=tasks), outcome=Outcome.TASK_ERROR, url="https://example.com/t")
    assert (len(shown["tasks"]), shown["tasks"][0]["identifier"], len(shown["title"])) == (100, "ENG-1999", 500)
    assert len(json.dumps(shown)) < 100_000


def test_the_summary_is_small_and_complete() -> None:
    shown = summary(
        thread(
            projectId="prj_1",
            title="Fix it",
            status="idle",
            waitingOn=["ci"],
            blockedOn=["auth"],
            tasks=[{"id": "t1", "identifier": "ENG-1", "title": "Do", "status": "completed"}],
            pullRequests=[
                {
                    "number": 7,
                    "url": "https://example.com/7",
                    "repoFullName": "acme/api",
                    "state": "open",
                    "headRef": "capy/1",
                    "baseRef": "main",
                    "draft": True,
                }
            ],
            createdAt="2026-01-01T00:00:00Z",
            updatedAt="yesterday",
            prompt="never shown",
        ),
        outcome=Outcome.READY,
        url="https://example.com/t",
    )
    assert shown == {
        "thread_id": "jam_1",
        "thread_url": "https://example.com/t",
        "project_id": "prj_1",
        "title": "Fix it",
        "outcome": "ready",
        "status": "idle",
        "run_state": "ready",
        "waiting_on": ["ci"],
        "blocked_on": ["auth"],
        "tasks": [{"identifier": "ENG-1", "title": "Do", "status": "completed"}],
        "pull_requests": [
            {
                "number": 7,
                "url": "https://example.com/7",
                "repo_full_name": "acme/api",
                "state": "open",
                "head_ref": "capy/1",
                "base_ref": "main",
                "draft": True,
            }
        ],
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "yesterday",
    }


@pytest.mark.parametrize("value", ["fail", "skip", "succeed", "wait"])
def test_the_policies_are_known(value: str) -> None:
    assert checked_on_blocked(value) == value


def test_another_policy_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(CapyInputError) as refused:
        checked_on_blocked("ignore")
    assert str(refused.value) == "on_blocked: 'ignore' is none of 'fail', 'skip', 'succeed', 'wait'"
