"""The records in Airflow's metadata database, as API server and scheduler reach them: read by run, written by comparison."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, func, not_, or_, select, update

from airflow_provider_capy.exceptions import CapyReferenceError
from airflow_provider_capy.listeners.decisions import TASK_OVER, Row
from airflow_provider_capy.records import STOPPED_KEY, STORE_KEY, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.elements import ColumnElement

_RUN_OVER = ("failed", "success")
# Whoever has heard an end has this long to see to it before a sweep does; ends of a week ago are nobody's any more.
_HEARD_WITHIN = timedelta(seconds=60)
_MISSED_WITHIN = timedelta(days=7)
# How far apart the audit log's line of a click and the run's end may lie.
_SAME_CLICK = timedelta(seconds=60)
_PERSON_MARKED_RUN = ("patch_dag_run", "bulk_dag_runs")


def _rows(where: ColumnElement[bool]) -> list[Row]:
    store, ti = TaskStateStoreModel, TaskInstance
    same = and_(
        ti.dag_id == store.dag_id,
        ti.run_id == store.run_id,
        ti.task_id == store.task_id,
        ti.map_index == store.map_index,
    )
    query = (
        select(
            *(store.id, store.value, store.dag_id, store.run_id, store.task_id, store.map_index),
            *(ti.state.label("task_state"), DagRun.state.label("run_state")),
        )
        .join(DagRun, DagRun.id == store.dag_run_id)
        .join(ti, same, isouter=True)
        .where(store.key == STORE_KEY, where)
    )
    with create_session(scoped=False) as session:
        found = session.execute(query).all()
    rows = []
    for row in found:
        try:
            record = ThreadRecord.read(json.loads(row.value))
        except (CapyReferenceError, ValueError):
            continue
        if record is not None:
            place = (row.dag_id, row.run_id, row.task_id, row.map_index)
            rows.append(Row(row.id, row.value, record, *place, row.task_state, str(row.run_state)))
    return rows


def of_run(dag_id: str, run_id: str) -> list[Row]:
    """Return the records of one run; one query by an index."""
    return _rows(and_(TaskStateStoreModel.dag_id == dag_id, TaskStateStoreModel.run_id == run_id))


def again(row: Row) -> Row | None:
    """Return a row as it stands now; ``None`` when it was deleted."""
    return next(iter(_rows(TaskStateStoreModel.id == row.row_id)), None)


def sharing(reference: str) -> list[Row]:
    """Return the records of every run that found its thread by this reference of the user's own."""
    return _rows(TaskStateStoreModel.value.contains(json.dumps(reference), autoescape=True))


def left_open() -> list[Row]:
    """Return the records that may still call for a stop although their run, or their task instance, has ended."""
    store, now = TaskStateStoreModel, datetime.now(timezone.utc)
    may_stop = store.value.notlike('%"stop_on_kill": false%')
    held = and_(or_(store.value.like('%"held"%'), store.value.like('%"stopping"%')), may_stop)
    # A cancelled backfill fails its queued runs without giving them an end.
    run_ended = func.coalesce(DagRun.end_date, DagRun.updated_at)
    run_over = and_(DagRun.state.in_(_RUN_OVER), run_ended.between(now - _MISSED_WITHIN, now - _HEARD_WITHIN))
    task_ended = TaskInstance.end_date.between(now - _MISSED_WITHIN, now - _HEARD_WITHIN)
    # A group's create that succeeded has handed its thread on.
    handed_on = and_(TaskInstance.state == "success", store.value.notlike('%"owner": ""%'))
    task_over = and_(TaskInstance.state.in_(TASK_OVER), task_ended, not_(handed_on))
    dispatched = and_(store.value.like('%"dispatched"%'), may_stop)
    # Its task had succeeded, unless its process died before it could say so, or somebody has made something else of it.
    undone = and_(TaskInstance.state.in_(("failed", "skipped")), task_over)
    return _rows(
        or_(
            and_(held, or_(run_over, and_(DagRun.state == "running", task_over))),
            and_(dispatched, or_(and_(DagRun.state == "failed", run_over), undone)),
        )
    )


def was_marked_failed(dag_id: str, run_id: str) -> bool:
    """Say whether it was a person who ended a run, as Airflow's audit log tells."""
    with create_session(scoped=False) as session:
        end = session.scalar(select(DagRun.end_date).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if end is None:
            return False
        same_click = Log.dttm.between(end - _SAME_CLICK, end + _SAME_CLICK)
        query = select(Log.event, Log.extra, Log.dag_id, Log.run_id).where(
            same_click, Log.event.in_(_PERSON_MARKED_RUN), Log.extra.like("%failed%")
        )
        clicks = session.execute(query).all()
    return any((dag_id, run_id) in _marked_failed(*click) for click in clicks)


def _marked_failed(
    event: str, extra: str | None, dag_id: str | None, run_id: str | None
) -> list[tuple[str | None, str | None]]:
    """Return DAG and run of each run that a line of the audit log marked failed."""
    try:
        body = json.loads(extra or "{}")
        if event == "patch_dag_run":
            return [(dag_id, run_id)] if body.get("state") == "failed" else []
        entities = [item for action in body["actions"] for item in action["entities"]]
        marked = [item for item in entities if item.get("state") == "failed"]
    except (ValueError, LookupError, TypeError, AttributeError):
        # The log keeps also what was refused.
        return []
    # Only a request that stands under "~" is for the runs of several DAGs, and names the DAG with each.
    return [(item.get("dag_id") if dag_id == "~" else dag_id, item.get("dag_run_id")) for item in marked]


def compare_and_set(changes: Iterable[tuple[Row, ThreadRecord]]) -> list[bool]:
    """Write records, each only if its row still holds what was read.

    Returns:
        for each whether it was written.
    """
    written = []
    store = TaskStateStoreModel
    with create_session(scoped=False) as session:
        for row, record in changes:
            query = update(store).where(store.id == row.row_id, store.value == row.stored)
            query = query.values(value=dumped(record), updated_at=datetime.now(timezone.utc))
            result: Any = session.execute(query.execution_options(synchronize_session=False))
            written.append(bool(result.rowcount))
    return written


def leave_word_for_waits(rows: Iterable[Row]) -> None:
    """Push the XCom by which a wait that begins later learns that its thread was stopped; it goes with the thread's task."""
    with create_session(scoped=False) as session:
        for row in rows:
            # Its run may have been deleted.
            with suppress(ValueError):
                XComModel.set(
                    key=STOPPED_KEY,
                    value=[row.record.thread_id],
                    dag_id=row.dag_id,
                    task_id=row.task_id,
                    run_id=row.run_id,
                    map_index=row.map_index,
                    # Airflow's own API stores what tasks push like this.
                    serialize=False,
                    session=session,
                )


def dumped(record: ThreadRecord) -> str:
    """Return a record as Airflow stores it."""
    return json.dumps(record.model_dump(mode="json"))
