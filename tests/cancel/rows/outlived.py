"""What befalls the processes of Airflow, with and without a cancel: tasks, workers, triggerers, API server, scheduler."""

from __future__ import annotations

import signal

from tests.cancel import outages
from tests.cancel.lab import WAYS
from tests.cancel.outcome import READY, Promise
from tests.cancel.rows.row import (
    DEFERRED,
    DISPATCH,
    ON_WORKER,
    SWEPT_WITHIN,
    WAITING,
    Row,
    goes_on,
    kept_failed,
    of,
    stopped_failed,
)

ROWS: tuple[Row, ...] = (
    Row("12a", "task process killed, tries left", of((ON_WORKER, goes_on)), outages.signal_task(signal.SIGKILL),
        variant="retries", cancels=False, selection=("op_worker",)),
    Row("12a-last", "task process killed, no tries left", of((ON_WORKER, stopped_failed)),
        outages.signal_task(signal.SIGKILL), cancels=False, selection=("sensor_poke",)),
    Row("12b", "machine lost: supervisor and task killed, tries left", of((ON_WORKER, goes_on)),
        outages.signal_task(signal.SIGKILL, supervisor=True), variant="retries", cancels=False),
    Row("13a", "worker gets SIGTERM, tries left", of((ON_WORKER, goes_on)), outages.signal_task(signal.SIGTERM),
        variant="retries", cancels=False, selection=("op_worker",)),
    Row("13a-pod", "the worker's pod gets SIGTERM, tries left", of((ON_WORKER, goes_on)),
        outages.signal_task(signal.SIGTERM, supervisor=True, task=False), variant="retries", cancels=False),
    Row("13a-last", "worker gets SIGTERM, no tries left", of((ON_WORKER, stopped_failed)),
        outages.signal_task(signal.SIGTERM), cancels=False),
    Row("13b", "supervisor gets SIGINT, tries left", of((ON_WORKER, goes_on)),
        outages.signal_task(signal.SIGINT, supervisor=True, task=False), variant="retries", cancels=False),
    Row("9a-api", "API server restarts", of((WAYS, goes_on)), outages.restart("api-server"), variant="retries",
        together=True, cancels=False),
    Row("9a-scheduler", "scheduler restarts, with the workers it started", of((WAYS, goes_on)),
        outages.restart("scheduler"), variant="retries", together=True, cancels=False),
    Row("9c", "API server gone for 60 s", of((WAYS, goes_on)), outages.api_server_gone(60), variant="retries",
        together=True, cancels=False),
    Row("api-kill", "API server killed with its answer to the click", of((WAYS, stopped_failed)),
        outages.mark_and_kill_api_server, together=True, racy=True, at_once=2, stopped_within=SWEPT_WITHIN),
    Row("sched-kill", "scheduler killed right after a dagrun_timeout",
        of((WAITING, stopped_failed), (DISPATCH, kept_failed)), outages.kill_scheduler_at_timeout,
        variant="lateruntimeout", together=True, racy=True, at_once=2, stopped_within=SWEPT_WITHIN),
    Row("10a", "the only triggerer restarts", of((DEFERRED, goes_on)), outages.restart("triggerer"), lab="one",
        together=True, cancels=False),
    Row("10b", "the only triggerer killed and started again", of((DEFERRED, goes_on)),
        outages.restart("triggerer", after_kill=True), lab="one", together=True, cancels=False),
    Row("10c", "run marked failed while no triggerer lives", of((DEFERRED, stopped_failed)),
        outages.mark_while_no_triggerer_lives, lab="one", together=True, racy=True, at_once=5),
    Row("tt-term", "all triggerers restarted right after the click, by TERM", of((DEFERRED, stopped_failed)),
        outages.mark_and_restart_triggerers(signal.SIGTERM), together=True, racy=True, at_once=5),
    Row("tt-kill", "all triggerers restarted right after the click, by KILL", of((DEFERRED, stopped_failed)),
        outages.mark_and_restart_triggerers(signal.SIGKILL), together=True, racy=True, at_once=5),
    Row("11a", "holding triggerer frozen, the other takes over, thawed", of((DEFERRED, goes_on)),
        outages.freeze_holder, together=True, cancels=False, racy=True, at_once=5, selection=DEFERRED),
    Row("11b", "holding triggerer killed, run marked failed, the other lives", of((DEFERRED, stopped_failed)),
        outages.kill_holder_and_mark, together=True, racy=True, at_once=5),
    Row("11c", "holding triggerer frozen, run marked failed, thawed", of((DEFERRED, stopped_failed)),
        outages.freeze_holder_and_mark, together=True, racy=True, at_once=5),
    Row("13c", "Celery worker told to stop (SIGTERM, warm)", of((ON_WORKER, Promise(READY, "success"))),
        outages.celery_warm, variant="retries", lab="celery", together=True, cancels=False),
    Row("13d-group", "Celery worker's process group gets SIGTERM, tries left", of((ON_WORKER, goes_on)),
        outages.celery_killed(signal.SIGTERM, group=True), variant="retries", lab="celery", together=True,
        cancels=False),
    Row("13d-cold", "Celery worker told to stop at once (SIGQUIT, cold), tries left", of((ON_WORKER, goes_on)),
        outages.celery_killed(signal.SIGQUIT), variant="retries", lab="celery", together=True, cancels=False),
    Row("13d-last", "the same, no tries left", of((ON_WORKER, stopped_failed)), outages.celery_killed(signal.SIGQUIT),
        lab="celery", together=True, cancels=False),
)  # fmt: skip
