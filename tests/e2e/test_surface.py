"""Airflow's own commands and pages show the provider."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.provider_info import get_provider_info
from tests.harness.client import AirflowError

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.airflow import LocalAirflow

PACKAGE = "airflow-provider-capy"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("list",), PACKAGE),
        (("get", PACKAGE), PACKAGE),
        (("hooks",), "airflow_provider_capy.hooks.capy.CapyHook"),
        (("triggers",), "airflow_provider_capy.triggers.thread"),
        (("links",), "airflow_provider_capy.links.CapyThreadLink"),
        (("links",), "airflow_provider_capy.links.CapyPullRequestLink"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.rpartition(".")[2],
)
def test_the_command_line_shows_the_provider(airflow: LocalAirflow, command: tuple[str, ...], shown: str) -> None:
    printed = airflow.airflow("providers", *command, "--output", "json")
    rows = json.loads(printed[printed.index("[") :])
    assert any(shown in str(value) for row in rows for value in row.values())


def test_the_connection_form_shows_our_fields(airflow: LocalAirflow) -> None:
    form = airflow.connection_forms()["capy"]
    declared = get_provider_info()["connection-types"][0]
    assert set(form["extra_fields"]) == set(declared["conn-fields"])
    assert form["standard_fields"]["password"]["title"] == "API token"
    assert form["standard_fields"]["host"]["title"] == "Base URL"
    hidden = {name for name, shown in form["standard_fields"].items() if shown and shown.get("hidden")}
    assert hidden == {"login", "url_schema"}
    assert form["standard_fields"]["port"]["placeholder"] == "443"


def test_a_connection_can_be_tested_from_the_form(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    body = {
        "connection_id": "capy_form",
        "conn_type": "capy",
        "host": capy.api_url,
        "password": capy.token,
        "extra": json.dumps({"project_id": "prj_demo"}),
    }
    worked, message = airflow.test_connection(body)
    assert (worked, message) == (True, f"{capy.api_url} accepts the token, and project 'prj_demo' can be listed.")
    refused, reason = airflow.test_connection({**body, "password": "capy_wrong"})
    assert (refused, "401" in reason, "capy_wrong" in reason) == (False, True, False)
    assert capy.threads() == []


def test_the_test_button_works_for_a_saved_connection_with_a_port(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    """Airflow's page sends what it was given of the connection, with the secret masked and port 0 for none."""
    saved = {
        "connection_id": "capy_saved",
        "conn_type": "capy",
        "host": capy.api_url,
        "password": capy.token,
        "extra": json.dumps({"project_id": "prj_demo"}),
    }

    def pressed(**more: object) -> tuple[bool, str]:
        airflow.request("POST", "/connections", json={**saved, **more})
        try:
            shown = airflow.request("GET", "/connections/capy_saved")
            names = ("conn_type", "connection_id", "description", "extra", "host", "login", "password", "schema")
            sent = {name: shown[name] or "" for name in names}
            return airflow.test_connection({**sent, "port": int(shown["port"] or 0)})
        finally:
            airflow.request("DELETE", "/connections/capy_saved")

    assert pressed(port=443) == (
        True,
        f"{capy.api_url} accepts the token, and project 'prj_demo' can be listed.",
    )
    # The day that this one works, the port can leave the form and README again.
    with pytest.raises(AirflowError, match="400"):
        pressed()


def test_the_command_that_readme_shows_tests_the_connection(airflow: LocalAirflow, capy: EmulatorControl) -> None:
    assert "Connection success!" in airflow.airflow("connections", "test", "capy_default")


def test_the_listener_of_run_ends_is_there_without_being_set_up(airflow: LocalAirflow) -> None:
    found = {plugin["name"]: plugin for plugin in airflow.request("GET", "/plugins")["plugins"]}
    assert "airflow_provider_capy.listeners.run_ends" in str(found["capy"]["listeners"])
