"""Stops threads that nobody answers for any more: patiently, beside each other, through one client for each connection."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_capy.api.retry import NO_RETRIES
from airflow_provider_capy.creating import look_up
from airflow_provider_capy.exceptions import CapyReferenceError, CapyRequestError
from airflow_provider_capy.flow import SharedClients, arun
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.listeners import store
from airflow_provider_capy.stopping import stop_and_confirm

if TYPE_CHECKING:
    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.flow import SharedClient
    from airflow_provider_capy.listeners.decisions import Row, Stop

log = logging.getLogger(__name__)

# How long a stop is repeated when Capy fails, and the thread of a create is looked for whose answer never came (seconds).
STOP_WITHIN = 600.0
FOUND_WITHIN = 90.0
LOOK_EVERY = 2.0
# By how many seconds two clocks may measure the same time differently, one of which counts whole seconds.
AGES_DIFFER = 5.0
# After this a create whose thread no sweep has found has started none.
SOUGHT_WITHIN = 900.0
# How soon the same failure of the same stop is told again.
COMPLAIN_EVERY = 3600.0


class Stopper:
    """Stops threads on behalf of one event loop."""

    def __init__(self) -> None:
        self._clients = SharedClients()
        self._complaints: dict[int, tuple[str, float]] = {}

    async def stop(self, stop: Stop) -> str | None:
        """Stop a thread, and say in the log what became of it.

        Returns:
            its id when it is at rest, empty when there is none; ``None`` when it may still be at work.
        """
        row = stop.row
        where = f"task {row.task_id} of run {row.run_id} of DAG {row.dag_id}"
        try:
            conn_id = row.record.capy_conn_id
            async with self._clients.lent(conn_id, CapyHook(conn_id)) as client:
                thread_id = row.record.thread_id or await self._find(row, client)
                if thread_id is None:
                    log.warning("No thread was found for %s, whose create was cut off: %s", where, row.record.reference)
                    return "" if time.time() - row.record.sent > SOUGHT_WITHIN else None
                until = time.time() + STOP_WITHIN
                report = await arun(stop_and_confirm(thread_id, until=until, clock=time.time, ask_first=True), client)
        except Exception as error:  # noqa: BLE001 - one thread is not to keep the others from being stopped
            self._complain(row.row_id, f"A thread of {where} may still be at work: {type(error).__name__}: {error}")
            return None
        words = f"Thread {thread_id} of {where}, {report.in_words}: {stop.cause.value}"
        if not report.is_over:
            self._complain(row.row_id, words)
            return None
        log.info("%s", words)
        return thread_id

    def _complain(self, row_id: int, words: str) -> None:
        """Tell of a failure, but not again with every sweep."""
        now = time.monotonic()
        before, told_at = self._complaints.get(row_id, ("", 0.0))
        if words != before or now - told_at >= COMPLAIN_EVERY:
            self._complaints[row_id] = words, now
            log.warning("%s", words)

    async def _find(self, row: Row, client: SharedClient) -> str | None:
        """Return the thread of a create that was cut off: its process may still tell it, or Capy's search show it."""
        until = time.time() + FOUND_WITHIN
        record = row.record
        while True:
            now = await asyncio.to_thread(store.again, row)
            if now is not None and now.record.thread_id:
                return now.record.thread_id
            if record.reference:
                flow = look_up(
                    record.reference, project_id=record.project_id, until=0.0, clock=time.time, retry=NO_RETRIES
                )
                try:
                    if (found := await arun(flow, client)) is not None:
                        return found.id if self._is_its_own(row, found) else None
                except CapyReferenceError as error:
                    # What carries it is not this task's, or nobody knows which one is.
                    self._complain(row.row_id, str(error))
                    return None
                except CapyRequestError as error:
                    self._complain(row.row_id, f"The reference {record.reference} could not be looked up: {error}")
            if time.time() >= until:
                return None
            await asyncio.sleep(LOOK_EVERY)

    def _is_its_own(self, row: Row, found: Thread) -> bool:
        """Say whether a task started a thread: with a reference of the user's own, it may be an older one of somebody else.

        Each age is told by one clock alone: Capy's own, and ours since the intent.
        """
        if not row.record.is_shareable:
            return True
        if found.age is not None and found.age <= time.time() - row.record.intended + AGES_DIFFER:
            return True
        why = "its age is not known" if found.age is None else "it was there before this task's create"
        self._complain(row.row_id, f"Thread {found.id} carries the reference and was not stopped: {why}")
        return False
