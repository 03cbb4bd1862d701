"""The wait of a ``capy_thread`` group: a sensor that answers for its thread as the operator does that waits itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.lifecycle import Fate, Outcome
from airflow_provider_capy.operators.owning import LEFT_UNSEEN, STOP_TIMEOUT
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_waits import UNSEEN
from airflow_provider_capy.tasking import SHARED_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_capy.events import WaitEvent
    from airflow_provider_capy.exceptions import CapyError

# After these no look will find anything else: only a new thread helps, which this task cannot start.
_FOR_GOOD = frozenset({Outcome.ARCHIVED, Outcome.TASK_ERROR})


class CapyThreadWait(CapyThreadSensor):
    """Wait for the thread that another task of the group started, and stop it when nobody will wait for it any more.

    Unlike a lone sensor it stops the thread on its timeout, and with every other error that ends its last try. A blocked
    thread is left for its person, and one that could not be seen is left at work. What no retry of this task can mend
    (archived, gone, a failed task, a wrong argument) is not retried: the message says to clear the task that starts the
    thread.

    Args:
        create_task_id: the task that starts the thread.
        **kwargs: of :class:`~airflow_provider_capy.sensors.thread.CapyThreadSensor`.
    """

    _answers_for_thread = True

    def __init__(self, *, create_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.create_task_id = create_task_id

    def _wait_for_end(self, context: Context) -> WaitEvent:
        # Until that is known, a kill may not stop the thread.
        self._run.is_spared = True
        super()._take_up(context)
        self._ask_whose(context)
        return super()._wait_for_end(context)

    def _take_up(self, context: Context) -> None:
        self._run.is_spared = True
        try:
            self._ask_whose(context)
        except Exception as error:  # noqa: BLE001 - of any XCom backend; a kill that comes into it is seen to later
            self.log.warning("Nobody knows who started the thread, so it is not to be stopped: %s", error)
        super()._take_up(context)

    def _ask_whose(self, context: Context) -> None:
        ti: Any = context["ti"]
        shared = ti.xcom_pull(task_ids=self.create_task_id, key=SHARED_KEY, map_indexes=ti.map_index)
        self._run.is_spared = bool(shared)

    def _is_helpless(self, error: CapyError) -> bool:
        event = self._run.event
        return super()._is_helpless(error) or (
            event is not None and (event.outcome in _FOR_GOOD or event.thread_is_gone)
        )

    def _fate(self, context: Context, error: BaseException, event: WaitEvent | None, *, again: bool) -> str:
        anew = f"Clear {self.create_task_id} to start a new one"
        if again:
            return super()._fate(context, error, event, again=True)
        if (thread_id := self._run.at_stake) is None:
            return anew
        if words := self._left(error, event):
            self._let_go(context, event)
            return words
        if not self._may_stop:
            self._let_go(context, event)
            return "It was left running, since stop_on_kill is off, or another task started it or may have"
        self._remember(context, fate=Fate.STOPPING, stopped_by=f"{self.task_id} failed for good")
        return f"{self._stop_for_good(context, thread_id, STOP_TIMEOUT)}. {anew}"

    def _left(self, error: BaseException, event: WaitEvent | None) -> str:
        """Say what is to be done about a thread that is left as it is; empty for one that is to be stopped."""
        unseen = f"{LEFT_UNSEEN}; clear {self.task_id} to go on with it"
        if event is None:
            return unseen if isinstance(error, UNSEEN) else ""
        if event.thread_is_gone or event.outcome in _FOR_GOOD:
            return f"Clear {self.create_task_id} to start a new one"
        if event.outcome is Outcome.BLOCKED:
            return f"It was left for its person; clear {self.task_id} once somebody has answered"
        return "" if event.outcome is Outcome.TIMEOUT else unseen
