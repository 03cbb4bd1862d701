"""What the operators and the sensor of a thread share: hook, links, record, and the end on a kill."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_capy.exceptions import CapyLookUpError, with_words
from airflow_provider_capy.killing import (
    KILL_BUDGET,
    LATE_ANSWERS,
    STOP_BUDGET,
    THREAD_KEY,
    CapyKilledError,
    ask_from_signal_handler,
    kill_order,
)
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.links import PULL_REQUEST_URL_KEY, THREAD_URL_KEY, push_link
from airflow_provider_capy.templated import CheckedArguments

if TYPE_CHECKING:
    from airflow.sdk import RetryAction
    from typing_extensions import Self

    from airflow_provider_capy.api import CapyClient
    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.exceptions import CapyError
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
    same.args, same.__cause__, same.__traceback__ = error.args, error.__cause__, error.__traceback__
    same.__dict__.update(error.__dict__)
    return same


def rule_for(task: Any, context: Any, error: BaseException) -> RetryAction | None:
    """Return what a task's own ``retry_policy`` says about an error."""
    if (policy := getattr(task, "retry_policy", None)) is None:
        return None
    ti = context["ti"]
    try:
        decision = policy.evaluate(exception=error, try_number=ti.try_number, max_tries=ti.max_tries, context=context)
    except Exception:  # noqa: BLE001 - Airflow then goes by the number of tries, and logs why
        return None
    action: RetryAction = decision.action
    return action


def helpless(task: Any, context: Any, error: CapyError) -> CapyError:
    """Return an error that a next try is sure to end with as well: one that is not retried, unless a rule of the user's says so."""
    rule = rule_for(task, context, error)
    return error if rule is not None and rule.value == "retry" else final(error)


@dataclass(slots=True)
class Run:
    """What one execution of a task knows; a signal handler reads it, which must look nothing up and take no lock.

    Attributes:
        ti: the task instance.
        context: of the task.
        hook: the connection's.
        at_stake: the thread that this task answers for, as soon as it is known, until it has come to its end.
        is_found: whether it is settled which thread that is.
        is_spared: whether another task started it.
        started_at: epoch seconds from which the task's own timeout counts.
        event: the end of the thread's wait that the task fails for.
        told: the error that says already what became of the thread.
        in_create: whether the create is under way.
        kill: the error of a kill.
        order: what that kill has left to do.
        stopped_because: why a kill stopped the thread, once it has.
        handed_over: whether a kill has nothing to do any more.
        url: what the thread's button shows by now.
        pull_request: what the pull request's does.
    """

    ti: Any = None
    context: Any = None
    hook: CapyHook | None = None
    at_stake: str | None = None
    is_found: bool = False
    is_spared: bool = False
    started_at: float | None = None
    event: WaitEvent | None = None
    told: BaseException | None = None
    in_create: bool = False
    kill: CapyError | None = None
    order: KillOrder | None = None
    stopped_because: str = ""
    handed_over: bool = False
    url: str = ""
    pull_request: str = ""


class CapyTask(CheckedArguments):
    """Mixed into an operator that deals with one thread.

    Attributes:
        capy_conn_id: the connection's id.
        stop_on_kill: whether a cancel stops the thread.
    """

    # Not in the operator's __dict__: that is copied with it, pickled, and read by listeners, which take all it holds for plain.
    __slots__ = ("_run",)

    capy_conn_id: str
    stop_on_kill: bool
    log: Any
    do_xcom_push: bool
    _run: Run

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make a task that has not run yet; so is every copy."""
        task = super().__new__(cls)
        object.__setattr__(task, "_run", Run())
        return task

    @property
    def hook(self) -> CapyHook:
        """The connection's hook; nothing is looked up before it is used."""
        if self._run.hook is None:
            from airflow_provider_capy.hooks.capy import CapyHook

            self._run.hook = CapyHook(self.capy_conn_id)
        return self._run.hook

    def _push(self, context: Any, key: str, value: Any) -> None:
        if self.do_xcom_push and value is not None:
            context["ti"].xcom_push(key=key, value=value)

    def _publish(self, context: Any, thread_id: str, url: str) -> None:
        """Push what others need to find the thread, at once, so that it is there whatever happens next."""
        self._run.at_stake = thread_id
        self._publish_url(context, url)
        self._push(context, THREAD_ID_KEY, thread_id)

    def _publish_url(self, context: Any, url: str) -> None:
        if url != self._run.url:
            self._run.url = url
            push_link(context["ti"], THREAD_URL_KEY, url, self.log)

    def _publish_seen(self, context: Any, wait: Wait) -> None:
        """Push what a look taught about the links: the project that Capy names, and the first pull request."""
        if wait.last is None:
            return
        self._publish_url(context, wait.url)
        self._publish_pull_request(context, next((item.url for item in wait.last.pull_requests), ""))

    def _publish_pull_request(self, context: Any, url: str) -> None:
        if url and url != self._run.pull_request:
            self._run.pull_request = url
            push_link(context["ti"], PULL_REQUEST_URL_KEY, url, self.log)

    def _publish_end(self, context: Any, event: WaitEvent) -> None:
        """Push what the end of a wait showed, whatever the task makes of it."""
        try:
            self._push(context, THREAD_KEY, event.thread or None)
        except CapyKilledError:
            raise
        except Exception as error:  # noqa: BLE001 - of any XCom backend: a summary is no reason to fail
            self.log.warning("The summary of thread %s could not be stored: %r", event.thread_id, error)
        for request in event.thread.get("pull_requests", [])[:1]:
            self._publish_pull_request(context, request["url"])

    def _store(self, context: Any) -> RecordStore[Any]:
        """The task's record, as its kind of task keeps it."""
        raise NotImplementedError

    def _remember(self, context: Any, **changes: Any) -> bool:
        """Write into the record, and say whether that worked; a failure must not hide how this try ends."""
        thread_id = self._run.at_stake
        return self._told(thread_id, self._store(context).update(thread_id=thread_id, **changes))

    def _check_for_kill(self) -> None:
        """Raise the error of a kill that came into code of Airflow's which takes every error for its own."""
        if self._run.kill is not None and not self._run.in_create:
            raise self._run.kill

    def _see_kill_through(self, kill: CapyError) -> None:
        """Do what a kill has left to do once its error has left whatever it came into, and add that to the error.

        A signal may find the main thread inside a request to Airflow: only from here can the record be written, and the
        connection be looked up.
        """
        run = self._run
        # Airflow may send a second signal, which would cut this off.
        run.handed_over = True
        if run.order is not None:
            self._end_killed(run.order, kill)
        elif run.stopped_because:
            self._told(run.at_stake, self._leave_word(run.stopped_because))

    def _end_killed(self, order: KillOrder, kill: CapyError, budget: float = STOP_BUDGET) -> None:
        """Stop the thread, or not, and add to the error which; where its record must tell of that, it does so first."""
        self._run.order = None
        stop, reason, why = order.stop, order.reason, ""
        if order.word_first and (failure := self._leave_word(reason)):
            stop, reason = False, f"its record cannot tell of a stop ({failure})"
            why = f" Why: {reason}."
        with_words(kill, f"{kill} {self._carry_out(stop=stop, reason=reason, budget=budget)}{why}")

    def _leave_word(self, reason: str) -> str:
        """Write into the record that a kill stops the thread, and return why that failed; empty when there is no thread."""
        run = self._run
        if run.context is None or run.at_stake is None:
            return ""
        return self._store(run.context).leave_word(run.at_stake, f"its task was killed, {reason}")

    def _told(self, thread_id: str | None, failure: str) -> bool:
        # Without a thread there was nothing to tell.
        if failure and thread_id is not None:
            self.log.warning("The record of thread %s could not be written: %s", thread_id, failure)
        return not failure

    @property
    def _may_stop(self) -> bool:
        """Whether the thread may be stopped from here at all."""
        return self.stop_on_kill and not self._run.is_spared

    @property
    def _is_kept(self) -> bool:
        """Whether another try can know of the thread."""
        return self._run.context is not None and self._run.context.get("task_state_store") is not None

    def _will_retry(self, error: BaseException) -> bool:
        """Say whether Airflow tries the task again when it ends with this error, as it decides that itself."""
        ti = self._run.ti
        if ti is None or ti.try_number > ti.max_tries or not getattr(self, "retries", 0):
            return False
        if isinstance(error, (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)):
            return False
        action = rule_for(self, self._run.context, error)
        return action is None or action.value != "fail"

    def _goes_on_in_next_try(self, error: BaseException) -> bool:
        """Say whether a next try takes the thread over when this one ends with this error."""
        return self._will_retry(error)

    def _failed(self, error: BaseException) -> BaseException:
        """Return what the task raises for an error."""
        raise NotImplementedError

    def on_kill(self) -> None:
        """Stop the thread when this task instance is over, and end the task either way.

        Airflow calls this from a signal handler, five seconds before SIGKILL, and lets ``execute`` go on after it: so
        it raises, with a class that makes Airflow retry or not retry rightly.
        """
        run = self._run
        if isinstance(timeout := sys.exc_info()[1], AirflowTaskTimeout):
            if run.context is not None and run.told is not timeout:
                # It came into the end of another error: Airflow raises it again, and it is not to end without a fate.
                timeout.args = self._failed(timeout).args
            return
        if run.handed_over:
            # Airflow keeps the handler while it reports the end: the trigger, the next poke or the next task goes on.
            return
        began = time.monotonic()
        order = kill_order(
            ask_from_signal_handler(run.ti),
            tries_left=self._goes_on_in_next_try(CapyKilledError("")),
            stop_on_kill=self._may_stop,
            is_kept=self._is_kept,
        )
        kill: CapyError = CapyKilledError(f"Killed ({order.reason}).", thread_id=run.at_stake or "")
        run.order, run.kill = order, kill if order.may_retry else final(kill)
        # While a create is under way, its answer, which carries the id, is worth the seconds that are left.
        if run.in_create:
            return
        # The interrupted code may hold what the record and the look-up of the connection need, until this has left it.
        is_looked_up = run.hook is not None and run.hook.is_looked_up
        if not order.word_first and (is_looked_up or not order.stop):
            # What the question left of the time is the stop's: a 429 may ask for some of it.
            self._end_killed(order, run.kill, max(STOP_BUDGET, KILL_BUDGET - (time.monotonic() - began)))
        raise run.kill

    def _carry_out(self, *, stop: bool, reason: str, budget: float = STOP_BUDGET) -> str:
        """Stop the thread, or not, and say in one line which and why."""
        thread_id = self._run.at_stake
        if thread_id is None:
            return "No thread is to be stopped."
        if not stop:
            self._tell("Thread %s is not stopped: %s", thread_id, reason)
            return f"Thread {thread_id} was not stopped."
        self._run.stopped_because = reason
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
        from airflow_provider_capy.api.retry import RetryLimits
        from airflow_provider_capy.flow import run
        from airflow_provider_capy.stopping import request_stop

        with self._client_for_stop(budget) as client:
            limits = RetryLimits(attempts=3, total=budget, base=0.1, cap=0.2)
            return run(request_stop(thread_id, limits), client).in_words

    def _client_for_stop(self, budget: float) -> CapyClient:
        """Return a client of its own, also where a signal came into a request to Airflow: then each answer is one late."""
        timeouts = {"connect_timeout": budget, "read_timeout": budget}
        for _ in range(LATE_ANSWERS):
            with suppress(CapyLookUpError):
                return self.hook.new_client(**timeouts)
        return self.hook.new_client(**timeouts)

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
            report = run(stop_and_confirm(thread_id, until=time.time() + timeout, clock=time.time), self.hook)
        except CapyKilledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the task says what became of its thread
            return False, f"its stop FAILED, it may still be at work ({error})"
        return report.is_over, report.in_words

    def _close(self) -> None:
        # Not every exception: a kill may be raised into this, too.
        with suppress(OSError, httpx.HTTPError):
            self.hook.close()
        self._run.handed_over = True
