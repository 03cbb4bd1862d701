"""What a cell has to come to, what it came to, and how the two are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.emulator.control import ThreadTruth

STOPPED, KEPT, READY, REPLACED, NO_THREAD, EITHER = "stopped", "kept", "ready", "replaced", "no thread", "*"
RUNNING, GONE = "running", "gone"
OVER = frozenset({*RUN_OVER, GONE})


@dataclass(frozen=True)
class Promise:
    """What a cell has to come to.

    `fate`: "stopped"; "kept": at work and never asked to stop; "ready": came to its own end; "no thread"; "replaced":
    the first thread stopped, one more started; "*": either.
    `run`: "failed", "success", "running", "gone", or "*" where it is Airflow's own affair.
    `settles`: whether the run is given a minute to end, as it may or may not.
    `goes_on`: whether the run is then seen to end well with its thread, which shows that nothing was broken.
    """

    fate: str
    run: str
    goes_on: bool = False
    settles: bool = False

    @property
    def outlives(self) -> bool:
        """Whether the thread may be at work after its run: it is promised to go on, or nobody can know of it."""
        return self.run in OVER and (self.fate == KEPT or (self.fate == EITHER and self.run == GONE))


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
    false_failure: bool = False
    error: str = ""

    @property
    def as_promised(self) -> bool:
        """Whether the cell is what the guarantees table says."""
        run = self.promised["run"]
        return not self.error and self.promised["fate"] in {"*", self.fate} and run in {"*", self.run}


def is_at_work(thread: ThreadTruth) -> bool:
    """Say whether a thread still costs money."""
    return not thread["over"] and thread["run_state"] != "ready"


def is_stopped(threads: Sequence[ThreadTruth]) -> bool:
    """Say whether the first thread was asked to stop, and has."""
    return bool(threads) and bool(threads[0]["stops"]) and threads[0]["run_state"] == "ready"


def fate_of(threads: Sequence[ThreadTruth]) -> str:
    """Return what became of a trial's threads."""
    if not threads:
        return NO_THREAD
    first, *others = threads
    at_work = [thread for thread in threads if is_at_work(thread)]
    if others:
        replaced = first["stops"] and at_work == others[-1:]
        return REPLACED if replaced else f"{len(at_work)} of {len(threads)} at work"
    if first["stops"]:
        return STOPPED if first["run_state"] == "ready" else "asked to stop"
    return KEPT if at_work else READY


def judge(result: Result, promise: Promise, threads: Sequence[ThreadTruth], row: Any, wait_task: str | None) -> None:
    """Fill in what a trial's threads tell, beside the run's and the tasks' states, which are in the result.

    `wait_task` is the task whose success says that the thread has done its work.
    """
    result.threads = len(threads)
    result.fate = fate_of(threads)
    result.orphan = result.run in OVER and not promise.outlives and any(map(is_at_work, threads))
    wanted = {KEPT: threads, READY: threads, REPLACED: threads[1:]}.get(promise.fate, ())
    result.false_stop = any(thread["stops"] for thread in wanted)
    result.green = row.cancels and result.run == "success" and promise.run != "success"
    all_stopped = bool(threads) and all(thread["stops"] for thread in threads)
    succeeded = wait_task is not None and result.tasks.get(wait_task) == "success"
    result.false_success = all_stopped and succeeded and not row.marks_success
    result.false_failure = result.run == "failed" and promise.run in {RUNNING, "success"}
