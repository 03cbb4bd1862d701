"""Which threads of a run that has ended are to be stopped. Pure: it is told what the records say, and asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.records import OPEN, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A task that succeeded is none of these, unless somebody has marked it, or its process died before it could say so.
_CUT_OFF = frozenset({"failed", "skipped", "upstream_failed", "removed"})
TASK_OVER = _CUT_OFF | {"success"}


class Cause(str, Enum):
    """How a run or a task instance came to its end."""

    RUN_MARKED_FAILED = "the run was marked failed"
    RUN_MARKED_SUCCESS = "the run was marked success"
    RUN_FAILED = "the run failed"
    RUN_SUCCEEDED = "the run is over"
    TASK_MARKED = "the task instance was marked by a person"
    TASK_LOST = "the task instance is over, and its process left the thread behind"


@dataclass(frozen=True, slots=True)
class Row:
    """A task instance's record, and how task instance and run stand.

    Attributes:
        row_id: of the row in Airflow's task state store.
        stored: the row's value, as it was read.
        record: the same, understood.
        dag_id: the DAG.
        run_id: the run.
        task_id: the task.
        map_index: ``-1`` when it is not mapped.
        task_state: Airflow's; ``None`` when it has not begun, or was deleted.
        run_state: Airflow's.
    """

    row_id: int
    stored: str
    record: ThreadRecord
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    task_state: str | None
    run_state: str

    @property
    def is_over(self) -> bool:
        """Whether no process of this task goes on with the thread."""
        return self.run_is_over or self.task_state in TASK_OVER

    @property
    def run_is_over(self) -> bool:
        """Whether its run has ended."""
        return self.run_state in {"failed", "success"}


@dataclass(frozen=True, slots=True)
class Stop:
    """A thread to be stopped.

    Attributes:
        row: whose record calls for it.
        rows: every record of the run that has to know.
        cause: why.
    """

    row: Row
    rows: tuple[Row, ...]
    cause: Cause


def stops(rows: Sequence[Row], causes: Iterable[tuple[Cause, str | None, int]]) -> list[Stop]:
    """Return what is to be stopped, each thread once.

    Args:
        rows: all records of one run.
        causes: what has ended: a cause, and for one that befell a task instance, its task and map index.
    """
    found: dict[str | int, Stop] = {}
    for cause, task_id, map_index in causes:
        for row in rows:
            if task_id is not None and not _belongs_to(row, rows, task_id, map_index):
                continue
            if row.is_over and _calls_for_stop(row, rows, cause):
                thread_id = row.record.thread_id
                same = [other for other in rows if thread_id and _has_to_know(other.record, thread_id)]
                found.setdefault(thread_id or row.row_id, Stop(row, tuple(same or [row]), cause))
    return list(found.values())


def closed(rows: Sequence[Row]) -> list[tuple[Row, ThreadRecord]]:
    """Return what the records of a run that is over are to say, where another of its tasks has seen to their thread."""
    fates: list[tuple[Row, Fate | None]] = []
    for row in rows:
        owner = _owner_of(row, rows)
        if row.record.fate is Fate.HELD and owner is not None and owner.record.fate not in OPEN:
            fates.append((row, owner.record.fate))
        elif row.record.fate is Fate.DISPATCHED and _came_to_its_end(row, rows):
            fates.append((row, Fate.SETTLED))
    return [(row, row.record.model_copy(update={"fate": fate})) for row, fate in fates if row.run_is_over]


def _came_to_its_end(row: Row, rows: Sequence[Row]) -> bool:
    """Say whether another task of the run saw a dispatched thread come to its own end: nothing of it is left to stop."""
    thread_id = row.record.thread_id
    return any(
        thread_id is not None and other.record.thread_id == thread_id and other.record.fate is Fate.SETTLED
        for other in rows
    )


def _belongs_to(row: Row, rows: Sequence[Row], task_id: str, map_index: int) -> bool:
    if (row.task_id, row.map_index) == (task_id, map_index):
        return True
    # A group's wait that has not begun has no record, but its create's thread is its own to answer for.
    return (row.record.owner, row.map_index) == (task_id, map_index) and _owner_of(row, rows) is None


def _calls_for_stop(row: Row, rows: Sequence[Row], cause: Cause) -> bool:
    record = row.record
    if record.fate not in OPEN or not record.may_stop:
        return False
    if record.fate is Fate.DISPATCHED and _came_to_its_end(row, rows):
        return False
    by_itself = row.task_state not in _CUT_OFF
    if record.fate is Fate.DISPATCHED and by_itself:
        return cause in {Cause.RUN_MARKED_FAILED, Cause.TASK_MARKED}
    if cause is Cause.TASK_MARKED or not record.owner:
        return True
    # A thread that a group's create has handed on is its wait's, which may only be about to begin.
    return not (cause is Cause.TASK_LOST and by_itself) and _owner_of(row, rows) is None


def _has_to_know(record: ThreadRecord, thread_id: str) -> bool:
    # A task that saw the thread come to its own end has nothing to doubt.
    return record.thread_id == thread_id and record.fate not in {None, Fate.SETTLED}


def _owner_of(row: Row, rows: Sequence[Row]) -> Row | None:
    wanted = (row.record.owner, row.map_index, row.record.thread_id)
    return next((other for other in rows if (other.task_id, other.map_index, other.record.thread_id) == wanted), None)
