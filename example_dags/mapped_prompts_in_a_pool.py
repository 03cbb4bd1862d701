"""Many prompts, few threads at a time.

One thread per service, as many as the run is given, but never more at work than the pool has slots. A waiting thread
costs money while its task is deferred, so the pool has to count deferred tasks:

    airflow pools set capy_threads 2 "Capy threads at work at a time" --include-deferred

Without `--include-deferred` all of them would start at once. Without the pool none would start.

**Costs** one thread per service, and one more for each retry after a thread that ended badly. A run that is cancelled
stops those at work, and starts no more.

**Needs** the connection `capy_default` with a default project, and the pool.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

log = logging.getLogger(__name__)


@task
def prompts(**context: Any) -> list[str]:
    services = context["params"]["services"]
    return [f"Write down how to roll back the service {name}, in docs/rollback/{name}.md." for name in services]


@task
def count(thread_ids: list[str]) -> int:
    log.info("%d threads have come to rest", len(thread_ids))
    return len(thread_ids)


with DAG(
    dag_id="mapped_prompts_in_a_pool",
    schedule=None,
    params={"services": Param(["billing", "search", "mail"], type="array", title="Services", minItems=1)},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    threads = CapyCreateThreadOperator.partial(
        task_id="document",
        pool="capy_threads",
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(hours=2),
    ).expand(prompt=prompts())
    count(threads.output)
