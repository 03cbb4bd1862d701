"""A thread that was stopped reads ``ready`` like a finished one: this keeps a cleared sensor from taking it for success."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyThreadStoppedError
from airflow_provider_capy.lifecycle import ENDS_AT_ONCE, Outcome, judge
from airflow_provider_capy.remembering import is_a_kill
from airflow_provider_capy.tasking import STOPPED_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.lifecycle import Policy

STORE_KEY = "capy_watch"
# A stop is asynchronous: one that was asked for right before a clear shows as ready only so many seconds later.
STOP_TAKES = 10.0
# Found in the place of Airflow's numbers by every later try: it stays suspicious.
_FOR_GOOD: list[int] = []
_PROVES_NOTHING = frozenset({Outcome.READY, Outcome.TASK_ERROR})


class Suspicion:
    """What is known of earlier tries of a sensor that may have stopped its thread.

    Airflow tells a sensor's trigger that its task instance is over, and gives it no way to leave word for the next try.
    So the sensor leaves word before it waits, and takes it back when the wait comes to an end of its own: what is still
    there after a clear belongs to a wait that was cut off. A clear raises ``max_tries``, unless the task is running,
    and then its ``on_kill`` has kept the thread.

    Args:
        context: of the task.
        task: the sensor.
        thread_id: its thread.
    """

    def __init__(self, context: Any, task: Any, thread_id: str) -> None:
        self._ti = context["ti"]
        # A clear counts the first anew from the second, so that a DAG changed meanwhile could hide it.
        self._tries = [self._ti.max_tries, task.retries]
        self._was_cleared = bool(getattr(context["dag_run"], "clear_number", 0))
        self._store = context.get("task_state_store")
        self._task = task
        self._thread_id = thread_id

    def begin(
        self, look: Callable[[str], Thread], policy: Policy, *, leave_word: bool
    ) -> CapyThreadStoppedError | None:
        """Begin a wait, unless nobody could tell a finished thread from a stopped one.

        Args:
            look: gets a thread; called only where there is a suspicion.
            policy: what the task wants.
            leave_word: whether this try may stop the thread, so that later ones have to know.

        Returns:
            what the task fails with when the thread reads ``ready``, which proves nothing.

        Raises:
            CapyRequestError: it could not be looked at.
        """
        left = self._left()
        if left is not None and left["tries"] == self._tries:
            return None
        word: dict[str, Any] = {"thread_id": self._thread_id, "tries": self._tries}
        if reason := self._reason(left):
            if _outcome(look(self._thread_id), policy) in _PROVES_NOTHING:
                return self._error(reason)
            word |= {"doubted": reason, "doubted_until": time.time() + STOP_TAKES}
        if self._store is not None and (leave_word or reason):
            self._store.set(STORE_KEY, word)
        return None

    def end(self, outcome: Outcome | None, log: Any) -> CapyThreadStoppedError | None:
        """End a wait that came to an end of its own, and take back the word.

        Args:
            outcome: of the thread; ``None`` when the wait ended without one.
            log: of the task; a word that cannot be taken back must not hide how the task ends.

        Returns:
            what the task fails with when the thread came to rest so soon after a clear that a stop may have done it.
        """
        if self._store is None:
            return None
        try:
            return self._taken_back(outcome)
        except Exception as error:
            if is_a_kill(error) or (self._was_cleared and outcome in _PROVES_NOTHING):
                raise
            log.warning("A later try may think that this wait was cut off: %s", error)
            return None

    def _taken_back(self, outcome: Outcome | None) -> CapyThreadStoppedError | None:
        if self._was_cleared:
            left = self._left()
            if left is None or left["tries"] != self._tries:
                # An earlier try's, for a later one to find: this one has not come as far as its own.
                return None
            if time.time() < left.get("doubted_until", 0.0):
                self._store.set(STORE_KEY, {**left, "tries": _FOR_GOOD})
                return self._error(left["doubted"]) if outcome in _PROVES_NOTHING else None
        self._store.delete(STORE_KEY)
        return None

    def _reason(self, left: dict[str, Any] | None) -> str:
        """Return why the thread may have been stopped; empty when there is no reason to think so."""
        if not self._was_cleared:
            return ""
        if self._was_stopped_in_this_run():
            return "a task of this run has stopped it"
        return "" if left is None else "the wait before the clear was cut off, and may have stopped it"

    def _was_stopped_in_this_run(self) -> bool:
        from airflow_provider_capy.operators.stop import CapyStopThreadOperator

        # Mapped ones as well, whichever of their instances it was.
        kinds = {task.task_id: getattr(task, "operator_class", type(task)) for task in self._task.dag.tasks}
        stops = [task_id for task_id, kind in kinds.items() if issubclass(kind, CapyStopThreadOperator)]
        words = (self._ti.xcom_pull(task_ids=stop, key=STOPPED_KEY) for stop in stops)
        # One instance gives its list, several give a list of lists.
        return any(self._thread_id == item or self._thread_id in item for word in words for item in word or () if item)

    def _left(self) -> dict[str, Any] | None:
        left = self._store.get(STORE_KEY) if self._store is not None else None
        return left if isinstance(left, dict) and left.get("thread_id") == self._thread_id else None

    def _error(self, reason: str) -> CapyThreadStoppedError:
        return CapyThreadStoppedError(
            f"Thread {self._thread_id} reads ready, which proves nothing: {reason}, and a stopped thread reads like a "
            "finished one. It was left as it is. Clear the task that starts it to start a new one, or mark this task as "
            "success if the thread has done its work; a retry finds the same",
            thread_id=self._thread_id,
        )


def _outcome(thread: Thread, policy: Policy) -> Outcome | None:
    return judge(thread, ENDS_AT_ONCE, policy, time.time()).outcome
