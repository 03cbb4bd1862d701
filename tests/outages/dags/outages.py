"""Every way of waiting, and fifty waits beside them, for threads that the run's conf names or that are started here."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread

HOW: dict[str, Any] = {
    "poke_interval": float(os.environ["OUTAGES_POLL"]),
    "tolerate_outage": float(os.environ["OUTAGES_TOLERATED"]),
    "timeout": 24 * 3600,
}

with DAG("outages", schedule=None, default_args={"retries": 0}):
    for name, ways in {"worker": {"deferrable": False}, "deferred": {"deferrable": True}}.items():
        CapyCreateThreadOperator(
            task_id=f"operator_{name}", prompt=f"operator {name}", wait_for_completion=True, **ways, **HOW
        )
    for name, ways in {
        "poke": {"mode": "poke"},
        "reschedule": {"mode": "reschedule"},
        "deferred": {"deferrable": True},
    }.items():
        CapyThreadSensor(task_id=f"sensor_{name}", thread_id="{{ dag_run.conf['threads'][0] }}", **ways, **HOW)
    capy_thread("group_worker", prompt="group worker", deferrable=False, **HOW)
    capy_thread("group_deferred", prompt="group deferred", deferrable=True, **HOW)

    @task
    def threads(dag_run: Any = None) -> list[str]:
        return list(dag_run.conf["threads"])

    CapyThreadSensor.partial(task_id="crowd", deferrable=True, **HOW).expand(thread_id=threads())
