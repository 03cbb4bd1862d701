"""The three things that the demo shows, each with what has to be seen of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.demo.summary import Report
from tests.demo.watching import UnseenError, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.demo.capy import Capy
    from tests.demo.console import Console
    from tests.harness.airflow import LocalAirflow

# How long the cancelled thread is left at work, so that one can watch it work.
AT_WORK_SECONDS = 3.0


@dataclass
class Stage:
    """Where a scene plays.

    Attributes:
        airflow: the running Airflow.
        capy: the Capy that its threads run on.
        console: where progress is told.
        watches: every run that was started here.
    """

    airflow: LocalAirflow
    capy: Capy
    console: Console
    watches: list[Watch] = field(default_factory=list)

    def watch(self, dag_id: str, run_id: str) -> Watch:
        """Watch a run from now on."""
        watch = Watch(self.airflow, self.capy, self.console, dag_id, run_id)
        self.watches.append(watch)
        return watch

    def trigger(self, dag_id: str) -> Watch:
        """Start a run."""
        return self.watch(dag_id, self.airflow.trigger(dag_id, self.capy.conf))


def dispatch(stage: Stage, report: Report) -> None:
    """Let the scheduler start a run that starts several threads."""
    dag_id = "dispatch_on_schedule"
    stage.airflow.unpause(dag_id)
    stage.console.line("dag", "is unpaused: the scheduler starts the run of its last schedule")
    [run_id] = stage.airflow.wait_until(
        "the scheduler starts a run", lambda: list(stage.airflow.runs(dag_id)), timeout=60
    )
    watch = stage.watch(dag_id, run_id)
    try:
        watch.until("the run is over", lambda: watch.is_over)
    finally:
        finished = _ready(watch) if watch.state == "success" else 0
        report.started += len(watch.threads)
        report.finished += finished
    scheduled = run_id.startswith("scheduled__")
    report.expect(
        f"the schedule started {len(watch.threads)} threads, {finished} of them finished",
        seen=scheduled and finished == len(watch.threads) > 1,
    )


def gate(stage: Stage, report: Report) -> None:
    """Hold a deploy back until its thread is ready."""
    watch = stage.trigger("gate_a_deploy")
    early = False

    def over() -> bool:
        nonlocal early
        at_work = any(thread.rested is None for thread in watch.threads.values())
        early = early or (at_work and watch.task_state("deploy") in {"queued", "running", "success"})
        return watch.is_over

    try:
        watch.until("the run is over", over)
    finally:
        finished = _ready(watch) if watch.state == "success" else 0
        report.started += len(watch.threads)
        report.finished += finished
    ready = max((thread.ready_since or 0.0 for thread in watch.threads.values()), default=0.0)
    started = watch.started("deploy")
    report.expect("the thread before the deploy ran until it was ready", seen=finished == 1)
    if started is None:
        report.expect(f"the deploy did not start: the run is {watch.state}", seen=False)
        return
    waited = f"{started - ready:.1f} s after its thread was ready ({_clock(ready)} → {_clock(started)})"
    report.expect(
        f"the deploy started {waited}" if ready else "the deploy started, and its thread was never seen ready",
        seen=bool(ready) and started >= ready and not early,
    )


def cancel(stage: Stage, report: Report) -> None:
    """Cancel a run while its thread is at work."""
    watch = stage.trigger("cancel_with_the_run")

    def working() -> bool:
        at_work = [thread for thread in watch.threads.values() if thread.seen == "running" and thread.rested is None]
        return bool(at_work) and watch.task_state("migration") == "deferred"

    try:
        watch.until("its thread is at work", working)
        [thread] = watch.threads.values()
        since = time.time()
        watch.until("its thread stays at work", lambda: time.time() - since > AT_WORK_SECONDS)
        if thread.rested is not None:
            raise UnseenError("its thread came to its end before it could be cancelled")
        stage.console.line("run", "is marked as failed, as the UI does it", "warn")
        marked = time.time()
        stage.airflow.mark_run(watch.dag_id, watch.run_id, "failed")
        watch.until("the run is over and its thread is at rest", lambda: watch.is_over and thread.rested is not None)
        stopped = _was_stopped(stage, thread.thread_id)
        report.stopped += stopped
    finally:
        report.started += len(watch.threads)
    took = (thread.ready_since or marked) - marked
    report.expect(f"the thread was at rest {took:.1f} s after its run was marked as failed", seen=stopped)
    report.expect(
        f"the cancelled run ended as {watch.state}, its next task is {watch.task_state('announce')}",
        # Not the run's state: on SQLite, Airflow's scheduler may write over what a person has marked.
        seen=watch.task_state("migration") == "failed" and watch.task_state("announce") == "skipped",
    )


SCENES: list[tuple[str, str, Callable[[Stage, Report], None]]] = [
    ("several threads on a schedule", "dispatch_on_schedule", dispatch),
    ("a deploy that waits for a thread", "gate_a_deploy", gate),
    ("a run that is cancelled while its thread works", "cancel_with_the_run", cancel),
]


def play(stage: Stage) -> Report:
    """Play all scenes; one that goes wrong is told, and the next one begins."""
    total = Report()
    for number, (title, dag_id, scene) in enumerate(SCENES, start=1):
        stage.console.head(f"{number}/{len(SCENES)}  {dag_id}: {title}")
        report = Report()
        try:
            scene(stage, report)
        except Exception as error:  # noqa: BLE001 - whatever it was, the summary says which scene it spoilt
            reason = str(error) or type(error).__name__
            stage.console.line("demo", reason, "bad")
            report.expect(f"{title}: {reason.splitlines()[0]}", seen=False)
        if not report.complete:
            _explain(stage, dag_id)
        total.add(report)
    return total


def _ready(watch: Watch) -> int:
    return sum(thread.seen == "ready" for thread in watch.threads.values())


def _was_stopped(stage: Stage, thread_id: str) -> bool:
    # It was seen at work before and at rest now. Capy has no word for "stopped"; the emulator knows.
    control = stage.capy.control
    return control is None or control.thread(thread_id)["stopped"] is not None


def _explain(stage: Stage, dag_id: str) -> None:
    for watch in stage.watches:
        if watch.dag_id == dag_id:
            stage.console.write(stage.airflow.describe_run(dag_id, watch.run_id, lines=12))


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
