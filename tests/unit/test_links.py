"""The buttons lead where the task's XComs say, and nowhere before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from airflow.sdk import BaseXCom
from airflow.sdk.execution_time import task_runner

from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from tests.unit.worker import TASK_ID, Supervisor, run_task

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl

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


class References(BaseXCom):
    """An XCom backend that stores what it is given elsewhere, and a reference to it in Airflow's database."""

    kept: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def serialize_value(value: Any, **_: Any) -> str:  # type: ignore[override]
        References.kept[reference := f"s3://bucket/{len(References.kept)}"] = value
        return reference

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        return References.kept.get(result.value, result.value)


@pytest.mark.parametrize("way", ["worker", "deferred", "sensor", "stop"])
def test_a_backend_that_stores_references_hides_no_button(
    way: str, capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "XCom", References)
    capy_emulator.script(seconds=0.3)
    [thread_id] = capy_emulator.create(seconds=0.3) if way in {"sensor", "stop"} else [""]

    def make() -> Any:
        if way == "stop":
            return CapyStopThreadOperator(task_id=TASK_ID, thread_id=thread_id)
        if way == "sensor":
            return CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=0.1)
        return CapyCreateThreadOperator(
            task_id=TASK_ID, prompt="x", wait_for_completion=True, deferrable=way == "deferred", poke_interval=0.1
        )

    ran = run_task(make)
    [truth] = capy_emulator.threads()
    # After the end of the task, which is when Airflow stores every link once more.
    assert ran.state == "success"
    assert ran.xcoms["thread_url"].endswith(f"/project/prj_demo/captain/{truth['id']}")
    if way != "stop":
        assert ran.xcoms["thread"].startswith("s3://")
        assert ran.xcoms["pull_request_url"] == References.kept[ran.xcoms["thread"]]["pull_requests"][0]["url"]


async def test_a_trigger_reads_what_its_task_told_through_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.execution_time import xcom

    from airflow_provider_capy.killing import told_by_its_end

    supervisor = Supervisor(xcoms={"thread": References.serialize_value({"thread_id": "jam_1", "outcome": "ready"})})
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(xcom, "XCom", References)
    assert (await told_by_its_end(TI, "jam_1"), await told_by_its_end(TI, "jam_2")) == ("ready", "")
