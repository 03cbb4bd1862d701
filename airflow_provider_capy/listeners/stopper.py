"""Stops the threads that the end of a run, or of a task instance, has left without an owner: patiently, and beside each other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.flow import SharedClient, arun
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners import store
from airflow_provider_capy.listeners.decisions import Cause, Stop, stops
from airflow_provider_capy.stopping import StopReport, stop_and_confirm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.listeners.decisions import Row
    from airflow_provider_capy.listeners.handover import End
    from airflow_provider_capy.records import ThreadRecord

log = logging.getLogger(__name__)

# So long ends are gathered, and so long what was heard may take to be seen in the database (seconds).
GATHER_FOR = 0.02
SEEN_WITHIN = 10.0
# How long a stop is repeated when Capy fails, and the thread of a create is looked for whose answer never came (seconds).
STOP_WITHIN = 600.0
FOUND_WITHIN = 90.0
LOOK_EVERY = 2.0
# After this a create whose thread no sweep has found has started none.
SOUGHT_WITHIN = 900.0

BY_PERSON = frozenset({Cause.RUN_MARKED_FAILED, Cause.RUN_MARKED_SUCCESS, Cause.TASK_MARKED})

Ended = tuple[Cause, "str | None", int]
R = TypeVar("R")


def cause_of(task_id: str | None, state: str, by_person: bool) -> Cause:
    """Return the cause for what a listener heard."""
    if task_id is not None:
        return Cause.TASK_MARKED if by_person else Cause.TASK_LOST
    if state == "failed":
        return Cause.RUN_MARKED_FAILED if by_person else Cause.RUN_FAILED
    return Cause.RUN_MARKED_SUCCESS if by_person else Cause.RUN_SUCCEEDED


class Stopper:
    """Takes ends in, and stops what they call for; belongs to one event loop."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], set[Ended]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[str | int] = set()
        self._clients: dict[str, tuple[asyncio.Task[SharedClient], int]] = {}

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
        self._spawn(self._sweep)

    def _spawn(self, work: Callable[..., object], *arguments: object) -> None:
        async def guarded() -> None:
            try:
                await work(*arguments)  # type: ignore[misc]
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
            await self._see_to(rows, ended)
            # What a person has marked may be committed in two steps.
            by_person = any(cause in BY_PERSON for cause, _, _ in ended)
            if not by_person or all(row.is_over for row in _meant(rows, ended)) or time.monotonic() >= until:
                return
            await asyncio.sleep(pause)
            pause *= 2

    async def _sweep(self) -> None:
        runs: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in await asyncio.to_thread(store.left_open):
            runs[row.dag_id, row.run_id].append(row)
        for run, found in runs.items():
            ended = [await self._missed(row) for row in found]
            await self._see_to(await asyncio.to_thread(store.of_run, *run), ended)

    async def _see_to(self, rows: list[Row], ended: Iterable[Ended]) -> None:
        """Write down what is to be stopped, and have it stopped."""
        for _ in range(3):
            # Whoever is at a thread already goes on with it.
            found = [stop for stop in stops(rows, ended) if _name(stop) not in self._under_way]
            if not found:
                return
            run = found[0].row.dag_id, found[0].row.run_id
            told = await _tell([(row, row.record.stopping(stop.cause.value)) for stop in found for row in stop.rows])
            rows = await asyncio.to_thread(store.of_run, *run) if len(told) < sum(len(s.rows) for s in found) else []
            there = {row.row_id for row in rows}
            for stop in found:
                # A row that somebody else has written into is read again; one that was deleted with its run is not there.
                if stop.row.row_id in told or stop.row.row_id not in there:
                    self._under_way.add(_name(stop))
                    self._spawn(self._stop, stop, told)

    @staticmethod
    async def _missed(row: Row) -> Ended:
        if row.record.fate is Fate.DISPATCHED and row.task_state in {"failed", "skipped"}:
            return Cause.TASK_MARKED, row.task_id, row.map_index
        if row.run_state == "success":
            return Cause.RUN_SUCCEEDED, None, -1
        if row.run_state != "failed":
            return Cause.TASK_LOST, row.task_id, row.map_index
        if row.record.fate is Fate.DISPATCHED and await asyncio.to_thread(
            store.was_marked_failed, row.dag_id, row.run_id
        ):
            return Cause.RUN_MARKED_FAILED, None, -1
        return Cause.RUN_FAILED, None, -1

    async def _stop(self, stop: Stop, told: dict[int, Row]) -> None:
        row = told.get(stop.row.row_id, stop.row)
        where = f"task {row.task_id} of run {row.run_id} of DAG {row.dag_id}"
        try:
            async with self._client(row.record.capy_conn_id) as client:
                if (thread_id := row.record.thread_id or await self._find(row, client)) is None:
                    await self._not_found(row, where)
                    return
                until = time.time() + STOP_WITHIN
                report: StopReport = await arun(stop_and_confirm(thread_id, until=until, clock=time.time), client)
            (log.info if report.is_over else log.warning)(
                "Thread %s of %s, %s: %s", thread_id, where, report.in_words, stop.cause.value
            )
            if report.is_over:
                rest = {"thread_id": thread_id, "fate": Fate.STOPPED}
                rows = [told[other.row_id] for other in stop.rows if other.row_id in told]
                await _tell([(other, other.record.model_copy(update=rest)) for other in rows])
        except Exception as error:  # noqa: BLE001 - one thread is not to keep the others from being stopped
            log.warning("A thread of %s may still be at work: %s: %s", where, type(error).__name__, error)
        finally:
            self._under_way.discard(_name(stop))

    @staticmethod
    async def _not_found(row: Row, where: str) -> None:
        log.warning("No thread was found for %s, whose create was cut off: %s", where, row.record.reference)
        sent_at = float((row.record.model_extra or {}).get("sent_at") or 0.0)
        if time.time() - sent_at > SOUGHT_WITHIN:
            await _tell([(row, row.record.model_copy(update={"fate": Fate.SETTLED}))])

    async def _find(self, row: Row, client: SharedClient) -> str | None:
        """Return the thread of a create that was cut off: its process may still tell it, or Capy's search show it."""
        from airflow_provider_capy.creating import look_up

        until = time.time() + FOUND_WITHIN
        while True:
            for now in await asyncio.to_thread(store.of_run, row.dag_id, row.run_id):
                if now.row_id == row.row_id and now.record.thread_id:
                    return now.record.thread_id
            if row.record.reference:
                try:
                    flow = look_up(
                        row.record.reference,
                        project_id=row.record.project_id,
                        not_before=None,
                        until=0.0,
                        clock=time.time,
                    )
                    if (found := await arun(flow, client)) is not None:
                        return found.id
                except CapyRequestError as error:
                    log.warning("The reference %s could not be looked up: %s", row.record.reference, error)
            if time.time() >= until:
                return None
            await asyncio.sleep(LOOK_EVERY)

    @asynccontextmanager
    async def _client(self, conn_id: str) -> AsyncIterator[SharedClient]:
        """Lend the client of a connection, which is closed when nobody uses it any more."""
        opened, users = self._clients.get(conn_id) or (asyncio.ensure_future(_open(conn_id)), 0)
        self._clients[conn_id] = (opened, users + 1)
        try:
            yield await asyncio.shield(opened)
        finally:
            opened, users = self._clients.pop(conn_id)
            if users > 1:
                self._clients[conn_id] = (opened, users - 1)
            elif opened.done() and not opened.cancelled() and opened.exception() is None:
                await opened.result().close()


def _meant(rows: Iterable[Row], ended: Iterable[Ended]) -> list[Row]:
    """Return the rows that an end is about: all of them, where a run has ended."""
    meant = {(task_id, map_index) for _, task_id, map_index in ended}
    return [row for row in rows if (None, -1) in meant or (row.task_id, row.map_index) in meant]


def _name(stop: Stop) -> str | int:
    return stop.row.record.thread_id or stop.row.row_id


async def _tell(changes: list[tuple[Row, ThreadRecord]]) -> dict[int, Row]:
    """Write into the records; return the rows as they stand then, without those that somebody else has written into."""
    from dataclasses import replace

    if not changes:
        return {}
    written = await asyncio.to_thread(store.compare_and_set, changes)
    return {
        row.row_id: replace(row, record=record, stored=store.dumped(record))
        for (row, record), done in zip(changes, written, strict=True)
        if done
    }


async def _open(conn_id: str) -> SharedClient:
    return SharedClient(await asyncio.to_thread(_settings, conn_id))


def _settings(conn_id: str) -> ClientSettings:
    from airflow_provider_capy.hooks.capy import CapyHook

    hook = CapyHook(conn_id)
    return hook.client_settings
