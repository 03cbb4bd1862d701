"""Decides how a local Airflow is set up: every setting it differs in from a plain installation, and the reason for it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BYTECODE = Path(__file__).parents[2] / ".airflow" / "bytecode"

# Shorter waits where Airflow polls, so that a test sees within a second or two what production sees within a minute.
QUICK: Mapping[str, str] = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    # A running task learns at its next heartbeat that it was cancelled.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # How soon a task whose machine died is given up: 300 s by default.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # How soon the triggers of a dead triggerer move on. Shorter than this, a busy machine looks like a dead one.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    # New and changed DAG files are found by listing the folder; parsing the unchanged ones again only costs time.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__CORE__PARALLELISM": "8",
}


@dataclass(frozen=True)
class Ports:
    """The ports of one instance, all of them its own."""

    api: int
    worker_logs: int
    trigger_logs: int

    @classmethod
    def free(cls, *, api: int | None = None) -> Ports:
        """Choose ports nobody listens on, with the wanted one for the API when it can be had."""
        # All are held until all are known, or the system may hand out the same one twice.
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            for holder in (second, third):
                holder.bind(("127.0.0.1", 0))
            if api is not None and port_is_free(api):
                # Whoever starts again at once meets the last one's connections, still winding down.
                first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                first.bind(("127.0.0.1", api))
            else:
                first.bind(("127.0.0.1", 0))
            api_port, worker_logs, trigger_logs = (holder.getsockname()[1] for holder in (first, second, third))
        return cls(api=api_port, worker_logs=worker_logs, trigger_logs=trigger_logs)


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def without_airflow(environment: Mapping[str, str]) -> dict[str, str]:
    """Drop all that would reach into another Airflow: its home, its settings, its connections and variables."""
    return {name: value for name, value in environment.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}


def with_bytecode(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep bytecode apart where the caller wants none beside the sources.

    Without any, each of the processes would compile all of Airflow again, which doubles the time of a start.
    """
    result = dict(environment)
    if result.pop("PYTHONDONTWRITEBYTECODE", ""):
        result.setdefault("PYTHONPYCACHEPREFIX", str(BYTECODE))
    return result


def new_secrets() -> dict[str, str]:
    """Make the keys that the components of one instance have to share."""
    return {
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    }


def kept_secrets(home: Path) -> dict[str, str]:
    """Return the keys of this home; they stay with its database, which holds what was encrypted with them."""
    path = home / "secrets.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps(new_secrets()))
    return {str(name): str(value) for name, value in json.loads(path.read_text()).items()}


def airflow_environment(
    home: Path, dags: Sequence[Path], ports: Ports, *, database: str | None, executor: str, quick: bool
) -> dict[str, str]:
    """Return the settings of one instance as environment variables, which win over any configuration file."""
    address = f"http://127.0.0.1:{ports.api}"
    bundles = [
        {
            # Not after the folder: Airflow keeps some names, "example_dags" among them, for itself.
            "name": f"dags-{number}",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder)},
        }
        for number, folder in enumerate(dags, start=1)
    ]
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags[0]),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__CORE__EXECUTOR": executor,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # Whoever can reach the loopback interface is an administrator: no login in tests, none in the demo.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # The default asks the DNS for a full name, which takes seconds on a machine without a network.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database or f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__BASE_URL": address,
        # An error's answer then says what went wrong.
        "AIRFLOW__API__EXPOSE_STACKTRACE": "True",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports.worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.trigger_logs),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        # A log that ends where the process died is worth more than a fast one.
        "PYTHONUNBUFFERED": "1",
        **(QUICK if quick else {}),
        **kept_secrets(home),
    }
