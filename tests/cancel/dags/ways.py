"""Each way of waiting for a thread as a DAG, in the variants that the rows of the matrix need."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task, task_group

from airflow_provider_capy import task_waits
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread

PROMPT = "{{ dag_run.conf['cell'] }}"
FLAG = "{{ dag_run.conf['flag'] }}"
# Airflow's scheduler trips over a task that comes back from a reschedule faster than it was put away.
RESCHEDULE_INTERVAL = 8
# For a try that is to fail while its thread is at work: the triggerers lack this connection (see `phases.retry`).
FAILING = {
    "task": {"retries": 2, "retry_delay": timedelta(minutes=30)},
    # One look that fails is a try that fails.
    "wait": {"capy_conn_id": "capy_workers_only", "tolerate_outage": 0},
}
# Airflow makes no run of it by itself; a backfill does.
PAST = {
    "schedule": "@daily",
    "catchup": False,
    "start_date": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "end_date": datetime(2020, 12, 31, tzinfo=timezone.utc),
}

# Keys: of the DAG, of every task, of what waits, of the sensor alone; `closed`: which task is in a pool without slots;
# `also`: what else is in the DAG.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "runtimeout": {"dag": {"dagrun_timeout": timedelta(seconds=45)}},
    "lateruntimeout": {"dag": {"dagrun_timeout": timedelta(seconds=150)}},
    "gaptimeout": {"dag": {"dagrun_timeout": timedelta(seconds=45)}, "closed": "wait"},
    "impatient": {"wait": {"timeout": 12}},
    "executiontimeout": {"task": {"execution_timeout": timedelta(seconds=12)}},
    "gap": {"closed": "wait"},
    "queued": {"closed": "create"},
    "blind": {"wait": {"capy_conn_id": "capy_workers_only", "tolerate_outage": 2}},
    "backstop": {"wait": {"timeout": 600}},
    "paused": {},
    "pausedfail": {},
    "deleted": {},
    # While no API server lives, each look of a sensor that reschedules itself costs a try: Airflow cannot start its process.
    "retries": {"task": {"retries": 15, "retry_delay": timedelta(seconds=5)}},
    "leave": {"wait": {"stop_on_kill": False}},
    "failing": FAILING,
    "soft": {**FAILING, "sensor": {"soft_fail": True}},
    "mapped": {"also": "feed"},
    "after": {"also": "after"},
    "failfast": {"dag": {"fail_fast": True}, "also": "other"},
    "backfill": {"dag": PAST},
    "backfillqueued": {"dag": PAST},
}
LONE = ("op_worker", "op_deferred")
SENSORS = {"sensor_poke": {}, "sensor_reschedule": {"mode": "reschedule"}, "sensor_deferred": {"deferrable": True}}


def until(flag: str) -> None:
    while not Path(flag).exists():
        time.sleep(0.5)


@task(task_id="wait")
def stay(flag: str) -> None:
    """Keep the run of a dispatched thread going until the trial lets it end."""
    until(flag)


@task
def other(flag: str) -> None:
    """Fail when the trial says so."""
    until(flag)
    raise RuntimeError("as the trial wants it")


@task(pool="closed")
def after() -> None:
    """Come next, but never start."""


@task(pool="closed")
def feed() -> list[str]:
    """Never say how often a mapped group is to be expanded."""
    return ["one"]


@task_group
def each(item: str, way: str, variant: dict[str, Any]) -> None:
    """Be a mapped group of any way; no word of the item is needed."""
    tasks(way, variant)


def tasks(way: str, variant: dict[str, Any]) -> tuple[Any, Any]:
    """Make a way's tasks: the one that creates and the one that waits, which may be the same."""
    wait = {"poke_interval": 1, **variant.get("wait", {})}
    everywhere = {key: wait[key] for key in ("capy_conn_id", "stop_on_kill") if key in wait}
    soft = variant.get("sensor", {})
    if way in LONE:
        lone = CapyCreateThreadOperator(
            task_id="wait", prompt=PROMPT, wait_for_completion=True, deferrable=way == "op_deferred", **wait
        )
        return lone, lone
    if way.startswith("group"):
        group = capy_thread("work", prompt=PROMPT, deferrable=way == "group_deferred", **wait, **soft)
        return group.create, group.wait
    create = CapyCreateThreadOperator(task_id="create", prompt=PROMPT, **everywhere)
    if way == "dispatch":
        staying = stay(FLAG)
        create >> staying
        return create, staying.operator
    interval = {"poke_interval": RESCHEDULE_INTERVAL} if way == "sensor_reschedule" else {}
    arguments = {**wait, **SENSORS[way], **interval, **soft}
    return create, CapyThreadSensor(task_id="wait", thread_id=create.output, **arguments)


def build(dag_id: str, way: str, variant: dict[str, Any]) -> DAG:
    also = variant.get("also")
    defaults = {"retries": 0, **variant.get("task", {})}
    with DAG(dag_id, default_args=defaults, **{"schedule": None, **variant.get("dag", {})}) as dag:
        if also == "feed":
            each.partial(way=way, variant={}).expand(item=feed())
            return dag
        create, wait = tasks(way, variant)
        if closed := variant.get("closed"):
            {"create": create, "wait": wait}[closed].pool = "closed"
        if also == "after":
            wait >> after()
        elif also == "other":
            other(FLAG)
    return dag


# Only what the lab's trials ask for: the others would cost every process that reads this file.
wanted = {"op_worker__plain", *os.environ.get("CANCEL_DAGS", "").split()}
# A copy of this file is for the rows that need one: its name says for what.
name = Path(__file__).stem
if name.startswith("removed_"):
    build(name, name.removeprefix("removed_"), {})
else:
    if name == "backstop":
        # Airflow's own timeout of a deferral lies ten minutes beyond ours: nothing real brings it forward.
        task_waits.BACKSTOP = -580.0
    for dag_id in sorted(wanted):
        if "__" in dag_id and dag_id.endswith("__backstop") == (name == "backstop"):
            way, variant = dag_id.split("__")
            build(dag_id, way, VARIANTS[variant])
