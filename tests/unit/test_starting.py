"""A task has one thread, whatever its tries, its store and Capy do."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import NEVER_EXPIRE
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_capy import adopting, lifecycle, stopping
from airflow_provider_capy.api import CapyClient
from airflow_provider_capy.exceptions import (
    CapyCreateUnknownError,
    CapyError,
    CapyForbiddenError,
    CapyInputError,
    CapyRateLimitError,
    CapyReferenceError,
    CapyServerError,
    CapyStopUnconfirmedError,
    CapyThreadError,
    CapyUnauthorizedError,
)
from airflow_provider_capy.identity import REFUSED, STORE_KEY, TaskIdentity
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.tasking import final
from tests.unit.starts import LOG, PROJECT, QUICK, Hook, MemoryStore, settings_for, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.identity import Record

pytestmark = pytest.mark.usefixtures("quick_proof")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "STANDS_AFTER", 0.3)
    monkeypatch.setattr(lifecycle, "SOONEST_AGAIN", 0.1)
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


@pytest.fixture
def client(capy_emulator: EmulatorControl) -> Iterator[CapyClient]:
    with CapyClient(settings_for(capy_emulator)) as client:
        yield client


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def attempt(client: CapyClient, store: MemoryStore) -> Callable[..., Record]:
    """Make one try of the task, after those before it."""
    return lambda **changes: start(client, changes.pop("store", store), **changes).get()


def ids(capy: EmulatorControl) -> list[str]:
    return [thread["id"] for thread in capy.threads()]


def until_ready(capy: EmulatorControl, record: Record) -> None:
    while capy.thread(record.thread_id or "")["run_state"] != "ready":
        pass


def remember(store: MemoryStore, **changes: Any) -> None:
    record = store.record
    assert record is not None
    store.set(STORE_KEY, record.model_copy(update=changes).model_dump(mode="json"))


# The first try


def test_a_first_try_creates_a_thread_and_stores_its_id(attempt, store, capy_emulator) -> None:
    record = attempt()
    assert [record.thread_id] == ids(capy_emulator)
    assert store.record == record
    assert record.thread_url == f"https://capy.example/{PROJECT}/{record.thread_id}"


def test_the_prompt_ends_with_the_reference(attempt, capy_emulator) -> None:
    record = attempt(prompt="Fix it\n")
    assert capy_emulator.threads()[0]["prompt"] == f"Fix it\n\nAirflow reference: {record.reference}"


def test_the_intent_is_stored_before_the_create_and_the_id_after_it(attempt, store) -> None:
    seen: list[Record | None] = []
    attempt(announce=seen.append)
    assert seen[0] is not None
    assert seen[0].thread_id is None
    assert len(store.retentions) == 2


def test_a_record_tells_whoever_ends_the_run_what_it_needs(attempt, store) -> None:
    attempt(owner="group.wait", stop_on_kill=False)
    kept = store.record
    assert (kept.capy_conn_id, kept.project_id, kept.owner, kept.may_stop) == (
        "capy_default",
        PROJECT,
        "group.wait",
        False,
    )
    assert (kept.fate, kept.stopped_by) == (Fate.HELD, "")


def test_a_retry_that_reattaches_holds_the_thread_again(attempt, store) -> None:
    attempt()
    remember(store, fate=Fate.DISPATCHED)
    attempt(stop_on_kill=False)
    assert (store.record.fate, store.record.stop_on_kill) == (Fate.HELD, False)


def test_a_thread_that_somebody_has_stopped_is_replaced(attempt, store, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt()
    remember(store, fate=Fate.STOPPED, stopped_by="the run was marked failed")
    second = attempt()
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert (store.record.fate, store.record.stopped_by) == (Fate.HELD, "")


def test_a_record_lives_as_long_as_its_run(attempt, store) -> None:
    attempt()
    assert store.retentions == [NEVER_EXPIRE, NEVER_EXPIRE]


def test_an_argument_that_is_sure_to_be_refused_leaves_no_intent(attempt, store, capy_emulator) -> None:
    with pytest.raises(CapyInputError):
        attempt(prompt="")
    assert (store.record, capy_emulator.requests()) == (None, [])


def test_a_refused_create_is_created_by_the_next_try_without_a_lookup(attempt, store, capy_emulator) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=422, times=1)
    with pytest.raises(CapyError, match="422"):
        attempt()
    refused = store.record
    assert refused.ended == REFUSED
    record = attempt()
    assert (record.reference, record.generation) == (refused.reference, 0)
    assert capy_emulator.requests("listThreads") == []


# Retries


def test_a_retry_reattaches(attempt, capy_emulator) -> None:
    first = attempt()
    assert attempt().thread_id == first.thread_id
    assert ids(capy_emulator) == [first.thread_id]


@pytest.mark.parametrize("life", ["forever", "blocked", "default"])
def test_a_retry_reattaches_to_a_thread_in_every_state_that_counts(attempt, capy_emulator, life) -> None:
    capy_emulator.script(life=life)
    assert attempt().thread_id == attempt().thread_id
    assert len(ids(capy_emulator)) == 1


def test_a_retry_keeps_the_time_that_deadlines_count_from(attempt) -> None:
    first = attempt(clock=lambda: 1_000_000.0)
    assert attempt(clock=lambda: 1_000_600.0).started_at == first.started_at == 1_000_000.0


def test_a_retry_needs_no_valid_arguments_to_reattach(attempt) -> None:
    first = attempt()
    assert attempt(prompt="").thread_id == first.thread_id


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503, "body": "html"}, {"status": 429}], ids=str)
def test_a_thread_that_cannot_be_seen_now_is_gone_on_with(attempt, store, capy_emulator, fault) -> None:
    first = attempt()
    remember(store, fate=Fate.DISPATCHED)
    capy_emulator.fault("status", "getThread", **fault)
    assert (attempt().thread_id, store.record.fate) == (first.thread_id, Fate.HELD)
    assert ids(capy_emulator) == [first.thread_id]


def test_a_reattach_that_is_refused_once_goes_on(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=403, times=1)
    assert attempt().thread_id == first.thread_id
    assert ids(capy_emulator) == [first.thread_id]


def test_a_reattach_that_is_refused_leaves_the_thread_to_the_next_try(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=403, times=5)
    with pytest.raises(CapyForbiddenError, match=f"Thread {first.thread_id} of an earlier try was left as it is"):
        attempt()
    assert attempt().thread_id == first.thread_id


def test_a_thread_that_is_gone_is_replaced_with_a_warning(attempt, capy_emulator, caplog) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=404, match=first.thread_id)
    second = attempt()
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    warnings = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert warnings == [f"Thread {first.thread_id} of an earlier try does not exist any more; a new one is started"]


def test_a_thread_that_capy_does_not_know_at_once_is_gone_on_with(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=404, times=2, match=first.thread_id)
    assert attempt().thread_id == first.thread_id
    assert ids(capy_emulator) == [first.thread_id]


def test_a_thread_that_may_not_be_stopped_is_not_gone_at_the_first_word(attempt, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt()
    capy_emulator.fault("status", "getThread", status=404, times=2, match=first.thread_id)
    with pytest.raises(CapyStopUnconfirmedError, match="stop_on_kill is off"):
        attempt(stop_on_kill=False, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id]


def test_a_stranger_never_starts_a_second_thread(attempt, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt()
    capy_emulator.fault("status", "getThread", status=404, body="html", match=first.thread_id)
    assert attempt().thread_id == first.thread_id
    with pytest.raises(CapyError, match="nothing was started"):
        attempt(stop_on_kill=False, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id]


def test_a_thread_that_was_archived_meanwhile_is_replaced(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.archive(first.thread_id, stale=True)
    second = attempt()
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert (second.generation, second.reference != first.reference) == (1, True)


# A thread with a failed task that goes on all the same
GOES_ON = [
    {"run_state": "ready", "tasks": ["error"], "pending_wakeups": 1},
    {"run_state": "ready", "tasks": ["error"], "waiting_on": ["ci"]},
    {"run_state": "running", "tasks": ["error"]},
]


@pytest.mark.parametrize("state", GOES_ON, ids=str)
def test_a_thread_with_a_failed_task_that_is_about_to_go_on_is_gone_on_with(state, attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.set_life(first.thread_id, phases=[{"at": 0, **state}])
    assert attempt(fail_on_task_error=True).thread_id == first.thread_id
    assert ids(capy_emulator) == [first.thread_id]


def test_a_thread_with_a_failed_task_is_replaced_when_that_is_a_failure(attempt, capy_emulator) -> None:
    capy_emulator.script(life="task_error", seconds=0.1)
    first = attempt()
    until_ready(capy_emulator, first)
    assert attempt().thread_id == first.thread_id
    assert attempt(fail_on_task_error=True).thread_id != first.thread_id


@pytest.mark.parametrize("ended", ["timeout", "execution_timeout", "unwatched", "poll_failed"])
def test_a_thread_that_ended_badly_is_surely_at_rest_before_the_next_one_starts(
    attempt, store, capy_emulator, ended
) -> None:
    capy_emulator.script(life="forever", stop_seconds=0.5)
    first = attempt()
    # Its own stop came to nothing: the worker died before it.
    remember(store, ended=ended)
    attempt()
    one, two = capy_emulator.threads()
    assert one["id"] == first.thread_id
    assert one["stopped"] < two["created"]


def test_the_ready_of_a_thread_that_was_stopped_is_never_taken(attempt, store, capy_emulator) -> None:
    capy_emulator.script(seconds=0.1)
    first = attempt()
    remember(store, ended="timeout")
    until_ready(capy_emulator, first)
    second = attempt()
    assert second.thread_id != first.thread_id
    assert capy_emulator.stops(first.thread_id) == []


def test_a_thread_that_cannot_be_stopped_is_not_replaced(attempt, store, capy_emulator, monkeypatch) -> None:
    monkeypatch.setattr("airflow_provider_capy.adopting.REPLACE_STOP_SECONDS", 1.0)
    capy_emulator.script(life="forever", stop_seconds=600)
    first = attempt()
    remember(store, ended="timeout")
    with pytest.raises(CapyStopUnconfirmedError, match="No second one was started; a retry stops it again first"):
        attempt()
    assert ids(capy_emulator) == [first.thread_id]


def test_a_stop_that_is_refused_starts_nothing_and_names_the_thread(attempt, store, capy_emulator, monkeypatch) -> None:
    monkeypatch.setattr(adopting, "REPLACE_STOP_SECONDS", 1.0)
    capy_emulator.script(life="forever")
    first = attempt()
    remember(store, ended="timeout")
    capy_emulator.fault("status", "stopThread", status=401)
    with pytest.raises(CapyStopUnconfirmedError, match=f"Replacing thread {first.thread_id}.*401.*No second one was"):
        attempt()
    assert ids(capy_emulator) == [first.thread_id]


# Lost answers


def lose(attempt: Callable[..., Record], capy: EmulatorControl) -> str:
    """One try whose create is processed, and whose answer and lookup both fail; returns the thread's id."""
    capy.fault("lost", "createAndStartThread", times=1)
    capy.fault("status", "listThreads", status=403, times=1)
    with pytest.raises(CapyCreateUnknownError):
        attempt()
    return ids(capy)[-1]


def test_the_next_try_adopts_the_thread_of_a_lost_answer(attempt, store, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    assert store.record.thread_id is None
    assert attempt().thread_id == lost == store.record.thread_id
    assert ids(capy_emulator) == [lost]


def test_the_next_try_replaces_the_thread_of_a_lost_answer_that_was_archived_meanwhile(attempt, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    capy_emulator.archive(lost)
    record = attempt()
    assert ids(capy_emulator) == [lost, record.thread_id]
    assert record.generation == 1


def test_the_next_try_creates_when_there_was_none(attempt, store, capy_emulator) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=503, times=1)
    with pytest.raises(CapyCreateUnknownError):
        attempt()
    intended = store.record
    record = attempt()
    assert [record.thread_id] == ids(capy_emulator)
    assert (record.reference, record.intended_at) == (intended.reference, intended.intended_at)
    assert record.sent_at > intended.sent_at


def test_a_lookup_that_fails_leaves_the_question_to_the_next_try(attempt, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    capy_emulator.fault("status", "listThreads", status=401, times=1)
    with pytest.raises(CapyCreateUnknownError, match=r"may have been started.*It carries the reference af"):
        attempt()
    assert attempt().thread_id == lost


def test_a_refusal_does_not_hide_that_an_earlier_try_may_have_started_a_thread(attempt, store, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    capy_emulator.fault("list_lag", "listThreads", seconds=600)
    capy_emulator.fault("status", "createAndStartThread", status=429)
    with pytest.raises(
        CapyCreateUnknownError, match=f"may have been started.*429.*carries the reference {store.record.reference}"
    ) as caught:
        attempt()
    assert isinstance(caught.value.__cause__, CapyRateLimitError)
    capy_emulator.clear_faults()
    assert attempt().thread_id == lost


def test_two_threads_under_one_reference_are_an_error_on_every_try(attempt, store, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    prompt = capy_emulator.thread(lost)["prompt"]
    [second] = capy_emulator.create(prompt, origin="api")
    for _ in range(2):
        with pytest.raises(CapyReferenceError, match=f"{second}.*{lost}|{lost}.*{second}"):
            attempt()
    capy_emulator.archive(second)
    assert attempt().thread_id == lost


def test_a_thread_of_the_same_reference_in_another_project_is_not_found(attempt, store, capy_emulator) -> None:
    lost = lose(attempt, capy_emulator)
    other = attempt(project_id="prj_other")
    assert other.thread_id == lost, "the lookup goes where the intent went"


def test_a_project_that_changed_after_an_intent_gets_a_reference_of_its_own(attempt, store, capy_emulator) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=503, times=1)
    with pytest.raises(CapyCreateUnknownError):
        attempt()
    intended = store.record
    record = attempt(project_id="prj_other")
    assert (record.project_id, record.generation) == ("prj_other", 1)
    assert record.reference != intended.reference


# Clears

CLEARED = {"clear_number": 1, "max_tries": 3}


def test_a_clear_after_success_starts_a_second_thread_and_stops_nothing(attempt, store, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt()
    remember(store, succeeded=True)
    second = attempt(**CLEARED)
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert capy_emulator.stops(first.thread_id) == []
    assert (second.generation, second.succeeded, second.clear_number) == (1, False, 1)


def test_a_clear_of_a_task_at_work_stops_the_old_thread_first(attempt, capy_emulator) -> None:
    capy_emulator.script(life="forever", stop_seconds=0.5)
    attempt()
    attempt(**CLEARED)
    one, two = capy_emulator.threads()
    assert one["stopped"] < two["created"]


def test_a_clear_stops_the_thread_of_a_lost_answer_too(attempt, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    lost = lose(attempt, capy_emulator)
    attempt(**CLEARED)
    one, two = capy_emulator.threads()
    assert one["id"] == lost
    assert one["stopped"] < two["created"]


def test_a_clear_of_an_intent_that_started_nothing_just_creates(attempt, capy_emulator) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=503, times=1)
    with pytest.raises(CapyCreateUnknownError):
        attempt()
    assert [attempt(**CLEARED).thread_id] == ids(capy_emulator)


def test_a_thread_that_may_not_be_stopped_is_replaced_only_at_rest(attempt, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt()
    with pytest.raises(
        CapyStopUnconfirmedError, match=r"it is \w+ and stop_on_kill is off\. No second one was started"
    ):
        attempt(stop_on_kill=False, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id]
    capy_emulator.set_life(first.thread_id, seconds=0.1)
    until_ready(capy_emulator, first)
    assert attempt(stop_on_kill=False, **CLEARED).thread_id != first.thread_id
    assert capy_emulator.stops(first.thread_id) == []


def test_a_ready_inside_the_start_race_is_not_at_rest(attempt, capy_emulator) -> None:
    capy_emulator.script(life="start_race", seconds=5)
    first = attempt(stop_on_kill=False)
    with pytest.raises(CapyStopUnconfirmedError, match="it is running and stop_on_kill is off"):
        attempt(stop_on_kill=False, sleep=lambda _: time.sleep(0.1), **CLEARED)
    assert ids(capy_emulator) == [first.thread_id]


def test_a_ready_that_outlasts_the_start_race_is_at_rest(attempt, capy_emulator) -> None:
    capy_emulator.script(phases=[{"at": 0, "run_state": "ready"}])
    first = attempt(stop_on_kill=False)
    pauses: list[float] = []
    second = attempt(stop_on_kill=False, clock=lambda: sum(pauses), sleep=pauses.append, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert 12.0 < sum(pauses) <= lifecycle.START_RACE_SECONDS


def test_a_thread_that_may_not_be_stopped_and_is_gone_is_replaced(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=404, match=first.thread_id)
    assert attempt(stop_on_kill=False, **CLEARED).thread_id != first.thread_id


def test_a_thread_that_may_not_be_stopped_and_cannot_be_seen_is_not_replaced(attempt, capy_emulator) -> None:
    first = attempt()
    capy_emulator.fault("status", "getThread", status=401)
    with pytest.raises(CapyUnauthorizedError, match="nobody knows whether it is at rest; nothing was started"):
        attempt(stop_on_kill=False, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id]


def test_a_clear_of_another_task_of_the_run_is_none_of_ours(attempt, store, capy_emulator) -> None:
    first = attempt()
    again = attempt(clear_number=1)
    assert ids(capy_emulator) == [first.thread_id] == [again.thread_id]
    # The number is ours to know by now: the next try is an ordinary retry.
    assert store.record.clear_number == 1
    assert attempt(clear_number=1).thread_id == first.thread_id


# The store


def test_a_store_that_cannot_be_read_starts_nothing(attempt, capy_emulator) -> None:
    with pytest.raises(
        CapyError, match=r"cannot be read \(ConnectionError: the API server is away\).*nothing was started"
    ):
        attempt(store=MemoryStore(broken=frozenset({"get"})))
    assert capy_emulator.requests() == []


def test_an_intent_that_cannot_be_written_starts_nothing(attempt, capy_emulator) -> None:
    with pytest.raises(CapyError, match=r"cannot be written \(ConnectionError: .*nothing was started"):
        attempt(store=MemoryStore(broken=frozenset({"set"})))
    assert capy_emulator.requests() == []


def test_a_try_that_another_one_has_replaced_starts_nothing(attempt, store, capy_emulator) -> None:
    first = attempt()
    store.deaf = True
    with pytest.raises(CapyError, match=r"does not hold what this try has just written.*nothing was started"):
        attempt()
    assert ids(capy_emulator) == [first.thread_id]


@pytest.mark.parametrize(
    "kill", [final(CapyKilledError("cancelled")), CapyKilledError("the worker goes away")], ids=repr
)
def test_a_kill_that_comes_into_a_write_is_not_taken_for_a_failing_store(attempt, capy_emulator, kill) -> None:
    store = MemoryStore(kill=kill)
    with pytest.raises(type(kill), match=str(kill)):
        attempt(store=store)
    assert capy_emulator.requests() == []
    store.kill = None
    attempt(store=store)
    store.kill = kill
    with pytest.raises(type(kill), match=str(kill)):
        start(None, store).store.update(succeeded=True)


def test_an_id_that_cannot_be_written_is_found_again_by_the_next_try(attempt, capy_emulator, caplog) -> None:
    store = MemoryStore(broken=frozenset({"set"}), broken_after=1)
    with caplog.at_level(logging.WARNING, LOG.name):
        first = attempt(store=store)
    assert f"What is known of thread {first.thread_id} could not be stored" in caplog.text
    assert store.record.thread_id is None
    store.broken = frozenset()
    assert attempt(store=store).thread_id == first.thread_id
    assert ids(capy_emulator) == [first.thread_id]


def test_a_record_that_cannot_be_read_starts_nothing(attempt, capy_emulator) -> None:
    with pytest.raises(CapyReferenceError, match="nothing was started"):
        attempt(store=MemoryStore({STORE_KEY: '"jam_1"'}))
    assert capy_emulator.requests() == []


def test_without_any_store_a_task_still_carries_its_reference(attempt, capy_emulator) -> None:
    record = attempt(store=None)
    assert record.reference in capy_emulator.threads()[0]["prompt"]


def test_an_update_fills_in_an_id_that_was_not_stored(client, store, capy_emulator) -> None:
    lost = start(client, store)
    lost.get()
    remember(store, thread_id=None)
    assert lost.store.update(thread_id="jam_1", ended="timeout") == ""
    assert (store.record.thread_id, store.record.ended) == ("jam_1", "timeout")
    assert lost.store.update(thread_id="jam_2") == ""
    assert store.record.thread_id == "jam_1"


def test_an_update_that_fails_says_why_and_raises_nothing(client) -> None:
    broken = start(client, MemoryStore(broken=frozenset({"get"})))
    assert broken.store.update(succeeded=True) == "ConnectionError: the API server is away"


# Who is who


def test_two_airflows_with_the_same_names_have_nothing_to_do_with_each_other(attempt, capy_emulator) -> None:
    one, two = MemoryStore(), MemoryStore()
    capy_emulator.fault("lost", "createAndStartThread")
    first, second = attempt(store=one), attempt(store=two)
    assert first.reference != second.reference
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]


@pytest.mark.parametrize(
    "change",
    [{"dag_id": "other"}, {"run_id": "other"}, {"task_id": "other"}, {"map_index": 1}],
    ids=["dag", "run", "task", "map index"],
)
def test_neighbours_have_nothing_to_do_with_each_other(attempt, capy_emulator, change) -> None:
    task = TaskIdentity("dag", "run", "task", 0)
    capy_emulator.fault("lost", "createAndStartThread")
    first = attempt(store=MemoryStore(), task=task)
    second = attempt(store=MemoryStore(), task=replace(task, **change))
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]


def test_what_is_not_durable_carries_no_line_and_is_known_only_to_whoever_ends_the_run(
    attempt, store, capy_emulator
) -> None:
    first = attempt(durable=False)
    remember(store, fate=Fate.SETTLED)
    second = attempt(durable=False)
    assert [thread["prompt"] for thread in capy_emulator.threads()] == ["Fix the tests"] * 2
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert (store.record.thread_id, store.record.reference, store.record.fate) == (second.thread_id, "", Fate.HELD)


@pytest.mark.parametrize("fate", [*Fate, None])
@pytest.mark.parametrize("clear", [False, True])
def test_what_is_not_durable_is_at_rest_before_the_next_one_starts(clear, fate, attempt, store, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt(durable=False)
    remember(store, fate=fate)
    second = attempt(durable=False, **(CLEARED if clear else {}))
    one, two = capy_emulator.threads()
    assert (one["id"], two["id"], store.record.thread_id) == (first.thread_id, second.thread_id, second.thread_id)
    assert one["stopped"] < two["created"]


@pytest.mark.parametrize("fate", [Fate.HELD, Fate.LEFT])
def test_what_is_not_durable_and_may_not_be_stopped_is_replaced_only_at_rest(
    fate, attempt, store, capy_emulator
) -> None:
    capy_emulator.script(life="blocked", seconds=0)
    first = attempt(durable=False, stop_on_kill=False)
    remember(store, fate=fate)
    with pytest.raises(
        CapyStopUnconfirmedError, match=r"it is blocked .*stop_on_kill is off\. No second one was started"
    ):
        attempt(durable=False, stop_on_kill=False)
    capy_emulator.set_life(first.thread_id, seconds=0.1)
    until_ready(capy_emulator, first)
    second = attempt(durable=False, stop_on_kill=False)
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert capy_emulator.stops(first.thread_id) == []


def test_a_success_that_was_not_durable_is_left_as_it_is_by_a_clear(attempt, store, capy_emulator) -> None:
    capy_emulator.script(life="blocked", seconds=0)
    first = attempt(durable=False)
    remember(store, fate=Fate.LEFT, succeeded=True)
    second = attempt(durable=False, **CLEARED)
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert (capy_emulator.stops(first.thread_id), capy_emulator.requests("getThread")) == ([], [])


@pytest.mark.parametrize("durable", [True, False])
def test_an_argument_that_is_sure_to_be_refused_stops_nothing(durable, attempt, store, capy_emulator) -> None:
    capy_emulator.script(life="forever")
    first = attempt(durable=durable)
    remember(store, ended="timeout")
    with pytest.raises(CapyInputError):
        attempt(durable=durable, prompt="")
    assert capy_emulator.stops(first.thread_id) == []


def test_what_is_not_durable_starts_nothing_beside_a_thread_that_cannot_be_stopped(
    attempt, store, capy_emulator, monkeypatch
) -> None:
    monkeypatch.setattr(adopting, "REPLACE_STOP_SECONDS", 1.0)
    first = attempt(durable=False)
    capy_emulator.fault("status", "stopThread", status=403)
    capy_emulator.set_life(first.thread_id, "forever")
    with pytest.raises(CapyStopUnconfirmedError, match=r"could NOT be asked to stop.*403.*No second one was started"):
        attempt(durable=False)
    assert (ids(capy_emulator), store.record.thread_id) == ([first.thread_id], first.thread_id)


def test_what_is_not_durable_says_where_a_lost_thread_may_be(attempt, capy_emulator) -> None:
    capy_emulator.fault("lost", "createAndStartThread", times=1)
    with pytest.raises(CapyCreateUnknownError, match=f"A thread may have been started.*Look in project {PROJECT}"):
        attempt(durable=False)


# The user's own reference


def test_an_own_reference_deduplicates_across_runs(attempt, capy_emulator) -> None:
    first = attempt(store=MemoryStore(), reference="OPS-1")
    second = attempt(store=MemoryStore(), reference="OPS-1", task=TaskIdentity("dag", "other run", "task"))
    assert (first.shared, second.shared) == (False, True)
    assert ids(capy_emulator) == [first.thread_id] == [second.thread_id]


def test_another_reference_is_another_thread(attempt, capy_emulator) -> None:
    attempt(store=MemoryStore(), reference="OPS-1")
    attempt(store=MemoryStore(), reference="OPS-2")
    assert len(ids(capy_emulator)) == 2


def test_a_thread_that_another_run_lost_is_found_although_the_index_lags(attempt, capy_emulator) -> None:
    first = attempt(store=MemoryStore(), reference="OPS-1")
    capy_emulator.fault("list_lag", "listThreads", seconds=0.5)
    second = attempt(store=MemoryStore(), reference="OPS-1", patience=replace(QUICK, shared_lag=2.0))
    assert second.thread_id == first.thread_id


def test_a_retry_reattaches_to_a_shared_thread(attempt, store, capy_emulator) -> None:
    first = attempt(store=MemoryStore(), reference="OPS-1")
    attempt(reference="OPS-1")
    assert attempt(reference="OPS-1").thread_id == first.thread_id
    assert store.record.shared


@pytest.mark.parametrize("change", [CLEARED, {"ended": "timeout"}], ids=["cleared", "timed out"])
def test_a_shared_thread_is_neither_stopped_nor_replaced(attempt, store, capy_emulator, change) -> None:
    capy_emulator.script(life="forever")
    first = attempt(store=MemoryStore(), reference="OPS-1")
    attempt(reference="OPS-1")
    if "ended" in change:
        remember(store, **change)
        change = {}
    assert attempt(reference="OPS-1", **change).thread_id == first.thread_id
    assert capy_emulator.stops(first.thread_id) == []


def test_an_archived_thread_of_the_reference_is_replaced_once_for_everybody(attempt, capy_emulator) -> None:
    first = attempt(store=MemoryStore(), reference="OPS-1")
    capy_emulator.archive(first.thread_id)
    second = attempt(store=MemoryStore(), reference="OPS-1")
    third = attempt(store=MemoryStore(), reference="OPS-1")
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert (second.generation, third.thread_id) == (1, second.thread_id)


@pytest.mark.parametrize("state", GOES_ON, ids=str)
@pytest.mark.parametrize("listed", [{}, {"runState": "ready", "status": "archived"}], ids=["as it is", "archived"])
def test_a_shared_thread_that_is_not_proven_over_is_gone_on_with(listed, state, attempt, capy_emulator) -> None:
    first = attempt(store=MemoryStore(), reference="OPS-1")
    capy_emulator.set_life(first.thread_id, phases=[{"at": 0, **state}])
    capy_emulator.fault("distort", "listThreads", patch=json.dumps(listed))
    second = attempt(store=MemoryStore(), reference="OPS-1", fail_on_task_error=True)
    assert ids(capy_emulator) == [first.thread_id] == [second.thread_id]


def test_whoever_started_it_gets_a_new_one_by_clearing(attempt, store, capy_emulator) -> None:
    first = attempt(reference="OPS-1")
    remember(store, succeeded=True)
    second = attempt(reference="OPS-1", **CLEARED)
    assert ids(capy_emulator) == [first.thread_id, second.thread_id]
    assert attempt(store=MemoryStore(), reference="OPS-1").thread_id == second.thread_id


def test_a_reference_that_cannot_be_looked_up_starts_nothing(attempt, store, capy_emulator) -> None:
    capy_emulator.fault("status", "listThreads", status=500)
    with pytest.raises(CapyServerError, match="Nothing was started: the reference 'OPS-1' has to be looked up first"):
        attempt(reference="OPS-1")
    assert (ids(capy_emulator), store.record) == ([], None)


def test_a_lost_answer_under_an_own_reference_is_adopted_by_the_next_try(attempt, capy_emulator) -> None:
    capy_emulator.fault("lost", "createAndStartThread", times=1)
    capy_emulator.fault("list_lag", "listThreads", seconds=600)
    with pytest.raises(CapyCreateUnknownError):
        attempt(reference="OPS-1")
    capy_emulator.clear_faults()
    record = attempt(reference="OPS-1")
    assert ids(capy_emulator) == [record.thread_id]
    assert not record.shared


# A search that is not exact


def test_a_lost_answer_adopts_nobody_elses_thread(attempt, store, capy_emulator) -> None:
    [stranger] = capy_emulator.create("Somebody else's", origin="api")
    capy_emulator.fault("reset", "createAndStartThread", times=1)
    capy_emulator.fault("best_match")
    for words in ["may have been started.*not exact", "not exact.*Nothing was taken.*durable=False.*'capy_thread'"]:
        with pytest.raises(CapyThreadError, match=words):
            attempt()
    assert (ids(capy_emulator), store.record.thread_id, capy_emulator.stops(stranger)) == ([stranger], None, [])


def test_an_own_reference_is_not_believed_of_a_search_that_is_not_exact(attempt, store, capy_emulator) -> None:
    [stranger] = capy_emulator.create("Somebody else's", origin="api")
    capy_emulator.fault("best_match")
    with pytest.raises(
        CapyReferenceError, match=r"not exact.*Nothing was taken, stopped or started.*leave reference= out"
    ):
        attempt(reference="TICKET-1")
    assert (ids(capy_emulator), store.record, len(capy_emulator.requests())) == ([stranger], None, 2)


# After the create nothing loses the id


class Broken:
    """Whatever it is asked to do fails."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"{name} is broken")

        return fail


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("broken", ["store", "log", "url", "all"])
def test_whatever_fails_after_the_create_the_task_knows_its_thread(
    broken, durable, attempt, client, capy_emulator, monkeypatch
) -> None:
    store, told, changes = MemoryStore(), [], {}
    if broken in {"store", "all"}:
        store = MemoryStore(
            broken=frozenset({"set"}), broken_after=1 if durable else 0, failure=RuntimeError("no JSON")
        )
    if broken in {"log", "all"}:
        changes["log"] = Broken()
    if broken in {"url", "all"}:
        monkeypatch.setattr(Hook, "thread_url", Broken().thread_url)
    record = attempt(store=store, durable=durable, announce=told.append, **changes)
    assert [record.thread_id] == ids(capy_emulator) == [told[-1].thread_id]


def test_what_ends_the_process_after_the_create_finds_the_id_told(attempt, capy_emulator) -> None:
    told = []
    store = MemoryStore(broken=frozenset({"set"}), broken_after=1, failure=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        attempt(store=store, announce=told.append)
    assert [told[-1].thread_id] == ids(capy_emulator)


@pytest.mark.parametrize("thread_id", ["jam/../1", "", "a" * 300, "\x00"])
def test_an_id_that_cannot_be_used_is_a_lost_answer(thread_id, attempt, capy_emulator) -> None:
    capy_emulator.fault("distort", "createAndStartThread", times=1, patch=json.dumps({"id": thread_id}))
    record = attempt()
    assert [record.thread_id] == ids(capy_emulator)


def test_a_create_that_is_to_wait_for_long_says_that_nothing_was_started(attempt, store, capy_emulator) -> None:
    capy_emulator.fault("status", "createAndStartThread", status=429, retry_after=1200)
    with pytest.raises(CapyRateLimitError, match=r"^Nothing was started: "):
        attempt()
    assert (ids(capy_emulator), store.record.ended) == ([], REFUSED)
    assert len(capy_emulator.requests("createAndStartThread")) <= 2


def test_a_kill_before_the_create_is_sent_sends_none(attempt, store, capy_emulator) -> None:
    def killed() -> None:
        raise AirflowFailException("cancelled")

    with pytest.raises(AirflowFailException):
        attempt(sending=killed)
    assert capy_emulator.requests() == []
    assert store.record.thread_id is None
