"""The listener comes along with the provider, and can be turned off."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from airflow.sdk.module_loading import import_string

from airflow_provider_capy.listeners import run_ends
from airflow_provider_capy.plugins.run_ends import CapyPlugin, _listeners
from airflow_provider_capy.provider_info import get_provider_info
from tests.harness.settings import with_bytecode


def test_the_metadata_names_the_plugin() -> None:
    [plugin] = get_provider_info()["plugins"]
    assert (import_string(plugin["plugin-class"]), plugin["name"]) == (CapyPlugin, CapyPlugin.name)
    assert CapyPlugin.listeners == [run_ends]


@pytest.mark.parametrize(("value", "listeners"), [("False", []), ("True", [run_ends]), (None, [run_ends])])
def test_it_can_be_turned_off(value: str | None, listeners: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("AIRFLOW__CAPY__STOP_AT_RUN_END", value)
    assert _listeners() == listeners


def test_what_every_component_loads_imports_no_client_and_no_models() -> None:
    code = (
        "import sys; from airflow.plugins_manager import AirflowPlugin; before = set(sys.modules); "
        "import airflow_provider_capy.plugins.run_ends; print(*(set(sys.modules) - before))"
    )
    environment = with_bytecode(os.environ)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    ours = {name for name in imported if name.startswith("airflow_provider_capy.")}
    assert {name.partition(".")[2] for name in ours} == {
        "listeners",
        "listeners.run_ends",
        "plugins",
        "plugins.run_ends",
    }
    assert {name.partition(".")[0] for name in imported} <= {"airflow", "airflow_provider_capy", "pluggy"}
    assert not {name for name in imported if name.startswith("airflow.models")}
