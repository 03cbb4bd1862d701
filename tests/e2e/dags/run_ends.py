"""Runs that end in ways that no process of a task hears of, and a failure that alerts."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.task_groups import capy_thread

ALERTS = "alerts.log"


@task
def hold() -> None:
    time.sleep(600)


@task
def deploy(thread: dict[str, Any]) -> object:
    return thread["thread_id"]


def alert(context: Any) -> None:
    """Tell the person on call, one line for each call."""
    line = f"{context['run_id']} {context['ti'].task_id} {context['exception']}".replace("\n", " ")
    with Path(os.environ["AIRFLOW_HOME"], ALERTS).open("a") as file:
        file.write(f"{line}\n")


with DAG("between_tries", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(hours=1)}):
    # In a triggerer, a try that fails as soon as it was deferred is one that Airflow's scheduler may get wrong.
    CapyCreateThreadOperator(
        task_id="work",
        prompt="Between tries",
        wait_for_completion=True,
        deferrable=False,
        poke_interval=1,
        # One look that fails is a try that fails.
        tolerate_outage=0,
    )

with DAG("dispatching", schedule=None):
    CapyCreateThreadOperator(task_id="dispatch", prompt="Dispatched in {{ run_id }}") >> hold()

with DAG("alerting", schedule=None, default_args={"retries": 1, "on_failure_callback": alert}):
    thread = capy_thread("work", prompt="Alerting", deferrable=True, poke_interval=1)
    deploy(thread.output)
