"""Goes on with a thread that is there already, whoever remembers it, or brings it to rest before another replaces it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.creating import PATIENCE, Patience, find_shared, look_up, outcome_unknown
from airflow_provider_capy.exceptions import CapyRequestError, CapyStopUnconfirmedError, with_words
from airflow_provider_capy.flow import run
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.lifecycle import Fate, Memory, Outcome, Policy, judge
from airflow_provider_capy.looking import look_for_work, look_surely
from airflow_provider_capy.stopping import stop_and_confirm
from airflow_provider_capy.waiting import describe, is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.api.models import CreatedThread, Thread
    from airflow_provider_capy.flow import Flow, R
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.identity import Record, TaskIdentity
    from airflow_provider_capy.remembering import RecordStore

REPLACE_STOP_SECONDS = 60.0
# The ends that a retry does not go on from.
_BAD_ENDS = {Outcome.ARCHIVED: "was archived", Outcome.TASK_ERROR: "ended with a failed task"}


@dataclass
class ThreadOfTask:
    """A task, and what it takes to find the thread that is its own.

    Attributes:
        hook: the connection.
        store: what earlier tries left.
        task: who we are.
        clear_number: how often the run has been cleared.
        project_id: where the thread is to be.
        fields: the other fields of ``CreateThreadBody``, ``prompt`` among them.
        durable: whether to remember and to put the reference into the prompt.
        reference: a reference of the user's own, which deduplicates across runs.
        fail_on_task_error: whether a ready thread with a failed task has ended badly.
        stop_on_kill: whether a thread may be stopped that is to be replaced.
        log: the task's logger.
        max_tries: of the task instance, see :class:`~airflow_provider_capy.identity.Attempt`.
        retries: of the task, see there.
        try_number: of the task instance, see there.
        owner: id of the task that answers for the thread from its create on; empty: the task itself.
        announce: called with the intent before it is written, and with its thread's id as soon as that is known.
        sending: called right before the create is sent.
        patience: how long lookups go on.
        clock: gives epoch seconds.
        sleep: called with the seconds of each pause.
    """

    hook: CapyHook
    store: RecordStore[Record]
    task: TaskIdentity
    clear_number: int
    project_id: str
    fields: dict[str, Any]
    durable: bool
    reference: str | None
    fail_on_task_error: bool
    stop_on_kill: bool
    log: Any
    max_tries: int | None = None
    retries: int | None = None
    try_number: int = 1
    owner: str = ""
    announce: Callable[[Record], None] = lambda _: None
    sending: Callable[[], None] = lambda: None
    patience: Patience = PATIENCE
    clock: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def _reattach(self, record: Record) -> Record | None:
        """Return the record when its thread still counts."""
        thread_id = record.thread_id or ""
        try:
            thread = self._run(look_surely(thread_id, clock=self.clock))
        except CapyRequestError as error:
            if is_passing(error):
                # Whoever waits for it looks again for as long as it takes.
                self.log.warning("Thread %s of an earlier try is gone on with unseen: %s", thread_id, error)
                return self._taken_over(record)
            raise with_words(
                error, f"{error}. Thread {thread_id} of an earlier try was left as it is; a retry goes on with it"
            ) from error.__cause__
        if thread is None:
            self.log.warning("Thread %s of an earlier try does not exist any more; a new one is started", thread_id)
            return None
        if (outcome := self._bad_end(thread)) is not None:
            why = _BAD_ENDS[outcome]
            self.log.warning("Thread %s of an earlier try %s; a new one is started", thread_id, why)
            return None
        self.log.info(
            "Reattached to thread %s of an earlier try, %s: %s", thread_id, thread.run_state, record.thread_url
        )
        return self._taken_over(record)

    def _taken_over(self, record: Record) -> Record:
        now = record.model_copy(update=self._now)
        return now if now == record else self._store(now)

    @property
    def _now(self) -> dict[str, Any]:
        """What the record of a thread says while this try goes on with it."""
        return {
            "clear_number": self.clear_number,
            "max_tries": self.max_tries,
            "retries": self.retries,
            "capy_conn_id": self.hook.capy_conn_id,
            "stop_on_kill": self.stop_on_kill,
            "owner": self.owner,
            "fate": Fate.HELD,
        }

    def _bad_end(self, thread: Thread) -> Outcome | None:
        """Return how a thread has ended, when a try must not go on with it; ``None`` while that is not proven."""
        policy = Policy(fail_on_task_error=self.fail_on_task_error)
        outcome = judge(thread, Memory(), policy, self.clock()).outcome
        return outcome if outcome in _BAD_ENDS else None

    def _counts(self, found: Thread) -> Flow[bool]:
        """Say whether a thread that a search has shown may be gone on with."""
        if self._bad_end(found) is None:
            return True
        # A list may lag behind: what it shows to be over is looked at itself, as by a wait.
        thread = yield from look_surely(found.id, clock=self.clock)
        return thread is not None and self._bad_end(thread) is None

    def _adopt(self, record: Record) -> Record | None:
        """Return the record with the thread that an earlier try may have started, if it did."""
        lag = self.patience.index_lag
        self.log.info("An earlier try may have started a thread; looking for the reference %s", record.reference)
        try:
            found = self._run(
                look_up(
                    record.reference,
                    project_id=record.project_id,
                    until=max(self.clock(), record.intended_at + lag) + lag,
                    clock=self.clock,
                    patience=self.patience,
                )
            )
        except CapyRequestError as error:
            raise outcome_unknown(record.reference, f"{error}. This try started nothing") from error
        return None if found is None else self._keep(record, found, "of an earlier try was found by its reference")

    def _find_shared(self, reference: str, generation: int) -> tuple[Thread | None, int]:
        flow = find_shared(
            reference,
            generation,
            project_id=self.project_id,
            counts=self._counts,
            clock=self.clock,
            patience=self.patience,
        )
        try:
            return self._run(flow)
        except CapyRequestError as error:
            raise with_words(
                error, f"{error}. Nothing was started: the reference {reference!r} has to be looked up first"
            ) from error.__cause__

    def _stop_old(self, record: Record) -> None:
        """Bring the thread that a new one is to replace to rest."""
        if record.thread_id is None and (found := self._adopt(record)) is not None:
            record = found
        if (thread_id := record.thread_id) is None:
            return
        unwanted = "was cleared" if self.durable else "durable=False does not go on with"
        why = record.ended or ("was stopped" if record.was_stopped else unwanted)
        what = f"thread {thread_id} of an earlier try, which {why},"
        if not self.stop_on_kill:
            self._leave_old(record, thread_id, what)
            return
        until = self.clock() + REPLACE_STOP_SECONDS
        report = self._run(stop_and_confirm(thread_id, until=until, clock=self.clock))
        self.log.info("Replacing %s: %s", what, report.in_words)
        if not report.is_over:
            raise CapyStopUnconfirmedError(
                f"Replacing {what} failed: {report.in_words}. No second one was started; a retry stops it again first",
                thread_id=thread_id,
                thread_url=record.thread_url,
            )

    def _leave_old(self, record: Record, thread_id: str, what: str) -> None:
        """See that a thread that may not be stopped is at rest: two agents are not to work beside each other."""
        try:
            thread = self._run(look_for_work(thread_id, clock=self.clock))
        except CapyRequestError as error:
            raise with_words(
                error, f"{error}. Replacing {what} failed: nobody knows whether it is at rest; nothing was started"
            ) from error.__cause__
        if thread is not None:
            raise CapyStopUnconfirmedError(
                f"Replacing {what} failed: it is {describe(thread)} and stop_on_kill is off. No second one was started; "
                "stop it or let it finish, then retry",
                thread_id=thread_id,
                thread_url=record.thread_url,
            )

    def _keep(self, record: Record, thread: CreatedThread | Thread, how: str) -> Record:
        """Return the record with its thread; whatever fails from here on, the task knows the id."""
        known = record.model_copy(update={"thread_id": thread.id})
        self.announce(known)
        with _no_matter():
            url = self.hook.thread_url(thread.id, record.project_id)
            known = known.model_copy(update={"thread_url": url})
            self.log.info("Thread %s %s: %s", thread.id, how, url)
        return self._store(known)

    def _store(self, record: Record) -> Record:
        try:
            return self.store.write(record)
        except CapyKilledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a store's backend raises
            # The thread is there, and what is stored already leads a retry to it.
            how = f"a retry finds it by its reference {record.reference}" if record.reference else "no retry knows it"
            with _no_matter():
                cause = error.__cause__ or error
                self.log.warning(
                    "What is known of thread %s could not be stored (%s); %s", record.thread_id, cause, how
                )
            return record

    def _run(self, flow: Flow[R]) -> R:
        return run(flow, self.hook, self.sleep)


@contextmanager
def _no_matter() -> Iterator[None]:
    """Go on whatever fails, but for a kill: neither an address nor a line in the log is worth a thread."""
    try:
        yield
    except CapyKilledError:
        raise
    except Exception:  # noqa: BLE001, S110 - see above
        pass
