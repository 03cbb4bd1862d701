"""The one way a thread is stopped: idempotent, bounded and, where there is time, confirmed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.api.calls import get_thread, stop_thread
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyConflictError,
    CapyConnectError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyRequestError,
    CapyServerError,
)
from airflow_provider_capy.flow import Ask, Flow, Pause
from airflow_provider_capy.lifecycle import GONE_AFTER, Memory, Outcome, Policy, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.api.retry import RetryLimits

LOOK_EVERY = 1.0
ASK_AGAIN_AFTER = 5.0
# A thread that waits for a person is at rest only once it was asked to stop: an answer would wake it up.
_REST = Policy(on_blocked="fail")
_SLOWEST_LOOK = 5.0


def look_surely(thread_id: str, *, clock: Callable[[], float]) -> Flow[Thread | None]:
    """Look at a thread, and believe that it is gone only when Capy has said so for :data:`GONE_AFTER`.

    Args:
        thread_id: the thread.
        clock: gives epoch seconds.

    Returns:
        the thread; ``None`` when it is gone.

    Raises:
        CapyRequestError: it could not be looked at.
    """
    until: float | None = None
    while True:
        try:
            thread: Thread = yield Ask(get_thread(thread_id))
            return thread
        except CapyNotFoundError:
            now = clock()
            until = now + GONE_AFTER if until is None else until
            if now >= until:
                return None
        yield Pause(min(_SLOWEST_LOOK, until - now))


class Found(str, Enum):
    """What a stop found."""

    STOPPED = "stopped"
    ALREADY_SETTLED = "already_settled"
    GONE = "gone"
    REQUESTED = "requested"
    NOT_CONFIRMED = "not_confirmed"


@dataclass(frozen=True, slots=True)
class StopReport:
    """What became of one stop.

    Attributes:
        thread_id: the thread.
        result: ``stopped`` (we asked, it came to rest), ``already_settled`` (nothing to stop), ``gone`` (404),
            ``requested`` (we asked and did not wait), ``not_confirmed`` (it was still at work when the time was over, or
            could not be looked at; ``stopped_by_us`` tells whether it was asked).
        run_state: what the last look showed; empty when there was none.
        stopped_by_us: whether our request stopped it, so that its ``ready`` is no success.
        error: why it could not be confirmed; empty otherwise.
        project_id: the thread's project, when it was looked at.
    """

    thread_id: str
    result: Found
    run_state: str = ""
    stopped_by_us: bool = False
    error: str = ""
    project_id: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the thread is surely no longer at work."""
        return self.result in {Found.STOPPED, Found.ALREADY_SETTLED, Found.GONE}

    @property
    def in_words(self) -> str:
        """The report as a clause that ends a message."""
        return {
            Found.STOPPED: "it was stopped",
            Found.ALREADY_SETTLED: f"it had nothing left to stop ({self.run_state})",
            Found.GONE: "it does not exist any more",
            Found.REQUESTED: "it was asked to stop",
            Found.NOT_CONFIRMED: (
                f"it was asked to stop, which is NOT confirmed ({self.error or self.run_state})"
                if self.stopped_by_us
                else f"it could NOT be asked to stop, and may still be at work ({self.error or self.run_state})"
            ),
        }[self.result]

    def xcom(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {**asdict(self), "result": self.result.value}


def request_stop(thread_id: str, retry: RetryLimits | None = None) -> Flow[StopReport]:
    """Ask once, without a look before or after: for handlers that have only seconds to live.

    Args:
        thread_id: the thread.
        retry: how patient the request is.

    Raises:
        CapyRequestError: when the request itself failed.
    """
    try:
        yield Ask(stop_thread(thread_id), retry)
    except CapyNotFoundError:
        return StopReport(thread_id, Found.GONE)
    except CapyConflictError:
        return StopReport(thread_id, Found.ALREADY_SETTLED, run_state="not running")
    return StopReport(thread_id, Found.REQUESTED, stopped_by_us=True)


def stop_and_confirm(
    thread_id: str,
    *,
    until: float,
    clock: Callable[[], float],
    spare_blocked: bool = False,
    ask_first: bool = False,
) -> Flow[StopReport]:
    """Stop a thread and look until it has come to rest.

    A thread that is at rest already is returned unchanged. One that cannot be looked at is asked to stop all the same:
    that does no harm, and it costs money. A failing stop request is repeated, a look that fails is looked again, and a
    thread that is still at work is asked again, until the time is over. A ``ready`` inside the start race is not
    believed: such a thread is asked to stop and looked at twice.

    Args:
        thread_id: the thread.
        until: epoch seconds at which it is given up.
        clock: gives epoch seconds.
        spare_blocked: whether a thread that waits for a person, and was not asked to stop, is returned unchanged.
        ask_first: whether it is asked before it is looked at, by whoever knows that it is to stop: a thread that was at rest
            before counts as stopped then.

    Raises:
        CapyRequestError: only what no repetition of the stop can mend (401, 403, 422).
    """
    asked_at: float | None = None
    by_us, look = False, not ask_first
    memory, state, project_id, error, pause = Memory(), "", "", "", LOOK_EVERY
    while True:
        at_least = 0.0
        try:
            if look:
                thread = yield Ask(get_thread(thread_id), NO_RETRIES)
                state, project_id, error = thread.run_state, thread.project_id, ""
                verdict = judge(thread, memory, _REST, clock())
                memory = verdict.memory
                waits_for_person = verdict.outcome is Outcome.BLOCKED and asked_at is None and not spare_blocked
                if verdict.outcome is not None and not waits_for_person:
                    result = Found.STOPPED if by_us else Found.ALREADY_SETTLED
                    return StopReport(thread_id, result, state, stopped_by_us=by_us, project_id=project_id)
        except CapyNotFoundError:
            return StopReport(thread_id, Found.GONE, stopped_by_us=by_us)
        except CapyRequestError as failure:
            # Not to see it is no reason not to stop it.
            error, at_least = str(failure), getattr(failure, "retry_after", None) or 0.0
        look = True
        if asked_at is None or (state != "ready" and clock() - asked_at >= ASK_AGAIN_AFTER):
            asked = yield from _ask_once(thread_id)
            if asked.gone:
                return StopReport(thread_id, Found.GONE, stopped_by_us=by_us)
            by_us = by_us or asked.by_us
            if asked.failure:
                error, at_least = asked.failure, asked.at_least
            else:
                asked_at = clock()
        left = until - clock()
        if pause > left:
            return StopReport(thread_id, Found.NOT_CONFIRMED, state, by_us, error, project_id)
        # As long as Capy asks for, but for one last time.
        yield Pause(max(pause, min(at_least, left - LOOK_EVERY)))
        pause = min(pause * 1.5, _SLOWEST_LOOK)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of one stop request: ``failure`` in words when it may pass, and how many seconds it asks to wait."""

    by_us: bool
    gone: bool = False
    failure: str = ""
    at_least: float = 0.0


def _ask_once(thread_id: str) -> Flow[_Asked]:
    try:
        report = yield from request_stop(thread_id, NO_RETRIES)
    except CapyRequestError as error:
        failure, at_least = _passing(error)
        # It may have been processed, and a thread that then rests does so for us.
        by_us = not isinstance(error, (CapyConnectError, CapyRateLimitError))
        return _Asked(by_us, failure=failure, at_least=at_least)
    return _Asked(report.stopped_by_us, gone=report.result is Found.GONE)


def _passing(error: CapyRequestError) -> tuple[str, float]:
    """Return a failure in words and how many seconds it asks to wait, or raise one that no repetition can mend."""
    if not isinstance(error, CapyAPIError):
        return str(error), 0.0
    if not isinstance(error, (CapyServerError, CapyRateLimitError)):
        raise error
    return str(error), error.retry_after or 0.0
