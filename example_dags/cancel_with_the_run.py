"""A long thread that stops when its run is cancelled.

Mark the run as failed while the thread works, in the UI with "Mark run as … failed": the thread stops within seconds,
`announce` does not start, and the run ends as failed. So it is in whichever state `migration` is: while it creates the
thread, waits deferred, or waits for its next try. The log of Airflow's API server, where the run was marked, tells that
the thread was stopped and why; the log of `migration` does where the task itself was the first to stop it.

**Costs** one thread a run, up to the end of its work or until you cancel it: twelve hours at most. One more for each
retry after a thread that ended badly: archived or too slow.

**Needs** the connection `capy_default` with a default project, a repository that this project has access to, and an
API server and a scheduler that can reach Capy, as the workers and the triggerer can.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

log = logging.getLogger(__name__)


@task
def announce(thread: dict[str, Any]) -> None:
    requests = ", ".join(request["url"] for request in thread["pull_requests"]) or "no pull request"
    log.info("The agent is done with the migration, have a look: %s", requests)


with DAG(
    dag_id="cancel_with_the_run",
    schedule=None,
    params={
        "repo": Param("acme/api", type="string", title="Repository", pattern="^[^/]+/[^/]+$"),
        "branch": Param("main", type="string", title="Branch to start from", minLength=1),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    migration = CapyCreateThreadOperator(
        task_id="migration",
        prompt="Add type annotations to {{ params.repo }}, one module after the other, until mypy --strict passes.",
        repos=[{"repo_full_name": "{{ params.repo }}", "branch": "{{ params.branch }}"}],
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(hours=12),
    )
    announce(migration.output["thread"])
