"""Every way of waiting for a thread, each over every main outcome, as tasks of one DAG."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor

OUTCOMES: dict[str, dict[str, Any]] = {
    "ready": {},
    "blocked_fail": {},
    "blocked_skip": {"on_blocked": "skip"},
    "archived": {},
    "task_error": {"fail_on_task_error": True},
    "timeout": {"timeout": 30},
}
# Airflow itself loses a task that comes back before its process has ended, which takes long on a busy machine.
# Those that hold no worker come first, so that they have begun to wait before the threads end.
SENSORS: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True, "poke_interval": 1, "priority_weight": 100},
    "reschedule": {"mode": "reschedule", "poke_interval": 20, "priority_weight": 50},
    "poke": {"mode": "poke", "poke_interval": 1},
}
OPERATORS: dict[str, dict[str, Any]] = {
    "deferrable": {"deferrable": True, "priority_weight": 80},
    "worker": {"deferrable": False},
}

with DAG("ways_of_waiting", schedule=None, default_args={"retries": 0}):
    for outcome, arguments in OUTCOMES.items():
        for mode, ways in SENSORS.items():
            CapyThreadSensor(
                task_id=f"sensor_{mode}_{outcome}",
                thread_id=f"{{{{ dag_run.conf['threads']['{outcome}'] }}}}",
                # A timeout is not retried, whatever the task says.
                retries=1 if outcome == "timeout" else 0,
                **{**ways, **arguments},
            )
        for mode, ways in OPERATORS.items():
            CapyCreateThreadOperator(
                task_id=f"operator_{mode}_{outcome}",
                prompt=f"[{outcome}]\n{{{{ dag_run.conf['secret'] }}}}",
                wait_for_completion=True,
                poke_interval=1,
                **{**ways, **arguments},
            )
    for mode, ways in SENSORS.items():
        CapyThreadSensor(
            task_id=f"sensor_{mode}_soft",
            thread_id="{{ dag_run.conf['threads']['timeout'] }}",
            soft_fail=True,
            timeout="{{ 20 + 5 }}",
            **{**ways, "poke_interval": f"{{{{ {ways['poke_interval']} }}}}"},
        )
