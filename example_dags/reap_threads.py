"""A safety net for what Airflow tells nobody: stop threads whose runs are over.

Every quarter of an hour, `reap` looks for threads that this Airflow started, that still work, and whose runs have ended,
and stops them: of a sensor that was cancelled between two pokes, of a triggerer that died with the cancel, of a DAG whose
file was removed. Threads that somebody else started, or that wait for a person, are left alone. Set `dry_run=True` to see
in the log and in the returned reports what it would stop.

**Costs** no thread; a few requests a time, more while threads are at work.

**Needs** the connection `capy_default` with a default project, and a connection `airflow_api` to this Airflow's API server:
its address as host, and login and password of a user who may read the runs and XComs of every DAG. The DAG starts paused.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_capy.operators.thread import CapyReapThreadsOperator

with DAG(
    dag_id="reap_threads",
    schedule=timedelta(minutes=15),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["capy", "example"],
    doc_md=__doc__,
):
    CapyReapThreadsOperator(task_id="reap", started_within=timedelta(days=7))
