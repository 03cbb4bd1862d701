"""A thread that was stopped reads ``ready`` like a finished one: this tells a task that waited for it which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyThreadStoppedError
from airflow_provider_capy.records import STOPPED_KEY

if TYPE_CHECKING:
    from airflow_provider_capy.records import ThreadRecord


def who_stopped(record: ThreadRecord | None, thread_id: str) -> str:
    """Return who stopped a thread by a task's record, where whoever does it leaves word; empty when nobody did.

    Args:
        record: what the task's store holds by now.
        thread_id: the thread.
    """
    if record is None or record.thread_id != thread_id or not record.was_stopped:
        return ""
    return record.stopped_by or "somebody"


def stopped_error(thread_id: str, by: str, url: str) -> CapyThreadStoppedError:
    """Return what a wait fails with when its thread rests because somebody stopped it.

    Args:
        thread_id: the thread.
        by: who stopped it and why, in words.
        url: its web address; empty when that is not known.
    """
    return CapyThreadStoppedError(
        f"Thread {thread_id} was stopped ({by}), so its ready is no success; it was left as it is. Clear the task that "
        "starts it to start a new one, or mark this task as success if the thread has done its work",
        thread_id=thread_id,
        thread_url=url,
    )


def told_by_a_task(ti: Any, task: Any, thread_id: str) -> str:
    """Return which task of this run tells that the thread was stopped, in words; empty when none does.

    A stop task can write into no record but its own. The task that started the thread tells of a cancel that came before
    this wait had a record.

    Args:
        ti: the task instance that waits.
        task: its task.
        thread_id: the thread.
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
        if any(thread_id == item or (isinstance(item, list) and thread_id in item) for item in word or ()):
            return f"task {task_id} of this run tells so"
    return ""
