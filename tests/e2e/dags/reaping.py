"""Threads that outlive their runs, those that should, and the operator that tells them apart."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyReapThreadsOperator

for name, arguments in {"left": {}, "spared": {"stop_on_kill": False}}.items():
    with DAG(f"reap_{name}", schedule=None):
        CapyCreateThreadOperator(task_id="create", prompt="Work", **arguments)

with DAG("reap_goes_on", schedule=None):
    CapyCreateThreadOperator(task_id="create", prompt="Work", wait_for_completion=True, deferrable=True)

for name, dry_run in {"reap_dry": True, "reap_now": False}.items():
    with DAG(name, schedule=None):
        CapyReapThreadsOperator(task_id="reap", dry_run=dry_run)
