"""What the operators and the sensor of a thread share: hook, links, record, and the end on a kill."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_capy.exceptions import CapyError, CapyInputError, CapyRequestError, CapyThreadError
from airflow_provider_capy.killing import KILL_BUDGET, STOP_BUDGET, THREAD_KEY, ask_from_signal_handler, kill_order
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.links import PULL_REQUEST_URL_KEY, THREAD_URL_KEY
from airflow_provider_capy.templated import CheckedArguments

if TYPE_CHECKING:
    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.killing import KillOrder
    from airflow_provider_capy.remembering import RecordStore
    from airflow_provider_capy.waiting import Wait

# Long enough for any log that is not held by the very thread that waits here.
TELL_BUDGET = 0.3

THREAD_ID_KEY = "thread_id"
SHARED_KEY = "thread_is_shared"


def final(error: CapyError) -> CapyError:
    """Return an error as one that Airflow does not retry; whoever catches it by its class still does."""
    kind = type(error)
    both = type(kind.__name__, (kind, AirflowFailException), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    same: CapyError = both.__new__(both, *error.args)
    same.args, same.__cause__ = error.args, error.__cause__
    same.__dict__.update(error.__dict__)
    return same


class CapyTask(CheckedArguments):
    """Mixed into an operator that deals with one thread.

    Attributes:
        capy_conn_id: the connection's id.
        stop_on_kill: whether a cancel stops the thread.
    """

    capy_conn_id: str
    stop_on_kill: bool
    log: Any
    do_xcom_push: bool
    # What a kill needs, set as soon as it is known: a signal handler must look nothing up.
    _ti: Any = None
    _context: Any = None
    _at_stake: str | None = None
    _in_create = False
    _kill: Exception | None = None
    _order: KillOrder | None = None
    # Why a kill stopped the thread, once it has.
    _stopped_because = ""
    _handed_over = False
    # What the buttons show by now.
    _published_url = ""
    _published_pull_request = ""

    @cached_property
    def hook(self) -> CapyHook:
        """The connection's hook; nothing is looked up before it is used."""
        from airflow_provider_capy.hooks.capy import CapyHook

        return CapyHook(self.capy_conn_id)

    def _push(self, context: Any, key: str, value: Any) -> None:
        if self.do_xcom_push and value is not None:
            context["ti"].xcom_push(key=key, value=value)

    def _publish(self, context: Any, thread_id: str, url: str) -> None:
        """Push what others need to find the thread, at once, so that it is there whatever happens next."""
        self._at_stake = thread_id
        self._push(context, THREAD_ID_KEY, thread_id)
        self._published_url = url
        context["ti"].xcom_push(key=THREAD_URL_KEY, value=url)

    def _publish_seen(self, context: Any, wait: Wait) -> None:
        """Push what a look taught about the links: the project that Capy names, and the first pull request."""
        if wait.last is None:
            return
        if wait.url != self._published_url:
            self._published_url = wait.url
            context["ti"].xcom_push(key=THREAD_URL_KEY, value=wait.url)
        self._publish_pull_request(context, next((item.url for item in wait.last.pull_requests), ""))

    def _publish_pull_request(self, context: Any, url: str) -> None:
        if url and url != self._published_pull_request:
            self._published_pull_request = url
            context["ti"].xcom_push(key=PULL_REQUEST_URL_KEY, value=url)

    def _publish_end(self, context: Any, event: WaitEvent) -> None:
        """Push what the end of a wait showed, whatever the task makes of it."""
        self._push(context, THREAD_KEY, event.thread or None)
        for request in event.thread.get("pull_requests", [])[:1]:
            self._publish_pull_request(context, request["url"])

    def _store(self, context: Any) -> RecordStore[Any]:
        """The task's record, as its kind of task keeps it."""
        raise NotImplementedError

    def _remember(self, context: Any, **changes: Any) -> bool:
        """Write into the record, and say whether that worked; a failure must not hide how this try ends."""
        return self._told(self._at_stake, self._store(context).update(thread_id=self._at_stake, **changes))

    def _check_for_kill(self) -> None:
        """Raise the error of a kill that came into code of Airflow's which takes every error for its own."""
        if self._kill is not None and not self._in_create:
            raise self._kill

    def _see_kill_through(self, error: Exception) -> None:
        """Do what a kill has left to do once its error has left whatever it came into, and add that to the error.

        A signal may find the main thread inside a request to Airflow: only from here can the record be written.

        Args:
            error: what the task ends with.
        """
        # Airflow may send a second signal, which would cut this off.
        self._handed_over = True
        if self._order is not None and self._order.word_first and error is self._kill:
            self._stop_with_word(self._order, error)
        elif self._stopped_because:
            self._told(self._at_stake, self._leave_word(self._stopped_because))

    def _stop_with_word(self, order: KillOrder, kill: Exception) -> None:
        """Leave word of a stop, and stop only then."""
        self._order = None
        failure = self._leave_word(order.reason)
        reason = f"its record cannot tell of a stop ({failure})" if failure else order.reason
        fate = self._carry_out(stop=not failure, reason=reason)
        kill.args = (f"{kill.args[0]} {fate}{f' Why: {reason}.' if failure else ''}",)

    def _leave_word(self, reason: str) -> str:
        """Write into the record that a kill stops the thread, and return why that failed; empty when there is no thread."""
        if self._context is None or self._at_stake is None:
            return ""
        return self._store(self._context).leave_word(self._at_stake, f"its task was killed, {reason}")

    def _told(self, thread_id: str | None, failure: str) -> bool:
        # Without a thread there was nothing to tell.
        if failure and thread_id is not None:
            self.log.warning("The record of thread %s could not be written: %s", thread_id, failure)
        return not failure

    @property
    def _may_stop(self) -> bool:
        """Whether the thread may be stopped from here at all."""
        return self.stop_on_kill

    @property
    def _is_kept(self) -> bool:
        """Whether another try can know of the thread."""
        return self._context is not None and self._context.get("task_state_store") is not None

    def _will_retry(self, error: BaseException) -> bool:
        """Say whether Airflow tries the task again when it ends with this error, as it decides that itself."""
        if self._ti is None or self._ti.try_number > self._ti.max_tries or not getattr(self, "retries", 0):
            return False
        if isinstance(error, (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)):
            return False
        if (policy := getattr(self, "retry_policy", None)) is None:
            return True
        from airflow.sdk import RetryAction

        try:
            decision = policy.evaluate(
                exception=error, try_number=self._ti.try_number, max_tries=self._ti.max_tries, context=self._context
            )
        except Exception:  # noqa: BLE001 - Airflow then goes by the number of tries, and logs why
            return True
        return bool(decision.action != RetryAction.FAIL)

    def _goes_on_in_next_try(self, error: BaseException) -> bool:
        """Say whether a next try takes the thread over when this one ends with this error."""
        return self._will_retry(error)

    def on_kill(self) -> None:
        """Stop the thread when this task instance is over, and end the task either way.

        Airflow calls this from a signal handler, five seconds before SIGKILL, and lets ``execute`` go on after it: so
        it raises, with a class that makes Airflow retry or not retry rightly.
        """
        if isinstance(timeout := sys.exc_info()[1], AirflowTaskTimeout):
            # Airflow raises it again: it is not to end without the thread's fate.
            timeout.args = (
                ". ".join(filter(None, [*map(str, timeout.args[:1]), self._on_execution_timeout(timeout)])),
            )
            return
        if self._handed_over:
            # Airflow keeps the handler while it reports the end: the trigger, the next poke or the next task goes on.
            return
        began = time.monotonic()
        order = self._order = kill_order(
            ask_from_signal_handler(self._ti),
            tries_left=self._goes_on_in_next_try(CapyThreadError("")),
            stop_on_kill=self._may_stop,
            is_kept=self._is_kept,
        )
        message = f"Killed ({order.reason})."
        thread_id = self._at_stake or ""
        kill = CapyThreadError(message, thread_id=thread_id) if order.may_retry else AirflowFailException(message)
        self._kill = kill
        # While a create is under way, its answer, which carries the id, is worth the seconds that are left.
        if not self._in_create:
            if not order.word_first:
                # What the question left of the time is the stop's: a 429 may ask for some of it.
                self._end_by(order, kill, max(STOP_BUDGET, KILL_BUDGET - (time.monotonic() - began)))
            raise kill

    def _stop_if_killed(self) -> Exception | None:
        """Right after a create that a kill came into: stop its thread, and return what is to be raised."""
        if (kill := self._kill) is None or (order := self._order) is None:
            return None
        self._handed_over = True
        if order.word_first:
            self._stop_with_word(order, kill)
        else:
            self._end_by(order, kill, STOP_BUDGET)
        return kill

    def _end_by(self, order: KillOrder, kill: Exception, budget: float) -> None:
        """Stop the thread, or not, and add to the error which."""
        kill.args = (f"{kill.args[0]} {self._carry_out(stop=order.stop, reason=order.reason, budget=budget)}",)

    def _on_execution_timeout(self, timeout: AirflowTaskTimeout) -> str:  # noqa: ARG002 - for tasks that start threads
        """Airflow's own ``execution_timeout`` struck while the task was on a worker: say what becomes of the thread."""
        return ""

    def _carry_out(self, *, stop: bool, reason: str, budget: float = STOP_BUDGET) -> str:
        """Stop the thread, or not, and say in one line which and why."""
        thread_id = self._at_stake
        if thread_id is None:
            return "No thread is to be stopped."
        if not stop:
            self._tell("Thread %s is not stopped: %s", thread_id, reason)
            return f"Thread {thread_id} was not stopped."
        self._stopped_because = reason
        words = self._stop_within(thread_id, budget)
        self._tell("Thread %s, %s: %s", thread_id, words, reason)
        return f"Thread {thread_id}: {words}."

    def _tell(self, line: str, *details: str) -> None:
        """Log from a thread of its own: a signal may find the main thread inside a log call, whose lock is not re-entrant."""
        telling = threading.Thread(target=self.log.warning, args=(line, *details), name="capy-tell", daemon=True)
        telling.start()
        telling.join(TELL_BUDGET)

    def _stop_within(self, thread_id: str, budget: float) -> str:
        """Ask for the stop from a thread of its own: the main thread may be inside a request of the same client."""
        outcome: list[str] = []

        def stop() -> None:
            try:
                outcome.append(self._stop_once(thread_id, budget))
            except Exception as error:  # noqa: BLE001 - a handler that is about to be killed reports whatever it was
                outcome.append(f"its stop FAILED ({type(error).__name__}: {error})")

        stopping = threading.Thread(target=stop, name="capy-stop", daemon=True)
        stopping.start()
        stopping.join(budget)
        return outcome[0] if outcome else f"its stop was not answered within {budget:g} s, it may still be at work"

    def _stop_once(self, thread_id: str, budget: float) -> str:
        from dataclasses import replace

        from airflow_provider_capy.api import CapyClient
        from airflow_provider_capy.api.retry import RetryLimits
        from airflow_provider_capy.flow import run
        from airflow_provider_capy.stopping import request_stop

        settings = replace(self.hook.settings.client, connect_timeout=budget, read_timeout=budget)
        with CapyClient(settings) as client:
            limits = RetryLimits(attempts=3, total=budget, base=0.1, cap=0.2)
            return run(request_stop(thread_id, limits), client).in_words

    def _stop_for_good(self, context: Any, thread_id: str, timeout: float) -> str:
        """Stop a thread of which the record says already that it is being stopped, and say what became of it."""
        is_over, words = self._stop_confirmed(thread_id, timeout)
        if is_over:
            self._remember(context, fate=Fate.STOPPED)
        return words[0].upper() + words[1:]

    def _stop_confirmed(self, thread_id: str, timeout: float) -> tuple[bool, str]:
        """Stop a thread where there is time, and say whether it is over and what became of it."""
        from airflow_provider_capy.flow import run
        from airflow_provider_capy.stopping import stop_and_confirm

        try:
            report = run(stop_and_confirm(thread_id, until=time.time() + timeout, clock=time.time), self.hook.client)
        except (CapyRequestError, CapyInputError, AirflowNotFoundException) as error:
            return False, f"its stop FAILED, it may still be at work ({error})"
        return report.is_over, report.in_words

    def _close(self) -> None:
        # Not every exception: a kill may be raised into this, too.
        with suppress(OSError, httpx.HTTPError):
            self.hook.close()
        self._handed_over = True
