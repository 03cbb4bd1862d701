"""One cell of the matrix, driven: start a run, bring it into its phase, cancel it, and look what becomes of the thread."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.cancel.outcome import (
    EITHER,
    GONE,
    KEPT,
    NO_THREAD,
    OVER,
    READY,
    REPLACED,
    Promise,
    Result,
    is_at_work,
    is_stopped,
    judge,
)
from tests.cancel.phases import SCHEDULER_LAG
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import ThreadTruth
    from tests.cancel.lab import Lab
    from tests.cancel.rows import Row

LOOK = 0.6
PHASE_TIMEOUT = 240.0
OVER_TIMEOUT = 150.0
# How long a thread that must not be stopped is watched, and how long a second one is waited for.
KEPT_FOR = 12.0
REPLACED_WITHIN = 60.0


class Trial:
    """One run of one way."""

    def __init__(self, lab: Lab, row: Row, way: str, repetition: int) -> None:
        self.lab, self.row, self.way = lab, row, way
        self.airflow, self.capy = lab.airflow, lab.capy
        self.key = f"cell-{lab.name}-{row.key}-{way}-{repetition}."
        self.promise: Promise = row.promises[way]
        self.dag_id = row.dag(way)
        self.run_id = ""
        self.backfill: int | None = None
        self.acted_at = 0.0
        self.result = Result(row.key, row.title, way, repetition, lab.name, asdict(self.promise))
        self._flag = lab.flags / self.key

    # Names

    @property
    def conf(self) -> dict[str, str]:
        """What the run is told: its prompt carries the trial's name, and a file's appearance lets some tasks end."""
        return {"cell": self.key, "flag": str(self._flag)}

    @property
    def wait_task(self) -> str:
        """The task that waits."""
        return "work.wait" if self.way.startswith("group") else "wait"

    @property
    def create_task(self) -> str:
        """The task that creates."""
        return {"op": "wait", "group": "work.create"}.get(self.way.split("_")[0], "create")

    @property
    def waiting_state(self) -> str:
        """The state of the task that waits while it does."""
        if self.way.endswith("deferred"):
            return "deferred"
        return "up_for_reschedule" if self.way.endswith("reschedule") else "running"

    # Looks

    def threads(self) -> list[ThreadTruth]:
        """The threads of this trial, oldest first."""
        return [thread for thread in self.capy.threads() if self.key in thread["prompt"]]

    def at_work(self) -> bool:
        """Whether one of them is at work."""
        return any(map(is_at_work, self.threads()))

    def until(self, what: str, probe: Callable[[], Any], timeout: float = PHASE_TIMEOUT, look: float = LOOK) -> Any:
        """Wait for something; show the run when it does not come."""
        try:
            return self.airflow.wait_until(what, probe, timeout, look)
        except AirflowError as error:
            raise AirflowError(f"{error}\n{self.airflow.describe_run(self.dag_id, self.run_id)}") from None

    def state(self, task_id: str) -> str:
        """A task's state, "gone" when it was deleted."""
        with suppress(AirflowError):
            return self.airflow.task_states(self.dag_id, self.run_id).get(task_id, GONE)
        return GONE

    def run_state(self) -> str:
        """The run's state, "gone" when it was deleted."""
        with suppress(AirflowError):
            return self.airflow.run_state(self.dag_id, self.run_id)
        return GONE

    def record(self, task_id: str) -> Any:
        """What a task has written about its thread."""
        return self.airflow.stored(self.dag_id, self.run_id, task_id, "capy_thread")

    def waits(self) -> bool:
        """Whether the wait waits; one on a worker is known by its look at the thread."""
        threads = self.threads()
        if not threads or self.state(self.wait_task) != self.waiting_state:
            return False
        if self.waiting_state == "deferred":
            return self.airflow.triggerer_of(self.dag_id, self.run_id, self.wait_task) is not None
        return self.way == "dispatch" or bool(self.capy.requests("getThread", thread_id=threads[0]["id"]))

    # What is done to it

    def slow_down(self, kind: str, operation: str, seconds: float) -> int:
        """Let Capy take its time with this trial's requests; return the fault's number."""
        return self.capy.fault(kind, operation, match=self.key, seconds=seconds)

    def start(self) -> None:
        """Start the run."""
        self.run_id = self.airflow.trigger(self.dag_id, self.conf)

    def let_go(self) -> None:
        """Let the task end that waits for the trial's word."""
        self._flag.touch()

    def finish_threads(self) -> None:
        """Let the latest thread finish well, and what else the run waits for."""
        for thread in self.threads()[-1:]:
            self.capy.set_life(thread["id"], "default", seconds=2)
        self.let_go()

    # The course of a trial

    def prepare(self) -> None:
        """Bring the run into the row's phase."""
        if self.row.fault is not None:
            self.capy.fault(operation="stopThread", match=self.key, **self.row.fault)
        self.row.phase(self)

    def begin(self) -> None:
        """Let the clock begin."""
        self.acted_at = time.time()

    def act(self) -> None:
        """Do what the row does."""
        self.begin()
        self.row.act(self)

    def observe(self) -> None:
        """Look what becomes of run and thread, and compare."""
        self._see_run()
        self._see_thread()
        self._judge()
        if self.promise.goes_on and self.result.as_promised:
            self._see_it_through()

    def _see_run(self) -> None:
        if self.promise.run in OVER:
            wanted = {GONE} if self.promise.run == GONE else OVER
            self.until(f"the run is {self.promise.run}", lambda: self.run_state() in wanted, OVER_TIMEOUT)
        elif self.promise.settles:
            self._may_come(lambda: self.run_state() in OVER, 60)

    def _see_thread(self) -> None:
        if self.promise.fate in {KEPT, READY, NO_THREAD}:
            time.sleep(max(0.0, self.acted_at + KEPT_FOR - time.time()))
            return
        within = KEPT_FOR if self.promise.fate == EITHER else self.row.stopped_within
        self._may_come(lambda: is_stopped(self.threads()), within)
        if self.promise.fate == REPLACED:
            self._may_come(lambda: len(self.threads()) > 1, REPLACED_WITHIN)

    def _may_come(self, probe: Callable[[], Any], timeout: float) -> None:
        # Whether it came is judged afterwards.
        with suppress(AirflowError):
            self.airflow.wait_until("", probe, timeout, LOOK)

    def _judge(self) -> None:
        result, threads = self.result, self.threads()
        result.run = self.run_state()
        result.tasks = self.airflow.task_states(self.dag_id, self.run_id) if result.run != GONE else {}
        if threads and threads[0]["stops"]:
            result.stop_after = round(threads[0]["stops"][0] - self.acted_at, 2)
        judge(result, self.promise, threads, self.row, None if self.way == "dispatch" else self.wait_task)

    def _see_it_through(self) -> None:
        """Let the thread finish: the run that was disturbed has to end well."""
        if self.promise.fate == REPLACED or self.row.cleared:
            self.until("it waits again", self.waits)
            if self.waiting_state == "deferred":
                time.sleep(SCHEDULER_LAG)
        self.finish_threads()
        state = self.until("the run ends", lambda: self.run_state() in RUN_OVER and self.run_state(), OVER_TIMEOUT)
        if state != "success":
            self.result.run, self.result.false_failure = f"running, then {state}", True
            self.result.tasks = self.airflow.task_states(self.dag_id, self.run_id)
            self.result.error = self.airflow.describe_run(self.dag_id, self.run_id)

    def clean_up(self) -> None:
        """Leave nothing running that would share the machine with later trials."""
        self.let_go()
        with suppress(Exception):
            if self.run_state() not in OVER:
                self.airflow.mark_run(self.dag_id, self.run_id, "failed")
        with suppress(Exception):
            for thread in self.threads():
                if thread["run_state"] != "ready":
                    self.capy.set_life(thread["id"], "default", seconds=0.1)
