"""Which threads this Airflow has started, and whether their runs are over, as Airflow's own REST API tells.

A task may ask the supervisor about runs that it knows by name; only the REST API lists those that it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.tasking import REFERENCE_KEY, THREAD_ID_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

GONE = "gone"
_PAGE = 100
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Push:
    """The task instance that pushed an XCom.

    Attributes:
        dag_id: the DAG.
        run_id: the run.
        task_id: the task.
        map_index: ``-1`` when it is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @property
    def path(self) -> str:
        """Its address below ``/api/v2``."""
        return f"{_run_path(self.dag_id, self.run_id)}/taskInstances/{quote(self.task_id, safe='')}"


class AirflowLedger:
    """Reads Airflow's REST API (version 2); changes nothing.

    Args:
        base_url: of the API server, e.g. ``http://localhost:8080``.
        login: with ``password``, exchanged for a token at ``/auth/token``.
        password: alone, it is a token itself; ``None`` where the API asks for none.

    Raises:
        CapyInputError: the API does not let us in, or is not there.
    """

    def __init__(self, base_url: str, login: str | None, password: str | None) -> None:
        self._base_url = base_url.rstrip("/")
        self._login, self._password = login, password
        self._run_states: dict[str, str] = {}
        self._http = httpx.Client(base_url=self._base_url, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        token = self._password
        if self._login:
            body = {"username": self._login, "password": self._password or ""}
            token = self._decoded(self._send("POST", "/auth/token", json=body))["access_token"]
        if token:
            self._http.headers["Authorization"] = f"Bearer {token}"
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    def pushes(self, key: str, since: datetime) -> Iterator[Push]:
        """Iterate over the task instances that have pushed an XCom of that key since then, the latest first."""
        offset = 0
        query = {"xcom_key": key, "order_by": "-timestamp", "limit": _PAGE}
        path = "/dags/~/dagRuns/~/taskInstances/~/xcomEntries"
        while True:
            page = self._get(path, {**query, "offset": offset})
            entries = page["xcom_entries"]
            for entry in entries:
                if datetime.fromisoformat(entry["timestamp"].replace("Z", "+00:00")) < since:
                    return
                yield Push(entry["dag_id"], entry["run_id"], entry["task_id"], entry["map_index"])
            offset += len(entries)
            if not entries or offset >= page["total_entries"]:
                return

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state as it was when it was first asked for, ``"gone"`` when it was deleted."""
        path = _run_path(dag_id, run_id)
        if path not in self._run_states:
            self._run_states[path] = str((self._get(path) or {"state": GONE})["state"])
        return self._run_states[path]

    def reference(self, push: Push) -> str:
        """Return a task's reference; blank when its thread is not to be stopped on its behalf."""
        return str(self._xcom(push, REFERENCE_KEY) or "")

    def thread_id(self, push: Push) -> str | None:
        """Return the id of a task's thread; ``None`` when it is not known."""
        found = self._xcom(push, THREAD_ID_KEY)
        return str(found) if found else None

    def _xcom(self, push: Push, key: str) -> Any:
        query = {"map_index": push.map_index, "deserialize": False}
        answer = self._get(f"{push.path}/xcomEntries/{key}", query)
        value = answer["value"] if answer is not None else None
        # Airflow gives a text as the JSON that it keeps.
        return value.strip('"') if isinstance(value, str) else value

    def _get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        response = self._send("GET", f"/api/v2{path}", params=query)
        return None if response.status_code == httpx.codes.NOT_FOUND else self._decoded(response)

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise CapyInputError(
                f"{self._base_url}: Airflow's API is not to be reached ({error!r}); nothing was stopped"
            ) from error

    def _decoded(self, response: httpx.Response) -> Any:
        if response.is_error:
            asked = f"{response.request.method} {response.request.url.path}"
            raise CapyInputError(
                f"{asked}: Airflow's API answered {response.status_code}; it needs to read DAG runs and XComs of every "
                "DAG. Nothing more was stopped"
            )
        return response.json()


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def base_url_of(connection: Any) -> str:
    """Return the address of the API server that an Airflow connection leads to.

    Raises:
        CapyInputError: when it has no host.
    """
    if not connection.host:
        raise CapyInputError(f"connection {connection.conn_id!r}, host: is empty; it is the address of the API server")
    if "://" in connection.host:
        return str(connection.host)
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{connection.host}{port}"
