"""Makes the examples look at their threads often and retry soon, in the demo's and the tests' Airflow only.

The examples are written as users would write them and keep the usual interval of 30 seconds, but the emulator's threads
live for five. A cluster policy is Airflow's own means to change tasks from outside: no example has to know of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

POKE_INTERVAL = 1.0
RETRY_DELAY = timedelta(seconds=2)
# By name: this file is loaded while Airflow is still being set up, which is too early to import operators.
WAITING = {"CapyCreateThreadOperator", "CapyThreadSensor", "CapyThreadWait"}


def task_policy(task: Any) -> None:
    """Shorten the times of a task, mapped or not, in a DAG tagged as an example."""
    if "example" not in task.dag.tags:
        return
    times: dict[str, Any] = {"retry_delay": RETRY_DELAY}
    if task.task_type in WAITING:
        times["poke_interval"] = POKE_INTERVAL
    if task.is_mapped:
        task.partial_kwargs.update(times)
    else:
        for name, value in times.items():
            setattr(task, name, value)
