"""Threads that are at work while the task that answers for them ends, and what that error says became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.operators.owning import LEFT_UNSEEN
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.wait import CapyThreadWait
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl


def started(capy: EmulatorControl) -> tuple[str, Supervisor]:
    """Return a thread at work, and what the try of an operator that started it has left."""
    capy.script(life="forever")
    supervisor = Supervisor()
    ran = run_task(lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work"), supervisor=supervisor)
    return ran.xcoms["thread_id"], supervisor


def operate(supervisor: Supervisor, resume: Any = None, **arguments: Any) -> Ran:
    """Run an operator that waits for its thread."""
    given = {"wait_for_completion": True, "poke_interval": 0.1, **arguments}
    return run_task(
        lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work", **given),
        supervisor=supervisor,
        resume=resume,
        retries=given.get("retries", 0),
    )


def wait(thread_id: str, supervisor: Supervisor | None = None, resume: Any = None, **arguments: Any) -> Ran:
    """Run the wait of a group."""
    given = {"poke_interval": 0.1, "create_task_id": "g.create", **arguments}
    return run_task(
        lambda: CapyThreadWait(task_id=TASK_ID, thread_id=thread_id, **given), supervisor=supervisor, resume=resume
    )


def left(ran: Ran, thread_id: str, capy: EmulatorControl) -> bool:
    """Say whether the thread goes on, and the error ends with that."""
    words = str(ran.error)
    assert (LEFT_UNSEEN in words, "was not stopped" in words, "was stopped" in words) == (True, False, False)
    return not capy.stops(thread_id)


def stopped(ran: Ran, thread_id: str, capy: EmulatorControl) -> bool:
    """Say whether the thread was stopped, and the error ends with that."""
    words = str(ran.error)
    assert ("It was stopped" in words, "was left" in words) == (True, False)
    return len(capy.stops(thread_id)) == 1
