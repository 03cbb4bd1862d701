"""A deploy that waits for a thread.

A thread tries out what is about to be deployed. `deploy` starts when the thread is ready and none of its tasks failed;
when it is blocked, archived, too slow or stopped, `deploy` does not start. Ready says that the agent has come to rest,
not that it liked what it saw, nor that anything was merged: a deploy that hangs on a verdict reads it where the agent
was told to leave it.

One task is all it takes: `rehearsal` starts the thread, waits for it in the triggerer, where no worker is held, and
answers for it. A retry goes on with the thread that exists instead of paying for a second one, and a cancelled run stops
it, in whichever state the task is. A rehearsal that failed is not repeated, which would cost a second thread.

**Costs** one thread a run, and one more for each retry after a thread that was archived or too slow.

**Needs** the connection `capy_default` with a default project, and a repository that this project has access to.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, ExceptionRetryPolicy, Param, RetryAction, RetryRule, task

from airflow_provider_capy.exceptions import CapyThreadTaskError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

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
    rehearsal = CapyCreateThreadOperator(
        task_id="rehearsal",
        prompt=(
            "Rehearse the deploy of {{ params.repo }}, branch {{ params.branch }}: build it, run the migrations on an "
            "empty database, start it and call its health check. Change no code."
        ),
        repos=[{"repo_full_name": "{{ params.repo }}", "branch": "{{ params.branch }}"}],
        wait_for_completion=True,
        deferrable=True,
        timeout=timedelta(hours=1),
        fail_on_task_error=True,
        retry_policy=ExceptionRetryPolicy(rules=[RetryRule(exception=CapyThreadTaskError, action=RetryAction.FAIL)]),
    )
    deploy(rehearsal.output["thread"])
