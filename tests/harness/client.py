"""Talks to an Airflow over its REST API, in the words a test or a demo thinks in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# What every line of one task's log repeats, or what is written in front of it anyway.
LOG_FRAME = frozenset({"timestamp", "level", "event", "logger", "filename", "lineno"}) | {
    *("dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "error_detail")
}

# Airflow logs a user's action before it acts, from its event loop: with SQLite that fails when another request is just
# about to commit, for it cannot while the loop waits. Nothing has happened then, so asking again is safe.
TRIES_WHEN_LOCKED = 5


class AirflowError(Exception):
    """Airflow answered with an error, or did not do what was waited for."""


class AirflowClient:
    """An Airflow as seen from outside; needs no token where every caller is an administrator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.triggered: list[tuple[str, str]] = []
        # A proxy of the caller's environment must not see loopback traffic.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """Send one request below /api/v2 and return the decoded answer; any error status is raised with its body."""
        for _ in range(TRIES_WHEN_LOCKED):
            response = self._http.request(method, f"/api/v2{path}", **kwargs)
            if not (response.is_server_error and "database is locked" in response.text):
                break
        return self._decode(response)

    @staticmethod
    def _decode(response: httpx.Response) -> Any:
        if response.is_error:
            request = response.request
            raise AirflowError(f"{request.method} {request.url.path} -> {response.status_code}: {response.text}")
        return response.json() if response.content else None

    def _pages(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self.request("GET", path, params={"limit": 100, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    # The instance

    def health(self) -> dict[str, str | None]:
        """Return the state of every component: "healthy", "unhealthy", or None for one that never ran."""
        return {name: part["status"] for name, part in self.request("GET", "/monitor/health").items()}

    def serves_tasks(self) -> bool:
        """Tell whether the API of the tasks answers; asked once, it is also warm for the first task.

        Airflow builds it at the first request, for longer than a task waits for its answer on a busy machine.
        """
        return self._http.get("/execution/health").is_success

    def living_jobs(self, job_type: str, *, since: datetime | None = None) -> int:
        """Count the living processes of a type ("TriggererJob", "SchedulerJob", "DagProcessorJob") by their heartbeats."""
        params = {"job_type": job_type, "is_alive": True}
        if since is not None:
            params["start_date_gte"] = since.isoformat()
        return int(self.request("GET", "/jobs", params=params)["total_entries"])

    def dags(self) -> list[dict[str, Any]]:
        """Return every DAG that was parsed."""
        return list(self._pages("/dags", "dags"))

    def import_errors(self) -> dict[str, str]:
        """Return the DAG files that cannot be imported, with their tracebacks."""
        return {error["filename"]: error["stack_trace"] for error in self._pages("/importErrors", "import_errors")}

    def connection_forms(self) -> dict[str, dict[str, Any]]:
        """Return what the UI's connection form knows about each connection type."""
        answer = self._decode(self._http.get("/ui/connections/hook_meta"))
        return {form["connection_type"]: form for form in answer}

    def test_connection(self, body: Mapping[str, Any]) -> tuple[bool, str]:
        """Press the form's "Test" button: the hook runs inside the api-server."""
        answer = self.request("POST", "/connections/test", json=dict(body))
        return answer["status"], answer["message"]

    # DAGs and runs

    def pause(self, dag_id: str) -> None:
        """Pause a DAG: what runs goes on, nothing new is scheduled."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def unpause(self, dag_id: str) -> None:
        """Let a paused DAG go on."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id = str(self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])
        self.triggered.append((dag_id, run_id))
        return run_id

    def runs(self, dag_id: str) -> dict[str, str]:
        """Return the state of every run of a DAG."""
        return {run["dag_run_id"]: run["state"] for run in self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs")}

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return "queued", "running", "success" or "failed"."""
        return str(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run to "failed", "success" or "queued", as the UI's "Mark run as ..." does."""
        self.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    def clear_run(self, dag_id: str, run_id: str, *, only_failed: bool = False) -> None:
        """Run all its tasks again."""
        body = {"dry_run": False, "only_failed": only_failed}
        self.request("POST", f"/dags/{dag_id}/dagRuns/{run_id}/clear", json=body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with all that belongs to it; Airflow refuses while it is running."""
        self.request("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}")

    # Tasks

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run; those of a mapped task are named `task[0]`, `task[1]`, ..."""
        return {
            _name(instance["task_id"], instance["map_index"]): instance
            for instance in self._pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        }

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the state of every task of a run; "none" before the scheduler has looked at it."""
        return {name: instance["state"] or "none" for name, instance in self.tasks(dag_id, run_id).items()}

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Set a task to "failed", "success" or "skipped", as the UI's "Mark task as ..." does."""
        self.request("PATCH", _path(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def clear_task(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, *, downstream: bool = False
    ) -> None:
        """Run a task again, whatever its state is."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": run_id,
            "task_ids": [task_id if map_index < 0 else [task_id, map_index]],
            "include_downstream": downstream,
        }
        self.request("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value a task has pushed, or None when there is none (yet)."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        response = self._http.get(f"/api/v2{path}", params={"map_index": map_index, "deserialize": False})
        return None if response.status_code == httpx.codes.NOT_FOUND else self._decode(response)["value"]

    def stored(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int = -1) -> Any:
        """Return the value a task keeps in its state store, or None when there is none (yet)."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store/{key}"
        response = self._http.get(f"/api/v2{path}", params={"map_index": map_index})
        return None if response.status_code == httpx.codes.NOT_FOUND else self._decode(response)["value"]

    def extra_links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the operator's links by name, as the buttons of the task's page show them."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        return dict(self.request("GET", path, params={"map_index": map_index})["extra_links"])

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try as lines of text, tracebacks included."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self.request("GET", path, params={"map_index": map_index, "full_content": True})
        return "\n".join(_log_line(event) for event in answer["content"])


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _log_line(event: Any) -> str:
    if not isinstance(event, Mapping):
        return str(event)
    line = " ".join(str(event[key]) for key in ("timestamp", "level", "event") if event.get(key))
    details = " ".join(f"{key}={value}" for key, value in event.items() if key not in LOG_FRAME)
    return "\n".join([f"{line} {details}".rstrip(), *_traceback(event.get("error_detail") or [])])


def _traceback(errors: list[dict[str, Any]]) -> Iterator[str]:
    for error in reversed(errors):
        for frame in error["frames"]:
            yield f"    {frame['filename']}:{frame['lineno']} in {frame['name']}"
        yield f"  {error['exc_type']}: {error['exc_value']}"
