"""Runs a task as a worker does, through Airflow's own task runner, with a supervisor that keeps everything in memory."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from unittest import mock

import structlog
from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import DagRun, TIRunContext
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import Operator

RUN_ID = "run_1"
TASK_ID = "work"
DAG_ID = "dag_under_test"


@dataclass
class Supervisor:
    """Answers what a task asks, from memory; values cross as JSON, as they do over the socket.

    Attributes:
        xcoms: by key, of the task under test.
        store: the task state store.
        others: XComs of other tasks, by task and key.
        standing: the state that Airflow reports for the task instance.
        messages: everything that was sent.
        events: trigger events, as they went through the database.
    """

    xcoms: dict[str, Any] = field(default_factory=dict)
    store: dict[str, Any] = field(default_factory=dict)
    others: dict[tuple[str, str], Any] = field(default_factory=dict)
    standing: str = "running"
    messages: list[Any] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def send(self, msg: Any) -> Any:  # noqa: PLR0911 - one answer per question
        self.messages.append(msg)
        match msg:
            case comms.SetXCom():
                self.xcoms[msg.key] = json.loads(json.dumps(msg.value))
            case comms.GetXComSequenceSlice():
                value = self.others.get((msg.task_id, msg.key))
                return comms.XComSequenceSliceResult(root=[] if value is None else [value])
            case comms.GetXCom():
                ours = msg.task_id == TASK_ID
                value = self.xcoms.get(msg.key) if ours else self.others.get((msg.task_id, msg.key))
                return comms.XComResult(key=msg.key, value=value)
            case comms.SetTaskStateStore():
                self.store[msg.key] = json.loads(json.dumps(msg.value))
            case comms.GetTaskStateStore() if msg.key in self.store:
                return comms.TaskStateStoreResult(value=self.store[msg.key])
            case comms.DeleteTaskStateStore():
                self.store.pop(msg.key, None)
            case comms.GetTaskStates():
                key = msg.task_ids[0] if (msg.map_index or -1) < 0 else f"{msg.task_ids[0]}_{msg.map_index}"
                return comms.TaskStatesResult(task_states={msg.run_ids[0]: {key: self.standing}})
            case comms.ValidateInletsAndOutlets():
                return comms.InactiveAssetsResult(inactive_assets=[])
            case comms.GetTaskRescheduleStartDate():
                return comms.TaskRescheduleStartDate(start_date=self.first_look)
        return None

    async def asend(self, msg: Any) -> Any:
        return self.send(msg)

    first_look: datetime | None = None


@dataclass
class Ran:
    """How a task ended.

    Attributes:
        state: Airflow's, e.g. ``"success"``.
        error: what it raised, or ``None``.
        supervisor: what it told.
        looks: how many times the task had a worker.
        deferred: how many times it was deferred.
    """

    state: str
    error: BaseException | None
    supervisor: Supervisor
    looks: int = 1
    deferred: int = 0

    @property
    def xcoms(self) -> dict[str, Any]:
        return self.supervisor.xcoms


def run_task(
    make: Callable[[], BaseOperator],
    *,
    supervisor: Supervisor | None = None,
    try_number: int = 1,
    retries: int = 0,
    clear_number: int = 0,
    map_index: int = -1,
    conf: Mapping[str, Any] | None = None,
    on_deferred: Callable[[Any], None] | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Ran:
    """Run a task to its end: through deferrals, each resumed on a fresh instance, and reschedules, each on a fresh one.

    Args:
        make: builds the task inside a DAG, as parsing its file does.
        supervisor: one with memories of earlier tries; a new one by default.
        try_number: of this try.
        retries: of the task.
        clear_number: of the run.
        map_index: of the task instance.
        conf: of the run.
        on_deferred: looks at each trigger before it runs.
        resume: begin after a deferral, with ``next_method`` and ``next_kwargs``.
    """
    supervisor = supervisor or Supervisor()
    ran = Ran("", None, supervisor, looks=0)
    rescheduled = 0
    while True:
        with DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
            task = make()
        ti = _instance(task, try_number, retries, clear_number, map_index, rescheduled, conf, resume or {})
        before = signal.getsignal(signal.SIGTERM)
        with mock.patch.object(task_runner, "SUPERVISOR_COMMS", supervisor, create=True):
            try:
                context = ti.get_template_context()
                log = structlog.get_logger("task")
                state, message, error = task_runner.run(ti, context, log)
                task_runner.finalize(ti, state, context, log, error)
            finally:
                signal.signal(signal.SIGTERM, before)
        ran.looks += 1
        ran.state, ran.error = state.value, error
        if isinstance(message, comms.DeferTask):
            ran.deferred += 1
            event = _trigger(message, supervisor, ti, on_deferred)
            resume = {"next_method": message.next_method, "next_kwargs": {"event": event}}
        elif isinstance(message, comms.RescheduleTask):
            rescheduled += 1
            supervisor.first_look = supervisor.first_look or datetime.now(timezone.utc)
            time.sleep(max((message.reschedule_date - datetime.now(timezone.utc)).total_seconds(), 0.0))
        else:
            return ran


def context_of(task: Operator, conf: Mapping[str, Any]) -> Any:
    """Return what the templates of a task see in a run that somebody triggered."""
    with mock.patch.object(task_runner, "SUPERVISOR_COMMS", Supervisor(), create=True):
        return _instance(task, 1, 0, 0, -1, 0, conf, {}).get_template_context()


def _instance(
    task: Operator,
    try_number: int,
    retries: int,
    clear_number: int,
    map_index: int,
    rescheduled: int,
    conf: Mapping[str, Any] | None,
    resume: Mapping[str, Any],
) -> task_runner.RuntimeTaskInstance:
    now = datetime.now(timezone.utc)
    dag_run = DagRun(
        dag_id=DAG_ID,
        run_id=RUN_ID,
        # As `airflow dags trigger` and a click on Trigger send it.
        logical_date=None,
        data_interval_start=None,
        data_interval_end=None,
        run_after=now,
        start_date=now,
        end_date=None,
        clear_number=clear_number,
        run_type="manual",
        state="running",
        conf=dict(conf or {}),
        consumed_asset_events=[],
        partition_key=None,
    )
    server = TIRunContext(
        dag_run=dag_run,
        max_tries=retries,
        task_reschedule_count=rescheduled,
        should_retry=try_number <= retries,
        xcom_keys_to_clear=[],
        **resume,
    )
    return task_runner.RuntimeTaskInstance.model_construct(
        id=uuid.uuid4(),
        task_id=task.task_id,
        dag_id=DAG_ID,
        run_id=RUN_ID,
        try_number=try_number,
        dag_version_id=uuid.uuid4(),
        map_index=map_index,
        hostname="",
        context_carrier={},
        task=task,
        bundle_instance=None,
        _ti_context_from_server=server,
        max_tries=retries,
        start_date=now,
        state="running",
        sentry_integration="",
    )


def _trigger(message: Any, supervisor: Supervisor, ti: Any, look: Callable[[Any], None] | None) -> Any:
    """Do what a triggerer does: build the trigger from what was serialised, run it, hand its event back as JSON."""
    trigger = import_string(message.classpath)(**deserialize(json.loads(json.dumps(message.trigger_kwargs))))
    trigger.task_instance = ti
    if look is not None:
        look(trigger)

    async def fire() -> Any:
        events = [event async for event in trigger.run()]
        assert len(events) == 1
        return events[0].payload

    with mock.patch.object(task_runner, "SUPERVISOR_COMMS", supervisor, create=True):
        supervisor.events.append(json.dumps(asyncio.run(fire())))
    return json.loads(supervisor.events[-1])
