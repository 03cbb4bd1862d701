"""Mapped tasks of every kind and a decorated one, for a run inside one process."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor

with DAG("dag_test", schedule=None):
    created = CapyCreateThreadOperator.partial(task_id="create", tags=["nightly"]).expand(prompt=["one", "two"])
    waited = CapyThreadSensor.partial(task_id="wait", poke_interval=1, deferrable=True).expand(thread_id=created.output)
    stopped = CapyStopThreadOperator.partial(task_id="stop").expand(thread_id=created.output)
    waited >> stopped

    @task.capy_thread(wait_for_completion=True, deferrable=True, poke_interval=1)
    def ask(what: str) -> str:
        return f"Explain {what}"

    ask("{{ 1 + 1 }}")
