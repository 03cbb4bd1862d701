"""The rows of the matrix: what happens to a run, and what the README promises of it for each way of waiting."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cancel import acts, browser
from tests.cancel.lab import WAYS
from tests.cancel.trial import EITHER, GONE, KEPT, NO_THREAD, REPLACED, RUNNING, STOPPED, Promise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONE = ("op_worker", "op_deferred")
SENSORS = ("sensor_poke", "sensor_reschedule", "sensor_deferred")
GROUPS = ("group_poke", "group_deferred")
CREATING = ("op_worker", "sensor_poke", "group_poke")
ON_WORKER = ("op_worker", "sensor_poke", "group_poke")
DEFERRED = ("op_deferred", "sensor_deferred", "group_deferred")

stopped_failed = Promise(STOPPED, "failed")
stopped_success = Promise(STOPPED, "success")
kept_failed = Promise(KEPT, "failed", orphan=True)
goes_on = Promise(KEPT, RUNNING, goes_on=True)
anew = Promise(REPLACED, RUNNING, goes_on=True)


@dataclass(frozen=True)
class Row:
    """One row.

    `key` is that of the table in the facts this matrix answers; `together` rows befall all their runs at once.
    `cancels`: a user or a timeout ends the run, so it must not end green. `marks_success`: that is what the user wants.
    `racy`: what is repeated in the full matrix, `at_most` so often, and `at_once` so many repetitions by one event where
    it befalls all runs together. `cleared`: the waiting task begins anew with the same thread. `within`: seconds
    in which the stop must be asked for. `selection`: part of what CI runs.
    """

    key: str
    title: str
    promises: Mapping[str, Promise]
    act: Callable[[Any], None]
    phase: str = "waiting"
    variant: str = "plain"
    lab: str = "one"
    answer_after: float = 3.0
    cancels: bool = True
    marks_success: bool = False
    racy: bool = False
    together: bool = False
    selection: bool = False
    fault: Mapping[str, Any] | None = None
    at_most: int = 1000
    at_once: int = 1
    cleared: bool = False
    within: Mapping[str, float] | None = None
    slow_create: bool = False

    def promise(self, way: str) -> Promise:
        """What the README says of this way."""
        return self.promises[way]

    def dag(self, way: str) -> str:
        """The DAG that has the way in the row's variant."""
        return f"removed_{way}" if self.variant == "removed" else f"{way}__{self.variant}"


def of(*parts: tuple[tuple[str, ...], Promise]) -> dict[str, Promise]:
    """Give ways their promises, the later ones win."""
    return {way: promise for ways, promise in parts for way in ways}


ALL_STOPPED = of((WAYS, stopped_failed))

ROWS: tuple[Row, ...] = (
    Row("0", "run marked failed before the create has begun", of((GROUPS, Promise(NO_THREAD, "failed"))),
        acts.mark_run("failed"), phase="scheduled", variant="queued", selection=True),
    Row("1", "run marked failed, create under way", of((CREATING, stopped_failed)), acts.mark_run("failed"),
        phase="creating", racy=True, selection=True),
    Row("1-late", "the same, Capy answers after 20 s, but finds the thread",
        of((CREATING, stopped_failed)), acts.mark_run("failed"),
        phase="creating", answer_after=20, racy=True, selection=True),
    # Whether the worker lives to see it is a matter of tenths of a second.
    Row("1-before", "run marked failed, create sent, Capy processes it 6 s later",
        of((("op_worker", "sensor_poke"), Promise(EITHER, "failed")), (GROUPS[:1], stopped_failed)), acts.mark_run("failed"),
        phase="before_create", answer_after=6, racy=True),
    Row("2", "run marked failed while it waits",
        of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)), acts.mark_run("failed"),
        racy=True, selection=True),
    Row("2-early", "run marked failed the moment it is deferred",
        of((("op_deferred", "sensor_deferred"), Promise(EITHER, "failed")), (("group_deferred",), stopped_failed)),
        acts.mark_run("failed"), phase="deferred", racy=True, selection=True),
    Row("3", "run marked failed between create and wait",
        of((SENSORS, kept_failed), (GROUPS, stopped_failed)), acts.mark_run("failed"),
        phase="gap", variant="gap", racy=True, selection=True),
    Row("5a", "waiting task marked failed", of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)),
        acts.mark_wait("failed"), selection=True),
    Row("5b-success", "waiting task marked success",
        of((WAYS, stopped_success), (("sensor_reschedule",), Promise(KEPT, "success", orphan=True))),
        acts.mark_wait("success"), marks_success=True),
    Row("5b-early", "waiting task marked success the moment it is deferred",
        of((("group_deferred",), stopped_success)), acts.mark_wait("success"), phase="deferred", marks_success=True,
        racy=True),
    Row("5b-skipped", "waiting task marked skipped",
        of((WAYS, stopped_success), (("sensor_reschedule",), Promise(KEPT, "success", orphan=True)),
           (GROUPS, stopped_failed)),
        acts.mark_wait("skipped")),
    Row("5f-failed", "creating task marked failed, create under way", of((CREATING, stopped_failed)),
        acts.mark_create("failed"), phase="creating"),
    Row("5f-success", "creating task marked success, create under way",
        of((("op_worker",), stopped_success), (("sensor_poke", "group_poke"), stopped_failed)),
        acts.mark_create("success"), phase="creating", marks_success=True),
    Row("5g", "run marked success while it waits",
        of((WAYS, stopped_success), (("sensor_reschedule",), Promise(KEPT, "success", orphan=True))),
        acts.mark_run("success"), marks_success=True),
    Row("5h", "run set to queued while it waits", of((WAYS, goes_on)), acts.mark_run("queued"), cancels=False),
    Row("6a", "dagrun_timeout while it waits", of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)),
        acts.nothing, variant="runtimeout"),
    Row("6b", "dagrun_timeout, create under way, Capy answers too late, but finds the thread",
        of((CREATING, stopped_failed)), acts.nothing,
        phase="started", slow_create=True, variant="runtimeout", answer_after=75),
    Row("7", "the wait's own timeout", of((WAYS, stopped_failed), (SENSORS, kept_failed)), acts.nothing, phase="started",
        variant="impatient"),
    # Not in reschedule mode: each poke has the whole time anew.
    Row("7-exec", "execution_timeout while it waits",
        of((LONE, stopped_failed), (GROUPS, stopped_failed), (("sensor_poke", "sensor_deferred"), kept_failed)),
        acts.nothing, phase="started", variant="executiontimeout"),
    Row("7a", "Airflow's own timeout of a deferral",
        of((("op_deferred", "group_deferred"), stopped_failed), (("sensor_deferred",), kept_failed)),
        acts.nothing, phase="started", variant="backstop"),
    # A task that comes back while the scheduler still puts its deferral away is failed and killed by the scheduler
    # ("state attribute is queued"); a trigger that crashes at its start comes back that fast.
    Row("7d", "trigger crashes at its start: the triggerer lacks the connection",
        of((("op_deferred",), Promise(EITHER, "failed")), (("group_deferred",), stopped_failed),
           (("sensor_deferred",), kept_failed)),
        acts.nothing, phase="started", variant="crash", selection=True),
    Row("8a", "DAG paused while it waits", of((WAYS, Promise(KEPT, RUNNING))), acts.pause,
        variant="paused", cancels=False),
    Row("8b", "DAG paused, then run marked failed",
        of((("op_worker", "op_deferred", "sensor_poke", "sensor_deferred", *GROUPS), stopped_failed)),
        acts.pause_and_fail, variant="pausedfail"),
    Row("8c", "run marked failed and deleted",
        of((WAYS, Promise(STOPPED, GONE)), (("sensor_reschedule",), Promise(KEPT, GONE, orphan=True))),
        acts.delete_run),
    # Airflow makes a deleted task instance anew while its run goes on, and the new one is a try of its own.
    Row("8d", "waiting task instance deleted",
        of((LONE, Promise(EITHER, "*", settles=True)), (("sensor_poke", "sensor_deferred"), Promise(EITHER, "*", settles=True)),
           (GROUPS, stopped_failed)),
        acts.delete_wait, cancels=False),
    Row("8f", "DAG file removed, then run marked failed",
        of((("op_worker", "op_deferred", "sensor_poke", "sensor_deferred"), stopped_failed),
           (GROUPS, Promise(STOPPED, RUNNING))),
        acts.remove_file_and_fail, variant="removed"),
    # Whether a triggerer that starts takes a wait over before it throws it away is chance.
    Row("10c", "run marked failed while no triggerer lives",
        of((("op_deferred", "sensor_deferred"), Promise(EITHER, "failed")), (("group_deferred",), stopped_failed)),
        acts.mark_while_no_triggerer_lives, together=True, selection=True),
    Row("10a", "triggerer restarts", of((DEFERRED, goes_on)), acts.restart("triggerer"), together=True, cancels=False,
        selection=True),
    Row("10b", "triggerer killed and started again", of((DEFERRED, goes_on)),
        acts.restart("triggerer", after_kill=True), together=True, cancels=False),
    Row("9a-api", "API server restarts", of((WAYS, goes_on)), acts.restart("api-server"),
        variant="retries", together=True, cancels=False, selection=True),
    Row("9a-scheduler", "scheduler restarts, with the workers it started", of((WAYS, goes_on)),
        acts.restart("scheduler"), variant="retries", together=True, cancels=False),
    Row("9c", "API server gone for 60 s", of((WAYS, goes_on)), acts.api_server_gone(60),
        variant="retries", together=True, cancels=False),
    Row("12a", "task process killed, tries left", of((ON_WORKER, goes_on)), acts.signal_task(signal.SIGKILL),
        variant="retries", cancels=False, selection=True),
    Row("12a-last", "task process killed, no tries left",
        of((("op_worker", "sensor_poke"), kept_failed), (("group_poke",), stopped_failed)),
        acts.signal_task(signal.SIGKILL), cancels=False),
    Row("12b", "machine lost: supervisor and task killed, tries left", of((ON_WORKER, goes_on)),
        acts.signal_task(signal.SIGKILL, supervisor=True), variant="retries", cancels=False),
    Row("13a", "worker gets SIGTERM, tries left", of((ON_WORKER, goes_on)), acts.signal_task(signal.SIGTERM),
        variant="retries", cancels=False),
    Row("13a-pod", "the worker's pod gets SIGTERM, tries left", of((ON_WORKER, goes_on)),
        acts.signal_task(signal.SIGTERM, supervisor=True, task=False), variant="retries", cancels=False),
    Row("13a-last", "worker gets SIGTERM, no tries left", of((ON_WORKER, stopped_failed)),
        acts.signal_task(signal.SIGTERM), cancels=False, selection=True),
    Row("13b", "supervisor gets SIGINT, tries left", of((ON_WORKER, goes_on)),
        acts.signal_task(signal.SIGINT, supervisor=True, task=False), variant="retries", cancels=False),
    Row("16-slow", "run marked failed, the stop takes 8 s",
        of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)), acts.mark_run("failed"),
        fault={"kind": "slow", "seconds": 8}),
    Row("16-500", "run marked failed, the stop answers 500 twice",
        of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)), acts.mark_run("failed"),
        fault={"kind": "status", "status": 500, "times": 2}),
    Row("16-429", "run marked failed, the stop answers 429 once, Retry-After 2",
        of((WAYS, stopped_failed), (("sensor_reschedule",), kept_failed)), acts.mark_run("failed"),
        fault={"kind": "status", "status": 429, "times": 1, "retry_after": 2}),
    Row("leave", "run marked failed, stop_on_kill=False", of((WAYS, Promise(KEPT, "failed"))), acts.mark_run("failed"),
        variant="leave"),
    Row("5c", "waiting task cleared", of((LONE, anew), (SENSORS, goes_on), (GROUPS, goes_on)), acts.clear_wait,
        lab="two", cancels=False, racy=True, cleared=True, selection=True),
    Row("2-clear", "run marked failed while it waits, then its failed tasks cleared",
        of((LONE, anew), (("sensor_poke", "sensor_deferred"), stopped_failed), (("sensor_reschedule",), goes_on),
           (GROUPS, stopped_failed)),
        acts.fail_and_clear, lab="two", cancels=False, cleared=True, selection=True),
    Row("5d", "run cleared while it waits", of((WAYS, anew)), acts.clear_run, lab="two", cancels=False, racy=True),
    Row("5e", "run cleared, create under way", of((CREATING, anew)), acts.clear_run, phase="creating",
        lab="two", cancels=False, racy=True, selection=True),
    Row("5d-create", "creating task cleared, with what follows", of((WAYS, anew)), acts.clear_create, lab="two",
        cancels=False),
    Row("11a", "holding triggerer frozen, the other takes over, thawed", of((DEFERRED, goes_on)), acts.freeze_holder,
        lab="two", together=True, cancels=False, racy=True, at_once=5, selection=True),
    Row("11b", "holding triggerer killed, run marked failed, the other lives",
        of((("op_deferred", "sensor_deferred"), kept_failed), (("group_deferred",), stopped_failed)),
        acts.kill_holder_and_mark, lab="two", together=True, racy=True, at_once=5, selection=True),
    Row("11c", "holding triggerer frozen, run marked failed, thawed", of((DEFERRED, stopped_failed)),
        acts.freeze_holder_and_mark, lab="two", together=True, racy=True, at_once=5),
    Row("8e", "DAG deleted while it waits", of((("op_deferred", "sensor_deferred", "group_deferred"), Promise(STOPPED, GONE))),
        acts.delete_dag, variant="deleted", lab="two"),
    Row("13c", "Celery worker told to stop (SIGTERM, warm)",
        of((ON_WORKER, Promise(KEPT, "success"))), acts.celery_warm, variant="retries", lab="celery", together=True,
        cancels=False),
    Row("13d-group", "Celery worker's process group gets SIGTERM, tries left", of((ON_WORKER, goes_on)),
        acts.celery_killed(signal.SIGTERM, group=True), variant="retries", lab="celery", together=True, cancels=False),
    Row("13d-cold", "Celery worker told to stop at once (SIGQUIT, cold), tries left", of((ON_WORKER, goes_on)),
        acts.celery_killed(signal.SIGQUIT), variant="retries", lab="celery", together=True, cancels=False),
    Row("13d-last", "the same, no tries left", of((("op_worker", "sensor_poke"), stopped_failed), (("group_poke",), stopped_failed)),
        acts.celery_killed(signal.SIGQUIT), lab="celery", together=True, cancels=False),
    Row("click", "run marked failed with the UI's own buttons, Airflow's default settings",
        of((("op_worker", "op_deferred", *GROUPS), stopped_failed)), browser.mark_run_failed, lab="ui", racy=True,
        at_most=10, within={"op_worker": 10, "op_deferred": 5, "group_poke": 10, "group_deferred": 5}),
)  # fmt: skip
