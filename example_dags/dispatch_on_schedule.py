"""Several threads, started on a schedule.

Every weekday at six, three threads start at the same time, each with a chore of its own. While they work, their tasks
are deferred: no worker is held. When all have come to rest, `report` logs what they made. A run that is cancelled stops
those that are still at work.

**Costs** three threads a run, and one more for each retry after a thread that ended badly. The DAG comes paused; whoever unpauses it starts the run of its last schedule at once.

**Needs** the connection `capy_default` with a default project.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

CHORES = {
    "dependencies": "Bring the dependencies up to date, one pull request per package. Run the tests before each.",
    "flaky_tests": "Find the test that failed most often on CI in the last seven days, and make it reliable.",
    "changelog": "Add what was merged since the last release to CHANGELOG.md. Change nothing else.",
}

log = logging.getLogger(__name__)


@task
def report(threads: list[dict[str, Any]]) -> None:
    for thread in threads:
        requests = ", ".join(request["url"] for request in thread["pull_requests"]) or "no pull request"
        log.info("%s: %s (%s)", thread["title"], requests, thread["thread_url"])


with DAG(
    dag_id="dispatch_on_schedule",
    schedule="0 6 * * 1-5",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # What costs money starts when somebody says so.
    is_paused_upon_creation=True,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    chores = [
        CapyCreateThreadOperator(
            task_id=name,
            prompt=prompt,
            wait_for_completion=True,
            deferrable=True,
            timeout=timedelta(hours=2),
        )
        for name, prompt in CHORES.items()
    ]
    report([chore.output["thread"] for chore in chores])
