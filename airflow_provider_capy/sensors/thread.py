"""The sensor that gates what comes after it on a thread being finished."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, conf
from airflow.sdk.exceptions import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)

from airflow_provider_capy.exceptions import CapyInputError, CapyLookUpError, CapyStoreError
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.lifecycle import (
    TOLERATED_OUTAGE,
    Fate,
    OnBlocked,
    fate_after,
)
from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.task_waits import WaitingTask
from airflow_provider_capy.tasking import final
from airflow_provider_capy.templated import (
    as_interval,
    as_seconds,
    as_text,
    as_thread_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.exceptions import CapyError
    from airflow_provider_capy.records import ThreadRecord
    from airflow_provider_capy.remembering import RecordStore
    from airflow_provider_capy.waiting import Step, Wait

_WAIT_KEY = "capy_wait"
_SHORTEST_RESCHEDULE = 5.0


class CapyThreadSensor(WaitingTask, BaseSensorOperator):
    """Wait until a thread has settled (``getThread``): in poke, reschedule or deferrable mode, with the same outcomes.

    Returns the thread's summary (see :func:`~airflow_provider_capy.lifecycle.summary`), also the XCom ``thread``;
    ``thread_url`` and ``pull_request_url`` feed the links.

    The sensor did not start the thread: when it times out, it leaves it alone. When its task is cancelled, it stops it,
    because a cancelled run should cost nothing more, in every mode and also between two pokes or two tries; a sensor
    that watches somebody else's thread takes ``stop_on_kill=False``.

    Args:
        thread_id: the thread's id, or its web address, which ends in it; templated.
        project_id: its project, for the link; default: what Capy says.
        deferrable: wait in the triggerer; default: ``[operators] default_deferrable``. Wins over ``mode``.
        poke_interval: seconds (or ``timedelta``) between looks; default 30, at least 0.1.
        timeout: seconds (or ``timedelta``) from this try's first look; default: ``[sensors] default_timeout``.
        on_blocked: a thread that waits for a person makes the task ``fail``, ``skip``, ``succeed`` or ``wait`` on.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        tolerate_outage: seconds (or ``timedelta``) that Capy may give no answer about the thread, growing ever seldomer
            asked; ``None`` for as long as the wait lasts. Default 3600.
        stop_on_kill: stop the thread when the task is cancelled; default ``True``.
        capy_conn_id: the connection; default ``capy_default``.
        **kwargs: of the base sensor. ``soft_fail`` skips on a timeout, ``never_fail`` on every failure, ``silent_fail``
            tolerates any outage; in every mode. ``exponential_backoff`` with ``max_wait``
            is for poke and reschedule mode: the triggerer's looks are shared and cost next to nothing.

    Raises:
        CapyInputError: an argument that is sure to be refused: at once when it is no template.
        CapyRequestError: Capy's own 401, 403, 404 or 422, which has stood for half a minute; ``CapyLookUpError`` when the
            connection cannot be looked up as the wait begins.
        CapyThreadError: archived, blocked, a failed task, or nobody could look at the thread for ``tolerate_outage``.
        CapyThreadStoppedError: it was stopped, when its run was cancelled before this task was cleared or by a stop task
            of this run, so that its ``ready`` is no success; it is not retried.
        AirflowSensorTimeout: the timeout is over; Airflow does not retry it.
        AirflowSkipException: blocked under ``on_blocked="skip"``, or by ``soft_fail`` or ``never_fail``.
    """

    _answers_for_thread: ClassVar[bool] = False

    template_fields: Sequence[str] = (
        "thread_id",
        "project_id",
        "poke_interval",
        "timeout",
        "tolerate_outage",
        "on_blocked",
        "capy_conn_id",
    )
    operator_extra_links = (CapyThreadLink(), CapyPullRequestLink())
    ui_color = "#e4eef3"

    checks: ClassVar[Mapping[str, Any]] = {
        "thread_id": lambda _, value: as_thread_id(value),
        **WaitingTask.checks,
    }

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
        tolerate_outage: float | timedelta | str | None = TOLERATED_OUTAGE,
        stop_on_kill: bool = True,
        capy_conn_id: str = "capy_default",
        **kwargs: Any,
    ) -> None:
        # A text is a template, which the base sensor would refuse; it is read when it is rendered.
        # Before the base sensor's own checks, which say less.
        self._check_init({"poke_interval": poke_interval, "timeout": timeout, "dag": kwargs.get("dag")})
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
        # The base sensor's word for the same.
        self.tolerate_outage = None if self.silent_fail else tolerate_outage
        self.stop_on_kill = stop_on_kill
        self.capy_conn_id = capy_conn_id
        self._check_init({name: getattr(self, name) for name in self.checks})

    def execute(self, context: Context) -> Any:
        """Wait here, come again later, or hand the wait to the triggerer when the first look does not end it."""
        with self._at_work(context):
            return self._conclude(context, self._wait_for_end(context))

    def _wait_for_end(self, context: Context) -> WaitEvent:
        # Without a connection nobody can answer for anything.
        self.capy_conn_id = as_text("capy_conn_id", self.capy_conn_id)
        # The thread before all else: a wait that fails for anything that follows still has to answer for it.
        self._run.at_stake = self.thread_id = as_thread_id(self.thread_id)
        with self._forgiven(context):
            try:
                self._publish(context, self.thread_id, self.hook.thread_url(self.thread_id, self.project_id))
            finally:
                self._hold(context)
        self._check_rendered()
        self.poke_interval = as_interval("poke_interval", self.poke_interval)
        self.timeout = as_seconds("timeout", self.timeout)
        if self.deferrable:
            return self._look_or_defer(context)
        if self.reschedule:
            return self._look_or_come_again(context)
        return self._wait_here(context, self._the_wait(time.time() + self.timeout))

    @contextmanager
    def _forgiven(self, context: Context) -> Iterator[None]:
        """Let a sensor that comes again look although its connection or its record is away for a while."""
        try:
            yield
        except (CapyLookUpError, CapyStoreError) as error:
            ti: Any = context["ti"]
            if not self.reschedule or self.deferrable or ti.get_first_reschedule_date(context) is None:
                raise
            self.log.warning("The wait goes on although this failed: %s", error)

    def _take_up(self, context: Context) -> None:  # noqa: ARG002 - the operator asks its record
        with suppress(CapyInputError):
            self._run.at_stake = self.thread_id = as_thread_id(self.thread_id)

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
        from airflow_provider_capy.stopped import stopped_error, who_stopped

        store = self._store(context)
        before = store.read()
        if before is not None and (by := who_stopped(before, self.thread_id)):
            raise final(stopped_error(self.thread_id, by, before.thread_url))
        held = ThreadRecord(
            thread_id=self.thread_id,
            thread_url=self._run.url,
            capy_conn_id=self.capy_conn_id,
            project_id=self.project_id if isinstance(self.project_id, str) else "",
            stop_on_kill=self._may_stop,
            fate=Fate.HELD,
        )
        if held != before:
            store.write(held)

    def poke(self, context: Context) -> bool:
        """Look once, or twice where one look proves nothing.

        Returns:
            ``True`` when the thread ended as the task wants it, ``False`` when it goes on.

        Raises:
            Exception: what :meth:`execute` raises when the thread ended otherwise.
        """
        with self._at_work(context):
            self._run.at_stake = self.thread_id = as_thread_id(self.thread_id)
            event = self._look_well(context, self._the_wait(None)).event
            if event is not None:
                self._conclude(context, event)
            return event is not None

    def _unwatched(self, error: TaskDeferralError | TaskDeferralTimeout) -> BaseException:
        words = f"The triggerer could not go on: {error}"
        return AirflowSensorTimeout(words) if isinstance(error, TaskDeferralTimeout) else type(error)(words)

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
        if (now := wait.remembered()) != before:
            self._note(context, {"try": ti.try_number, **now})
        # The scheduler loses its way when a task comes back within its own loop, which the deadline could ask for.
        pause = max(step.look_again_in, min(float(self.poke_interval), _SHORTEST_RESCHEDULE))
        raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(seconds=pause))

    def _look_or_defer(self, context: Context) -> WaitEvent:
        """Look once; without an end, give the wait to the triggerer."""
        limits = [float(self.timeout)]
        if self.execution_timeout is not None:
            limits.append(self.execution_timeout.total_seconds())
        wait = self._the_wait(time.time() + min(limits))
        step = self._look(context, wait, told_elsewhere=True)
        if step.event is not None:
            return step.event
        return self._defer(wait, self.project_id or (wait.last.project_id if wait.last is not None else None))

    def _the_wait(self, deadline: float | None, remembered: dict[str, Any] | None = None) -> Wait:
        longest = self.max_wait.total_seconds() if self.max_wait is not None else float(self.timeout)
        return self._new_wait(
            self.thread_id,
            self.project_id,
            deadline,
            remembered=remembered,
            longest_pause=longest if self.exponential_backoff else None,
        )

    def _result(self, event: WaitEvent) -> dict[str, Any]:
        return event.thread

    def _timed_out(self, error: CapyError) -> BaseException:
        return AirflowSensorTimeout(str(error))

    def _fate(self, context: Context, error: BaseException, event: WaitEvent | None, *, again: bool) -> str:  # noqa: ARG002
        self._let_go(context, event, again=again)
        return "It was left as it is; a retry waits for it again" if again else "It was left as it is"

    def _let_go(self, context: Context, event: WaitEvent | None, *, again: bool = False) -> None:
        # Another connection's token may see a thread that this one's does not: only whoever answers for it takes it for gone.
        gone = self._answers_for_thread and event is not None and event.thread_is_gone
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
        return self.execution_timeout.total_seconds() < as_seconds("timeout", self.timeout)

    def _remembered(self, context: Context) -> dict[str, Any]:
        """Return what the look before the last reschedule left."""
        kept: Any = None
        with self._not_worth_a_wait():
            kept = store.get(_WAIT_KEY) if (store := context.get("task_state_store")) is not None else None
        ours = isinstance(kept, dict) and kept.get("try") == context["ti"].try_number
        return {name: value for name, value in kept.items() if name != "try"} if ours else {}

    def _note(self, context: Context, note: dict[str, Any]) -> None:
        """Keep what the next look is to know."""
        with self._not_worth_a_wait():
            if (store := context.get("task_state_store")) is not None:
                store.set(_WAIT_KEY, note)

    @contextmanager
    def _not_worth_a_wait(self) -> Iterator[None]:
        """Go on although what one look leaves to the next could not be kept or read."""
        try:
            yield
        except CapyKilledError:
            raise
        except Exception as error:  # noqa: BLE001 - of any store's backend
            self.log.warning("What one look leaves to the next could not be kept or read: %s", error)
