"""How a wait ended: the one event that crosses the triggerer, and what a task makes of it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_capy import exceptions
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyError,
    CapyEventError,
    CapyNotFoundError,
    CapyPollError,
    CapyRequestError,
    CapyThreadArchivedError,
    CapyThreadBlockedError,
    CapyThreadError,
    CapyThreadTaskError,
    CapyThreadTimeoutError,
)
from airflow_provider_capy.foreign_text import clean_json
from airflow_provider_capy.lifecycle import Outcome

_NAMED = 5


class PollFailure(BaseModel):
    """A request error in a form that survives the triggerer: the class's name and its attributes.

    Attributes:
        blind: for how many seconds nobody had seen the thread; ``None`` for a no of Capy's own.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    error: str
    message: str
    method: str = ""
    path: str = ""
    status_code: int = 0
    code: str = ""
    details: Any = None
    blind: float | None = None

    def exception(self) -> CapyRequestError:
        """Return the error as it was raised, of the same class."""
        kind = getattr(exceptions, self.error, CapyRequestError)
        if not (isinstance(kind, type) and issubclass(kind, CapyRequestError)):
            kind = CapyRequestError
        fields: dict[str, Any] = {"method": self.method, "path": self.path}
        if issubclass(kind, CapyAPIError):
            fields |= {"status_code": self.status_code, "code": self.code, "details": self.details}
        elif issubclass(kind, exceptions.CapyResponseError):
            fields |= {"status_code": self.status_code}
        return kind(self.message, **fields)


class Payload(dict[str, Any]):
    """A dumped event. Airflow writes the whole ``repr`` of what a trigger fires into the task's log: this one is short."""

    def __repr__(self) -> str:
        return f"{self.get('thread_id')}: {self.get('outcome')}"


class WaitEvent(BaseModel):
    """How a wait ended.

    Attributes:
        outcome: see :class:`~airflow_provider_capy.lifecycle.Outcome`.
        thread_id: the thread.
        thread_url: its web address.
        thread: the summary of the last look (see :func:`~airflow_provider_capy.lifecycle.summary`); empty without one.
        failure: why polling ended, for ``poll_failed``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Outcome
    thread_id: str
    thread_url: str = ""
    thread: dict[str, Any] = {}
    failure: PollFailure | None = None

    @classmethod
    def failed(
        cls, thread_id: str, thread_url: str, error: CapyRequestError, *, blind: float | None = None
    ) -> WaitEvent:
        """Return the event for a wait that looking could not finish; ``blind`` as in :class:`PollFailure`."""
        failure = PollFailure(
            error=type(error).__name__,
            message=str(error),
            method=error.method,
            path=error.path,
            status_code=getattr(error, "status_code", 0),
            code=getattr(error, "code", ""),
            details=getattr(error, "details", None),
            blind=blind,
        )
        return cls(outcome=Outcome.POLL_FAILED, thread_id=thread_id, thread_url=thread_url, failure=failure)

    @property
    def thread_is_gone(self) -> bool:
        """Whether Capy does not know the thread any more: its own word, which has stood for a while."""
        return self.failure is not None and self.failure.error == CapyNotFoundError.__name__

    def payload(self) -> Payload:
        """Return what a trigger fires: plain data that Airflow's database takes, and that does not spread titles over the log."""
        return Payload(clean_json(self.model_dump(mode="json")))

    @classmethod
    def read(cls, event: Any, thread_id: str) -> WaitEvent:
        """Read what the triggerer handed back; anything else than the event of this thread is an error.

        Args:
            event: the trigger event's payload.
            thread_id: the thread that the task waits for; empty when the task does not know it any more.

        Raises:
            CapyEventError: when it is missing, malformed, or of another thread: a wait never succeeds by accident.
        """
        try:
            read = cls.model_validate(event)
        except ValidationError as error:
            raise CapyEventError(
                f"The triggerer handed back an event that is not ours ({error.error_count()} faults in it), so nothing is "
                f"known about {f'thread {thread_id}' if thread_id else 'the thread of this task'}"
            ) from None
        if thread_id and read.thread_id != thread_id:
            raise CapyEventError(
                f"The triggerer handed back the event of thread {read.thread_id}, but this task waits for {thread_id}"
            )
        return read


def error_of(event: WaitEvent) -> CapyError:
    """Return the error that an event means; what became of the thread is for whoever raises it to add.

    Args:
        event: how the wait ended; a blocked one is an error here, the policy was applied before.
    """
    thread, url = event.thread, event.thread_url
    name = f"Thread {event.thread_id}"
    known = {"thread_id": event.thread_id, "thread_url": url}
    if event.outcome is Outcome.ARCHIVED:
        state = thread.get("run_state")
        stale = f" (its run state still reads {state!r})" if state not in {None, "archived"} else ""
        return CapyThreadArchivedError(f"{name} was archived{stale}, which is not a success: {url}", **known)
    if event.outcome is Outcome.BLOCKED:
        reasons = ", ".join(thread.get("blocked_on") or ["a person"])
        return CapyThreadBlockedError(f"{name} is blocked on {reasons}; a person must act: {url}", **known)
    if event.outcome is Outcome.TASK_ERROR:
        failed = [str(task.get("identifier")) for task in thread.get("tasks", []) if task.get("status") == "error"]
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        return CapyThreadTaskError(
            f"{name} is ready, but its task {', '.join(failed[:_NAMED])}{more} failed: {url}", **known
        )
    if event.outcome is Outcome.TIMEOUT:
        seen = f"last seen {thread['run_state']!r}" if thread else "never seen"
        return CapyThreadTimeoutError(f"{name} had not settled in time, {seen}: {url}", **known)
    if event.outcome is Outcome.POLL_FAILED:
        return _poll_error(event, known)
    return CapyThreadError(f"{name} ended as {event.outcome.value}, which is no failure: {url}", **known)


def _poll_error(event: WaitEvent, known: dict[str, str]) -> CapyError:
    failure = event.failure
    if failure is None:
        return CapyThreadError(f"Polling thread {event.thread_id} failed for a reason that was lost", **known)
    cause = failure.exception()
    if failure.blind is None:
        return cause
    error = CapyPollError(
        f"Thread {event.thread_id} could not be looked at for {failure.blind:.0f} s: {event.thread_url}. "
        f"Last: {failure.message}",
        **known,
    )
    error.__cause__ = cause
    return error
