"""Sees to what was heard, and looks for what nobody heard: reads the records, leaves word, and has threads stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners import store
from airflow_provider_capy.listeners.decisions import Cause, closed, stops

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from airflow_provider_capy.listeners.decisions import Row, Stop
    from airflow_provider_capy.listeners.handover import End
    from airflow_provider_capy.listeners.stopper import Stopper
    from airflow_provider_capy.records import ThreadRecord

log = logging.getLogger(__name__)

# So long ends are gathered, and so long what was heard may take to be seen in the database (seconds).
GATHER_FOR = 0.02
SEEN_WITHIN = 10.0

BY_PERSON = frozenset({Cause.RUN_MARKED_FAILED, Cause.RUN_MARKED_SUCCESS, Cause.TASK_MARKED})

Ended = tuple[Cause, "str | None", int]


def cause_of(task_id: str | None, state: str, by_person: bool) -> Cause:
    """Return the cause for what a listener heard."""
    if task_id is not None:
        return Cause.TASK_MARKED if by_person else Cause.TASK_LOST
    if state == "failed":
        return Cause.RUN_MARKED_FAILED if by_person else Cause.RUN_FAILED
    return Cause.RUN_MARKED_SUCCESS if by_person else Cause.RUN_SUCCEEDED


class Ends:
    """Takes ends in; belongs to one event loop."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], set[Ended]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[str | int] = set()
        self._sweeping = False
        # What a sweep has judged, as it was then: a thread that may go on is not judged again every few minutes.
        self._judged: dict[int, Row] = {}
        self._the_stopper: Stopper | None = None

    @property
    def is_idle(self) -> bool:
        """Whether everything that was taken in has been seen to."""
        return not self._tasks

    def take(self, ends: Iterable[End]) -> None:
        """Take in what was heard; returns at once."""
        for dag_id, run_id, task_id, map_index, state, by_person in ends:
            if (run := (dag_id, run_id)) not in self._heard:
                self._heard[run] = set()
                self._spawn(self._run_ended, run)
            self._heard[run].add((cause_of(task_id, state, by_person), task_id, map_index))

    def sweep(self) -> None:
        """Look for ends that nobody has seen to; returns at once."""
        if not self._sweeping:
            self._sweeping = True
            self._spawn(self._sweep)

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        async def guarded() -> None:
            try:
                await work(*arguments)
            except Exception:
                log.exception("Threads of ended runs may still be at work; the next sweep looks for them again")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_ended(self, run: tuple[str, str]) -> None:
        await asyncio.sleep(GATHER_FOR)
        ended = self._heard.pop(run)
        until, pause = time.monotonic() + SEEN_WITHIN, 0.05
        while rows := await asyncio.to_thread(store.of_run, *run):
            await self._see_to(run, ended, rows)
            # A person's mark may be seen a moment later than its commit, where a replica is read.
            by_person = any(cause in BY_PERSON for cause, _, _ in ended)
            if not by_person or all(row.is_over for row in _meant(rows, ended)) or time.monotonic() >= until:
                return
            await asyncio.sleep(pause)
            pause *= 2

    async def _sweep(self) -> None:
        try:
            runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
            left = await asyncio.to_thread(store.left_open)
            for row in left:
                if self._judged.get(row.row_id) != row:
                    runs[row.dag_id, row.run_id].append(row)
            self._judged = {row.row_id: row for row in left}
            for run, found in runs.items():
                try:
                    ended = [await self._missed(row) for row in found]
                    await self._see_to(run, ended, await asyncio.to_thread(store.of_run, *run))
                except Exception:
                    log.exception("Run %s of DAG %s: its threads may still be at work", run[1], run[0])
                    for row in found:
                        self._judged.pop(row.row_id, None)
        finally:
            self._sweeping = False

    @staticmethod
    async def _missed(row: Row) -> Ended:
        if row.run_state == "success":
            return Cause.RUN_SUCCEEDED, None, -1
        if row.run_state != "failed":
            return Cause.TASK_LOST, row.task_id, row.map_index
        dispatched = row.record.fate is Fate.DISPATCHED
        if dispatched and await asyncio.to_thread(store.was_marked_failed, row.dag_id, row.run_id):
            return Cause.RUN_MARKED_FAILED, None, -1
        return Cause.RUN_FAILED, None, -1

    async def _see_to(self, run: tuple[str, str], ended: Iterable[Ended], rows: Sequence[Row]) -> None:
        """Write down what is to be stopped, and have it stopped."""
        for _ in range(3):
            # What befell the run says more than what that did to its task instances.
            if found := stops(rows, sorted(ended, key=lambda end: end[1] is not None)):
                told, contested = await self._leave_word(found)
            else:
                await asyncio.to_thread(store.compare_and_set, closed(rows))
                return
            rows = await asyncio.to_thread(store.of_run, *run) if contested else []
            there = {row.row_id for row in rows}
            for stop in found:
                name = stop.row.record.thread_id or stop.row.row_id
                # A row that somebody else has written into is read again; one that was deleted with its run is not there.
                if name not in self._under_way and (stop.row.row_id in told or stop.row.row_id not in there):
                    self._under_way.add(name)
                    self._spawn(self._stop, name, replace(stop, row=told.get(stop.row.row_id, stop.row)), told)
            if not contested:
                return

    async def _leave_word(self, found: Sequence[Stop]) -> tuple[dict[int, Row], bool]:
        """Write into every record that has to know; return the rows as they stand then, and whether one was missed."""
        told: dict[int, Row] = {}
        changes: list[tuple[Row, ThreadRecord]] = []
        for stop in found:
            others = await self._sharing(stop)
            for row in (*stop.rows, *others):
                if row.record.was_stopped:
                    told[row.row_id] = row
                else:
                    changes.append((row, row.record.stopping(stop.cause.value)))
        told |= await tell(changes)
        # A wait that begins only later has no record yet: it asks the task that started its thread.
        await asyncio.to_thread(store.leave_word_for_waits, [row for row, _ in changes if row.record.is_waited_for])
        return told, any(row.row_id not in told for stop in found for row in stop.rows)

    @staticmethod
    async def _sharing(stop: Stop) -> list[Row]:
        """Return the records of other runs that found this thread by a reference of the user's own, and wait for it."""
        record = stop.row.record
        if not record.is_shareable:
            return []
        rows = await asyncio.to_thread(store.sharing, record.reference)
        run = (stop.row.dag_id, stop.row.run_id)
        same = [row for row in rows if row.record.thread_id == record.thread_id and (row.dag_id, row.run_id) != run]
        return [row for row in same if row.record.fate is Fate.HELD]

    async def _stop(self, name: str | int, stop: Stop, told: dict[int, Row]) -> None:
        try:
            if self._the_stopper is None:
                # A process in which no thread was ever to be stopped has nothing of Capy's API.
                from airflow_provider_capy.listeners.stopper import Stopper

                self._the_stopper = Stopper()
            thread_id = await self._the_stopper.stop(stop)
            if thread_id is not None:
                rest = {"thread_id": thread_id or None, "fate": Fate.STOPPED if thread_id else Fate.SETTLED}
                rows = [told[row.row_id] for row in stop.rows if row.row_id in told]
                await tell([(row, row.record.model_copy(update=rest)) for row in rows])
        finally:
            self._judged.pop(stop.row.row_id, None)
            self._under_way.discard(name)


def _meant(rows: Iterable[Row], ended: Iterable[Ended]) -> list[Row]:
    """Return the rows that an end is about: all of them, where a run has ended."""
    meant = {(task_id, map_index) for _, task_id, map_index in ended}
    return [row for row in rows if (None, -1) in meant or (row.task_id, row.map_index) in meant]


async def tell(changes: Sequence[tuple[Row, ThreadRecord]]) -> dict[int, Row]:
    """Write into the records; return the rows as they stand then, without those that somebody else has written into."""
    if not changes:
        return {}
    written = await asyncio.to_thread(store.compare_and_set, changes)
    return {
        row.row_id: replace(row, record=record, stored=store.dumped(record))
        for (row, record), done in zip(changes, written, strict=True)
        if done
    }
