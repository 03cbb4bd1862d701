"""Brings runs of deferred waits into a real triggerer: one is deferred as waits are, the others are left as it was."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Row

    from tests.bench.stage import Stage

# Seconds between the looks of a wait.
INTERVAL = 10.0

PILOT = text(
    "SELECT task.id, task.run_id, record.dag_run_id, trigger.id AS trigger, trigger.kwargs, record.value, "
    "CAST(task.next_kwargs AS text) AS next_kwargs FROM task_instance task JOIN trigger ON trigger.id = task.trigger_id "
    "JOIN task_state_store record USING (dag_id, run_id, task_id, map_index) "
    "WHERE task.dag_id = 'pilot' AND task.state = 'deferred' AND record.key = 'capy_thread'"
)
RUN = text(
    "UPDATE dag_run SET state = 'running', start_date = now() WHERE dag_id = :dag AND run_id = :run RETURNING id"
)
TASKS = text(
    "SELECT id FROM task_instance WHERE dag_id = :dag AND run_id = :run AND task_id = 'deferred' ORDER BY map_index"
)
ADD_TRIGGER = text(
    "INSERT INTO trigger SELECT copy.* FROM trigger pilot, LATERAL jsonb_populate_record(pilot, jsonb_build_object("
    "'id', nextval(pg_get_serial_sequence('trigger', 'id')), 'kwargs', CAST(:kwargs AS text), 'triggerer_id', NULL)) copy "
    "WHERE pilot.id = :pilot RETURNING id"
)
DEFER = text(
    "UPDATE task_instance task SET state = 'deferred', trigger_id = :trigger, next_method = pilot.next_method, "
    "next_kwargs = :next_kwargs, trigger_timeout = pilot.trigger_timeout, try_number = pilot.try_number, "
    "max_tries = pilot.max_tries, start_date = now(), hostname = pilot.hostname, pid = pilot.pid, unixname = pilot.unixname, "
    "queued_dttm = now(), scheduled_dttm = now() FROM task_instance pilot WHERE pilot.id = :pilot AND task.id = :task"
)
# The rows of a task instance as those of another one; their values are text in the one table and JSON in the other.
COPY = (
    "INSERT INTO {table} SELECT copy.* FROM {table} pilot, LATERAL jsonb_populate_record(pilot, jsonb_build_object("
    "'dag_run_id', CAST(:dag_run AS int), 'dag_id', CAST(:dag AS text), 'run_id', CAST(:run AS text), "
    "'map_index', CAST(:index AS int), {changed})) copy WHERE pilot.dag_run_id = :pilot_run AND pilot.task_id = 'deferred'"
)
KEEP = (
    text(
        COPY.format(
            table="task_state_store",
            changed="'id', nextval(pg_get_serial_sequence('task_state_store', 'id')), "
            "'value', replace(replace(pilot.value, :old, :thread), :old_reference, :reference)",
        )
    ),
    text(
        COPY.format(table="xcom", changed="'value', CAST(replace(CAST(pilot.value AS text), :old, :thread) AS jsonb)")
    ),
)


def fly(place: Stage) -> Row[Any]:
    """Let one wait be deferred as waits are, and return what it left in the database."""
    run = place.airflow.trigger("pilot")
    place.airflow.wait_for_task("pilot", run, "deferred[0]", ["deferred"])
    with place.database.begin() as session:
        return session.execute(PILOT).one()


def defer(place: Stage, pilot: Row[Any], dag_id: str, count: int) -> str:
    """Make a run with so many deferred waits, each left as the pilot's was, and return it when a triggerer runs them all."""
    run = str(place.airflow.request("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None})["dag_run_id"])
    threads = place.capy.create("deferred", copies=count, origin="api", life="forever")
    with place.database.begin() as session:
        number = session.scalar(RUN, {"dag": dag_id, "run": run})
        tasks = session.scalars(TASKS, {"dag": dag_id, "run": run}).all()
        for index, (task, thread) in enumerate(zip(tasks, threads, strict=True)):
            place_wait(session, pilot, {"dag": dag_id, "run": run, "dag_run": number, "index": index}, task, thread)
    place.airflow.unpause(dag_id)
    logs = (place.airflow.home / "logs").joinpath(f"dag_id={dag_id}", f"run_id={run}")
    place.airflow.wait_until(
        f"{count} triggers run", lambda: len(list(logs.glob("*/*/*.trigger.*.log"))) >= count, 60 + 0.2 * count, 1
    )
    # Until each has looked once.
    time.sleep(INTERVAL)
    return run


def place_wait(session: Connection, pilot: Row[Any], where: dict[str, Any], task: Any, thread: str) -> None:
    """Leave one task instance as the pilot's was left, with another thread."""
    record = json.loads(pilot.value)
    old, reference = record["thread_id"], record.get("reference", "")
    if old not in pilot.kwargs:
        raise RuntimeError(f"the pilot's trigger does not name its thread: {pilot.kwargs[:200]}")
    made = session.scalar(ADD_TRIGGER, {"pilot": pilot.trigger, "kwargs": pilot.kwargs.replace(old, thread)})
    kwargs = (pilot.next_kwargs or "{}").replace(old, thread)
    session.execute(DEFER, {"trigger": made, "next_kwargs": kwargs, "pilot": pilot.id, "task": task})
    # As long, and found by no search.
    words = {"old_reference": reference, "reference": f"{where['index']:0{len(reference)}d}"}
    for statement, more in zip(KEEP, (words, {}), strict=True):
        session.execute(statement, {**where, "pilot_run": pilot.dag_run_id, "old": old, "thread": thread, **more})
