"""What is heard of an end is handed on once it is committed, and nothing of ours ever reaches Airflow."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from airflow_provider_capy.listeners import handover, run_ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.listeners.handover import End


class Base(DeclarativeBase):
    pass


class Ended(Base):
    """A run or a task instance, as far as a listener looks at it; Airflow's own need the whole of its database."""

    __tablename__ = "ended"
    id: Mapped[int] = mapped_column(primary_key=True)
    dag_id: Mapped[str] = mapped_column(default="dag")
    run_id: Mapped[str] = mapped_column(default="run")
    task_id: Mapped[str] = mapped_column(default="task")
    map_index: Mapped[int] = mapped_column(default=3)
    # Airflow's come back with their time zone; SQLite keeps none.
    end_date: ClassVar[Any] = None


Ended.__module__ = "airflow.models.something"

FAILED: list[Any] = ["dag", "run", None, -1, "failed", True]
MANUALLY = "Dag Run's state was manually set to `failed`."


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def ended(session: Session) -> Ended:
    ended = Ended()
    session.add(ended)
    session.commit()
    return ended


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[list[End]]:
    batches: list[list[End]] = []
    monkeypatch.setattr(handover, "hand_on", batches.append)
    return batches


@pytest.mark.parametrize(
    ("hear", "end"),
    [
        (lambda run: run_ends.on_dag_run_failed(run, MANUALLY), ("dag", "run", None, -1, "failed", True)),
        (lambda run: run_ends.on_dag_run_failed(run, "timed_out"), ("dag", "run", None, -1, "failed", False)),
        (lambda run: run_ends.on_dag_run_failed(run, "task_failure"), ("dag", "run", None, -1, "failed", False)),
        (lambda run: run_ends.on_dag_run_success(run, MANUALLY), ("dag", "run", None, -1, "success", True)),
        (lambda run: run_ends.on_dag_run_success(run, "success"), ("dag", "run", None, -1, "success", False)),
        (lambda ti: run_ends.on_task_instance_failed(None, ti, "x"), ("dag", "run", "task", 3, "", True)),
        (lambda ti: run_ends.on_task_instance_failed("running", ti, "x"), ("dag", "run", "task", 3, "", False)),
        (lambda ti: run_ends.on_task_instance_success(None, ti), ("dag", "run", "task", 3, "", True)),
        (lambda ti: run_ends.on_task_instance_skipped(None, ti), ("dag", "run", "task", 3, "", True)),
    ],
)
def test_each_hook_hands_its_end_on_after_the_commit(
    hear: Any, end: End, session: Session, ended: Ended, handed_on: list[list[End]]
) -> None:
    hear(ended)
    assert handed_on == []
    session.commit()
    assert handed_on == [[end]]


@pytest.mark.parametrize(("seconds", "heard"), [(None, True), (0, True), (5, True), (60, False), (86_400, False)])
@pytest.mark.parametrize("hear", [run_ends.on_dag_run_failed, run_ends.on_dag_run_success])
def test_a_run_that_was_over_long_before_has_not_ended_now(
    hear: Any, seconds: float | None, heard: bool, session: Session, ended: Ended, handed_on: list[list[End]]
) -> None:
    ended.end_date = None if seconds is None else datetime.now(timezone.utc) - timedelta(seconds=seconds)
    hear(ended, MANUALLY)
    session.commit()
    assert bool(handed_on) is heard


def test_a_task_instance_that_was_over_is_marked_now(
    session: Session, ended: Ended, handed_on: list[list[End]]
) -> None:
    ended.end_date = datetime.now(timezone.utc) - timedelta(days=1)
    run_ends.on_task_instance_failed(None, ended, "x")
    session.commit()
    assert len(handed_on) == 1


def test_what_is_rolled_back_has_not_ended(session: Session, ended: Ended, handed_on: list[list[End]]) -> None:
    run_ends.on_dag_run_failed(ended, MANUALLY)
    session.rollback()
    session.add(Ended(id=7))
    session.commit()
    assert handed_on == []


def test_a_session_that_is_used_for_ever_hands_each_end_on_once(
    session: Session, ended: Ended, handed_on: list[list[End]]
) -> None:
    for _ in range(3):
        run_ends.on_task_instance_failed(None, ended, "x")
        run_ends.on_dag_run_failed(ended, MANUALLY)
        session.commit()
        session.commit()
    assert [len(batch) for batch in handed_on] == [2, 2, 2]


@pytest.mark.parametrize("context", ["client", None])
def test_outside_a_server_nothing_is_heard(
    context: str | None, session: Session, ended: Ended, handed_on: list[list[End]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if context is None:
        monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")
    else:
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", context)
    run_ends.on_dag_run_failed(ended, MANUALLY)
    session.commit()
    assert handed_on == []


def test_what_a_tasks_own_process_tells_is_not_heard(
    session: Session, ended: Ended, handed_on: list[list[End]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ended, "__module__", "airflow.sdk.execution_time.task_runner")
    run_ends.on_dag_run_failed(ended, MANUALLY)
    run_ends.on_task_instance_failed("running", ended, "x")
    session.commit()
    assert handed_on == []


def test_an_object_without_a_session_is_not_heard(session: Session, handed_on: list[list[End]]) -> None:
    run_ends.on_dag_run_failed(Ended(), MANUALLY)
    session.commit()
    assert handed_on == []


@pytest.mark.parametrize("wrong", [None, object(), Ended()], ids=["nothing", "an object", "an empty one"])
def test_what_is_not_as_expected_raises_nothing(wrong: Any, session: Session) -> None:
    run_ends.on_dag_run_failed(wrong, None)  # type: ignore[arg-type]
    run_ends.on_dag_run_success(wrong, "x")
    run_ends.on_task_instance_failed(None, wrong, None)
    run_ends.on_task_instance_success(None, wrong)
    run_ends.on_task_instance_skipped(None, wrong)


def test_a_hand_over_that_fails_does_not_reach_the_commit(
    session: Session, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[End]] = []

    def broken(ends: list[End]) -> None:
        calls.append(ends)
        raise ZeroDivisionError

    monkeypatch.setattr(handover, "hand_on", broken)
    run_ends.on_dag_run_failed(ended, MANUALLY)
    session.commit()
    session.commit()
    assert len(calls) == 1


def test_a_savepoint_is_no_commit(session: Session, ended: Ended, handed_on: list[list[End]]) -> None:
    run_ends.on_dag_run_failed(ended, MANUALLY)
    with session.begin_nested():
        session.add(Ended(id=8))
    assert handed_on == []
    session.commit()
    assert len(handed_on) == 1


def test_a_savepoint_that_is_rolled_back_takes_no_end_with_it(
    session: Session, ended: Ended, handed_on: list[list[End]]
) -> None:
    run_ends.on_dag_run_failed(ended, MANUALLY)
    nested = session.begin_nested()
    session.add(Ended(id=8))
    nested.rollback()
    session.commit()
    assert len(handed_on) == 1


@pytest.mark.parametrize(
    ("argv", "module", "started"),
    [
        (["airflow", "scheduler"], "airflow.jobs.job", 1),
        (["airflow", "api-server"], "airflow.jobs.job", 0),
        (["airflow", "triggerer"], "airflow.jobs.job", 0),
        (["airflow"], "airflow.jobs.job", 0),
        (["airflow", "scheduler"], "airflow.sdk.something", 0),
    ],
)
def test_a_scheduler_that_starts_has_its_helper(
    argv: list[str], module: str, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(handover, "start_helper", lambda: calls.append(None))
    monkeypatch.setattr("sys.argv", argv)
    run_ends.on_starting(type("Job", (), {"__module__": module})())
    assert len(calls) == started


def test_a_helper_that_cannot_be_started_does_not_keep_a_scheduler_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise OSError

    monkeypatch.setattr(handover, "start_helper", broken)
    monkeypatch.setattr("sys.argv", ["airflow", "scheduler"])
    run_ends.on_starting(type("Job", (), {"__module__": "airflow.jobs.job"})())
