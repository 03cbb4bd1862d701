"""Keeps what a task must know on its next try in Airflow's task state store, and tells which failures of it matter."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from airflow_provider_capy.exceptions import CapyError, CapyStoreError
from airflow_provider_capy.killing import LATE_ANSWERS, CapyKilledError
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.records import STORE_KEY, ThreadRecord

R = TypeVar("R", bound=ThreadRecord)


class RecordStore(Generic[R]):
    """The task's record in Airflow's task state store; remembers nothing when there is no store.

    Args:
        accessor: ``context["task_state_store"]``, or ``None``.
        kind: the class of the record.
    """

    def __init__(self, accessor: Any, kind: type[R]) -> None:
        self._accessor = accessor
        self._kind = kind

    def read(self) -> R | None:
        """Return the record that earlier tries left.

        Raises:
            CapyReferenceError: it cannot be read.
            CapyError: the store cannot be asked.
        """
        if self._accessor is None:
            return None
        try:
            stored = self._accessor.get(STORE_KEY)
        except CapyKilledError:
            raise
        except Exception as error:
            raise CapyStoreError(
                f"Airflow's task state store cannot be read ({_cause(error)}), so nobody knows what an earlier try "
                "left; nothing was started"
            ) from error
        return self._kind.read(stored)

    def write(self, record: R) -> R:
        """Keep the record, and return it.

        It lives as long as the run and does not expire with the store's retention: a task that is retried or cleared
        after that would start a second thread.

        Raises:
            CapyError: the store cannot be written.
        """
        if self._accessor is None:
            return record
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        try:
            self._accessor.set(STORE_KEY, record.model_dump(mode="json"), retention=NEVER_EXPIRE)
        except CapyKilledError:
            raise
        except Exception as error:
            raise CapyStoreError(
                f"Airflow's task state store cannot be written ({_cause(error)}), so a thread could be lost; "
                "nothing was started"
            ) from error
        return record

    def write_surely(self, record: R) -> R:
        """Keep the record, read it back, and return it: only then may a thread be started.

        A worker that Airflow has given up may still be running beside the next try. It cannot write any more, but a
        signal that came into one of its earlier requests can make it take another answer for "written".

        Raises:
            CapyError: the store cannot be written, or does not hold what was written.
        """
        self.write(record)
        if self._accessor is not None and self.read() != record:
            raise CapyStoreError(
                "Airflow's task state store does not hold what this try has just written, so another try may have taken "
                "over; nothing was started. A retry goes on with whatever there is"
            )
        return record

    def update(self, *, thread_id: str | None = None, **changes: Any) -> str:
        """Change the record, where a failure must not hide how the task ended.

        Args:
            thread_id: the thread, in case that its id could not be stored when it was created.
            **changes: other fields of the record. A word that the thread was stopped is not taken back.

        Returns:
            why it could not be written; empty when it was, or when nothing is ever remembered.
        """
        try:
            if (record := self._found()) is None:
                return self._missing
            if record.was_stopped and changes.get("fate") not in {Fate.STOPPING, Fate.STOPPED}:
                changes.pop("fate", None)
            self.write(record.model_copy(update={**changes, "thread_id": record.thread_id or thread_id}))
        except CapyKilledError:
            raise
        except CapyError as error:
            return _cause(error.__cause__ or error)
        return ""

    def leave_word(self, thread_id: str, by: str) -> str:
        """Write that the thread is asked to stop, unless somebody else has written that already, and see that it is written.

        Args:
            thread_id: the thread.
            by: who stops it and why.

        Returns:
            why it could not be written; empty when it was. A try whose task instance was cleared finds no record any more.
        """
        try:
            if (record := self._found()) is None:
                return self._missing
            if record.thread_id not in {None, thread_id} or record.fate is Fate.SETTLED:
                return "it tells of another thread, or of this one's own end"
            if not record.was_stopped:
                word = record.stopping(by).model_copy(update={"thread_id": thread_id})
                self.write(word)
                if self._found(word) is None:
                    return "it does not hold what was written"
        except CapyKilledError:
            raise
        except CapyError as error:
            return _cause(error.__cause__ or error)
        return ""

    def _found(self, wanted: R | None = None) -> R | None:
        """Return the record, or the one that is wanted, also where a signal came into a request to Airflow.

        The answer to that request is still to come, and is taken for the next one's, and so on: each answer is one late.
        """
        for _ in range(LATE_ANSWERS if self._accessor is not None else 0):
            record = self.read()
            if record is not None and (wanted is None or record == wanted):
                return record
        return None

    @property
    def _missing(self) -> str:
        return "there is none" if self._accessor is not None else ""


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
