"""Each way of waiting for a thread as a DAG, in the variants that the rows of the matrix need."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_provider_capy.operators import owning
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors import thread as sensors
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread

PROMPT = "{{ dag_run.conf['cell'] }}"
# Airflow's scheduler trips over a task that comes back from a reschedule faster than it was put away.
RESCHEDULE_INTERVAL = 8

# Keys: of the DAG, of every task, of what waits, of the sensor alone, of the create alone.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "runtimeout": {"dag": {"dagrun_timeout": timedelta(seconds=45)}},
    "impatient": {"wait": {"timeout": 12}},
    "executiontimeout": {"task": {"execution_timeout": timedelta(seconds=12)}},
    "gap": {"sensor": {"pool": "closed"}},
    "queued": {"create": {"pool": "closed"}},
    "crash": {"wait": {"capy_conn_id": "capy_workers_only"}},
    "backstop": {"wait": {"timeout": 600}},
    "paused": {},
    "pausedfail": {},
    "deleted": {},
    "retries": {"task": {"retries": 4, "retry_delay": timedelta(seconds=5)}},
    "leave": {"wait": {"stop_on_kill": False}},
}
LONE = ("op_worker", "op_deferred")
SENSORS = {"sensor_poke": {}, "sensor_reschedule": {"mode": "reschedule"}, "sensor_deferred": {"deferrable": True}}
GROUPS = ("group_poke", "group_deferred")


def build(dag_id: str, way: str, variant: dict[str, Any]) -> DAG:
    wait = {"poke_interval": 1, **variant.get("wait", {})}
    everywhere = {key: wait[key] for key in ("capy_conn_id", "stop_on_kill") if key in wait}
    task = {"retries": 0, **variant.get("task", {})}
    with DAG(dag_id, schedule=None, default_args=task, **variant.get("dag", {})) as dag:
        if way in LONE:
            CapyCreateThreadOperator(
                task_id="wait", prompt=PROMPT, wait_for_completion=True, deferrable=way == "op_deferred", **wait
            )
        elif way in SENSORS:
            interval = {"poke_interval": RESCHEDULE_INTERVAL} if way == "sensor_reschedule" else {}
            create = CapyCreateThreadOperator(task_id="create", prompt=PROMPT, **everywhere)
            CapyThreadSensor(
                task_id="wait",
                thread_id=create.output,
                **{**wait, **SENSORS[way], **interval, **variant.get("sensor", {})},
            )
        else:
            group = capy_thread("work", prompt=PROMPT, deferrable=way == "group_deferred", **wait)
            group.create.pool = variant.get("create", {}).get("pool", group.create.pool)
            group.wait.pool = variant.get("sensor", {}).get("pool", group.wait.pool)
    return dag


# A copy of this file is for the row that removes a DAG's file: its name says which way it holds.
name = Path(__file__).stem
if name.startswith("removed_"):
    build(name, name.removeprefix("removed_"), {})
elif name == "backstop":
    # Airflow's own timeout of a deferral lies ten minutes beyond ours: nothing real brings it forward.
    owning.BACKSTOP = sensors.BACKSTOP = -580.0
    for way in ("op_deferred", "sensor_deferred", "group_deferred"):
        build(f"{way}__backstop", way, VARIANTS["backstop"])
else:
    for way in (*LONE, *SENSORS, *GROUPS):
        for variant, settings in VARIANTS.items():
            if variant != "backstop":
                build(f"{way}__{variant}", way, settings)
