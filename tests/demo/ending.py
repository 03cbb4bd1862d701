"""Sees to it that an interrupted or failed demo leaves no thread at work in a real Capy."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.flow import run
from airflow_provider_capy.stopping import stop_and_confirm
from tests.demo.scenes import SCENES
from tests.harness.client import AirflowError
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from tests.demo.scenes import Stage

CANCEL_SECONDS = 40.0
STOP_SECONDS = 60.0


def end_what_is_left(stage: Stage) -> None:
    """Cancel every run that is not over, as the UI does, and stop whatever thread is still at work after that.

    The emulator's threads end with the emulator: nothing is done for them.
    """
    if not stage.capy.costs:
        return
    known = {(watch.dag_id, watch.run_id) for watch in stage.watches}
    for _, dag_id, _ in SCENES:
        with suppress(AirflowError, httpx.TransportError):
            for run_id, state in stage.airflow.runs(dag_id).items():
                if state not in RUN_OVER:
                    stage.console.line("run", f"{run_id} of {dag_id} is cancelled", "warn")
                    stage.airflow.mark_run(dag_id, run_id, "failed")
                if (dag_id, run_id) not in known:
                    stage.watch(dag_id, run_id)
    until = time.monotonic() + CANCEL_SECONDS
    for watch in stage.watches:
        watch.look()
        while not watch.is_over and time.monotonic() < until:
            time.sleep(1)
            watch.look()
        for thread in watch.threads.values():
            if thread.rested is None:
                _stop(stage, thread.thread_id)


def _stop(stage: Stage, thread_id: str) -> None:
    try:
        report = run(stop_and_confirm(thread_id, until=time.time() + STOP_SECONDS, clock=time.time), stage.capy.client)
        stage.console.line("thread", f"{thread_id}: {report.in_words}", "warn")
    except CapyError as error:
        stage.console.line("thread", f"{thread_id} MAY STILL BE AT WORK, stop it in Capy: {error}", "bad")
