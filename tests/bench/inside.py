"""What ``tests.bench.ends`` measures from the inside of a process that its command line makes one of Airflow's.

It runs ``python -m tests.bench.inside imports|ends PROCESS``; the last line printed is the measurement. Before the clock
runs, nothing but the standard library and what such a process has loaded anyway is imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

OURS = "airflow_provider_capy"
# What each process has loaded when it comes to its plugins, and where it gets its listeners from.
PROCESSES = {
    "scheduler": ("airflow.jobs.scheduler_job_runner", "airflow"),
    "api-server": ("airflow.api_fastapi.app", "airflow"),
    "task": ("airflow.sdk.execution_time.task_runner", "airflow.sdk"),
}
LISTENERS = {"airflow": "airflow.listeners.listener", "airflow.sdk": "airflow.sdk.listener"}
WARM_UP = 50
HELPER_STARTS_WITHIN = 60.0


def hide(package: str) -> None:
    """Let Airflow find no plugin of ours, as though the provider had none."""
    loading = importlib.import_module(f"{package}._shared.module_loading")
    plugins = importlib.import_module(f"{package}.plugins_manager")
    found = loading.entry_points_with_dist

    def others(group: str) -> Any:
        return (pair for pair in found(group) if group != "airflow.plugins" or not pair[0].value.startswith(OURS))

    loading.entry_points_with_dist = others
    plugins._load_providers_plugins = lambda: ([], {})


def listeners(manager: Any) -> list[str]:
    """The listeners of ours."""
    modules = [getattr(plugin, "__name__", None) or type(plugin).__module__ for plugin in manager.pm.get_plugins()]
    return [module for module in modules if module.startswith(OURS)]


def imports(process: str, *options: str) -> dict[str, Any]:
    """What loading the plugins takes, and which modules it brings."""
    module, package = PROCESSES[process]
    importlib.import_module(module)
    importlib.import_module(f"{package}.plugins_manager")
    listener = importlib.import_module(LISTENERS[package])
    if "absent" in options:
        hide(package)
    before, cpu, wall = set(sys.modules), time.process_time(), time.perf_counter()
    manager = listener.get_listener_manager()
    used = {"cpu": (time.process_time() - cpu) * 1000, "wall": (time.perf_counter() - wall) * 1000}
    found: dict[str, Any] = {"new": sorted(set(sys.modules) - before), **used, "listeners": listeners(manager)}
    if process == "scheduler":
        found["start"] = started(manager)
    # Whatever was loaded by now, also by the hook of a scheduler's start.
    return {**found, "ours": [name for name in sys.modules if name.startswith(OURS)]}


def started(manager: Any) -> float:
    """What hearing of the scheduler's start takes it; the first job maps all of Airflow's tables besides."""
    from airflow.jobs import job

    taken = []

    def on_starting(component: Any) -> None:
        began = time.perf_counter()
        manager.hook.on_starting(component=component)
        taken.append((time.perf_counter() - began) * 1000)

    job.get_listener_manager = lambda: SimpleNamespace(hook=SimpleNamespace(on_starting=on_starting))
    job.Job()
    [once] = taken
    return once


def ends(process: str, dag_id: str) -> dict[str, Any]:
    """What the end of each running run of a DAG takes a scheduler: the hook, and the commit after it."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.listeners.listener import get_listener_manager
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    SchedulerJobRunner(Job())
    # As the runner does before its loop.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    helpers = settled_helpers()
    hooks, commits = [], []
    with create_session() as session:
        which = select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.state == DagRunState.RUNNING)
        for number in session.scalars(which).all():
            run = session.scalar(select(DagRun).where(DagRun.id == number).options(joinedload(DagRun.dag_model)))
            run.set_state(DagRunState.FAILED)
            session.flush()
            began = time.perf_counter()
            run.notify_dagrun_state_changed(msg="task_failure")
            heard = time.perf_counter()
            session.commit()
            committed = time.perf_counter()
            session.expunge_all()
            hooks.append((heard - began) * 1000)
            commits.append((committed - heard) * 1000)
    import threading

    # Before they are ended: they have heard of it all only now.
    settled_helpers()
    return {
        "hooks": hooks[WARM_UP:], "commits": commits[WARM_UP:], "listeners": listeners(get_listener_manager()),
        "helpers": helpers, "threads": threading.active_count(),
        "ours": [name for name in sys.modules if name.startswith(OURS)],
    }  # fmt: skip


def settled_helpers() -> int:
    """How many processes the start has brought, once they have come to rest; there are none without a listener."""
    import psutil

    children = psutil.Process().children(recursive=True)
    until = time.monotonic() + HELPER_STARTS_WITHIN
    while children and time.monotonic() < until:
        used = sum(sum(child.cpu_times()[:2]) for child in children)
        time.sleep(2)
        if sum(sum(child.cpu_times()[:2]) for child in children) < used + 0.05:
            break
    return len(children)


def end_helpers() -> None:
    """Leave the next process the machine for itself."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        child.kill()


if __name__ == "__main__":
    what, process, *options = sys.argv[1:]
    # As the process sees itself.
    sys.argv[:] = ["airflow", process]
    result = {"imports": imports, "ends": ends}[what](process, *options)
    end_helpers()
    print("\n" + json.dumps(result), flush=True)
