"""What Airflow's provider registry reads: data only, because every component of Airflow loads it."""

from __future__ import annotations

from typing import Any

_NAME = "Capy"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info`` schema."""
    return {
        "package-name": "airflow-provider-capy",
        "name": _NAME,
        "description": "Starts Capy coding-agent threads, waits for them, and stops them when their run is cancelled.",
        "integrations": [
            {
                "integration-name": _NAME,
                "external-doc-url": "https://docs.capy.ai",
                "tags": ["service"],
            }
        ],
        "operators": [
            {"integration-name": _NAME, "python-modules": ["airflow_provider_capy.operators.thread"]},
        ],
        "sensors": [
            {"integration-name": _NAME, "python-modules": ["airflow_provider_capy.sensors.thread"]},
        ],
        "hooks": [
            {"integration-name": _NAME, "python-modules": ["airflow_provider_capy.hooks.capy"]},
        ],
        "triggers": [
            {"integration-name": _NAME, "python-modules": ["airflow_provider_capy.triggers.thread"]},
        ],
        "connection-types": [
            {
                "connection-type": "capy",
                "hook-class-name": "airflow_provider_capy.hooks.capy.CapyHook",
                "hook-name": _NAME,
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "extra"],
                    # Not hidden: Airflow's Test button sends port 0 for none, and then takes the connection for another one.
                    "relabeling": {"host": "Base URL", "port": "Port, for the Test button", "password": "API token"},
                    "placeholders": {"host": "https://capy.ai/api", "port": "443", "password": "capy_…"},
                },
                "conn-fields": {
                    "project_id": {
                        "label": "Default project",
                        "description": "Project id that is used where a task names none, e.g. prj_123.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "web_url_template": {
                        "label": "Web address of a thread",
                        "description": "Template with {project_id} and {thread_id} for the links in the UI.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "timeout": {
                        "label": "Read timeout (s)",
                        "description": "Seconds to wait for an answer; 30 by default.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600},
                    },
                    "connect_timeout": {
                        "label": "Connect timeout (s)",
                        "description": "Seconds to reach Capy; 5 by default.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 120},
                    },
                    "ca_file": {
                        "label": "CA file",
                        "description": "PEM file of CAs to believe in addition to the public ones, e.g. of a company's proxy.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "allow_http": {
                        "label": "Allow http://",
                        "description": "Send the token unencrypted to a host other than this machine.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
            }
        ],
        "plugins": [
            {"name": "capy", "plugin-class": "airflow_provider_capy.plugins.run_ends.CapyPlugin"},
        ],
        "config": {
            "capy": {
                "description": "Capy provider",
                "options": {
                    "shared_poller": {
                        "description": "Whether the waits of a triggerer share one poll per connection.\n",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "poll_requests": {
                        "description": (
                            "How many requests for single threads a triggerer's poll of one connection may have under way; "
                            "a quarter as many for pages, and three times as many that hang, in addition.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "32",
                    },
                    "stop_at_run_end": {
                        "description": (
                            "Whether API server and scheduler stop the threads that nobody answers for any more once their "
                            "run has ended. Both have to reach Capy for it.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                },
            },
        },
        "extra-links": [
            "airflow_provider_capy.links.CapyThreadLink",
            "airflow_provider_capy.links.CapyPullRequestLink",
        ],
        "task-decorators": [
            {"name": "capy_thread", "class-name": "airflow_provider_capy.decorators.thread.capy_thread_task"},
        ],
    }
