"""The buttons lead where the task's XComs say, and nowhere before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner

from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from tests.unit.worker import TASK_ID, Supervisor

TI = SimpleNamespace(dag_id="dag", run_id="run", task_id=TASK_ID, map_index=-1)
LINKS = [(CapyThreadLink(), "thread_url"), (CapyPullRequestLink(), "pull_request_url")]


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


@pytest.mark.parametrize(("link", "key"), LINKS)
def test_a_button_reads_the_key_that_the_task_pushes(link: Any, key: str, supervisor: Supervisor) -> None:
    supervisor.xcoms[key] = "https://example.com/1"
    assert (link.xcom_key, link.get_link(None, ti_key=TI)) == (key, "https://example.com/1")


@pytest.mark.parametrize(("link", "key"), LINKS)
def test_a_button_without_an_address_is_blank(link: Any, key: str, supervisor: Supervisor) -> None:
    assert link.get_link(None, ti_key=TI) == ""


def test_the_buttons_are_where_they_are_useful() -> None:
    named = {
        kind.__name__: [link.name for link in kind.operator_extra_links]
        for kind in (CapyCreateThreadOperator, CapyThreadSensor, CapyStopThreadOperator)
    }
    assert named == {
        "CapyCreateThreadOperator": ["Open in Capy", "Pull request"],
        "CapyThreadSensor": ["Open in Capy", "Pull request"],
        "CapyStopThreadOperator": ["Open in Capy"],
    }
