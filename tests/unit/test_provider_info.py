"""What Airflow's registry reads is valid, complete, and leads to things that exist."""

import importlib
import inspect
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
from airflow.sdk.module_loading import import_string
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.triggers.base import BaseTrigger

import airflow_provider_capy
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.hooks.settings import ConnectionExtra
from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.provider_info import get_provider_info

INFO = get_provider_info()
KINDS = {
    "operators": BaseOperator,
    "sensors": BaseSensorOperator,
    "hooks": BaseHook,
    "triggers": BaseTrigger,
}


def test_the_metadata_is_valid_against_airflows_own_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(INFO)] == []
    assert set(INFO) <= set(schema["properties"])


def test_airflow_finds_the_metadata_by_its_entry_point():
    (entry,) = (entry for entry in entry_points(group="apache_airflow_provider") if "capy" in entry.value)
    assert entry.load()() == INFO


def classes_in(module, kind):
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, kind) and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize(
    ("section", "module"), [(section, name) for section in KINDS for name in INFO[section][0]["python-modules"]]
)
def test_every_module_that_is_named_holds_what_it_is_named_for(section, module):
    assert classes_in(importlib.import_module(module), KINDS[section])


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("operators", ["CapyCreateThreadOperator", "CapyStopThreadOperator"]),
        ("sensors", ["CapyThreadSensor"]),
        ("hooks", ["CapyHook"]),
        ("triggers", ["CapyThreadTrigger"]),
    ],
)
def test_the_modules_that_are_named_hold_the_public_classes(section, names):
    modules = [importlib.import_module(name) for name in INFO[section][0]["python-modules"]]
    assert [name for name in names if not any(hasattr(module, name) for module in modules)] == []


@pytest.mark.parametrize(
    "path",
    [
        INFO["connection-types"][0]["hook-class-name"],
        *INFO["extra-links"],
        *(decorator["class-name"] for decorator in INFO["task-decorators"]),
    ],
)
def test_every_class_that_is_named_can_be_imported(path):
    assert import_string(path).__module__.startswith("airflow_provider_capy.")


def test_the_links_are_links():
    links = [import_string(path) for path in INFO["extra-links"]]
    assert links == [CapyThreadLink, CapyPullRequestLink]
    assert all(issubclass(link, BaseOperatorLink) for link in links)


@pytest.fixture(scope="module")
def manager():
    return ProvidersManager()


def test_the_registry_knows_the_provider(manager):
    provider = manager.providers["airflow-provider-capy"]
    assert provider.version == airflow_provider_capy.__version__
    assert provider.data["name"] == "Capy"


def test_the_connection_form_shows_exactly_our_fields(manager):
    form = {key: widget for key, widget in manager.connection_form_widgets.items() if key.startswith("extra__capy__")}
    assert [widget.field_name for widget in form.values()] == list(ConnectionExtra.model_fields)
    assert {widget.hook_class_name for widget in form.values()} == {"airflow_provider_capy.hooks.capy.CapyHook"}
    assert all(widget.field["description"] for widget in form.values())


def test_the_connection_form_hides_what_a_connection_does_not_need(manager):
    assert manager.field_behaviours["capy"] == {
        "hidden_fields": ["login", "schema", "extra"],
        "relabeling": {"host": "Base URL", "port": "Port, for the Test button", "password": "API token"},
        "placeholders": {"host": "https://capy.ai/api", "port": "443", "password": "capy_\u2026"},
    }


@pytest.mark.parametrize("field", ["timeout", "connect_timeout"])
def test_the_form_lets_through_what_the_hook_takes(manager, field):
    bounds = manager.connection_form_widgets[f"extra__capy__{field}"].field["schema"]
    for value in (bounds["minimum"], bounds["maximum"], None):
        assert getattr(ConnectionExtra.model_validate({field: value}), field) == value
    with pytest.raises(ValueError, match=field):
        ConnectionExtra.model_validate({field: bounds["maximum"] + 1})


def test_the_registry_knows_the_connection_type():
    hook = ProvidersManagerTaskRuntime().hooks["capy"]
    assert (hook.hook_class_name, hook.connection_id_attribute_name, hook.hook_name) == (
        "airflow_provider_capy.hooks.capy.CapyHook",
        CapyHook.conn_name_attr,
        CapyHook.hook_name,
    )
    assert hook.connection_testable
    assert hook.connection_type == CapyHook.conn_type


def test_the_registry_knows_the_links_and_the_triggers(manager):
    assert set(INFO["extra-links"]) <= set(manager.extra_links_class_names)
    assert {trigger.trigger_class_name for trigger in manager.trigger if trigger.integration_name == "Capy"} == set(
        INFO["triggers"][0]["python-modules"]
    )


def test_the_task_decorator_is_there_for_dags():
    from airflow.sdk import task

    assert callable(task.capy_thread)
    assert "capy_thread" in ProvidersManagerTaskRuntime().taskflow_decorators


def test_the_metadata_is_cheap_to_read():
    code = (
        "import sys, airflow_provider_capy.provider_info as p; p.get_provider_info(); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'airflow', 'httpx', 'pydantic', 'tenacity', 'yaml'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
