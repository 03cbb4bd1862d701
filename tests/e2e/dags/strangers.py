"""One task for each thing that a stranger, a clock or a neighbour can do to a wait, a stop or a create."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread

WORKER: dict[str, Any] = {"wait_for_completion": True, "deferrable": False, "poke_interval": 1}

with DAG("strangers", schedule=None, default_args={"retries": 0}):
    # Those that hold no worker come first.
    CapyCreateThreadOperator(
        task_id="outage_deferred",
        prompt="[outage]",
        priority_weight=100,
        **{**WORKER, "deferrable": True},
    )
    capy_thread("outage_group", prompt="[outage]", poke_interval=1, deferrable=True, priority_weight=100)
    CapyThreadSensor(
        task_id="outage_reschedule",
        thread_id="{{ dag_run.conf['watched'] }}",
        mode="reschedule",
        poke_interval=6,
        priority_weight=100,
    )
    CapyCreateThreadOperator(task_id="outage_worker", prompt="[outage]", priority_weight=50, **WORKER)
    for name in ("page_once", "just_created", "told_when", "refused_thread_url", "refused_thread_id"):
        CapyCreateThreadOperator(task_id=name, prompt=f"[{name}]", **WORKER)
    CapyCreateThreadOperator(
        task_id="rotated", prompt="[rotated]", capy_conn_id="capy_rotated", timeout=20, priority_weight=50, **WORKER
    )
    CapyStopThreadOperator(task_id="page_in_stop", thread_id="{{ dag_run.conf['stopped'] }}", timeout=40)
