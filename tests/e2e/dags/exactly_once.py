"""Tasks whose worker dies at the step of the create that the run's conf names, and tasks that are retried and cleared.

The conf: ``name`` (a word of the prompt), ``step`` (where the first try dies; see `STEPS`), ``who`` dies (``task``, the
process that runs the operator; ``both``, with its supervisor, as when a machine is lost; ``supervisor``, which leaves
the task process an orphan), ``timeout`` and ``reference`` of the operator.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, task

from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

if TYPE_CHECKING:
    from collections.abc import Callable


def die(who: str) -> None:
    """SIGKILL, as the kernel's memory killer or a power cut would."""
    if who in {"both", "supervisor"}:
        os.kill(os.getppid(), signal.SIGKILL)
    if who != "supervisor":
        os.kill(os.getpid(), signal.SIGKILL)


def around_write(
    when: Callable[[Any], bool], *, before: Callable[[], None] | None, after: Callable[[], None] | None
) -> None:
    """Die before or after the first record that matches is written."""
    from airflow_provider_capy.remembering import RecordStore

    write = RecordStore.write

    def dying(self: RecordStore, record: Any) -> Any:
        if before and when(record):
            before()
        written = write(self, record)
        if after and when(record):
            after()
        return written

    RecordStore.write = dying  # type: ignore[method-assign]


def around_send(operation: str, dying: Callable[[Any, Any], None]) -> None:
    """Call `dying` before each request of an operation is sent."""
    from airflow_provider_capy.api import CapyClient

    send = CapyClient.send

    def watched(self: CapyClient, call: Any, retry: Any = None) -> Any:
        if call.operation == operation:
            dying(self, call)
        return send(self, call, retry)

    CapyClient.send = watched  # type: ignore[method-assign]


def around_defer(who: str, *, sent: bool) -> None:
    """Die before or after Airflow was told of the deferral."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import DeferTask

    comms = task_runner.SUPERVISOR_COMMS
    send = comms.send

    def dying(msg: Any) -> Any:
        if isinstance(msg, DeferTask) and not sent:
            die(who)
        answer = send(msg)
        if isinstance(msg, DeferTask):
            die(who)
        return answer

    comms.send = dying


def once_processed(who: str) -> Callable[[Any, Any], None]:
    """Die as soon as Capy lists the thread: the create was processed, its answer is still on the way."""

    def watch(client: Any, call: Any) -> None:
        from airflow_provider_capy.api import CapyClient

        prompt = call.body["prompt"]

        def look() -> None:
            with CapyClient(client.settings) as own:
                while not own.list_page(call.body["projectId"], q=prompt.split()[-1]).items:
                    time.sleep(0.1)
            die(who)

        threading.Thread(target=look, daemon=True).start()

    return watch


def at_second_look(who: str) -> Callable[[Any, Any], None]:
    """Die when the thread is looked at for the second time."""
    looks: list[int] = []

    def count(_client: Any, _call: Any) -> None:
        looks.append(1)
        if len(looks) > 1:
            die(who)

    return count


def intended(record: Any) -> bool:
    return record.thread_id is None


def known(record: Any) -> bool:
    return record.thread_id is not None


STEPS: dict[str, Callable[[str], None]] = {
    "before_intent": lambda who: around_write(intended, before=lambda: die(who), after=None),
    "after_intent": lambda who: around_write(intended, before=None, after=lambda: die(who)),
    "before_answer": lambda who: around_send("createAndStartThread", once_processed(who)),
    "after_answer": lambda who: around_write(known, before=lambda: die(who), after=None),
    "after_store": lambda who: around_write(known, before=None, after=lambda: die(who)),
    "while_waiting": lambda who: around_send("getThread", at_second_look(who)),
    "before_deferring": lambda who: around_defer(who, sent=False),
    "after_deferring": lambda who: around_defer(who, sent=True),
    "while_looking_up": lambda who: around_send("listThreads", lambda _client, _call: die(who)),
}


class MortalOperator(CapyCreateThreadOperator):
    """Its first try dies at one step; with ``then``, its second dies at another."""

    def execute(self, context: Any) -> Any:
        conf = context["dag_run"].conf or {}
        step = {1: conf.get("step"), 2: conf.get("then")}.get(context["ti"].try_number)
        if step:
            STEPS[step](conf.get("who", "task"))
        return super().execute(context)


def create(task_id: str = "create", **arguments: Any) -> MortalOperator:
    return MortalOperator(task_id=task_id, **{**COMMON, **arguments})


COMMON: dict[str, Any] = {
    "prompt": "exactly once: {{ dag_run.conf['name'] }}",
    # A project of its own: what befalls the polls of one run is not to befall those of others.
    "project_id": "{{ dag_run.conf['name'] }}",
    "poke_interval": 1,
    # One look that fails is a try that fails.
    "tolerate_outage": 0,
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
    "timeout": "{{ dag_run.conf.get('timeout', 600) }}",
}
WAYS: dict[str, dict[str, Any]] = {
    "wait": {"wait_for_completion": True, "deferrable": False},
    "defer": {"wait_for_completion": True, "deferrable": True},
    "fire": {"wait_for_completion": False},
}

for way, how in WAYS.items():
    with DAG(f"exactly_once_{way}", schedule=None, max_active_runs=20) as dag:
        create(**how)
    globals()[dag.dag_id] = dag

with DAG("exactly_once_beside_another", schedule=None):

    @task
    def other() -> None:
        """Is cleared."""

    create(**WAYS["defer"])
    other()

with DAG("exactly_once_mapped", schedule=None):
    MortalOperator.partial(
        task_id="create", **{name: value for name, value in {**COMMON, **WAYS["fire"]}.items() if name != "prompt"}
    ).expand(prompt=["exactly once: {{ dag_run.conf['name'] }} a", "exactly once: {{ dag_run.conf['name'] }} b"])

with DAG("exactly_once_own_reference", schedule=None):
    create(reference="{{ dag_run.conf['reference'] }}", **WAYS["defer"])

with DAG("exactly_once_not_durable", schedule=None):
    create(durable=False, **WAYS["fire"])
