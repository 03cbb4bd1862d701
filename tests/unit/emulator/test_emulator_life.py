"""Lives are pure: the same life and time always give the same state."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy.emulator.life import Course, Life, State, moment, pace_of, script
from airflow_provider_capy.emulator.lives import NAMES, life_named


def course(name="default", **changes):
    return replace(Course(life_named(name), began=1000.0), **changes)


def seen(name, **changes):
    """Give the states of a life in their order."""
    lived = course(name, **changes)
    states = []
    now = lived.began
    while True:
        current = moment(lived, now)
        states.append(current.state)
        if current.until == inf:
            return states, current
        now = current.until


def test_the_default_life_queues_runs_waits_and_is_ready_after_five_seconds():
    states, last = seen("default")
    order = list(dict.fromkeys((state.run_state, state.status) for state in states))
    assert order == [("queued", "active"), ("running", "active"), ("waiting", "idle"), ("ready", "idle")]
    assert last.since == 1005.0
    assert last.over


def test_the_default_life_ends_with_a_completed_task_and_an_open_pull_request():
    _, last = seen("default")
    assert last.state == State("ready", "idle", tasks=("completed",), pull_requests=("open",))


def test_waiting_names_what_it_waits_for():
    assert moment(course(), 1003.0).state.waiting_on == ("task",)


def test_the_life_forever_never_comes_to_rest():
    current = moment(course("forever"), 1e12)
    assert current.state.run_state == "running"
    assert not current.over


def test_a_blocked_thread_says_on_what_and_stays_so():
    lived = Course(life_named("blocked", blocked_on=("auth", "permission")), began=0.0)
    current = moment(lived, 1e9)
    assert (current.state.run_state, current.state.status) == ("blocked", "idle")
    assert current.state.blocked_on == ("auth", "permission")
    assert current.over


def test_an_unblocked_thread_goes_on_to_ready():
    lived = course("blocked", unblocked=1010.0)
    assert moment(lived, 1009.9).state.run_state == "blocked"
    assert moment(lived, 1010.0).state.run_state == "running"
    assert moment(lived, 1012.0).state.run_state == "ready"


def test_an_archived_thread_keeps_a_stale_run_state():
    _, last = seen("archived")
    assert (last.state.status, last.state.run_state, last.over) == ("archived", "running", True)


def test_a_cleanly_archived_thread_says_so_twice():
    _, last = seen("archived_clean")
    assert (last.state.status, last.state.run_state) == ("archived", "archived")


def test_a_task_error_ends_ready_with_a_failed_task():
    _, last = seen("task_error")
    assert last.state == State("ready", "idle", tasks=("error",))


@pytest.mark.parametrize("name", ["start_race", "pending_wakeups", "waiting_ready"])
def test_some_lives_are_ready_before_they_are_done(name):
    states, _ = seen(name)
    order = [state.run_state for state in states]
    assert "running" in order[order.index("ready") :]


def test_the_start_race_is_ready_and_idle_before_anything_was_done():
    state = moment(course("start_race"), 1000.0).state
    assert state == State("ready", "idle")


def test_pending_wakeups_and_waiting_ready_show_that_they_are_not_final():
    assert any(state.run_state == "ready" and state.pending_wakeups == 1 for state in seen("pending_wakeups")[0])
    assert any(state.run_state == "ready" and state.waiting_on for state in seen("waiting_ready")[0])


def test_several_pull_requests_come_one_after_the_other():
    counts = [len(state.pull_requests) for state in seen("several_prs")[0]]
    assert counts == sorted(counts)
    assert counts[-1] == 3


def test_the_unknown_state_can_be_chosen():
    lived = Course(life_named("unknown_state", run_state="dreaming"), began=0.0)
    assert moment(lived, 3.0).state.run_state == "dreaming"


def test_an_unknown_life_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no life 'sleepy'; ask for one of default, forever"):
        life_named("sleepy")


def test_a_stop_freezes_the_thread_and_settles_it_later():
    lived = course("forever", stopped=1002.0, settle=0.5)
    assert moment(lived, 1002.4).state.run_state == "running"
    assert not moment(lived, 1002.4).over
    settled = moment(lived, 1002.5)
    assert (settled.state.run_state, settled.state.status, settled.over) == ("ready", "idle", True)


def test_a_stopped_thread_keeps_its_tasks_and_pull_requests_as_they_were():
    settled = moment(course(stopped=1004.5), 1100.0).state
    assert settled.tasks == ("needs_review",)
    assert settled.pull_requests == ("draft",)


@pytest.mark.parametrize(("run_state", "shown"), [("archived", "archived"), (None, "running")])
def test_archiving_wins_over_everything(run_state, shown):
    lived = course("forever", stopped=1002.0, archived=1002.1, archived_run_state=run_state)
    current = moment(lived, 1050.0)
    assert (current.state.status, current.state.run_state, current.over) == ("archived", shown, True)


def test_a_named_length_is_in_real_seconds_whatever_the_speed():
    life = life_named("default")
    assert pace_of(life, 10, speed=50) * life.seconds == pytest.approx(10)
    assert pace_of(life, None, speed=50) * life.seconds == pytest.approx(0.1)


def test_a_life_without_length_is_over_at_once():
    life = Life("still", script((0, {"run_state": "ready"})))
    assert moment(Course(life, 0.0, pace=pace_of(life, 5, 1)), 0.0).over


def test_phases_change_what_they_name_and_carry_tasks_on():
    first, second = script(
        (0, {"run_state": "waiting", "waiting_on": ("ci",), "tasks": ("queued",)}), (1, {"run_state": "running"})
    )
    assert (first.state.status, second.state.status) == ("idle", "active")
    assert second.state.waiting_on == ()
    assert second.state.tasks == ("queued",)


@given(
    name=st.sampled_from(NAMES),
    pace=st.floats(0, 10),
    stopped=st.none() | st.floats(1000, 1100),
    archived=st.none() | st.floats(1000, 1100),
    now=st.floats(1000, 1200),
    later=st.floats(0, 1),
)
def test_a_moment_holds_for_exactly_the_time_it_says(name, pace, stopped, archived, now, later):
    lived = course(name, pace=pace, stopped=stopped, archived=archived)
    current = moment(lived, now)
    assert current.since <= now < current.until
    end = min(current.until, 1e6)
    within = now + (end - now) * later * 0.999
    acts = [act for act in (stopped, archived) if act is not None and now < act <= within]
    if not acts:
        assert moment(lived, within).state == current.state
