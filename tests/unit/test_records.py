"""A record outlives the version that wrote it: what is old is read, what is newer is kept, what is neither is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_capy.exceptions import CapyReferenceError
from airflow_provider_capy.identity import Record
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.records import OPEN, ThreadRecord
from airflow_provider_capy.remembering import RecordStore
from tests.unit.starts import MemoryStore

# What 0.1 has left in stores, with and without a thread.
OLD = {
    "version": 1,
    "reference": "af1",
    "nonce": "n",
    "generation": 1,
    "clear_number": 0,
    "max_tries": 2,
    "retries": 2,
    "running": True,
    "project_id": "prj",
    "intended_at": 5.0,
    "sent_at": 6.0,
    "stop_on_kill": True,
    "shared": False,
    "succeeded": False,
    "ended": "",
    "thread_id": None,
    "thread_url": "",
}


def stored(record: ThreadRecord) -> Any:
    return json.loads(json.dumps(record.model_dump(mode="json")))


@pytest.mark.parametrize("kind", [ThreadRecord, Record])
@pytest.mark.parametrize("thread_id", [None, "jam_1"])
def test_an_old_record_can_be_read_and_says_nothing_of_a_fate(kind: type[ThreadRecord], thread_id: str | None) -> None:
    read = kind.read({**OLD, "thread_id": thread_id})
    assert read is not None
    assert (read.thread_id, read.reference, read.fate, read.was_stopped, read.may_stop) == (
        thread_id,
        "af1",
        None,
        False,
        True,
    )
    assert read.fate not in OPEN


@pytest.mark.parametrize("fate", Fate)
def test_a_record_survives_the_store(fate: Fate) -> None:
    record = ThreadRecord(thread_id="jam_1", fate=fate, owner="g.wait", stopped_by="somebody", reference="af1")
    assert ThreadRecord.read(stored(record)) == record


def test_whoever_only_knows_the_thread_keeps_what_its_creator_remembers() -> None:
    creators = Record(nonce="n", generation=3, intended_at=5.0, reference="af1", thread_id="jam_1", fate=Fate.HELD)
    read = ThreadRecord.read(stored(creators))
    assert read is not None
    told = Record.read(stored(read.stopping("the run was marked failed")))
    assert told == creators.model_copy(update={"fate": Fate.STOPPING, "stopped_by": "the run was marked failed"})


def test_what_a_later_version_added_is_kept() -> None:
    read = ThreadRecord.read({"thread_id": "jam_1", "colour": "blue"})
    assert read is not None
    assert stored(read.stopping("x"))["colour"] == "blue"


def test_whoever_stopped_it_first_is_named() -> None:
    assert ThreadRecord().stopping("the first").stopping("the second").stopped_by == "the first"


@pytest.mark.parametrize(
    ("stop_on_kill", "shared", "may"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_thread_may_be_stopped_by_whoever_answers_for_it(stop_on_kill: bool, shared: bool, may: bool) -> None:
    assert ThreadRecord(stop_on_kill=stop_on_kill, shared=shared).may_stop is may


def test_an_empty_store_holds_no_record() -> None:
    assert ThreadRecord.read(None) is None


@pytest.mark.parametrize(
    "garbage",
    ["jam_1", 5, ["jam_1"], {"version": 2}, {"fate": "eaten"}, {"thread_id": 7}, {"stop_on_kill": "perhaps"}],
    ids=str,
)
def test_what_cannot_be_read_is_refused_and_not_guessed(garbage: Any) -> None:
    with pytest.raises(CapyReferenceError, match=r"'capy_thread' that cannot be read.*Delete that key"):
        ThreadRecord.read(garbage)


@pytest.mark.parametrize(
    ("thread_id", "fate", "is_written", "is_told"),
    [
        ("jam_1", Fate.HELD, True, True),
        ("jam_1", Fate.LEFT, True, True),
        # Whoever wrote this saw that nothing was left to stop.
        ("jam_1", Fate.SETTLED, False, False),
        ("jam_1", Fate.STOPPED, False, True),
        # An intent whose id could not be stored.
        (None, Fate.HELD, True, True),
        # Another thread's, which this task has not taken over yet.
        ("jam_2", Fate.HELD, False, False),
        ("jam_2", Fate.STOPPED, False, False),
    ],
)
def test_word_is_left_of_the_thread_that_is_stopped(
    thread_id: str | None, fate: Fate, is_written: bool, is_told: bool
) -> None:
    memory = MemoryStore()
    store = RecordStore(memory, ThreadRecord)
    before = store.write(ThreadRecord(thread_id=thread_id, fate=fate))
    failure = store.leave_word("jam_1", "somebody")
    word = before.stopping("somebody").model_copy(update={"thread_id": "jam_1"})
    assert (failure == "", store.read()) == (is_told, word if is_written else before)


@pytest.mark.parametrize("word", [Fate.STOPPING, Fate.STOPPED])
@pytest.mark.parametrize("fate", Fate)
def test_a_word_of_a_stop_is_not_taken_back(fate: Fate, word: Fate) -> None:
    store = RecordStore(MemoryStore(), ThreadRecord)
    store.write(ThreadRecord(thread_id="jam_1", fate=word))
    assert store.update(fate=fate, stopped_by="somebody") == ""
    after = store.read()
    assert after is not None
    assert (after.fate, after.stopped_by) == (fate if fate in {Fate.STOPPING, Fate.STOPPED} else word, "somebody")


@pytest.mark.parametrize(("memory", "is_told"), [(MemoryStore(), False), (None, True)])
def test_where_there_is_no_record_no_word_is_left(memory: MemoryStore | None, is_told: bool) -> None:
    assert (RecordStore(memory, ThreadRecord).leave_word("jam_1", "somebody") == "") is is_told
