"""Tell a person when a thread needs one, and go on when it goes on.

A thread can block on something only a person can give: a permission, or access to a code host. `work` waits through
that (`on_blocked="wait"`). Beside it, `watch` waits for the same thread and ends as soon as it is blocked or ready;
then `tell_a_person` names the reasons and the link, or is skipped because there is nothing to tell. When the person has
acted, the thread and the run go on by themselves.

This is what `capy_thread` is for: it makes two tasks, `work.create`, which ends as soon as there is a thread, and
`work.wait`, so that others can have the thread's id while it works. Where nobody needs the id early, one
`CapyCreateThreadOperator` does the same.

`work.wait` answers for the thread: it is stopped when the run is cancelled or the two days are over. `watch` only looks on
(`stop_on_kill=False`). It tells of the first block only.

**Costs** one thread a run; a blocked one waits for two days at most. A retry of `work.wait` waits for the same thread;
where only a new one would help, it fails at once, and says to clear `work.create`.

**Needs** the connection `capy_default` with a default project.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread

TWO_DAYS = timedelta(days=2)

log = logging.getLogger(__name__)


@task
def tell_a_person(thread: dict[str, Any]) -> str:
    if thread["outcome"] != "blocked":
        raise AirflowSkipException("The thread got along without a person")
    message = f"{thread['title']} needs you ({', '.join(thread['blocked_on'])}): {thread['thread_url']}"
    # Here goes a call of your chat's or mail's hook.
    log.warning("%s", message)
    return message


@task
def collect(thread: dict[str, Any]) -> list[str]:
    return [request["url"] for request in thread["pull_requests"]]


with DAG(
    dag_id="notify_when_blocked",
    schedule=None,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["capy", "example"],
    doc_md=__doc__,
):
    work = capy_thread(
        "work",
        prompt="Rotate the keys of the staging environment, and open a pull request for what has to change.",
        on_blocked="wait",
        deferrable=True,
        timeout=TWO_DAYS,
    )
    watch = CapyThreadSensor(
        task_id="watch",
        thread_id=work.thread_id,
        on_blocked="succeed",
        stop_on_kill=False,
        deferrable=True,
        timeout=TWO_DAYS,
    )
    tell_a_person(watch.output)
    collect(work.output)
