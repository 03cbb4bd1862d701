"""What Airflow calls when runs and task instances end: it notes which, and hands that on once it is committed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow_provider_capy.listeners.handover import End

_THIS_END = timedelta(seconds=10)
_MARKED = "manually set"
_KEY = "airflow_provider_capy.ends"


@hookimpl
def on_starting(component: Any) -> None:
    """A scheduler that starts has its helper look for ends that nobody has heard."""
    if type(component).__module__ == "airflow.jobs.job" and sys.argv[1:2] == ["scheduler"]:
        with suppress(Exception):
            from airflow_provider_capy.listeners import handover

            handover.start_helper()


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """A run was marked failed, failed by itself or ran out of time."""
    _run_ended(dag_run, msg, "failed")


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """A run was marked success, or succeeded."""
    _run_ended(dag_run, msg, "success")


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001 - Airflow's
    """A task instance was marked failed, or its process was found dead."""
    _task_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """A task instance was marked success."""
    _task_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    """A task instance was marked skipped."""
    _task_ended(previous_state, task_instance)


def _is_ours(ended: Any) -> bool:
    # A task's own process calls these hooks as well, with objects of the SDK: there the task itself settles everything;
    # and so does dag.test(), which is no server.
    return (
        type(ended).__module__.startswith("airflow.models.") and os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server"
    )


def _was_over(dag_run: Any) -> bool:
    # Airflow calls the hooks also where somebody marks a run that has ended long ago; it keeps its end then.
    end = dag_run.end_date
    return end is not None and datetime.now(timezone.utc) - end > _THIS_END


def _run_ended(dag_run: Any, msg: str, state: str) -> None:
    # Nothing of ours may reach Airflow: what is missed here, the helper of some scheduler finds.
    with suppress(Exception):
        if _is_ours(dag_run) and not _was_over(dag_run):
            _note(dag_run, (dag_run.dag_id, dag_run.run_id, None, -1, state, _MARKED in msg))


def _task_ended(previous_state: Any, task_instance: Any) -> None:
    with suppress(Exception):
        if _is_ours(task_instance):
            ti = task_instance
            # Airflow tells no previous state where a person has marked it.
            _note(ti, (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, "", previous_state is None))


def _note(ended: Any, end: End) -> None:
    """Keep an end until the transaction that it belongs to is committed."""
    from sqlalchemy import event
    from sqlalchemy.orm import object_session

    session = object_session(ended)
    if session is None:
        return
    # A scheduler has one session for life.
    if _KEY not in session.info:
        session.info[_KEY] = []
        event.listen(session, "after_commit", _hand_on)
        event.listen(session, "after_rollback", _forget)
    session.info[_KEY].append(end)


def _forget(session: Any) -> None:
    # A savepoint, whose end SQLAlchemy tells as well, settles nothing yet.
    if not session.in_nested_transaction():
        session.info[_KEY].clear()


def _hand_on(session: Any) -> None:
    ends = session.info[_KEY]
    if not ends or session.in_nested_transaction():
        return
    with suppress(Exception):
        from airflow_provider_capy.listeners import handover

        handover.hand_on(list(ends))
    ends.clear()
