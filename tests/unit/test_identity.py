"""The reference's form is a promise to tasks that are being retried, and the decision table is what the README says."""

import json

import pytest

from airflow_provider_capy.api.models import Thread
from airflow_provider_capy.exceptions import CapyInputError, CapyReferenceError
from airflow_provider_capy.identity import (
    REFUSED,
    Action,
    Attempt,
    Decision,
    Record,
    TaskIdentity,
    decide,
    nobodys,
    reference_for,
    reference_from,
    the_one,
    was_cleared,
    with_reference,
)
from airflow_provider_capy.lifecycle import Fate

TASK = TaskIdentity("etl", "manual__2026-11-22T04:00:00+00:00", "agents.fix_tests")
NONCE = "0123456789abcdef0123456789abcdef"
NOW = 1_790_000_000.0


def record(**fields):
    known = {"reference": "af1", "nonce": NONCE, "project_id": "prj", "intended_at": NOW, "sent_at": NOW}
    return Record(**{**known, **fields})


# The reference


def test_the_form_of_a_reference_never_changes():
    assert reference_for(TASK, 0, NONCE) == "affba27c167667609e14956aa4b1119a7a"
    assert reference_for(TASK, 1, NONCE) == "afe8431577fe2badbfcb64eab0f1a3cea9"


def test_the_form_of_a_users_own_reference_never_changes():
    assert reference_from("OPS-123") == "au5d764c9ac14d2960a8b3ea47a9e85f3d"
    assert reference_from("OPS-123", 1) == "au1064fe79e30e5b99386fa19374f3ee0e"


@pytest.mark.parametrize(
    ("task", "generation", "nonce"),
    [
        (TaskIdentity("etl2", TASK.run_id, TASK.task_id), 0, NONCE),
        (TaskIdentity(TASK.dag_id, "other", TASK.task_id), 0, NONCE),
        (TaskIdentity(TASK.dag_id, TASK.run_id, "other"), 0, NONCE),
        (TaskIdentity(TASK.dag_id, TASK.run_id, TASK.task_id, 0), 0, NONCE),
        (TaskIdentity(TASK.dag_id, TASK.run_id, TASK.task_id, 1), 0, NONCE),
        (TASK, 1, NONCE),
        (TASK, 0, NONCE[::-1]),
    ],
    ids=["dag", "run", "task", "mapped", "map index", "generation", "another Airflow"],
)
def test_a_reference_tells_apart(task, generation, nonce):
    assert reference_for(task, generation, nonce) != reference_for(TASK, 0, NONCE)


def test_fields_of_a_reference_cannot_run_into_each_other():
    assert reference_for(TaskIdentity("a", "b,c", "d"), 0, NONCE) != reference_for(
        TaskIdentity("a,b", "c", "d"), 0, NONCE
    )


def test_a_reference_is_one_word_whatever_the_task_is_called():
    reference = reference_for(TaskIdentity("größe 💥", 'run"with\n', "t"), 0, NONCE)
    assert reference.isascii()
    assert reference.isalnum()
    assert len(reference) == 34


def test_blanks_around_an_own_reference_do_not_matter():
    assert reference_from(" OPS-123\n") == reference_from("OPS-123")


def test_an_own_reference_cannot_pass_for_that_of_a_task():
    assert reference_from("x")[:2] != reference_for(TASK, 0, NONCE)[:2]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_own_reference_is_refused(text):
    with pytest.raises(CapyInputError, match="reference: is empty"):
        reference_from(text)


def test_the_reference_is_the_prompts_last_line():
    assert with_reference("Fix it.\n\n", "af1") == "Fix it.\n\nAirflow reference: af1"


# The decision

RETRY = Attempt(clear_number=0, max_tries=2)
CLEARED = Attempt(clear_number=1, max_tries=3)
NEIGHBOUR_CLEARED = Attempt(clear_number=1, max_tries=2)
CREATE, LOOK_UP, REATTACH, REPLACE = Action.CREATE, Action.LOOK_UP, Action.REATTACH, Action.REPLACE


@pytest.mark.parametrize(
    ("left", "attempt", "expected"),
    [
        (None, RETRY, Decision(CREATE, 0)),
        (None, CLEARED, Decision(CREATE, 0)),
        ({}, RETRY, Decision(LOOK_UP, 0)),
        ({"generation": 3}, RETRY, Decision(LOOK_UP, 3)),
        ({"thread_id": "t"}, RETRY, Decision(REATTACH, 1)),
        ({"thread_id": "t", "succeeded": True}, RETRY, Decision(REATTACH, 1)),
        ({"thread_id": "t"}, CLEARED, Decision(REPLACE, 1)),
        ({"thread_id": "t"}, NEIGHBOUR_CLEARED, Decision(REATTACH, 1)),
        ({}, NEIGHBOUR_CLEARED, Decision(LOOK_UP, 0)),
        ({}, CLEARED, Decision(REPLACE, 1)),
        ({"thread_id": "t", "succeeded": True}, CLEARED, Decision(CREATE, 1)),
        ({"thread_id": "t", "ended": "archived"}, RETRY, Decision(REPLACE, 1)),
        ({"thread_id": "t", "ended": "timeout"}, RETRY, Decision(REPLACE, 1)),
        ({"thread_id": "t", "ended": "timeout", "generation": 4}, CLEARED, Decision(REPLACE, 5)),
        ({"ended": REFUSED, "generation": 2}, RETRY, Decision(CREATE, 2)),
        ({"ended": REFUSED, "generation": 2}, CLEARED, Decision(CREATE, 2)),
        ({"thread_id": "t", "shared": True}, RETRY, Decision(REATTACH, 1)),
        ({"thread_id": "t", "shared": True}, CLEARED, Decision(CREATE, 0)),
        ({"thread_id": "t", "shared": True, "ended": "timeout"}, RETRY, Decision(CREATE, 0)),
        ({"thread_id": "t", "fate": "stopped"}, RETRY, Decision(REPLACE, 1)),
        ({"thread_id": "t", "fate": "stopping"}, NEIGHBOUR_CLEARED, Decision(REPLACE, 1)),
        ({"thread_id": "t", "fate": "stopped", "succeeded": True}, CLEARED, Decision(REPLACE, 1)),
        ({"thread_id": "t", "fate": "dispatched"}, RETRY, Decision(REATTACH, 1)),
        ({"fate": "stopping"}, RETRY, Decision(REPLACE, 1)),
    ],
    ids=[
        "first try",
        "first try after a clear",
        "an intent without an id: look up",
        "an intent without an id: look up, same generation",
        "retry reattaches",
        "retry of a success that was not reported any more",
        "clear replaces",
        "another task of the run was cleared: reattach",
        "another task of the run was cleared after an intent without an id: look up",
        "clear with an intent only: it is looked up and replaced",
        "clear after success: a second thread, nothing to stop",
        "ended badly: the next generation",
        "timed out: surely stopped, then the next generation",
        "ended badly, then cleared",
        "refused: created under the same reference, without a lookup",
        "refused, then cleared",
        "retry with a shared thread",
        "clear with a shared thread: its reference decides again, nothing is stopped",
        "a shared thread that ended badly: its reference decides again",
        "somebody has stopped it: its ready is no success",
        "somebody is about to stop it, and another task was cleared",
        "it was dispatched, and stopped when its run was cancelled",
        "a dispatch that was not reported any more",
        "an intent that somebody has stopped is looked up and replaced",
    ],
)
def test_decision(left, attempt, expected):
    known = None if left is None else record(**{"max_tries": 2, **left})
    assert decide(known, attempt) == expected


@pytest.mark.parametrize("attempt", [RETRY, CLEARED], ids=["retry", "clear"])
@pytest.mark.parametrize(
    ("left", "action"),
    [
        ({}, Action.REPLACE),
        ({"fate": Fate.LEFT}, Action.REPLACE),
        ({"fate": Fate.SETTLED, "ended": "archived"}, Action.REPLACE),
        ({"fate": Fate.LEFT, "succeeded": True}, Action.CREATE),
        ({"shared": True}, Action.CREATE),
    ],
    ids=str,
)
def test_a_retry_that_is_not_durable_decides_as_a_clear(left, action, attempt):
    known = record(**{"max_tries": 2, "thread_id": "jam_1", **left})
    assert decide(known, attempt, durable=False).action is action


@pytest.mark.parametrize(("retries", "cleared"), [(2, False), (1, True), (None, True)])
def test_a_clear_that_counts_from_other_retries_is_one_although_the_sum_is_the_same(retries, cleared):
    left = record(max_tries=2, retries=2)
    assert was_cleared(left, Attempt(clear_number=1, max_tries=2, retries=retries)) is cleared


def test_without_max_tries_every_clear_of_the_run_counts():
    assert was_cleared(record(), CLEARED)
    assert was_cleared(record(max_tries=2), Attempt(clear_number=1))


@pytest.mark.parametrize(
    ("max_tries", "try_number", "clear_number", "cleared"),
    [(0, 2, 1, True), (2, 4, 1, True), (2, 3, 1, False), (2, 1, 1, False), (2, 4, 0, False), (0, 1, 1, False)],
)
def test_a_try_that_no_retry_can_have_brought_about_is_a_clears(max_tries, try_number, clear_number, cleared):
    """A busy scheduler forgets to raise ``max_tries`` when a task instance is cleared while it runs."""
    left = record(max_tries=max_tries, retries=max_tries)
    attempt = Attempt(clear_number=clear_number, max_tries=max_tries, retries=max_tries, try_number=try_number)
    assert was_cleared(left, attempt) is cleared


# The one among the hits


def hit(thread_id="t1", project="prj", created="2026-09-21T14:13:21Z", **fields):
    shape = {"id": thread_id, "projectId": project, "createdAt": created, "runState": "running", "status": "active"}
    return Thread.model_validate({**shape, **fields})


def chosen(hits):
    return the_one(hits, reference="af1", project_id="prj")


def test_one_hit_is_ours():
    assert chosen([hit()]).id == "t1"


def test_a_hit_without_a_project_is_ours():
    assert chosen([hit(project="")]).id == "t1"


def test_several_hits_are_listed_and_none_is_guessed():
    with pytest.raises(
        CapyReferenceError, match=r"2 threads carry the reference af1: t1 .*, t2 .*archive all but"
    ) as caught:
        chosen([hit("t1"), hit("t2")])
    assert caught.value.thread_id == "t1"


def test_whoever_archived_all_but_one_has_chosen():
    others = [hit("t1", status="archived", runState="ready"), hit("t2"), hit("t3", runState="archived")]
    assert chosen(others).id == "t2"


def test_several_archived_hits_are_not_guessed_either():
    with pytest.raises(CapyReferenceError, match=r"t1 .*t2"):
        chosen([hit("t1", status="archived"), hit("t2", status="archived")])


def test_a_hit_of_another_project_is_listed_and_not_taken():
    with pytest.raises(CapyReferenceError, match=r"af1 cannot be ours: t1 .*neither taken nor stopped") as caught:
        chosen([hit(project="prj_other")])
    assert caught.value.thread_id == "t1"


@pytest.mark.parametrize("created", ["2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z", "just now"])
def test_a_reference_that_nobody_else_has_needs_no_age(created):
    assert chosen([hit(created=created)]).id == "t1"


def test_a_word_that_nobody_has_is_like_a_reference_and_never_the_same():
    ours = reference_for(TASK, 0, NONCE)
    words = {nobodys(ours) for _ in range(3)}
    assert len(words | {ours}) == 4
    assert {(word[:2], len(word)) for word in words} == {("af", len(ours))}


# The record


def test_a_record_survives_the_store():
    full = record(
        generation=2, clear_number=1, max_tries=3, fate="held", owner="g.wait", thread_id="t", ended="timeout"
    )
    assert Record.read(json.loads(json.dumps(full.model_dump(mode="json")))) == full


def test_an_empty_store_holds_no_record():
    assert Record.read(None) is None


def test_the_first_form_of_a_record_can_be_read_for_ever():
    stored = {"version": 1, "reference": "af1", "nonce": "n", "project_id": "prj", "intended_at": 5.0, "thread_id": "t"}
    read = Record.read(stored)
    assert (read.reference, read.thread_id, read.started_at) == ("af1", "t", 5.0)


def test_what_a_later_version_added_is_kept():
    stored = record().model_dump(mode="json") | {"colour": "blue"}
    assert Record.read(stored).model_copy(update={"thread_id": "t"}).model_dump(mode="json")["colour"] == "blue"


@pytest.mark.parametrize(
    "stored",
    ["jam_1", 5, {}, {"reference": "af1"}, record().model_dump(mode="json") | {"version": 2}],
    ids=["a text", "a number", "empty", "half", "a form of the future"],
)
def test_what_cannot_be_read_starts_nothing(stored):
    with pytest.raises(
        CapyReferenceError, match=r"'capy_thread' that cannot be read.*nothing was started.*Delete that key"
    ):
        Record.read(stored)


def test_a_deadline_counts_from_the_last_intent():
    assert record(intended_at=NOW, sent_at=NOW + 60).started_at == NOW + 60
