"""The reaper on a really running Airflow: it ends what nobody else ends, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow


@pytest.fixture(autouse=True)
def _connection(airflow: LocalAirflow) -> Iterator[None]:
    body = {"connection_id": "airflow_api", "conn_type": "http", "host": airflow.url}
    airflow.request("POST", "/connections", json=body)
    yield
    airflow.request("DELETE", "/connections/airflow_api")


def _started_by(airflow: LocalAirflow, dag_id: str) -> str:
    run_id = airflow.trigger(dag_id)
    assert airflow.wait_for_run(dag_id, run_id) == "success"
    return str(airflow.xcom(dag_id, run_id, "create"))


def test_only_threads_of_this_airflow_whose_runs_are_over_are_stopped(
    airflow: LocalAirflow, capy: EmulatorControl
) -> None:
    capy.script(life="forever")
    (strangers,) = capy.create("Started elsewhere", origin="api", life="forever")
    left, spared = _started_by(airflow, "reap_left"), _started_by(airflow, "reap_spared")
    run_id = airflow.trigger("reap_goes_on")
    airflow.wait_for_task("reap_goes_on", run_id, "create", states={"deferred"}, timeout=90)
    in_use = str(airflow.xcom("reap_goes_on", run_id, "create", key="thread_id"))

    dry = airflow.trigger("reap_dry")
    assert airflow.wait_for_run("reap_dry", dry) == "success"
    (would,) = airflow.xcom("reap_dry", dry, "reap")
    assert (would["thread_id"], would["result"], would["dag_id"]) == (left, "would_be_stopped", "reap_left")
    assert capy.stops(left) == []

    now = airflow.trigger("reap_now")
    assert airflow.wait_for_run("reap_now", now) == "success"
    (report,) = airflow.xcom("reap_now", now, "reap")
    assert (report["thread_id"], report["result"], report["run_state"]) == (left, "stopped", "success")
    assert len(capy.stops(left)) == 1
    assert [capy.stops(thread_id) for thread_id in (strangers, spared, in_use)] == [[], [], []]
