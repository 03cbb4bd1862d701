"""Runs a whole Airflow of its own for tests and the demo: four kinds of process, a fresh home, free ports, no login."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.harness.client import AirflowError
from tests.harness.guard import Guard
from tests.harness.processes import Component
from tests.harness.settings import Ports, airflow_environment, with_bytecode, without_airflow
from tests.harness.waiting import PatientClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

MIGRATION_TIMEOUT = 180.0
START_TIMEOUT = 180.0
# Nothing is lost by an abrupt end; an idle triggerer would take ten seconds for a graceful one.
STOP_GRACE = 3.0


class LocalAirflow(PatientClient):
    """A running Airflow, started on entering its `with` block and gone without a trace of a process after it.

        with LocalAirflow(tmp_path, dags=Path("dags")) as airflow:
            run_id = airflow.trigger("my_dag")
            assert airflow.wait_for_run("my_dag", run_id) == "success"

    `home` is Airflow's home: database, logs and keys. A home that is used again keeps its runs.
    `dags` are the folders with DAG files; they are read where they are, so a file can be changed while Airflow runs.
    `database` is an SQLAlchemy URL; without it a SQLite file inside the home.
    `env` is added to the environment of every process: connections, variables, settings; it wins.
    `quick` shortens the waits of Airflow's loops for tests; without it Airflow keeps its own times, for measuring.
    `ui` is for people: the usual port when it is free, and log servers, so that logs of running tasks show no warning.
    """

    def __init__(
        self,
        home: Path,
        dags: Path | Sequence[Path],
        *,
        database: str | None = None,
        executor: str = "LocalExecutor",
        env: Mapping[str, str] | None = None,
        triggerers: int = 1,
        quick: bool = True,
        ui: bool = False,
    ) -> None:
        self.home = home.resolve()
        self.dag_folders = [folder.resolve() for folder in ([dags] if isinstance(dags, Path) else dags)]
        self.ports = Ports.free(api=8080 if ui else None)
        super().__init__(f"http://127.0.0.1:{self.ports.api}")
        self.components: dict[str, Component] = {}
        self._database = database
        self._executor = executor
        self._quick = quick
        self._env = dict(env or {})
        self._triggerers = triggerers
        self._ui = ui
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def component(self, name: str) -> Component:
        """Return "api-server", "scheduler", "dag-processor", "triggerer", or further "triggerer-2", ..."""
        return self.components[name]

    def restart(self, name: str, grace: float = STOP_GRACE, timeout: float = 60) -> None:
        """End one component with all it forked, start it anew, and return when it is at work."""
        since = datetime.now(timezone.utc)
        self.component(name).restart(grace)
        command = name.rstrip("-0123456789")
        self.wait_until(f"{name} is up again", lambda: self.is_up(command, since=since), timeout)

    def triggerer_of(self, dag_id: str, run_id: str, task_id: str) -> Component | None:
        """Return the triggerer that a deferred task (`task[0]` when mapped) is assigned to, once it runs the trigger."""
        job = self.tasks(dag_id, run_id)[task_id]["triggerer_job"]
        # Airflow does not tell which process a job is, but only that process has the job's log files open.
        ending = f".log.trigger.{job['id']}.log" if job else None
        for component in self.components.values():
            for process in component.members() if ending else []:
                with suppress(psutil.NoSuchProcess):
                    if any(file.path.endswith(ending) for file in process.open_files()):
                        return component
        return None

    def wait_for_deferral(self, dag_id: str, run_id: str, task_id: str, timeout: float = 120) -> None:
        """Wait until a task (`task[0]` when mapped) waits in the triggerer, and may come back from there.

        Airflow's scheduler fails a task that it has queued again before it heard from its executor that the process
        which deferred the task has ended; that takes a second or more on a busy machine.
        """
        self.wait_for_task(dag_id, run_id, task_id, {"deferred"}, timeout)
        instance_id = self.tasks(dag_id, run_id)[task_id]["id"]
        self.wait_until(f"the process of {task_id} has ended", lambda: not self._is_worked_on(instance_id), timeout)

    def _is_worked_on(self, instance_id: str) -> bool:
        """Tell whether a process of the local executor is named after this task instance."""
        for process in self.component("scheduler").members():
            with suppress(psutil.Error):
                if any(instance_id in part for part in process.cmdline()):
                    return True
        return False

    @property
    def environment(self) -> dict[str, str]:
        """The complete environment of the instance's processes, also right for an `airflow` command beside them."""
        return {
            **with_bytecode(without_airflow(os.environ)),
            **airflow_environment(
                self.home,
                self.dag_folders,
                self.ports,
                database=self._database,
                executor=self._executor,
                quick=self._quick,
            ),
            **self._env,
        }

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start everything and return when all is healthy and every DAG file is parsed; clean up when that fails."""
        if self.components:
            raise RuntimeError("this Airflow was started before; make a new one, with the same home if you like")
        for folder in self.dag_folders:
            if not folder.is_dir():
                raise NotADirectoryError(f"no DAG folder {folder}")
        atexit.register(self.stop)
        try:
            (self.home / "logs").mkdir(parents=True, exist_ok=True)
            self._migrate()
            self._guard = Guard()
            self.components = {component.name: component for component in self._plan()}
            # A home that is used again still knows the processes and the DAGs of its last time.
            since = datetime.now(timezone.utc)
            for component in self.components.values():
                component.start()
            deadline = time.monotonic() + timeout
            self._wait_until_healthy(since, deadline)
            self._wait_until_parsed(since, deadline)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = STOP_GRACE) -> None:
        """End every process, those of running tasks included; calling it again does nothing."""
        atexit.unregister(self.stop)
        try:
            for component in self.components.values():
                component.ask_to_stop()
            deadline = time.monotonic() + grace
            for component in self.components.values():
                component.finish(max(0.0, deadline - time.monotonic()))
        finally:
            # Whatever could not be ended above, for an error or an impatient Ctrl-C, ends with the guard.
            if self._guard is not None:
                self._guard.close()
                self._guard = None
            self.close()

    def airflow(self, *arguments: str, timeout: float = MIGRATION_TIMEOUT) -> str:
        """Run one `airflow` command against this instance and return its output."""
        result = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if result.returncode:
            raise AirflowError(f"airflow {' '.join(arguments)} ended with {result.returncode}:\n{_tail(result.stdout)}")
        return result.stdout

    def _migrate(self) -> None:
        (self.home / "logs" / "db-migrate.log").write_text(self.airflow("db", "migrate"))

    def _plan(self) -> Iterator[Component]:
        # All processes share this machine's log folder, so the API finds every log without the log servers.
        no_log_server = [] if self._ui else ["--skip-serve-logs"]
        yield self._component("api-server", "--host", "127.0.0.1", "--port", str(self.ports.api))
        yield self._component("dag-processor")
        yield self._component("scheduler", *no_log_server)
        for number in range(1, self._triggerers + 1):
            if number == 1:
                yield self._component("triggerer", *no_log_server)
            else:
                yield self._component("triggerer", "--skip-serve-logs", name=f"triggerer-{number}")

    def _component(self, command: str, *arguments: str, name: str | None = None) -> Component:
        name = name or command
        return Component(
            name,
            [sys.executable, "-m", "airflow", command, *arguments],
            env=self.environment,
            # Python looks for modules here first: it must not be a folder that holds any.
            directory=self.home / "logs",
            log_file=self.home / "logs" / f"{name}.log",
            guard=self._guard,
        )

    def _wait_until_healthy(self, since: datetime, deadline: float) -> None:
        while True:
            for component in self.components.values():
                if not component.running:
                    code = component.exit_code
                    raise AirflowError(f"{component.name} ended with {code}:\n{_tail(component.log_text())}")
            numbers = {"api-server": 1, "dag-processor": 1, "scheduler": 1, "triggerer": self._triggerers}
            missing = [name for name, count in numbers.items() if not self.is_up(name, since=since, count=count)]
            if not missing:
                return
            if time.monotonic() > deadline:
                tails = [f"--- {name}:\n{_tail(self.components[name].log_text())}" for name in missing]
                raise AirflowError("\n".join([f"not healthy in time: {', '.join(missing)}", *tails]))
            time.sleep(0.3)

    def _wait_until_parsed(self, since: datetime, deadline: float) -> None:
        expected = {path for folder in self.dag_folders for path in folder.rglob("*.py") if _looks_like_dag(path)}
        while True:
            if errors := self.import_errors():
                raise AirflowError(
                    "\n".join(f"--- {name} cannot be imported:\n{text}" for name, text in errors.items())
                )
            unseen = expected - {Path(dag["fileloc"]) for dag in self.dags() if _parsed(dag) >= since}
            if not unseen:
                return
            if time.monotonic() > deadline:
                names = ", ".join(str(path) for path in sorted(unseen))
                log = _tail(self.component("dag-processor").log_text())
                raise AirflowError(f"no DAG was found in time in {names}\n--- dag-processor:\n{log}")
            time.sleep(0.3)


def _parsed(dag: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(dag["last_parsed_time"].replace("Z", "+00:00"))


def _looks_like_dag(path: Path) -> bool:
    # Airflow's own first look: files without both words are not parsed at all.
    text = path.read_text(errors="replace").lower()
    return "dag" in text and "airflow" in text


def _tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])
