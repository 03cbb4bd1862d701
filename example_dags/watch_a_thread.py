"""Wait for a thread that was started elsewhere.

Give the run the id of a thread that somebody started in Capy, in Slack, or in another DAG. The run succeeds when the
thread is ready, and fails when it is blocked, archived, or not ready within six hours. Ready says that the agent has come
to rest, not that its pull requests were merged.

The thread is somebody else's: cancelling this run leaves it at work (`stop_on_kill=False`).

**Costs** nothing: it starts no thread.

**Needs** the connection `capy_default`, whose token may see the thread.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_capy.sensors.thread import CapyThreadSensor

log = logging.getLogger(__name__)


@task
def tell(thread: dict[str, Any]) -> None:
    requests = ", ".join(request["url"] for request in thread["pull_requests"]) or "no pull request"
    log.info("%s is ready: %s", thread["title"], requests)


with DAG(
    dag_id="watch_a_thread",
    schedule=None,
    params={"thread_id": Param(type="string", title="Thread id", description="As in its address, e.g. jam_123.")},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    thread = CapyThreadSensor(
        task_id="wait",
        thread_id="{{ params.thread_id }}",
        stop_on_kill=False,
        deferrable=True,
        timeout=timedelta(hours=6),
    )
    tell(thread.output)
