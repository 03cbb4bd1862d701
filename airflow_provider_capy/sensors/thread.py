"""The sensor that gates what comes after it on a thread being finished."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airflow_provider_capy.exceptions import CapyInputError, CapyRequestError, CapyThreadError
from airflow_provider_capy.lifecycle import (
    TOLERATED_FAILURES,
    Fate,
    OnBlocked,
    Outcome,
    Policy,
    checked_on_blocked,
    fate_after,
)
from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.tasking import CapyTask, final
from airflow_provider_capy.templated import as_seconds, as_thread_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.records import ThreadRecord
    from airflow_provider_capy.remembering import RecordStore
    from airflow_provider_capy.waiting import Step, Wait

_WAIT_KEY = "capy_wait"
_SHORTEST_RESCHEDULE = 5.0
# See the operator: only for a triggerer that died.
BACKSTOP = 600.0
# Errors of a wait that came to no end of the thread's; no kill is among these.
_SEEN_BY_NO_LOOK = (AirflowTaskTimeout, CapyInputError, CapyRequestError, AirflowNotFoundException)


class CapyThreadSensor(CapyTask, BaseSensorOperator):
    """Wait until a thread has settled (``getThread``): in poke, reschedule or deferrable mode, with the same outcomes.

    Returns the thread's summary (see :func:`~airflow_provider_capy.lifecycle.summary`), also the XCom ``thread``;
    ``thread_url`` and ``pull_request_url`` feed the links.

    The sensor did not start the thread: when it times out, it leaves it alone. When its task is cancelled, it stops it,
    because a cancelled run should cost nothing more, in every mode and also between two pokes or two tries; a sensor
    that watches somebody else's thread takes ``stop_on_kill=False``.

    Args:
        thread_id: the thread; templated.
        project_id: its project, for the link; default: what Capy says.
        deferrable: wait in the triggerer; default: ``[operators] default_deferrable``. Wins over ``mode``.
        poke_interval: seconds (or ``timedelta``) between looks; default 30.
        timeout: seconds (or ``timedelta``) from this try's first look; default: ``[sensors] default_timeout``.
        on_blocked: a thread that waits for a person makes the task ``fail``, ``skip``, ``succeed`` or ``wait`` on.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        stop_on_kill: stop the thread when the task is cancelled; default ``True``.
        capy_conn_id: the connection; default ``capy_default``.
        **kwargs: of the base sensor. ``soft_fail`` skips on a timeout, ``never_fail`` on every failure, ``silent_fail``
            tolerates any number of failed polls that may pass; in every mode. ``exponential_backoff`` with ``max_wait``
            is for poke and reschedule mode: the triggerer's looks are shared and cost next to nothing.

    Raises:
        CapyInputError: an argument that is sure to be refused.
        CapyRequestError: 401, 403, 404, 422 while looking.
        CapyThreadError: archived, blocked, a failed task, or too many failed polls in a row.
        CapyThreadStoppedError: it was stopped, when its run was cancelled before this task was cleared or by a stop task
            of this run, so that its ``ready`` is no success; it is not retried.
        AirflowSensorTimeout: the timeout is over; Airflow does not retry it.
        AirflowSkipException: blocked under ``on_blocked="skip"``, or by ``soft_fail`` or ``never_fail``.
    """

    template_fields: Sequence[str] = (
        "thread_id",
        "project_id",
        "poke_interval",
        "timeout",
        "on_blocked",
        "capy_conn_id",
    )
    operator_extra_links = (CapyThreadLink(), CapyPullRequestLink())
    ui_color = "#e4eef3"

    def __init__(
        self,
        *,
        thread_id: str,
        project_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta | str = 30.0,
        timeout: float | timedelta | str | None = None,
        on_blocked: OnBlocked = "fail",
        fail_on_task_error: bool = False,
        stop_on_kill: bool = True,
        capy_conn_id: str = "capy_default",
        **kwargs: Any,
    ) -> None:
        # A text is a template, which the base sensor would refuse; it is read when it is rendered.
        super().__init__(
            poke_interval=30.0 if isinstance(poke_interval, str) else poke_interval,
            timeout=None if isinstance(timeout, str) else timeout,
            **kwargs,
        )
        if isinstance(poke_interval, str):
            self.poke_interval: Any = poke_interval
        if isinstance(timeout, str):
            self.timeout: Any = timeout
        self.thread_id = thread_id
        self.project_id = project_id
        self.deferrable = deferrable
        self.on_blocked = on_blocked
        self.fail_on_task_error = fail_on_task_error
        self.stop_on_kill = stop_on_kill
        self.capy_conn_id = capy_conn_id

    def execute(self, context: Context) -> Any:
        """Wait here, come again later, or hand the wait to the triggerer when the first look does not end it."""
        try:
            self._know(context)
            try:
                event = self._wait_for_end(context)
            except _SEEN_BY_NO_LOOK as error:
                raise self._failed(context, error) from error.__cause__
            return self._conclude(context, event)
        except (AirflowException, CapyThreadError):
            self._leave_word_of_kill()
            raise
        finally:
            self._close()

    def _wait_for_end(self, context: Context) -> WaitEvent:
        # The thread before all else: a wait that fails for anything that follows still has to answer for it.
        self._at_stake = self.thread_id = as_thread_id(self.thread_id)
        try:
            self._publish(context, self.thread_id, self.hook.thread_url(self.thread_id, self.project_id))
        finally:
            self._hold(context)
        self.poke_interval = as_seconds("poke_interval", self.poke_interval, least=0.0)
        self.timeout = as_seconds("timeout", self.timeout, least=0.0)
        checked_on_blocked(self.on_blocked)
        if self.deferrable:
            return self._look_or_defer(context)
        if self.reschedule:
            return self._look_or_come_again(context)
        return self._wait_here(context, self._the_wait(time.time() + self.timeout))

    def _know(self, context: Context) -> None:
        """Keep what a kill and the end of the wait have to know."""
        self._ti, self._context = context["ti"], context

    def _store(self, context: Context) -> RecordStore[ThreadRecord]:
        from airflow_provider_capy.records import ThreadRecord
        from airflow_provider_capy.remembering import RecordStore

        return RecordStore(context.get("task_state_store"), ThreadRecord)

    def _hold(self, context: Context) -> None:
        """Write into the record that this task waits for the thread, unless it says that the thread was stopped.

        Raises:
            CapyThreadStoppedError: it does.
            CapyError: the store cannot be asked.
        """
        from airflow_provider_capy.records import ThreadRecord
        from airflow_provider_capy.stopped import stopped_error

        store = self._store(context)
        before = store.read()
        if before is not None and before.was_stopped and before.thread_id == self.thread_id:
            error = stopped_error(context, self, before, self.thread_id)
            raise self._wanted(final(error) if error is not None else CapyThreadError(""))
        held = ThreadRecord(
            thread_id=self.thread_id,
            thread_url=self._published_url,
            capy_conn_id=self.capy_conn_id,
            project_id=self.project_id or "",
            stop_on_kill=self._may_stop,
            fate=Fate.HELD,
        )
        if held != before:
            store.write(held)

    @property
    def _policy(self) -> Policy:
        return Policy(checked_on_blocked(self.on_blocked), self.fail_on_task_error)

    def poke(self, context: Context) -> bool:
        """Look once, or twice where one look proves nothing.

        Returns:
            ``True`` when the thread ended as the task wants it, ``False`` when it goes on.

        Raises:
            Exception: what :meth:`execute` raises when the thread ended otherwise.
        """
        self.thread_id = as_thread_id(self.thread_id)
        try:
            event = self._look_well(context, self._the_wait(None)).event
        finally:
            self._close()
        if event is not None:
            self._conclude(context, event)
        return event is not None

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Conclude what the trigger saw."""
        from airflow_provider_capy.events import WaitEvent

        try:
            self._know(context)
            self._at_stake = self.thread_id = as_thread_id(self.thread_id)
            return self._conclude(context, WaitEvent.read(event, self.thread_id))
        except (AirflowException, CapyThreadError):
            self._leave_word_of_kill()
            raise
        finally:
            self._close()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the trigger; what the triggerer could not finish is told as every other failure."""
        try:
            # Past the base sensor, which applies soft_fail and never_fail otherwise than where it pokes.
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            self._know(context)
            self._at_stake = str(self.thread_id)
            kind = AirflowSensorTimeout if isinstance(error, TaskDeferralTimeout) else type(error)
            try:
                raise self._failed(context, kind(f"The triggerer could not go on: {error}")) from error.__cause__
            finally:
                self._close()

    def _look_well(self, context: Context, wait: Wait) -> Step:
        step = self._look(context, wait)
        while step.soon:
            time.sleep(step.look_again_in)
            step = self._look(context, wait)
        return step

    def _look_or_come_again(self, context: Context) -> WaitEvent:
        """Look once; without an end, give the worker back until the next look."""
        ti: Any = context["ti"]
        began = ti.get_first_reschedule_date(context)
        deadline = (began.timestamp() if began is not None else time.time()) + self.timeout
        before = self._remembered(context)
        wait = self._the_wait(deadline, before)
        step = self._look_well(context, wait)
        if step.event is not None:
            return step.event
        if (now := wait.remembered()) != before and (store := context.get("task_state_store")) is not None:
            store.set(_WAIT_KEY, {"try": ti.try_number, **now})
        # The scheduler loses its way when a task comes back within its own loop, which the deadline could ask for.
        pause = max(step.look_again_in, min(float(self.poke_interval), _SHORTEST_RESCHEDULE))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=pause))

    def _look_or_defer(self, context: Context) -> WaitEvent:  # noqa: RET503 - defer() raises
        """Look once; without an end, give the wait to the triggerer."""
        from airflow_provider_capy.triggers.thread import CapyThreadTrigger

        now = time.time()
        limits = [float(self.timeout)]
        if self.execution_timeout is not None:
            limits.append(self.execution_timeout.total_seconds())
        deadline = now + min(limits)
        wait = self._the_wait(deadline)
        step = self._look(context, wait, told_elsewhere=True)
        if step.event is not None:
            return step.event
        trigger = CapyThreadTrigger(
            thread_id=self.thread_id,
            capy_conn_id=self.capy_conn_id,
            project_id=self.project_id or (wait.last.project_id if wait.last is not None else None),
            poll_interval=float(self.poke_interval),
            deadline=deadline,
            on_blocked=wait.policy.on_blocked,
            fail_on_task_error=self.fail_on_task_error,
            stop_on_kill=self._may_stop,
            tolerated_failures=wait.tolerated_failures,
        )
        backstop = timedelta(seconds=max(deadline - now, 0.0) + BACKSTOP)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop)

    def _the_wait(self, deadline: float | None, remembered: dict[str, Any] | None = None) -> Wait:
        from airflow_provider_capy.waiting import Wait

        longest = self.max_wait.total_seconds() if self.max_wait is not None else float(self.timeout)
        return Wait(
            self.thread_id,
            thread_url=lambda project_id: self.hook.thread_url(self.thread_id, project_id or self.project_id),
            policy=self._policy,
            poll_interval=as_seconds("poke_interval", self.poke_interval, least=0.0),
            deadline=deadline,
            remembered=remembered,
            tolerated_failures=None if self.silent_fail else TOLERATED_FAILURES,
            longest_pause=longest if self.exponential_backoff else None,
        )

    def _conclude(self, context: Context, event: WaitEvent) -> dict[str, Any]:
        from airflow_provider_capy.stopped import stopped_error

        self._publish_end(context, event)
        if event.outcome is Outcome.READY or (event.outcome is Outcome.BLOCKED and self.on_blocked == "succeed"):
            record = self._store(context).read()
            if error := stopped_error(context, self, record, event.thread_id):
                raise self._wanted(final(error))
            self._remember(context, fate=fate_after(event.outcome))
            self.log.info("Thread %s ended as %s: %s", event.thread_id, event.outcome.value, event.thread_url)
            return event.thread
        if event.outcome is Outcome.BLOCKED and self.on_blocked == "skip":
            self._remember(context, fate=fate_after(event.outcome))
            raise AirflowSkipException(f"Thread {event.thread_id} is blocked, left as it is: {event.thread_url}")
        raise self._failed(context, self._error(event), event)

    def _error(self, event: WaitEvent) -> BaseException:
        from airflow_provider_capy.events import error_of

        error: BaseException = error_of(event, fate="") or CapyThreadError(
            f"Thread {event.thread_id} ended as {event.outcome!r}, which nobody knows"
        )
        if event.outcome is Outcome.TIMEOUT:
            return (AirflowTaskTimeout if self._is_execution_timeout() else AirflowSensorTimeout)(str(error))
        return error

    def _failed(self, context: Context, error: BaseException, event: WaitEvent | None = None) -> BaseException:
        """Do what the end of a wait calls for that is no success, and return what the task raises.

        Args:
            context: of the task.
            error: what it ended with.
            event: how the thread's wait ended; ``None`` when it came to no end of the thread's.
        """
        wanted = self._wanted(error)
        fate = self._fate(context, event, again=self._will_retry(wanted))
        wanted.args = (f"{str(wanted).rstrip('. ')}. {fate}",)
        return wanted

    def _fate(self, context: Context, event: WaitEvent | None, *, again: bool) -> str:
        """Settle what becomes of the thread, and say it; ``again`` tells whether the task will be tried again."""
        self._let_go(context, event, again=again)
        return "It was left as it is; a retry waits for it again" if again else "It was left as it is"

    def _let_go(self, context: Context, event: WaitEvent | None, *, again: bool = False) -> None:
        gone = event is not None and event.thread_is_gone
        fate = Fate.HELD if again else fate_after(event.outcome if event is not None else None, gone=gone)
        self._remember(context, fate=fate)

    def _wanted(self, error: BaseException) -> BaseException:
        """Return what to raise for an error, as soft_fail and never_fail want it, the same in every mode."""
        soft = self.soft_fail and isinstance(error, (AirflowSensorTimeout, AirflowTaskTimeout))
        if not (soft or self.never_fail):
            return error
        skip = AirflowSkipException(f"Skipped by {'soft_fail' if soft else 'never_fail'}: {error}")
        skip.__cause__ = error
        return skip

    def _is_execution_timeout(self) -> bool:
        if self.execution_timeout is None or not self.deferrable:
            return False
        return self.execution_timeout.total_seconds() < as_seconds("timeout", self.timeout, least=0.0)

    def _remembered(self, context: Context) -> dict[str, Any]:
        """Return what the look before the last reschedule left."""
        store = context.get("task_state_store")
        kept: Any = store.get(_WAIT_KEY) if store is not None else None
        ours = isinstance(kept, dict) and kept.get("try") == context["ti"].try_number
        return {name: value for name, value in kept.items() if name != "try"} if ours else {}
