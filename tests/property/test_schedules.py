"""No schedule of crashes, faults, retries and clears makes a second thread or loses the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_capy.creating import PATIENCE
from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.identity import REFUSED, Action, Attempt, Record, decide
from airflow_provider_capy.lifecycle import Fate
from tests.property.model import Capy, Crash, Store
from tests.unit.starts import start

if TYPE_CHECKING:
    from airflow_provider_capy.identity import Decision

# The decision alone

records = st.builds(
    Record,
    reference=st.just("af1"),
    nonce=st.just("n"),
    generation=st.integers(0, 5),
    clear_number=st.integers(0, 3),
    max_tries=st.none() | st.integers(0, 5),
    fate=st.none() | st.sampled_from(Fate),
    project_id=st.just("prj"),
    intended_at=st.just(1.0),
    thread_id=st.none() | st.just("jam_1"),
    shared=st.booleans(),
    succeeded=st.booleans(),
    ended=st.sampled_from(["", REFUSED, "archived", "task_error", "timeout", "execution_timeout"]),
)
attempts = st.builds(Attempt, clear_number=st.integers(0, 3), max_tries=st.none() | st.integers(0, 5))


def started_nothing(record: Record) -> bool:
    return record.ended == REFUSED or record.shared


@given(records, attempts)
def test_a_thread_that_may_be_at_work_is_never_left_behind(record: Record, attempt: Attempt) -> None:
    decision = decide(record, attempt)
    if decision.action is Action.CREATE:
        assert started_nothing(record) or (record.succeeded and not record.ended and not record.was_stopped)


@given(records, attempts)
def test_a_reference_is_used_again_only_when_nothing_of_ours_carries_it(record: Record, attempt: Attempt) -> None:
    decision: Decision = decide(record, attempt)
    if decision.generation == record.generation:
        assert started_nothing(record) or (record.thread_id is None and decision.action is Action.LOOK_UP)
    else:
        assert decision.generation == record.generation + 1


@given(records, attempts)
def test_without_a_clear_only_a_bad_end_makes_a_new_thread(record: Record, attempt: Attempt) -> None:
    if attempt.clear_number == record.clear_number and not record.ended and not record.was_stopped:
        assert decide(record, attempt).action in {Action.REATTACH, Action.LOOK_UP}


# The whole of it


@dataclass(frozen=True)
class Try:
    """What happens during one try, and between it and the next.

    Attributes:
        before: since the last try: ``retry``, ``clear`` (of this task), or ``neighbour`` (another task was cleared).
        dies: where the process dies on its way to the thread.
        create: what befalls the create.
        lists: what befalls the lookups, in order.
        gets: what befalls the looks at the thread.
        lag: seconds that lists lag behind.
        broken_from: from which write on the store fails.
        deaf: another try has replaced this one, which knows nothing of it.
        goes: how the task fares once it has its thread.
    """

    before: str
    dies: str
    create: str
    lists: list[str]
    gets: list[str]
    lag: float
    broken_from: int | None
    deaf: bool
    goes: str


tries = st.builds(
    Try,
    before=st.sampled_from(["retry", "retry", "retry", "clear", "neighbour"]),
    dies=st.sampled_from(
        ["", "", "", "before_intent", "after_intent", "before_post", "after_post", "before_id", "after_id"]
    ),
    create=st.sampled_from(["", "", "lost", "error_after", "dropped", "error", "refused", "down"]),
    lists=st.lists(st.sampled_from(["", "error", "down"]), max_size=3),
    gets=st.lists(st.sampled_from(["", "error"]), max_size=2),
    lag=st.floats(0.0, PATIENCE.index_lag - 5.0),
    broken_from=st.none() | st.integers(0, 3),
    deaf=st.sampled_from([False, False, False, False, True]),
    goes=st.sampled_from(["dies", "dies", "archived", "timeout", "timeout_unstopped", "cancelled", "succeeds"]),
)


class Task:
    """A task in an Airflow that keeps what Airflow keeps: the run's clears and the task's tries."""

    def __init__(self) -> None:
        self.capy, self.store = Capy(), Store()
        self.clear_number, self.max_tries = 0, 2
        self.problems: list[str] = []

    def play(self, plan: Try) -> None:
        self._between(plan.before)
        self.capy.lag, self.capy.die_at = plan.lag, plan.dies
        self.capy.faults = {
            "createAndStartThread": [plan.create],
            "listThreads": list(plan.lists),
            "getThread": list(plan.gets),
        }
        self.store.die_at, self.store.broken_from, self.store.writes = plan.dies, plan.broken_from, 0
        self.store.deaf = plan.deaf
        before = len(self.capy.threads)
        try:
            record = self.start().get()
        except Crash:
            return self.check()
        except CapyError as error:
            self._failed_openly(error, before)
            return self.check()
        thread = self.capy.known(record.thread_id or "")
        assert not thread.stopped, "a stopped thread was taken"
        assert thread.status != "archived"
        self.check()
        self._fare(plan.goes, thread)
        return self.check()

    def start(self) -> Any:
        return start(
            self.capy,
            self.store,  # type: ignore[arg-type]
            patience=PATIENCE,
            clock=lambda: self.capy.now,
            sleep=self.capy.sleep,
            clear_number=self.clear_number,
            max_tries=self.max_tries,
        )

    def _between(self, before: str) -> None:
        self.capy.now += 5.0
        if before != "retry":
            self.clear_number += 1
        if before == "clear":
            self.max_tries += 1

    def _failed_openly(self, error: CapyError, before: int) -> None:
        """Whoever failed and may have paid has to say what for."""
        unfinished = [thread for thread in self.capy.threads if not thread.at_rest]
        assert all(thread.id in str(error) or thread.reference in str(error) for thread in unfinished[before:])
        assert len(self.capy.threads) <= before + 1

    def _fare(self, goes: str, thread: Any) -> None:
        store = self.start().store
        self.store.die_at, self.store.broken_from, self.store.deaf = "", None, False
        if goes == "archived":
            thread.status = "archived"
            store.update(thread_id=thread.id, ended="archived")
        elif goes.startswith("timeout"):
            store.update(thread_id=thread.id, ended="timeout")
            if goes == "timeout":
                thread.run_state, thread.stopped = "ready", True
        elif goes == "succeeds":
            thread.run_state = "ready"
            store.update(thread_id=thread.id, succeeded=True)
        elif goes == "cancelled":
            # Whoever ends the run leaves word, and stops it; the record of the create may be all that it has found.
            store.update(thread_id=thread.id, fate=Fate.STOPPING, stopped_by="the run was marked failed")
            thread.run_state, thread.stopped = "ready", True

    def check(self) -> None:
        threads, record = self.capy.threads, self.store.record
        references = [thread.reference for thread in threads]
        assert len(set(references)) == len(references), "two threads carry one reference: a create was sent blindly"
        at_work = [thread for thread in threads if not thread.at_rest]
        assert len(at_work) <= 1, "two threads are at work"
        for thread in at_work:
            assert record is not None
            assert thread.id == record.thread_id or thread.reference == record.reference, "a thread is lost"


@settings(max_examples=400, deadline=None)
@given(st.lists(tries, min_size=1, max_size=6))
def test_one_thread_at_a_time_and_none_lost(schedule: list[Try]) -> None:
    task = Task()
    for plan in schedule:
        task.play(plan)


@settings(max_examples=150, deadline=None)
@given(st.lists(tries.map(lambda plan: Try(**{**vars(plan), "before": "retry", "goes": "dies"})), max_size=6))
def test_crashes_and_faults_alone_never_make_a_second_thread(schedule: list[Try]) -> None:
    task = Task()
    for plan in schedule:
        task.play(plan)
    task.play(Try("retry", "", "", [], [], 0.0, None, False, "succeeds"))
    assert [thread.run_state for thread in task.capy.threads] == ["ready"]
