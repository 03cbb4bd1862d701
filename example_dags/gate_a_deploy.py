"""A deploy that waits for a thread.

A thread tries out what is about to be deployed. `deploy` starts when the thread is ready and none of its tasks failed;
when it is blocked, archived, too slow or stopped, `deploy` does not start.

`capy_thread` makes three tasks of it: `create`, `wait` (deferred, no worker is held) and the teardown `stop`, which
sees to it that the thread does not outlive the run.

**Costs** one thread a run. A retry goes on with the thread that exists instead of paying for a second one.

**Needs** the connection `capy_default` with a default project, and a repository that this project has access to.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_capy.task_groups import capy_thread

log = logging.getLogger(__name__)


@task
def deploy(thread: dict[str, Any]) -> None:
    log.info("Deploying: %s says %s", thread["thread_url"], thread["title"])


with DAG(
    dag_id="gate_a_deploy",
    schedule=None,
    # Two deploys at once are one too many.
    max_active_runs=1,
    params={
        "repo": Param("acme/api", type="string", title="Repository", pattern="^[^/]+/[^/]+$"),
        "branch": Param("main", type="string", title="Branch to deploy", minLength=1),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    rehearsal = capy_thread(
        "rehearsal",
        prompt=(
            "Rehearse the deploy of {{ params.repo }}, branch {{ params.branch }}: build it, run the migrations on an "
            "empty database, start it and call its health check. Change no code."
        ),
        repos=[{"repo_full_name": "{{ params.repo }}", "branch": "{{ params.branch }}"}],
        deferrable=True,
        timeout=timedelta(hours=1),
        fail_on_task_error=True,
    )
    deploy(rehearsal.output)
