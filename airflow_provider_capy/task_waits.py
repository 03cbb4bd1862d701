"""What a task that waits for one thread does, whether it started that thread or not: look, defer, and conclude."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airflow_provider_capy.exceptions import (
    CapyError,
    CapyEventError,
    CapyForbiddenError,
    CapyInputError,
    CapyLookUpError,
    CapyNotFoundError,
    CapyReferenceError,
    CapyRequestError,
    CapyStoreError,
    CapyThreadError,
    CapyThreadStoppedError,
    CapyValidationError,
    with_words,
)
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.lifecycle import Outcome, Policy, checked_on_blocked, fate_after
from airflow_provider_capy.tasking import CapyTask, final, helpless
from airflow_provider_capy.templated import (
    as_flag,
    as_interval,
    as_seconds_or_none,
    as_text,
    as_text_or_none,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.waiting import Step, Wait

# Airflow's own timeout of a deferral runs neither our event nor our on_kill: it only catches a dead triggerer.
BACKSTOP = 600.0
# The API server adds it to its clock, which ends with the year 9999.
LONGEST_DEFERRAL = 10 * 366 * 24 * 3600.0
# A next try gets the same answer, unless a person changes something.
_REFUSALS = (CapyForbiddenError, CapyNotFoundError, CapyValidationError)
# Nobody kills a process that was interrupted from a terminal.
INTERRUPT_BUDGET = 10.0
# What says that the thread, or what is kept of it, could not be seen: no reason to stop it, most likely it does its work.
UNSEEN = (
    CapyRequestError,
    CapyInputError,
    CapyStoreError,
    CapyReferenceError,
    CapyEventError,
    AirflowNotFoundException,
    TaskDeferralError,
)


class WaitingTask(CapyTask):
    """Mixed into an operator that waits for one thread.

    Attributes:
        deferrable: whether the triggerer waits.
        poke_interval: seconds between looks.
        on_blocked: see :class:`~airflow_provider_capy.lifecycle.Policy`.
        fail_on_task_error: see there.
        tolerate_outage: seconds that nobody may be able to see the thread; ``None`` for as long as the wait lasts.
        execution_timeout: Airflow's own.
    """

    deferrable: bool
    poke_interval: Any
    on_blocked: Any
    fail_on_task_error: bool
    tolerate_outage: Any
    execution_timeout: timedelta | None

    checks: ClassVar[Mapping[str, Any]] = {
        "project_id": as_text_or_none,
        "deferrable": as_flag,
        "poke_interval": as_interval,
        "timeout": as_seconds_or_none,
        "tolerate_outage": as_seconds_or_none,
        "on_blocked": lambda _, value: checked_on_blocked(value),
        "fail_on_task_error": as_flag,
        "stop_on_kill": as_flag,
        "capy_conn_id": as_text,
    }

    # What the record says beside the fate once the task has succeeded.
    _word_of_success: ClassVar[dict[str, Any]] = {}

    # Whether its retries see to a thread at work, and no other task's do.
    _answers_for_thread: ClassVar[bool] = True

    @contextmanager
    def _at_work(self, context: Any) -> Iterator[None]:
        """The one way out of a task's work: no error without the thread's fate, no kill untold, nothing left open."""
        run = self._run
        run.ti, run.context = context["ti"], context
        self._take_digits()
        try:
            try:
                yield
                self._check_for_kill()
            except (AirflowRescheduleException, CapyKilledError):
                raise
            except (Exception, AirflowTaskTimeout) as error:
                # A skip of our own lets go of the thread first; one of the user's code may come while it is at work.
                if isinstance(error, AirflowSkipException) and run.at_stake is None:
                    raise
                wanted = self._failed(error)
                raise wanted from wanted.__cause__
            finally:
                self._close()
        except BaseException:
            # Airflow takes what a signal raises into a look-up of a connection for that one's failure.
            if (kill := run.kill) is None:
                raise
            self._see_kill_through(kill)
            raise kill from kill.__cause__

    def _take_up(self, context: Any) -> None:
        """Find out again which thread this task waits for, as far as that can be known."""
        raise NotImplementedError

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Conclude what the trigger saw."""
        from airflow_provider_capy.events import WaitEvent

        with self._at_work(context):
            self._take_up(context)
            read = WaitEvent.read(event, self._run.at_stake or "")
            self._run.at_stake = read.thread_id
            return self._conclude(context, read)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """Resume after the trigger; what the triggerer could not finish is told as every other failure."""
        assert isinstance(self, BaseOperator)  # noqa: S101 - what this is mixed into
        try:
            # Past the base sensor, which applies soft_fail and never_fail otherwise than where it pokes.
            return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            with self._at_work(context):
                self._take_up(context)
                raise self._unwatched(error) from error.__cause__

    def _unwatched(self, error: TaskDeferralError | TaskDeferralTimeout) -> BaseException:
        """Return what the task fails with when the triggerer gave up."""
        return type(error)(f"The triggerer could not go on: {error}")

    @property
    def _policy(self) -> Policy:
        return Policy(checked_on_blocked(self.on_blocked), self.fail_on_task_error)

    def _new_wait(self, thread_id: str, project_id: str | None, deadline: float | None, **more: Any) -> Wait:
        from airflow_provider_capy.waiting import Wait

        return Wait(
            thread_id,
            thread_url=lambda seen: self._url_of(thread_id, seen or project_id),
            policy=self._policy,
            poll_interval=as_interval("poke_interval", self.poke_interval),
            deadline=deadline,
            tolerate_outage=as_seconds_or_none("tolerate_outage", self.tolerate_outage),
            **more,
        )

    def _url_of(self, thread_id: str, project_id: str | None) -> str:
        try:
            return self.hook.thread_url(thread_id, project_id)
        except CapyLookUpError:
            return self._run.url

    def _look(self, context: Any, wait: Wait, *, told_elsewhere: bool = False) -> Step:
        """Look at the thread once, push what that taught, and log what changed.

        Args:
            context: of the task.
            wait: takes the look in.
            told_elsewhere: whether whoever goes on with the wait tells the thread's state again.
        """
        self._check_for_kill()
        try:
            step = wait.saw(self.hook.get_thread(wait.thread_id), time.time())
        except CapyRequestError as error:
            step = wait.failed(error, time.time())
        self._publish_seen(context, wait)
        if step.line and not (told_elsewhere and step.event is None and not step.warning):
            (self.log.warning if step.warning else self.log.info)("%s", step.line)
        return step

    def _wait_here(self, context: Any, wait: Wait) -> WaitEvent:
        """Wait on the worker."""
        try:
            while True:
                step = self._look(context, wait)
                if step.event is not None:
                    return step.event
                time.sleep(step.look_again_in)
        except KeyboardInterrupt:
            # A Ctrl-C in dag.test(): the processes of real workers never see one.
            self._carry_out(stop=self._may_stop, reason="interrupted", budget=INTERRUPT_BUDGET)
            raise

    def _defer(self, wait: Wait, project_id: str | None) -> NoReturn:
        """Give the wait to the triggerer."""
        # Parsing a DAG needs no trigger, and Airflow's base of one costs more than this whole module.
        from airflow.sdk.serde import serialize

        from airflow_provider_capy.triggers.thread import CapyThreadTrigger

        trigger = CapyThreadTrigger(
            thread_id=wait.thread_id,
            capy_conn_id=self.capy_conn_id,
            project_id=project_id,
            poll_interval=wait.poll_interval,
            deadline=wait.deadline,
            on_blocked=wait.policy.on_blocked,
            fail_on_task_error=wait.policy.fail_on_task_error,
            stop_on_kill=self._may_stop,
            tolerate_outage=wait.tolerate_outage,
        )
        # Airflow serialises it again once nobody answers for the thread any more.
        serialize(trigger.serialize()[1])
        deadline, backstop = wait.deadline, None
        if deadline is not None:
            backstop = timedelta(seconds=min(max(deadline - time.time(), 0.0) + BACKSTOP, LONGEST_DEFERRAL))
        assert isinstance(self, BaseOperator)  # noqa: S101 - what this is mixed into
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop)

    def _conclude(self, context: Any, event: WaitEvent) -> Any:
        """Return what the task succeeds with.

        Raises:
            BaseException: what it ends with otherwise, once the thread has been seen to.
        """
        self._check_for_kill()
        self._publish_end(context, event)
        is_blocked = event.outcome is Outcome.BLOCKED
        if event.outcome is Outcome.READY or (is_blocked and self.on_blocked == "succeed"):
            if error := self._stopped(context, event.thread_id):
                raise error
            self._settle(context, event)
            self.log.info("Thread %s ended as %s: %s", event.thread_id, event.outcome.value, event.thread_url)
            return self._result(event)
        if is_blocked and self.on_blocked == "skip":
            self._settle(context, event)
            raise AirflowSkipException(f"Thread {event.thread_id} is blocked, left as it is: {event.thread_url}")
        self._run.event = event
        raise self._error(event)

    def _settle(self, context: Any, event: WaitEvent) -> None:
        """Write down how the thread ended; from here on a kill has nothing to stop."""
        self._run.at_stake = None
        word = {"fate": fate_after(event.outcome), **self._word_of_success}
        self._told(event.thread_id, self._store(context).update(thread_id=event.thread_id, **word))

    def _stopped(self, context: Any, thread_id: str) -> CapyError | None:
        """Return what a wait for a thread fails with that somebody stopped, whoever it was."""
        from airflow_provider_capy.stopped import stopped_error, told_by_a_task, who_stopped

        try:
            record = self._store(context).read()
            by = who_stopped(record, thread_id) or told_by_a_task(context["ti"], self, thread_id)
        except CapyKilledError:
            raise
        except Exception as unknown:  # noqa: BLE001 - of any store or XCom backend: the thread has come to its end
            self.log.warning("Nobody knows whether thread %s was stopped meanwhile: %s", thread_id, unknown)
            return None
        return final(stopped_error(thread_id, by, record.thread_url if record is not None else "")) if by else None

    def _result(self, event: WaitEvent) -> Any:
        """Return what the task succeeds with."""
        raise NotImplementedError

    def _error(self, event: WaitEvent) -> BaseException:
        from airflow_provider_capy.events import error_of

        error = error_of(event)
        if event.outcome is not Outcome.TIMEOUT:
            return error
        return AirflowTaskTimeout(str(error)) if self._is_execution_timeout() else self._timed_out(error)

    def _is_execution_timeout(self) -> bool:
        """Whether a wait whose deadline is over has ended by Airflow's ``execution_timeout``, not by its own."""
        raise NotImplementedError

    def _timed_out(self, error: CapyError) -> BaseException:
        """Return what the task fails with when its own timeout is over."""
        return error

    def _failed(self, error: BaseException) -> BaseException:
        """Decide what becomes of the thread when the task ends with an error, and return what it raises, which says so."""
        run = self._run
        self._check_for_kill()
        if isinstance(error, CapyThreadStoppedError):
            return self._wanted(error)
        raised = error
        if isinstance(error, CapyError) and self._is_helpless(error) and self._will_retry(error):
            raised = helpless(self, run.context, error)
        wanted = told = self._wanted(raised)
        if not isinstance(wanted, (CapyError, AirflowException, AirflowTaskTimeout)):
            # What a stranger's error is made of is its own.
            told = CapyThreadError(f"{type(wanted).__name__}: {wanted}", thread_id=run.at_stake or "")
            told.__cause__ = wanted
        # By what it ends with it may be tried again; by what happened it is decided what that means for the thread.
        if fate := self._fate(run.context, error, run.event, again=self._will_retry(told)):
            wanted = with_words(told, f"{str(told).rstrip('. ')}. {fate}")
        run.told = wanted
        return wanted

    def _is_helpless(self, error: CapyError) -> bool:
        """Whether a next try is sure to end with the same error; one that may find a thread at work always helps."""
        at_work = self._answers_for_thread and self._run.at_stake is not None
        return isinstance(error, CapyInputError) or (isinstance(error, _REFUSALS) and not at_work)

    def _wanted(self, error: BaseException) -> BaseException:
        """Return what to raise for an error, as the task wants it."""
        return error

    def _fate(self, context: Any, error: BaseException, event: WaitEvent | None, *, again: bool) -> str:
        """Settle what becomes of the thread, and say it.

        Args:
            context: of the task.
            error: what happened, before the task makes a skip or the like of it.
            event: how the thread's wait ended; ``None`` when it came to no end of the thread's.
            again: whether the task will be tried again.
        """
        raise NotImplementedError
