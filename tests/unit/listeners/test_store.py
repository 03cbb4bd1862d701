"""The questions to Airflow's own database, asked of its own tables."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import create_engine, delete, event, insert, select
from sqlalchemy.orm import Session

from airflow_provider_capy.identity import Record, reference_from
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.listeners import store
from airflow_provider_capy.records import STORE_KEY, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate
NOW = datetime.now(timezone.utc)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A fresh database is made of the models by `airflow db migrate`, too."""
    import_all_models()
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('airflow') / 'airflow.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


class Airflow:
    """Writes into the database what Airflow's processes write."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.queries = engine, []
        self._runs: dict[str, int] = {}

    def write(self, table: Any, **values: Any) -> int:
        with Session(self.engine) as session:
            [key] = session.execute(insert(table.__table__).values(**values)).inserted_primary_key
            session.commit()
        return key

    def run(self, run_id: str, state: str = "running", ended: datetime | None = None) -> None:
        self._runs[run_id] = self.write(
            DagRun, dag_id="dag", run_id=run_id, state=state, end_date=ended, run_type="manual", run_after=NOW
        )

    def task(self, run_id: str, task_id: str, state: str | None, ended: datetime | None = None) -> None:
        self.write(
            TaskInstance,
            id=uuid4(),
            dag_id="dag",
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            state=state,
            end_date=ended,
            pool="default_pool",
            pool_slots=1,
        )

    def keep(self, run_id: str, task_id: str, record: ThreadRecord | str, key: str = STORE_KEY) -> int:
        value = record if isinstance(record, str) else json.dumps(record.model_dump(mode="json"))
        return self.write(
            TaskStateStoreModel,
            dag_run_id=self._runs[run_id],
            dag_id="dag",
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            key=key,
            value=value,
            updated_at=ago(days=1),
        )

    def log(self, event_: str, when: datetime, extra: dict[str, Any], dag_id: str, run_id: str | None) -> None:
        self.write(Log, event=event_, dttm=when, dag_id=dag_id, run_id=run_id, extra=json.dumps(extra))


@pytest.fixture
def airflow(migrated: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    airflow = Airflow(migrated)

    @contextmanager
    def create_session(*, scoped: bool) -> Iterator[Session]:
        assert not scoped, "a session of the thread's is somebody else's"
        with Session(migrated) as session:
            yield session
            session.commit()

    def counted(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        airflow.queries.append(statement)

    monkeypatch.setattr(store, "create_session", create_session)
    event.listen(migrated, "before_cursor_execute", counted)
    yield airflow
    event.remove(migrated, "before_cursor_execute", counted)
    with Session(migrated) as session:
        for table in (TaskStateStoreModel, TaskInstance, DagRun, Log):
            session.execute(delete(table))
        session.commit()


def record(fate: Fate | None = HELD, **fields: Any) -> ThreadRecord:
    return ThreadRecord(**{"thread_id": "jam_1", "fate": fate, **fields})


def test_the_records_of_a_run_come_with_how_task_and_run_stand(airflow: Airflow) -> None:
    airflow.run("one", "failed", NOW)
    airflow.run("two")
    airflow.task("one", "work", "up_for_retry")
    kept = record(owner="g.wait")
    row_id = airflow.keep("one", "work", kept)
    airflow.keep("one", "deleted", record(DISPATCHED))
    airflow.keep("one", "work", record(), key="another_key")
    airflow.keep("two", "work", record())
    airflow.queries.clear()
    first, second = sorted(store.of_run("dag", "one"), key=lambda row: row.row_id)
    assert len(airflow.queries) == 1
    assert store.again(first) == first
    assert store.again(replace(first, row_id=999)) is None
    assert (first.row_id, first.record, json.loads(first.stored)) == (row_id, kept, kept.model_dump(mode="json"))
    assert (first.dag_id, first.run_id, first.task_id, first.map_index) == ("dag", "one", "work", -1)
    assert (first.task_state, first.run_state) == ("up_for_retry", "failed")
    assert (second.task_id, second.task_state, second.record.fate) == ("deleted", None, DISPATCHED)


def test_a_run_is_found_by_an_index(airflow: Airflow) -> None:
    airflow.queries.clear()
    assert store.of_run("dag", "nothing") == []
    [query] = airflow.queries
    with airflow.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", (STORE_KEY, "dag", "nothing")).all()
    assert not [step for step in plan if "SCAN" in step[-1]]


@pytest.mark.parametrize("garbage", ["", "{", '"jam_1"', "null", '{"version": 2}'])
def test_what_cannot_be_read_hides_no_other(garbage: str, airflow: Airflow) -> None:
    airflow.run("one", "failed", NOW)
    airflow.keep("one", "broken", garbage)
    airflow.keep("one", "work", record())
    assert [row.task_id for row in store.of_run("dag", "one")] == ["work"]


LONG_AGO, MISSED, JUST_NOW = timedelta(days=8), timedelta(minutes=5), timedelta(seconds=10)
OF_A_GROUP = {"owner": "g.wait"}


def at(before: timedelta | None) -> datetime | None:
    """The tests may come to this long after they were collected."""
    return None if before is None else datetime.now(timezone.utc) - before


@pytest.mark.parametrize(
    ("fate", "run", "task", "found"),
    [
        (HELD, ("failed", MISSED), ("failed", MISSED), True),
        (HELD, ("success", MISSED), ("success", MISSED), True),
        (HELD, ("failed", MISSED), ("skipped", None), True),
        (HELD, ("failed", MISSED), None, True),
        (STOPPING, ("failed", MISSED), ("failed", MISSED), True),
        (HELD, ("failed", JUST_NOW), ("failed", MISSED), False),
        (HELD, ("failed", LONG_AGO), ("failed", LONG_AGO), False),
        (SETTLED, ("failed", MISSED), ("success", MISSED), False),
        (LEFT, ("failed", MISSED), ("failed", MISSED), False),
        (STOPPED, ("failed", MISSED), ("failed", MISSED), False),
        (None, ("failed", MISSED), ("failed", MISSED), False),
        (HELD, ("running", None), ("failed", MISSED), True),
        (HELD, ("running", None), ("success", MISSED), True),
        (HELD, ("running", None), ("failed", JUST_NOW), False),
        (HELD, ("running", None), ("failed", LONG_AGO), False),
        (HELD, ("running", None), ("running", None), False),
        (HELD, ("running", None), ("up_for_retry", MISSED), False),
        (HELD, ("running", None), ("deferred", None), False),
        (HELD, ("queued", None), ("failed", MISSED), False),
        (DISPATCHED, ("failed", MISSED), ("success", MISSED), True),
        (DISPATCHED, ("failed", JUST_NOW), ("success", MISSED), False),
        (DISPATCHED, ("success", MISSED), ("success", MISSED), False),
        (DISPATCHED, ("running", None), ("success", MISSED), False),
        # Its process died before it could say that it had succeeded, or somebody has marked it since.
        (DISPATCHED, ("running", None), ("failed", MISSED), True),
        (DISPATCHED, ("running", None), ("skipped", MISSED), True),
        (DISPATCHED, ("success", MISSED), ("failed", MISSED), True),
        (DISPATCHED, ("running", None), ("failed", JUST_NOW), False),
        (DISPATCHED, ("running", None), ("up_for_retry", MISSED), False),
    ],
)
def test_what_is_left_open(
    fate: Fate | None, run: tuple[str, Any], task: tuple[str, Any] | None, found: bool, airflow: Airflow
) -> None:
    airflow.run("one", run[0], at(run[1]))
    if task is not None:
        airflow.task("one", "work", task[0], at(task[1]))
    airflow.keep("one", "work", record(fate))
    assert [row.task_id for row in store.left_open()] == (["work"] if found else [])


@pytest.mark.parametrize(
    ("run", "task_state", "found"),
    [
        (("running", None), "success", False),
        (("running", None), "failed", True),
        (("running", None), "skipped", True),
        (("failed", MISSED), "success", True),
        (("success", MISSED), "success", True),
    ],
)
def test_a_create_that_has_handed_its_thread_on_is_not_left_open_while_its_run_goes_on(
    run: tuple[str, Any], task_state: str, found: bool, airflow: Airflow
) -> None:
    airflow.run("one", run[0], at(run[1]))
    airflow.task("one", "g.create", task_state, at(MISSED))
    airflow.keep("one", "g.create", record(HELD, **OF_A_GROUP))
    assert [row.task_id for row in store.left_open()] == (["g.create"] if found else [])


def test_whoever_shares_a_reference_of_the_users_own_is_found_in_every_run(airflow: Airflow) -> None:
    ours = reference_from("OPS_1")
    for run_id, reference in (("one", ours), ("two", ours), ("three", reference_from("OPS-1")), ("four", "")):
        airflow.run(run_id)
        airflow.keep(run_id, "work", record(reference=reference))
    airflow.keep("two", "other", record(reference=ours), key="another_key")
    assert sorted(row.run_id for row in store.sharing(ours)) == ["one", "two"]
    assert store.sharing("au%") == []


# As Airflow 3.3.2 writes it: the run is in the columns; a bulk request names its runs in its body.
CLICK = {"state": "failed"}
RUN = "scheduled__2026-11-27"


def bulk(dag_id: str = "dag", run_id: str = RUN, state: str = "failed") -> dict[str, Any]:
    entity = {"dag_id": dag_id, "dag_run_id": run_id, "state": state}
    return {"actions": [{"action": "update", "entities": [entity]}]}


@pytest.mark.parametrize(
    ("event_", "when", "extra", "dag_id", "run_id", "marked"),
    [
        ("patch_dag_run", MISSED, CLICK, "dag", RUN, True),
        ("patch_dag_run", MISSED + timedelta(seconds=20), CLICK, "dag", RUN, True),
        ("bulk_dag_runs", MISSED, bulk(), "~", None, True),
        ("bulk_dag_runs", MISSED, bulk(), "dag", None, True),
        ("bulk_dag_runs", MISSED, bulk(run_id=RUN.replace("_", "X")), "~", None, False),
        ("bulk_dag_runs", MISSED, bulk(state="success"), "~", None, False),
        ("patch_dag_run", MISSED, {"state": "success"}, "dag", RUN, False),
        ("patch_dag_run", MISSED, CLICK, "dag", "another run", False),
        ("clear_dag_run", MISSED, CLICK, "dag", RUN, False),
        ("patch_dag_run", LONG_AGO, CLICK, "dag", RUN, False),
        # All DAGs of one schedule have runs of the same id.
        ("patch_dag_run", MISSED, CLICK, "another dag", RUN, False),
        ("bulk_dag_runs", MISSED, bulk("another dag"), "~", None, False),
        ("bulk_dag_runs", MISSED, bulk(), "another dag", None, False),
        ("bulk_dag_runs", MISSED, bulk(run_id=RUN + "T01"), "~", None, False),
    ],
)
def test_whether_it_was_a_person_is_in_the_audit_log(
    event_: str, when: timedelta, extra: dict[str, Any], dag_id: str, run_id: str | None, marked: bool, airflow: Airflow
) -> None:
    airflow.run(RUN, "failed", ago(minutes=5))
    airflow.log(event_, NOW - when, extra, dag_id, run_id)
    assert store.was_marked_failed("dag", RUN) is marked


UNREADABLE = [
    "",
    "failed",
    '"failed"',
    '["failed"]',
    '{"state": ["failed"',
    '{"actions": "failed"}',
    '{"actions": ["failed"]}',
    '{"actions": [{"action": "failed"}]}',
    '{"actions": [{"entities": "failed"}]}',
    '{"actions": [{"entities": [{"state": "failed"}, "failed"]}]}',
    '{"actions": null, "failed": true}',
]


@pytest.mark.parametrize("event_", ["patch_dag_run", "bulk_dag_runs"])
@pytest.mark.parametrize("garbage", UNREADABLE)
def test_what_cannot_be_read_in_the_audit_log_is_no_click_and_hides_none(
    garbage: str, event_: str, airflow: Airflow
) -> None:
    airflow.run(RUN, "failed", ago(minutes=5))
    for dag_id in ("dag", "~"):
        airflow.write(Log, event=event_, dttm=ago(minutes=5), dag_id=dag_id, run_id=RUN, extra=garbage)
    assert store.was_marked_failed("dag", RUN) is False
    airflow.log("patch_dag_run", ago(minutes=5), CLICK, "dag", RUN)
    assert store.was_marked_failed("dag", RUN) is True


def test_a_run_that_goes_on_or_is_gone_was_not_marked(airflow: Airflow) -> None:
    airflow.run(RUN)
    airflow.log("patch_dag_run", NOW, CLICK, "dag", RUN)
    assert (store.was_marked_failed("dag", RUN), store.was_marked_failed("dag", "gone")) == (False, False)


def test_a_record_is_written_only_over_what_was_read(airflow: Airflow) -> None:
    airflow.run("one", "failed", NOW)
    for task_id in ("changed", "deleted", "kept"):
        airflow.keep("one", task_id, Record(nonce="n", intended_at=1.0, thread_id="jam_1", fate=HELD))
    rows = sorted(store.of_run("dag", "one"), key=lambda row: row.row_id)
    with Session(airflow.engine) as session:
        changed, deleted, _ = session.scalars(select(TaskStateStoreModel).order_by(TaskStateStoreModel.id)).all()
        changed.value = json.dumps({**json.loads(changed.value), "fate": "left"})
        session.delete(deleted)
        session.commit()
    assert store.compare_and_set([(row, row.record.stopping("me")) for row in rows]) == [False, False, True]
    first, second = sorted(store.of_run("dag", "one"), key=lambda row: row.row_id)
    assert (first.task_id, first.record.fate) == ("changed", LEFT)
    assert (second.record.fate, second.record.stopped_by) == (STOPPING, "me")
    # The creator goes on with what it finds there.
    kept = Record.read(json.loads(second.stored))
    assert kept is not None
    assert kept.nonce == "n"
    assert second.stored == store.dumped(second.record)
    with Session(airflow.engine) as session:
        row = session.get(TaskStateStoreModel, second.row_id)
        assert row is not None
        assert row.updated_at > ago(hours=1)
    assert store.compare_and_set([]) == []
