"""A thread that was stopped reads ``ready`` like a finished one: this tells a task that waited for it which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyThreadStoppedError
from airflow_provider_capy.records import STOPPED_KEY

if TYPE_CHECKING:
    from airflow_provider_capy.records import ThreadRecord


def stopped_error(
    context: Any, task: Any, record: ThreadRecord | None, thread_id: str
) -> CapyThreadStoppedError | None:
    """Return what a wait fails with when its thread rests because somebody stopped it; ``None`` when nobody did.

    Args:
        context: of the task.
        task: the one that waits.
        record: what its store holds by now: whoever stops a thread leaves word there.
        thread_id: the thread.
    """
    if record is not None and record.thread_id == thread_id and record.was_stopped:
        by = record.stopped_by or "somebody"
    elif told_by := _told_by(context["ti"], task, thread_id):
        by = f"task {told_by} of this run tells so"
    else:
        return None
    return CapyThreadStoppedError(
        f"Thread {thread_id} was stopped ({by}), so its ready is no success; it was left as it is. Clear the task that "
        "starts it to start a new one, or mark this task as success if the thread has done its work",
        thread_id=thread_id,
        thread_url=record.thread_url if record is not None else "",
    )


def _told_by(ti: Any, task: Any, thread_id: str) -> str:
    """Return the id of the task of this run that tells of the stop; empty when there is none.

    A stop task can write into no record but its own. The task that started the thread tells of a cancel that came before
    this wait had a record.
    """
    from airflow_provider_capy.operators.stop import CapyStopThreadOperator
    from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

    # Mapped ones as well, whichever of their instances it was.
    kinds = {other.task_id: getattr(other, "operator_class", type(other)) for other in task.dag.tasks}
    stops = [task_id for task_id, kind in kinds.items() if issubclass(kind, CapyStopThreadOperator)]
    starts = [task_id for task_id in task.upstream_task_ids if issubclass(kinds[task_id], CapyCreateThreadOperator)]
    for task_id in (*stops, *starts):
        # One instance gives its list, several give a list of lists.
        word = ti.xcom_pull(task_ids=task_id, key=STOPPED_KEY)
        if any(thread_id == item or thread_id in item for item in word or () if item):
            return str(task_id)
    return ""
