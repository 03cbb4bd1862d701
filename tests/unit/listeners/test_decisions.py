"""Which threads the end of a run, or of a task instance, calls to a stop: the whole table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners.decisions import Cause, Row, closed, stops
from airflow_provider_capy.records import ThreadRecord

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate
RUN_ENDS = {
    Cause.RUN_MARKED_FAILED: "failed",
    Cause.RUN_MARKED_SUCCESS: "success",
    Cause.RUN_FAILED: "failed",
    Cause.RUN_SUCCEEDED: "success",
}
TASK_ENDS = [Cause.TASK_MARKED, Cause.TASK_LOST]


def row(row_id: int = 1, task_id: str = "work", **fields: Any) -> Row:
    of_row = {name: fields.pop(name) for name in ("task_state", "run_state", "map_index") if name in fields}
    record = ThreadRecord(**{"thread_id": "jam_1", "fate": HELD, **fields})
    known = {"map_index": -1, "task_state": "failed", "run_state": "running", **of_row}
    return Row(row_id, record.model_dump_json(), record, "dag", "run", task_id, **known)


def stopped(rows: list[Row], cause: Cause, task_id: str | None = None, map_index: int = -1) -> list[str | None]:
    """Let a run end, or one of its task instances, and return the threads that are to be stopped."""
    if task_id is None:
        rows = [replace(one, run_state=RUN_ENDS[cause]) for one in rows]
    return [stop.row.record.thread_id for stop in stops(rows, [(cause, task_id, map_index)])]


TABLE: dict[Fate | None, set[Cause]] = {
    HELD: set(Cause),
    DISPATCHED: {Cause.RUN_MARKED_FAILED, Cause.TASK_MARKED},
    SETTLED: set(),
    LEFT: set(),
    # Whoever was about to stop it may have been killed.
    STOPPING: set(Cause),
    STOPPED: set(),
    # Of a version that did not say: nobody knows.
    None: set(),
}


@pytest.mark.parametrize("fate", TABLE)
@pytest.mark.parametrize("cause", Cause)
def test_the_table(fate: Fate | None, cause: Cause) -> None:
    about = "work" if cause in TASK_ENDS else None
    state = "success" if fate is DISPATCHED else "failed"
    assert stopped([row(fate=fate, task_state=state)], cause, about) == (["jam_1"] if cause in TABLE[fate] else [])


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize(
    ("state", "is_held"),
    [
        *((state, True) for state in ("failed", "skipped", "upstream_failed", "removed")),
        *((state, False) for state in ("success", "running", "up_for_retry", None)),
    ],
)
def test_a_dispatch_whose_task_did_not_succeed_counts_as_held(state: str | None, is_held: bool, cause: Cause) -> None:
    about = "work" if cause in TASK_ENDS else None
    goes_on = about is not None and state not in {"failed", "skipped", "upstream_failed", "removed", "success"}
    is_stopped = not goes_on and (is_held or cause in TABLE[DISPATCHED])
    assert bool(stopped([row(fate=DISPATCHED, task_state=state)], cause, about)) is is_stopped


@pytest.mark.parametrize("fate", TABLE)
@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("spared", [{"stop_on_kill": False}, {"shared": True}], ids=str)
def test_what_may_not_be_stopped_never_is(spared: dict[str, bool], cause: Cause, fate: Fate | None) -> None:
    assert stopped([row(fate=fate, **spared)], cause, "work" if cause in TASK_ENDS else None) == []


@pytest.mark.parametrize("cause", TASK_ENDS)
@pytest.mark.parametrize(
    ("state", "over"),
    [
        *((state, True) for state in ("failed", "success", "skipped", "upstream_failed", "removed")),
        *(
            (state, False)
            for state in ("running", "deferred", "up_for_retry", "up_for_reschedule", "restarting", "queued", None)
        ),
    ],
)
def test_a_task_instance_that_goes_on_keeps_its_thread(state: str | None, over: bool, cause: Cause) -> None:
    assert bool(stopped([row(task_state=state)], cause, "work")) is over


@pytest.mark.parametrize("cause", RUN_ENDS)
@pytest.mark.parametrize("state", ["running", "deferred", "up_for_retry", "scheduled", "failed", "success", None])
def test_when_its_run_is_over_no_task_instance_goes_on(state: str | None, cause: Cause) -> None:
    assert stopped([row(task_state=state)], cause) == ["jam_1"]


@pytest.mark.parametrize("cause", RUN_ENDS)
def test_an_end_that_was_not_committed_or_was_cleared_stops_nothing(cause: Cause) -> None:
    assert stops([row(task_state="running", run_state="running")], [(cause, None, -1)]) == []
    assert stops([row(task_state=None, run_state="queued")], [(cause, None, -1)]) == []


# A group: its create has started the thread, its wait answers for it.

CREATE = {"row_id": 1, "task_id": "g.create", "owner": "g.wait", "task_state": "success"}
WAIT = {"row_id": 2, "task_id": "g.wait", "task_state": "running"}


@pytest.mark.parametrize("cause", RUN_ENDS)
@pytest.mark.parametrize(
    ("wait", "is_stopped"),
    [(None, True), (HELD, True), (STOPPING, True), (SETTLED, False), (LEFT, False), (STOPPED, False)],
)
def test_the_thread_of_a_group_is_its_waits_once_that_has_begun(
    wait: Fate | None, is_stopped: bool, cause: Cause
) -> None:
    rows = [row(**CREATE), *([] if wait is None else [row(**WAIT, fate=wait)])]
    assert stopped(rows, cause) == (["jam_1"] if is_stopped else [])


@pytest.mark.parametrize(
    "stranger",
    [{"map_index": 1}, {"thread_id": "jam_old"}, {"task_id": "h.wait"}],
    ids=["another map index", "another thread", "another task"],
)
def test_a_record_that_is_not_the_owners_of_this_thread_does_not_answer_for_it(stranger: dict[str, Any]) -> None:
    rows = [row(**CREATE, map_index=0), row(**{**WAIT, "map_index": 0, "fate": SETTLED, **stranger})]
    assert stopped(rows, Cause.RUN_FAILED) == ["jam_1"]


def test_the_end_of_a_create_is_no_end_of_a_thread_that_it_has_handed_on() -> None:
    assert stopped([row(**CREATE)], Cause.TASK_LOST, "g.create") == []
    assert stopped([row(**CREATE)], Cause.TASK_MARKED, "g.create") == ["jam_1"]


@pytest.mark.parametrize("state", ["failed", "skipped", "upstream_failed", "removed"])
def test_a_create_that_did_not_succeed_has_handed_nothing_on(state: str) -> None:
    assert stopped([row(**{**CREATE, "task_state": state})], Cause.TASK_LOST, "g.create") == ["jam_1"]


@pytest.mark.parametrize(
    ("wait", "is_stopped"),
    [
        (None, True),
        ({"fate": HELD, "task_state": "failed"}, True),
        ({"fate": HELD, "task_state": "deferred"}, False),
        ({"fate": SETTLED, "task_state": "success"}, False),
        ({"fate": LEFT, "task_state": "failed"}, False),
        ({"fate": HELD, "task_state": "failed", "thread_id": "jam_old"}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("map_index", [-1, 2])
def test_a_wait_that_is_marked_before_it_has_begun_answers_for_its_creates_thread(
    map_index: int, wait: dict[str, Any] | None, is_stopped: bool
) -> None:
    rows = [row(**CREATE, map_index=map_index)]
    if wait is not None:
        rows.append(row(**{**WAIT, "map_index": map_index, **wait}))
    found = stopped(rows, Cause.TASK_MARKED, "g.wait", map_index)
    assert ("jam_1" in found) is is_stopped
    assert stopped(rows, Cause.TASK_MARKED, "g.wait", 7) == stopped(rows, Cause.TASK_MARKED, "h.wait", map_index) == []


@pytest.mark.parametrize("run_state", ["failed", "success", "running"])
@pytest.mark.parametrize(
    ("create", "wait", "fate"),
    [
        *((HELD, fate, fate) for fate in (SETTLED, LEFT, STOPPED, None)),
        *((HELD, fate, "open") for fate in (HELD, DISPATCHED, STOPPING)),
        (DISPATCHED, SETTLED, SETTLED),
        *((DISPATCHED, fate, "open") for fate in (HELD, LEFT, STOPPED)),
        *((fate, SETTLED, "open") for fate in (SETTLED, LEFT, STOPPING, STOPPED)),
    ],
)
def test_what_a_create_has_handed_on_ends_as_its_wait_has_left_it(
    create: Fate, wait: Fate | None, fate: Any, run_state: str
) -> None:
    rows = [row(**CREATE, fate=create, run_state=run_state), row(**WAIT, fate=wait, run_state=run_state)]
    is_closed = fate != "open" and run_state != "running"
    assert closed(rows) == ([(rows[0], rows[0].record.model_copy(update={"fate": fate}))] if is_closed else [])


@pytest.mark.parametrize("stranger", [None, {"map_index": 1}, {"thread_id": "jam_old"}, {"task_id": "h.wait"}], ids=str)
def test_what_no_wait_has_taken_over_is_not_closed(stranger: dict[str, Any] | None) -> None:
    over = {"map_index": 0, "run_state": "failed"}
    others = [] if stranger is None else [row(**{**WAIT, **over, "fate": SETTLED, **stranger})]
    assert closed([row(**CREATE, **over), *others]) == []
    assert closed([row(run_state="failed")]) == []


# Who and how often


def test_the_end_of_a_task_instance_is_about_its_own_thread() -> None:
    rows = [
        row(1, map_index=0, thread_id="jam_0"),
        row(2, map_index=1, thread_id="jam_1"),
        row(3, task_id="other", thread_id="jam_2"),
    ]
    assert stopped(rows, Cause.TASK_MARKED, "work", 1) == ["jam_1"]
    assert stopped(rows, Cause.RUN_MARKED_FAILED) == ["jam_0", "jam_1", "jam_2"]


def test_a_thread_is_stopped_once_and_every_record_of_it_is_told() -> None:
    rows = [row(1, fate=DISPATCHED), row(2, task_id="sensor"), row(3, task_id="other", thread_id="jam_2")]
    rows = [replace(one, run_state="failed") for one in rows]
    found = stops(rows, [(Cause.RUN_MARKED_FAILED, None, -1), (Cause.TASK_MARKED, "sensor", -1)])
    assert [(stop.row.record.thread_id, [other.row_id for other in stop.rows]) for stop in found] == [
        ("jam_1", [1, 2]),
        ("jam_2", [3]),
    ]
    assert {stop.cause for stop in found} == {Cause.RUN_MARKED_FAILED}


@pytest.mark.parametrize(
    ("fate", "is_told"),
    [
        (HELD, True),
        (DISPATCHED, True),
        (LEFT, True),
        (STOPPING, True),
        (STOPPED, True),
        (SETTLED, False),
        (None, False),
    ],
)
def test_who_saw_the_thread_come_to_its_own_end_is_not_told_otherwise(fate: Fate | None, is_told: bool) -> None:
    rows = [row(1), row(2, task_id="sensor", fate=fate, stop_on_kill=False)]
    [stop] = stops([replace(one, run_state="failed") for one in rows], [(Cause.RUN_FAILED, None, -1)])
    assert (stop.row.row_id, [other.row_id for other in stop.rows]) == (1, [1, 2] if is_told else [1])


def test_creates_without_an_answer_are_kept_apart() -> None:
    rows = [row(1, thread_id=None, reference="af1"), row(2, task_id="b", thread_id=None, reference="af2")]
    rows = [replace(one, run_state="failed") for one in rows]
    found = stops(rows, [(Cause.RUN_FAILED, None, -1)])
    assert [(stop.row.row_id, [other.row_id for other in stop.rows]) for stop in found] == [(1, [1]), (2, [2])]


def test_nothing_ended_stops_nothing() -> None:
    assert stops([row()], []) == []
    assert stops([], [(Cause.RUN_FAILED, None, -1)]) == []


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("state", ["success", "failed", "skipped"])
def test_a_dispatched_thread_that_a_sensor_saw_come_to_its_own_end_is_not_stopped(state: str, cause: Cause) -> None:
    rows = [row(fate=DISPATCHED, task_state=state), row(2, "sensor", fate=SETTLED, task_state="success")]
    other = row(3, "other", thread_id="jam_2", fate=HELD)

    assert stopped(rows, cause, "work" if cause in TASK_ENDS else None) == []
    if cause not in TASK_ENDS:
        assert stopped([*rows, other], cause) == ["jam_2"]


@pytest.mark.parametrize("fate", [fate for fate in Fate if fate is not SETTLED])
def test_only_its_own_end_keeps_a_dispatched_thread_from_being_stopped(fate: Fate) -> None:
    rows = [row(fate=DISPATCHED, task_state="success"), row(2, "sensor", fate=fate, task_state="success")]
    assert stopped(rows, Cause.RUN_MARKED_FAILED) == ["jam_1"]
