"""Airflow's database as a listener sees it, in memory."""

from __future__ import annotations

import threading  # noqa: TC003 - of a dataclass's field
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners.decisions import Row
from airflow_provider_capy.listeners.store import dumped
from airflow_provider_capy.records import OPEN, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_capy.emulator.control import EmulatorControl

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate


@dataclass
class Store:
    """Airflow's database, in memory.

    Attributes:
        rows: the records, by row.
        told: what was written, when: row, fate.
        contested: rows into which somebody else writes right before the next write.
        marked: whether a person has marked the run.
        failures: how many questions fail.
        broken: runs about which no question is answered.
        asked: the runs about which was asked.
        left: how often what is left open was asked for.
        waits: rows for whose waits word was left.
        hold: what is left open is told only when this is set.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    told: list[tuple[int, Fate | None, float]] = field(default_factory=list)
    contested: dict[int, dict[str, Any]] = field(default_factory=dict)
    marked: bool = False
    failures: int = 0
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    left: int = 0
    waits: list[int] = field(default_factory=list)
    hold: threading.Event | None = None

    def keep(self, thread_id: str | None, task_id: str = "work", **fields: Any) -> int:
        of_row = {
            name: fields.pop(name)
            for name in ("task_state", "run_state", "dag_id", "run_id", "map_index")
            if name in fields
        }
        record = ThreadRecord(**{"thread_id": thread_id, "fate": HELD, "project_id": "prj_demo", **fields})
        known = {
            "dag_id": "dag",
            "run_id": "run",
            "map_index": -1,
            "task_state": "running",
            "run_state": "failed",
            **of_row,
        }
        row_id = len(self.rows) + 1
        self.rows[row_id] = Row(row_id, dumped(record), record, task_id=task_id, **known)
        return row_id

    def write(self, row_id: int, **changes: Any) -> None:
        record = self.rows[row_id].record.model_copy(update=changes)
        self.rows[row_id] = replace(self.rows[row_id], record=record, stored=dumped(record))

    def fate(self, row_id: int) -> Fate | None:
        return self.rows[row_id].record.fate

    def again(self, row: Row) -> Row | None:
        self.asked.append(row.run_id)
        return self.rows.get(row.row_id)

    def of_run(self, dag_id: str, run_id: str) -> list[Row]:
        self.asked.append(run_id)
        if self.failures or run_id in self.broken:
            self.failures = max(self.failures - 1, 0)
            raise ConnectionError("the database is away")
        return [row for row in self.rows.values() if (row.dag_id, row.run_id) == (dag_id, run_id)]

    def sharing(self, reference: str) -> list[Row]:
        return [row for row in self.rows.values() if row.record.reference == reference]

    def left_open(self) -> list[Row]:
        self.left += 1
        if self.hold is not None:
            assert self.hold.wait(30)
        return [row for row in self.rows.values() if row.record.fate in OPEN]

    def was_marked_failed(self, *_: str) -> bool:
        return self.marked

    def compare_and_set(self, changes: Iterable[tuple[Row, ThreadRecord]]) -> list[bool]:
        written = []
        for row, record in changes:
            if (others := self.contested.pop(row.row_id, None)) is not None:
                self.write(row.row_id, **others)
            done = row.row_id in self.rows and self.rows[row.row_id].stored == row.stored
            if done:
                self.rows[row.row_id] = replace(row, record=record, stored=dumped(record))
                self.told.append((row.row_id, record.fate, time.time()))
            written.append(done)
        return written

    def leave_word_for_waits(self, rows: Iterable[Row]) -> None:
        self.waits += [row.row_id for row in rows]

    dumped = staticmethod(dumped)


def at_work(capy: EmulatorControl, copies: int = 1, **fields: Any) -> list[str]:
    return capy.create(life="forever", copies=copies, **{"age": 60, **fields})


def stopped(capy: EmulatorControl) -> set[str]:
    return {thread["id"] for thread in capy.threads() if thread["stops"]}
