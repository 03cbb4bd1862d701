"""The task group in every state that a run can be cancelled in."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task, task_group

from airflow_provider_capy.task_groups import capy_thread


@task
def deploy(thread: dict[str, object]) -> object:
    return thread["thread_id"]


for name, arguments in {
    "deferred": {"deferrable": True},
    "poke": {"deferrable": False},
    "left_running": {"deferrable": True, "stop_on_kill": False},
    "skips_blocked": {"deferrable": True, "on_blocked": "skip"},
    "impatient": {"deferrable": True, "timeout": 8},
    "forgiving": {"deferrable": True, "timeout": 8, "soft_fail": True},
}.items():
    with DAG(f"group_{name}", schedule=None, default_args={"retry_delay": timedelta(seconds=1)}):
        thread = capy_thread("work", prompt="Group {{ dag.dag_id }}", poke_interval=1, **arguments)
        thread >> deploy(thread.output)


@task_group
def one(prompt: str) -> object:
    return capy_thread("work", prompt=prompt, poke_interval=1, deferrable=True).output


with DAG("group_mapped", schedule=None):
    one.expand(prompt=["First", "Second"])
