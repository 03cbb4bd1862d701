"""One cell of the matrix, driven: start a run, bring it into its phase, cancel it, and look what becomes of the thread."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.sensors.suspicion import STOP_TAKES
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import ThreadTruth
    from tests.cancel.lab import Lab

LOOK = 0.6
SCHEDULER_LAG = 5.0
PHASE_TIMEOUT = 150.0
OVER_TIMEOUT = 150.0
# How long a thread that must not be stopped is watched, and how long one that must be is waited for.
KEPT_FOR = 12.0
STOPPED_WITHIN = 60.0

STOPPED, KEPT, REPLACED, NO_THREAD, EITHER = "stopped", "kept", "replaced", "no thread", "*"
RUNNING, GONE = "running", "gone"


@dataclass(frozen=True)
class Promise:
    """What a cell has to come to.

    `fate`: "stopped"; "kept": never asked to stop; "no thread"; "replaced": the first thread stopped, one more started; "*": either.
    `run`: "failed", "success", "running", "gone", or "*" where it is Airflow's own affair.
    `orphan`: whether the thread outlives the run, which the guarantees table says of this cell.
    `settles`: whether the run is given a minute to end, as it may or may not.
    `goes_on`: whether the run is then seen to end well with its thread, which shows that nothing was broken.
    """

    fate: str
    run: str
    orphan: bool = False
    goes_on: bool = False
    settles: bool = False


@dataclass
class Result:
    """What became of one trial."""

    row: str
    title: str
    way: str
    repetition: int
    lab: str
    promised: dict[str, Any]
    fate: str = "?"
    run: str = "?"
    tasks: dict[str, str] = field(default_factory=dict)
    stop_after: float | None = None
    threads: int = 0
    orphan: bool = False
    false_stop: bool = False
    green: bool = False
    false_success: bool = False
    error: str = ""

    @property
    def as_promised(self) -> bool:
        """Whether the cell is what the guarantees table says."""
        run = self.promised["run"]
        return not self.error and self.promised["fate"] in {"*", self.fate} and run in {"*", self.run}


class Trial:
    """One run of one way."""

    def __init__(self, lab: Lab, row: Any, way: str, repetition: int) -> None:
        self.lab, self.row, self.way = lab, row, way
        self.airflow, self.capy = lab.airflow, lab.capy
        self.key = f"cell-{lab.name}-{row.key}-{way}-{repetition}."
        self.promise: Promise = row.promise(way)
        self.dag_id = row.dag(way)
        self.run_id = ""
        self.acted_at = 0.0
        self.result = Result(row.key, row.title, way, repetition, lab.name, asdict(self.promise))
        self._deleted = False

    # Names

    @property
    def wait_task(self) -> str:
        """The task that waits."""
        return "work.wait" if self.way.startswith("group") else "wait"

    @property
    def create_task(self) -> str:
        """The task that creates."""
        return {"op": "wait", "sensor": "create", "group": "work.create"}[self.way.split("_")[0]]

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

    def until(self, what: str, probe: Callable[[], Any], timeout: float = PHASE_TIMEOUT) -> Any:
        """Wait for something; show the run when it does not come."""
        try:
            return self.airflow.wait_until(what, probe, timeout, LOOK)
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

    def log_of(self, task_id: str, try_number: int = 1) -> str:
        """The log of one try."""
        return self.airflow.task_log(self.dag_id, self.run_id, task_id, try_number)

    # Phases

    def start(self) -> None:
        """Start the run; its prompt carries the trial's name."""
        self.run_id = self.airflow.trigger(self.dag_id, {"cell": self.key})

    def bring_to(self, phase: str) -> None:
        """Start the run and return when it is in the phase."""
        if phase == "creating" or self.row.slow_create:
            self.capy.fault("slow", "createAndStartThread", match=self.key, seconds=self.row.answer_after)
        elif phase == "before_create":
            self.capy.fault("slow_before", "createAndStartThread", match=self.key, seconds=self.row.answer_after)
        self.start()
        getattr(self, f"_until_{phase}")()

    def _until_started(self) -> None:
        # What comes, comes by itself.
        return

    def _until_scheduled(self) -> None:
        self.until("the create is scheduled", lambda: self.state(self.create_task) == "scheduled")

    def _until_creating(self) -> None:
        self.until("the create's request", self.threads)
        if self.state(self.create_task) != "running":
            raise AirflowError(
                f"{self.create_task} is {self.state(self.create_task)} although its create is not answered"
            )

    def _until_before_create(self) -> None:
        # The request is on its way and not yet processed: only what went before it can be seen.
        self.until("the task runs", lambda: self.state(self.create_task) == "running")
        self.until(
            "the intent", lambda: self.airflow.xcom(self.dag_id, self.run_id, self.create_task, "thread_reference")
        )

    def _until_gap(self) -> None:
        self.until("the create is over", lambda: self.state(self.create_task) == "success")
        self.until("the wait is scheduled", lambda: self.state(self.wait_task) == "scheduled")

    def _until_deferred(self) -> None:
        # Whether a triggerer has taken the wait over by now is chance.
        self.until(f"{self.wait_task} is deferred", lambda: self.state(self.wait_task) == "deferred")

    def _until_waiting(self) -> None:
        self.until(f"{self.wait_task} waits", self._waits)

    def _waits(self) -> bool:
        threads = self.threads()
        if not threads or self.state(self.wait_task) != self.waiting_state:
            return False
        if self.waiting_state == "deferred":
            return self.airflow.triggerer_of(self.dag_id, self.run_id, self.wait_task) is not None
        return bool(self.capy.requests("getThread", thread_id=threads[0]["id"]))

    # The course of a trial

    def prepare(self) -> None:
        """Bring the run into the row's phase."""
        if self.row.fault is not None:
            self.capy.fault(operation="stopThread", match=self.key, **self.row.fault)
        self.bring_to(self.row.phase)

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
        if self.promise.run in RUN_OVER:
            self.until("the run is over", lambda: self.run_state() in {*RUN_OVER, GONE}, OVER_TIMEOUT)
        elif self.promise.run == GONE:
            with suppress(AirflowError):
                self.until("the run is gone", lambda: self.run_state() == GONE, OVER_TIMEOUT)

        elif self.promise.settles:
            with suppress(AirflowError):
                self.airflow.wait_until("the run is over", lambda: self.run_state() in {*RUN_OVER, GONE}, 60, LOOK)

    def _see_thread(self) -> None:
        if self.promise.fate in {KEPT, NO_THREAD}:
            time.sleep(max(0.0, self.acted_at + KEPT_FOR - time.time()))
            return
        within = STOPPED_WITHIN if self.promise.fate != EITHER else KEPT_FOR
        with suppress(AirflowError):
            self.airflow.wait_until("the thread is stopped", self._is_stopped, within, LOOK)
        if self.promise.fate == REPLACED:
            with suppress(AirflowError):
                self.airflow.wait_until("a second thread", lambda: len(self.threads()) > 1, STOPPED_WITHIN, LOOK)

    def _is_stopped(self) -> bool:
        threads = self.threads()
        return bool(threads) and bool(threads[0]["stops"]) and threads[0]["run_state"] == "ready"

    def _judge(self) -> None:
        result, threads = self.result, self.threads()
        result.threads = len(threads)
        result.run = self.run_state()
        result.tasks = self.airflow.task_states(self.dag_id, self.run_id) if result.run != GONE else {}
        result.fate = self._fate(threads)
        if threads and threads[0]["stops"]:
            result.stop_after = round(threads[0]["stops"][0] - self.acted_at, 2)
        over = result.run in {*RUN_OVER, GONE}
        # Whoever takes stop_on_kill=False wants the thread to go on.
        result.orphan = (
            over
            and self.row.variant != "leave"
            and any(not thread["over"] and thread["run_state"] != "ready" for thread in threads)
        )
        result.false_stop = self.promise.fate == KEPT and any(thread["stops"] for thread in threads)
        result.false_stop |= self.promise.fate == REPLACED and any(thread["stops"] for thread in threads[1:])
        result.green = self.row.cancels and result.run == "success" and self.promise.run != "success"
        stopped = {thread["id"] for thread in threads if thread["stops"]}
        done = [name for name, state in result.tasks.items() if state == "success" and name == self.wait_task]
        result.false_success = bool(stopped and done and len(stopped) == len(threads) and not self.row.marks_success)

    @staticmethod
    def _fate(threads: list[ThreadTruth]) -> str:
        if not threads:
            return NO_THREAD
        first, *others = threads
        if others:
            at_work = [thread for thread in threads if thread["run_state"] != "ready"]
            return (
                REPLACED if first["stops"] and at_work == others[-1:] else f"{len(at_work)} of {len(threads)} at work"
            )
        if first["stops"]:
            return STOPPED if first["run_state"] == "ready" else "asked to stop"
        return KEPT

    def _see_it_through(self) -> None:
        """Let the thread finish: the run that was disturbed has to end well."""
        if self.promise.fate == REPLACED:
            # A task that comes back right after its deferral meets Airflow's own race, which is not the question.
            self.until("it waits for the new one", lambda: self.state(self.wait_task) == self.waiting_state)
            time.sleep(SCHEDULER_LAG)
        elif self.row.cleared:
            # A thread that finishes in the moment of a clear is taken for one that was stopped, which is not the question.
            self.until("it waits again", self._waits)
            time.sleep(STOP_TAKES)
        self.finish_threads()
        state = self.until("the run ends", lambda: self.run_state() in RUN_OVER and self.run_state(), OVER_TIMEOUT)
        if state != "success":
            self.result.run = f"running, then {state}"
            self.result.tasks = self.airflow.task_states(self.dag_id, self.run_id)
            self.result.error = self.airflow.describe_run(self.dag_id, self.run_id)

    def finish_threads(self) -> None:
        """Let the latest thread finish well."""
        for thread in self.threads()[-1:]:
            self.capy.set_life(thread["id"], "default", seconds=2)

    def clean_up(self) -> None:
        """Leave nothing running that would share the machine with later trials."""
        with suppress(Exception):
            if self.run_state() not in {*RUN_OVER, GONE}:
                self.airflow.mark_run(self.dag_id, self.run_id, "failed")
        with suppress(Exception):
            for thread in self.threads():
                if thread["run_state"] != "ready":
                    self.capy.set_life(thread["id"], "default", seconds=0.1)
