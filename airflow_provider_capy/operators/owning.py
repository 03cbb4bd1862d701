"""What a task owes to the thread that it started: its deadline, its end, and its fate when the task does not end well."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralTimeout

from airflow_provider_capy.exceptions import CapyError, CapyRequestError
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.lifecycle import Fate, Outcome, fate_after
from airflow_provider_capy.task_waits import UNSEEN, WaitingTask
from airflow_provider_capy.tasking import SHARED_KEY, THREAD_ID_KEY
from airflow_provider_capy.templated import as_seconds

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.identity import Record
    from airflow_provider_capy.remembering import RecordStore

STOP_TIMEOUT = 60.0
LEFT_UNSEEN = "It was left as it is, and costs money while it is at work"


@dataclass(frozen=True, slots=True)
class Ending:
    """What a wait that did not end well calls for.

    Attributes:
        ended: what the task remembers, so that a retry does not go on with this thread; empty when it may.
        stop: whether the thread is to be stopped.
        words: what a retry will do, for the error's end; empty when there is nothing to say.
    """

    ended: str
    stop: bool
    words: str


def ending_of(outcome: Outcome, *, thread_is_gone: bool, durable: bool, may_stop: bool, tries_left: bool) -> Ending:
    """Decide what a wait that did not end well calls for.

    Args:
        outcome: how it ended; without an end of the thread's, ``timeout`` stands for whatever calls for its stop, and
            ``poll_failed`` for whatever does not.
        thread_is_gone: whether Capy does not know the thread any more.
        durable: whether a retry goes on with the thread.
        may_stop: whether one that does not may stop it.
        tries_left: whether there will be one.
    """
    anew = "A retry starts a new thread"
    another = "stops it and starts another one" if may_stop else "starts another one only once it is at rest"
    if outcome in {Outcome.ARCHIVED, Outcome.TASK_ERROR}:
        return Ending(outcome.value, stop=False, words=anew)
    if outcome is Outcome.TIMEOUT:
        return Ending(outcome.value, stop=True, words=f"{anew} once this one is at rest")
    if outcome is Outcome.BLOCKED:
        again = "a retry looks at it again" if durable else f"a retry {another}"
        return Ending("", stop=False, words=f"It was left as it is; {again}")
    if thread_is_gone:
        return Ending("gone", stop=False, words=f"It does not exist any more. {anew}")
    if tries_left:
        again = "the next try reattaches to it" if durable else f"the next try {another}"
        return Ending("", stop=False, words=f"It was left running; {again}")
    return Ending("", stop=False, words=LEFT_UNSEEN)


class OwningTask(WaitingTask):
    """Mixed into an operator that starts a thread and may wait for it.

    Attributes:
        timeout: seconds the thread may take, or ``None``.
        durable: whether a retry goes on with the thread.
    """

    timeout: float | timedelta | str | None
    durable: bool

    _word_of_success: ClassVar[dict[str, Any]] = {"succeeded": True}

    def _take_up(self, context: Context) -> None:
        run, ti = self._run, context["ti"]
        run.is_found = True
        try:
            self._recall(context)
        except CapyKilledError:
            raise
        except CapyError as error:
            self.log.warning("Nobody knows which thread this task waited for: %s", error)
        if run.at_stake is not None:
            return
        try:
            run.at_stake, shared = (ti.xcom_pull(task_ids=ti.task_id, key=key) for key in (THREAD_ID_KEY, SHARED_KEY))
            run.is_spared = bool(shared)
        except CapyKilledError:
            raise
        except Exception as error:  # noqa: BLE001 - of any XCom backend: the trigger's event names the thread as well
            self.log.warning("Nobody knows who started the thread, so it is not to be stopped: %s", error)
            run.is_spared = True

    def _result(self, event: WaitEvent) -> str:
        return event.thread_id

    def _fate(self, context: Context, error: BaseException, event: WaitEvent | None, *, again: bool) -> str:
        thread_id = event.thread_id if event is not None else self._run.at_stake
        if event is None and error is self._run.told:
            if thread_id is not None and not again and isinstance(error, CapyRequestError):
                self._remember(context, fate=Fate.LEFT)
            return ""
        if thread_id is None:
            return "No thread is known" if self._run.is_found or isinstance(error, AirflowTaskTimeout) else ""
        outcome = event.outcome if event is not None else self._outcome_of(error, again=again)
        gone = event is not None and event.thread_is_gone
        ending = ending_of(
            outcome, thread_is_gone=gone, durable=self.durable, may_stop=self.stop_on_kill, tries_left=again
        )
        words = ending.words
        if ending.stop:
            # Whoever reads the record must not take somebody else's error for the user's time.
            is_timeout = event is not None or isinstance(error, (AirflowTaskTimeout, TaskDeferralTimeout))
            fate = self._end(context, thread_id, ending.ended if is_timeout else "unwatched", tries_left=again)
            words = ". ".join(filter(None, [fate, words]))
        else:
            held = again and not ending.ended
            fate_left = Fate.HELD if held else fate_after(outcome, gone=gone)
            is_kept = self._remember(context, ended=ending.ended, fate=fate_left)
            if held and not is_kept and not self.durable:
                # Nothing leads the next try to it, which starts another one.
                words = self._end(context, thread_id, "lost", tries_left=again)
        # Only an error of the thread's own end names it.
        return words if event is not None else f"Thread {thread_id}: {words}"

    def _outcome_of(self, error: BaseException, *, again: bool) -> Outcome:
        """Return what an error means for a thread that nobody has seen come to an end."""
        if isinstance(error, AirflowTaskTimeout):
            return Outcome.TIMEOUT
        # A next try finds out first whether the thread is ready; without one nobody would ever wait for it again.
        goes_on = (again and self.durable) or isinstance(error, UNSEEN)
        return Outcome.POLL_FAILED if goes_on else Outcome.TIMEOUT

    def _end(self, context: Context, thread_id: str, ended: str, *, tries_left: bool) -> str:
        """Stop a thread for good, and say what became of it."""
        if not self._may_stop:
            self._remember(context, ended=ended, fate=Fate.LEFT)
            why = "stop_on_kill is off" if not self.stop_on_kill else "another task started it"
            return f"It was left running, since {why}"
        # Remembered before the stop: a stopped thread reads ready, and a retry must not take that for success.
        word = {"ended": ended, "fate": Fate.STOPPING, "stopped_by": f"its task, {ended}"}
        if not self._remember(context, **word) and tries_left and self.durable:
            return "It was left running, since a retry could not be told that it was stopped"
        return self._stop_for_good(context, thread_id, STOP_TIMEOUT)

    def _goes_on_in_next_try(self, error: BaseException) -> bool:
        return self.durable and super()._goes_on_in_next_try(error)

    def _recall(self, context: Context) -> Record | None:
        """Return what earlier tries, or the part of this one before the deferral, left."""
        record = self._store(context).read() if self.durable else None
        if record is not None and not (record.ended or record.succeeded):
            self._take(record)
        return record

    def _take(self, record: Record) -> None:
        """From here on this task answers for the thread of that record, unless another one does."""
        run = self._run
        run.at_stake, run.started_at, run.is_spared = record.thread_id, record.started_at, record.shared

    @property
    def _is_kept(self) -> bool:
        return self.durable and super()._is_kept

    def _store(self, context: Context) -> RecordStore[Record]:
        from airflow_provider_capy.identity import Record
        from airflow_provider_capy.remembering import RecordStore

        return RecordStore(context.get("task_state_store"), Record)

    def _deadline(self, record: Record, timeout: float | None) -> float | None:
        """Return the deadline in epoch seconds; Airflow does not enforce ``execution_timeout`` while deferred."""
        ends = [] if timeout is None else [record.started_at + timeout]
        if self.execution_timeout is not None and self.deferrable:
            ends.append(time.time() + self.execution_timeout.total_seconds())
        return min(ends, default=None)

    def _is_execution_timeout(self) -> bool:
        if self.execution_timeout is None or not self.deferrable:
            return False
        if self.timeout is None:
            return True
        timeout = as_seconds("timeout", self.timeout)
        if (began := self._run.started_at) is not None and time.time() >= began + timeout:
            # Its own, which counts from an earlier try's create.
            return False
        return self.execution_timeout.total_seconds() < timeout
