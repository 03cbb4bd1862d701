"""Every way of waiting for a thread whose texts and numbers no database takes, and one wait that nothing befalls."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.task_groups import capy_thread

PROMPT = "[{{ dag_run.conf['name'] }}]"

with DAG("hostile", schedule=None, default_args={"retries": 0}):
    for name, deferrable in {"deferred": True, "worker": False}.items():
        CapyCreateThreadOperator(
            task_id=f"operator_{name}",
            prompt=PROMPT,
            wait_for_completion=True,
            deferrable=deferrable,
            poke_interval=2,
            priority_weight=100 if deferrable else 1,
        )
    capy_thread("group_deferred", prompt=PROMPT, deferrable=True, poke_interval=2, priority_weight=100)
    capy_thread("group_poke", prompt=PROMPT, deferrable=False, poke_interval=2)
    capy_thread("group_reschedule", prompt=PROMPT, deferrable=False, mode="reschedule", poke_interval=5)

with DAG("hostile_neighbour", schedule=None, default_args={"retries": 0}):
    CapyCreateThreadOperator(
        task_id="wait", prompt="[neighbour]", wait_for_completion=True, deferrable=True, poke_interval=2
    )
