"""Watches a run and its threads from outside, tells every change, and keeps what has to be compared later."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_capy.exceptions import CapyRequestError
from airflow_provider_capy.waiting import describe
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api import Thread
    from tests.demo.capy import Capy
    from tests.demo.console import Console
    from tests.harness.airflow import LocalAirflow

CREATES = "CapyCreateThreadOperator"
TONES = {"success": "good", "failed": "bad", "up_for_retry": "warn", "upstream_failed": "bad", "ready": "good"}
IN_WORDS = {"deferred": "deferred: waits in the triggerer, no worker is held"}


class UnseenError(Exception):
    """Something that the demo waits for did not happen."""


@dataclass
class WatchedThread:
    """A thread as it was seen from outside. All times are epoch seconds.

    Attributes:
        thread_id: its id.
        task_id: the task that started it.
        seen: its state in words, at the last look.
        at_work: the last time it was seen at work.
        rested: the first time it was seen at rest, without being seen at work afterwards.
        updated: when it last changed, in Capy's own words.
    """

    thread_id: str
    task_id: str
    seen: str = ""
    at_work: float | None = None
    rested: float | None = None
    updated: float | None = None

    def saw(self, thread: Thread, now: float) -> bool:
        """Take a look in, and tell whether its state has changed."""
        before, self.seen = self.seen, describe(thread)
        self.updated = _epoch(thread.updated_at)
        if thread.status == "archived" or self.seen in ("ready", "archived"):
            self.rested = self.rested if self.rested is not None else now
        else:
            self.at_work, self.rested = now, None
        return self.seen != before

    @property
    def ready_since(self) -> float | None:
        """When it became ready: as Capy says, where that fits what was seen, otherwise when that was first seen."""
        if self.rested is None:
            return None
        if self.updated is not None and (self.at_work or 0.0) <= self.updated <= self.rested:
            return self.updated
        return self.rested


class Watch:
    """One run, with the threads that its tasks start.

    Args:
        airflow: where it runs.
        capy: where its threads are.
        console: where changes are told.
        dag_id: its DAG.
        run_id: its id.
    """

    def __init__(self, airflow: LocalAirflow, capy: Capy, console: Console, dag_id: str, run_id: str) -> None:
        self.dag_id = dag_id
        self.run_id = run_id
        self.state = ""
        self.tasks: dict[str, dict[str, Any]] = {}
        self.threads: dict[str, WatchedThread] = {}
        self._airflow = airflow
        self._capy = capy
        self._console = console
        console.line("run", f"{airflow.url}/dags/{dag_id}/runs/{run_id}")

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state in RUN_OVER

    def task_state(self, task_id: str) -> str:
        """Return the state of a task, as it was last seen."""
        return str(self.tasks.get(task_id, {}).get("state") or "none")

    def started(self, task_id: str) -> float | None:
        """Return when a task started, in epoch seconds."""
        return _epoch(self.tasks.get(task_id, {}).get("start_date"))

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Look again and again until something is so.

        Raises:
            UnseenError: it is not so when patience is over, or when the run is over and all of its threads are at rest.
        """
        deadline = time.monotonic() + self._capy.patience
        while True:
            finished = self.is_over and all(thread.rested is not None for thread in self.threads.values())
            self.look()
            if condition():
                return
            if finished:
                raise UnseenError(f"{what}: the run is over, it is {self.state}")
            if time.monotonic() > deadline:
                raise UnseenError(f"{what}: not within {self._capy.patience:g} s")
            time.sleep(self._capy.interval)

    def look(self) -> None:
        """Look at the run, its tasks and its threads once, and tell what has changed."""
        try:
            state = self._airflow.run_state(self.dag_id, self.run_id)
            self._take_tasks(self._airflow.tasks(self.dag_id, self.run_id))
            self._find_threads()
        except (AirflowError, httpx.TransportError) as error:
            # A busy machine may leave a question unanswered; the next look asks again.
            self._console.line("airflow", str(error).splitlines()[0], "warn")
            return
        for thread in self.threads.values():
            self._look_at(thread)
        if state != self.state:
            self.state = state
            self._console.line("run", f"is {state}", TONES.get(state, ""))

    def _take_tasks(self, tasks: dict[str, dict[str, Any]]) -> None:
        for name, task in tasks.items():
            state = task["state"]
            if state and state != self.task_state(name):
                self._console.line("task", f"{name} is {IN_WORDS.get(state, state)}", TONES.get(state, ""))
        self.tasks = tasks

    def _find_threads(self) -> None:
        for name, task in self.tasks.items():
            if task["operator"] != CREATES or not task["try_number"] or name in self.threads:
                continue
            thread_id = self._airflow.xcom(self.dag_id, self.run_id, task["task_id"], "thread_id")
            if not thread_id:
                continue
            self.threads[name] = WatchedThread(thread_id, name)
            link = self._airflow.extra_links(self.dag_id, self.run_id, task["task_id"])["Open in Capy"]
            self._console.line("thread", f"{thread_id} was started by {name}")
            self._console.more(f"Open in Capy: {link}")

    def _look_at(self, thread: WatchedThread) -> None:
        try:
            seen = self._capy.client.get_thread(thread.thread_id)
        except CapyRequestError as error:
            self._console.line("thread", f"{thread.thread_id}: {error}", "warn")
            return
        if thread.saw(seen, time.time()):
            self._console.line(
                "thread", f"{thread.thread_id} of {thread.task_id} is {thread.seen}", TONES.get(thread.seen, "")
            )


def _epoch(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
