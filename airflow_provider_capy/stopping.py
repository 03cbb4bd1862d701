"""The one way a thread is stopped: idempotent, bounded and, where there is time, confirmed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.api.calls import get_thread, stop_thread
from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.exceptions import (
    CapyConflictError,
    CapyNoAnswerError,
    CapyNotFoundError,
    CapyRequestError,
    CapyResponseError,
    CapyServerError,
)
from airflow_provider_capy.flow import Ask, Flow, Pause
from airflow_provider_capy.lifecycle import SECOND_LOOK_SECONDS, Denial, Memory, Outcome, Policy, judge
from airflow_provider_capy.waiting import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.retry import RetryLimits

LOOK_EVERY = 1.0
ASK_AGAIN_AFTER = 5.0
# A wait looks twice at a blocked thread, since that may pass; it is asked to stop at the first look.
_REST = Policy(on_blocked="fail", second_look=0.0)
_SLOWEST_LOOK = 5.0


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
        result: ``stopped`` (we asked, it came to rest), ``already_settled`` (nothing to stop), ``gone`` (Capy's own 404,
            which has stood for a while), ``requested`` (we asked and did not wait), ``not_confirmed`` (it was still at work
            when the time was over, or could not be looked at; ``stopped_by_us`` tells whether it was asked).
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
        CapyRequestError: when the request itself failed; also a 404, which one answer does not prove.
    """
    try:
        yield Ask(stop_thread(thread_id), retry)
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
    confirm: bool = True,
) -> Flow[StopReport]:
    """Stop a thread and look until it has come to rest.

    A thread that is at rest already is returned unchanged. One that cannot be looked at is asked to stop all the same:
    that does no harm, and it costs money. A failing stop request is repeated, a look that fails is looked again, and a
    thread that is still at work is asked again, until the time is over. A no of Capy's own (404, 401, 403) is believed
    once it has stood for a while. A ``ready`` that a wait would not believe, as inside the start race, is not believed here
    either: such a thread is asked to stop, which does no harm. Once that was taken, it has to stand for
    ``SECOND_LOOK_SECONDS`` more.

    Args:
        thread_id: the thread.
        until: epoch seconds at which it is given up.
        clock: gives epoch seconds.
        spare_blocked: whether a thread that waits for a person, and was not asked to stop, is returned unchanged.
        ask_first: whether it is asked before it is looked at, by whoever knows that it is to stop: a thread that was at rest
            before counts as stopped then.
        confirm: whether to look on once it was asked.
    """
    stop = _Stop(thread_id, clock, spare_blocked=spare_blocked, confirm=confirm)
    look, pause = not ask_first, LOOK_EVERY
    while True:
        stop.at_least = 0.0
        report = (yield from stop.look()) if look else None
        if report is None and stop.is_due:
            report = yield from stop.ask()
        look = confirm
        left = until - clock()
        if report is None and (stop.is_denied or pause > left):
            report = stop.given_up()
        if report is not None:
            return report
        # As long as Capy asks for, but for one last time.
        yield Pause(max(pause, min(stop.at_least, left - LOOK_EVERY)))
        pause = min(pause * 1.5, _SLOWEST_LOOK)


class _Stop:
    """What is known of a thread while it is being stopped; see :func:`stop_and_confirm`.

    Attributes:
        at_least: seconds that the last failure asks to wait.
    """

    def __init__(self, thread_id: str, clock: Callable[[], float], *, spare_blocked: bool, confirm: bool) -> None:
        self.at_least = 0.0
        # Apart, since a thread that may be looked at may still not be stopped, and the other way round.
        self._no_look, self._no_stop = Denial(), Denial()
        self._thread_id = thread_id
        self._clock = clock
        self._spare_blocked = spare_blocked
        self._confirm = confirm
        self._asked_at: float | None = None
        # A request without an answer may have stopped it; only one that was taken surely has.
        self._by_us = self._is_taken = False
        self._memory, self._has_moved = Memory(), False
        self._state = self._project_id = self._error = ""

    @property
    def is_due(self) -> bool:
        """Whether it is to be asked to stop, for the first time or again."""
        if self._asked_at is None:
            return True
        return self._state != "ready" and self._clock() - self._asked_at >= ASK_AGAIN_AFTER

    @property
    def is_denied(self) -> bool:
        """Whether a no of Capy's has stood: to the stops, or to the looks at a thread that was asked to stop."""
        return self._no_stop.stands or (self._asked_at is not None and self._no_look.stands)

    def look(self) -> Flow[StopReport | None]:
        """Look whether it is at rest; a report when it is."""
        try:
            thread = yield Ask(get_thread(self._thread_id), NO_RETRIES)
        except CapyRequestError as failure:
            # Not to see it is no reason not to stop it.
            self._failed(failure, self._no_look)
            return None
        self._no_look.refuted()
        self._state, self._project_id, self._error = thread.run_state, thread.project_id, ""
        verdict = judge(thread, self._memory, _REST, self._clock())
        self._memory = verdict.memory
        self._has_moved |= thread.run_state != "ready"
        # A thread that waits for a person is at rest only once it was asked to stop: an answer would wake it up.
        waits_for_person = verdict.outcome is Outcome.BLOCKED and self._asked_at is None and not self._spare_blocked
        if waits_for_person or (verdict.outcome is None and not self._rests_since_it_was_asked):
            return None
        return self._report(Found.STOPPED if self._by_us else Found.ALREADY_SETTLED)

    @property
    def _rests_since_it_was_asked(self) -> bool:
        """Whether a ready without a trace of work is proven by a stop that was taken."""
        if not self._is_taken or self._asked_at is None or self._memory.resting != "ready":
            return False
        # One that was seen queued has left the start race behind by the time that it rests.
        return self._has_moved or self._clock() - max(self._asked_at, self._memory.since) >= SECOND_LOOK_SECONDS

    def ask(self) -> Flow[StopReport | None]:
        """Ask it to stop; a report when nobody is to look on."""
        try:
            report = yield from request_stop(self._thread_id, NO_RETRIES)
        except CapyRequestError as failure:
            self._failed(failure, self._no_stop)
            # It may have been processed, and a thread that then rests does so for us.
            self._by_us |= isinstance(failure, (CapyNoAnswerError, CapyResponseError, CapyServerError))
            return None
        # Whoever takes a stop knows the thread.
        self._no_stop.refuted()
        self._no_look.refuted()
        self._asked_at = self._clock()
        self._is_taken |= report.stopped_by_us
        self._by_us |= report.stopped_by_us
        return None if self._confirm else report

    def given_up(self) -> StopReport:
        """Return the report when the time is over, or Capy's no has stood."""
        # What was seen is there, whatever its stop was answered.
        gone = self._no_stop.stands and self._no_stop.said == CapyNotFoundError.__name__ and not self._state
        return self._report(Found.GONE if gone else Found.NOT_CONFIRMED)

    def _failed(self, failure: CapyRequestError, denial: Denial) -> None:
        if is_passing(failure):
            denial.refuted()
        else:
            denial.heard(failure, self._clock())
        self._error, self.at_least = str(failure), getattr(failure, "retry_after", None) or 0.0

    def _report(self, result: Found) -> StopReport:
        error = self._error if result is Found.NOT_CONFIRMED else ""
        return StopReport(self._thread_id, result, self._state, self._by_us, error, self._project_id)
