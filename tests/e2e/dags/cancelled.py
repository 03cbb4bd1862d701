"""Tasks that wait until somebody ends them: in the worker, in the triggerer, with and without stopping their thread."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor

with DAG("cancelled", schedule=None):
    for stop in (True, False):
        ending = "stopped" if stop else "kept"
        for deferrable in (False, True):
            where = "deferred" if deferrable else "worker"
            CapyCreateThreadOperator(
                task_id=f"operator_{where}_{ending}",
                prompt=f"operator_{where}_{ending}",
                wait_for_completion=True,
                deferrable=deferrable,
                poke_interval=1,
                stop_on_kill=stop,
            )
            CapyThreadSensor(
                task_id=f"sensor_{where}_{ending}",
                thread_id=f"{{{{ dag_run.conf['sensor_{where}_{ending}'] }}}}",
                deferrable=deferrable,
                poke_interval=1,
                stop_on_kill=stop,
            )

with DAG("cancelled_create", schedule=None):
    CapyCreateThreadOperator(task_id="create", prompt="cut off", wait_for_completion=True, poke_interval=1)

with DAG("interrupted_deferred", schedule=None):
    CapyCreateThreadOperator(
        task_id="work", prompt="Interrupted", wait_for_completion=True, deferrable=True, poke_interval=1
    )

with DAG("links", schedule=None):
    for deferrable in (False, True):
        where = "deferred" if deferrable else "worker"
        CapyCreateThreadOperator(
            task_id=f"operator_{where}",
            prompt=f"operator_{where}",
            wait_for_completion=True,
            deferrable=deferrable,
            poke_interval=1,
        )
        CapyThreadSensor(
            task_id=f"sensor_{where}",
            thread_id="{{ dag_run.conf['thread_id'] }}",
            deferrable=deferrable,
            poke_interval=1,
            stop_on_kill=False,
        )
