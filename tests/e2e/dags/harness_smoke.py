"""What the harness itself is tried with: plain tasks, a deferred wait, and tasks that last until someone ends them."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, Param, task

log = logging.getLogger(__name__)


class Wait(BaseOperator):
    """Defers, always: the sensors of the standard provider do not when the time has come before they look."""

    def __init__(self, *, delta: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = delta

    def execute(self, context: Any) -> None:  # noqa: ARG002
        self.defer(trigger=TimeDeltaTrigger(self.delta), method_name="resume")

    def resume(self, context: Any, event: Any) -> str:  # noqa: ARG002
        return "waited"


with DAG("harness_smoke", schedule=None, params={"name": Param("world", type="string")}):

    @task
    def greet(**context: Any) -> str:
        log.info("a line for the log")
        return f"hello {context['params']['name']}"

    @task
    def shout(word: str) -> str:
        return word.upper()

    # A task that comes back sooner is one that Airflow's scheduler may get wrong; see `LocalAirflow.wait_for_deferral`.
    greet() >> Wait(task_id="wait", delta=timedelta(seconds=4)) >> shout.expand(word=["a", "b"])

with DAG("harness_long", schedule=None):

    @task
    def sleep() -> None:
        log.info("asleep")
        time.sleep(600)

    sleep()
    Wait(task_id="wait", delta=timedelta(minutes=10))

with DAG("harness_bad", schedule=None):

    @task
    def fail() -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("bad luck") from error

    fail()
