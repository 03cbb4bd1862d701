"""What the listener of run ends costs those who have nothing to do with Capy: on beside off, on PostgreSQL.

Three tables: a run marked failed over the REST API, the scheduler's own end of a run, and loading the plugin. Run as
``python -m tests.bench.ends``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tests.bench.inside import OURS, PROCESSES
from tests.bench.stage import ROOT, SWITCH, Stage, quantile, stage, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARTS = ("marks", "ends", "imports")
MODES = {"off": False, "on": True}
RECORDS_A_RUN = 10
# A server that has just started pauses once for a second within its first fifty clicks, with the listener or without.
WARM_UP = 75
# A person's clicks come apart; what one left to be done is not to wait for the next one's request.
PAUSE = 0.05
# PostgreSQL's backends report their scans when they have been idle for ten seconds.
STATISTICS_LATE = 12.0

# Paused: no scheduler touches their runs.
DAGS = """\
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain

for name in ("stored", "ended", "clicked"):
    with DAG(name, schedule=None, is_paused_upon_creation=True):
        chain(*(EmptyOperator(task_id=f"step_{number}") for number in range(5)))
"""
RECORD = {
    "version": 1, "thread_id": "jam_NUMBER", "thread_url": "https://capy.ai/project/prj_demo/threads/jam_NUMBER",
    "capy_conn_id": "capy_default", "project_id": "prj_demo", "reference": "af0a1b2c3d4e5f60718293a4NUMBER",
    "stop_on_kill": True, "shared": False, "owner": "", "fate": "FATE", "stopped_by": "",
    "nonce": "0123456789abcdef0123456789abcdef", "intended_at": 1795799000.25, "started_at": 1795799001.5, "asked_at": None,
}  # fmt: skip

COPY_RUNS = text(
    "INSERT INTO dag_run SELECT copy.* FROM dag_run template, generate_series(1, :count) number, "
    "LATERAL jsonb_populate_record(template, jsonb_build_object("
    "'id', nextval(pg_get_serial_sequence('dag_run', 'id')), 'run_id', 'copy_' || number, 'state', CAST(:state AS text), "
    "'start_date', now(), 'end_date', CASE :state WHEN 'success' THEN now() END)) copy "
    "WHERE template.dag_id = :dag AND template.run_id = 'template'"
)
STORE = text(
    "INSERT INTO task_state_store (dag_run_id, task_id, map_index, key, dag_id, run_id, value, updated_at) "
    "SELECT id, 'step_0', number, 'capy_thread', dag_id, run_id, replace(replace(:record, 'NUMBER', id || '_' || number), "
    "'FATE', CASE WHEN number < 7 THEN 'decided' WHEN number < 9 THEN 'dispatched' ELSE 'stopped' END), now() "
    "FROM dag_run, generate_series(0, :each - 1) number WHERE dag_id = 'stored' AND run_id LIKE 'copy_%'"
)
RUNNING_AGAIN = text(
    "UPDATE dag_run SET state = 'running', end_date = NULL WHERE dag_id = 'ended' AND run_id LIKE 'copy_%'"
)
CLICKABLE = (
    text("UPDATE dag_run SET state = 'running', start_date = now() WHERE dag_id = 'clicked' AND state = 'queued'"),
    text(
        "UPDATE task_instance task SET state = CASE task_id WHEN 'step_0' THEN 'success' ELSE 'running' END, try_number = 1, "
        "start_date = now() FROM dag_run run WHERE run.dag_id = task.dag_id AND run.run_id = task.run_id "
        "AND run.dag_id = 'clicked' AND run.state = 'running' AND task_id IN ('step_0', 'step_1')"
    ),
)
SCANS = text("SELECT coalesce(idx_scan, 0), seq_scan FROM pg_stat_user_tables WHERE relname = 'task_state_store'")


def prepare(place: Stage, records: int, ends: int) -> None:
    """Store the records of other runs, which are over, and make runs for the scheduler to end."""
    for name in ("stored", "ended"):
        body = {"logical_date": None, "dag_run_id": "template"}
        place.airflow.request("POST", f"/dags/{name}/dagRuns", json=body)
    with place.database.begin() as session:
        session.execute(COPY_RUNS, {"dag": "stored", "count": records // RECORDS_A_RUN, "state": "success"})
        session.execute(COPY_RUNS, {"dag": "ended", "count": ends, "state": "running"})
        session.execute(STORE, {"record": json.dumps(RECORD), "each": RECORDS_A_RUN})
        session.execute(text("ANALYZE"))


def scans(place: Stage) -> tuple[int, int]:
    time.sleep(STATISTICS_LATE)
    with place.database.begin() as session:
        indexed, sequential = session.execute(SCANS).one()
    return indexed, sequential


def more(total: Sequence[int], before: Sequence[int], after: Sequence[int]) -> list[int]:
    return [sum_ + late - early for sum_, late, early in zip(total, after, before, strict=True)]


def marks(place: Stage, rounds: int, clicks: int) -> Iterator[dict[str, Any]]:
    """What marking a run failed takes the API server, in turns with the listener off and on."""
    taken: dict[str, list[float]] = defaultdict(list)
    looked: dict[str, list[int]] = {mode: [0, 0] for mode in MODES}
    each = -(-clicks // rounds)
    for _, (mode, on) in product(range(rounds), MODES.items()):
        print(f"marks, {mode} ...", file=sys.stderr, flush=True)
        place.switch(on, "api-server")
        body = {"logical_date": None}
        runs = [
            place.airflow.request("POST", "/dags/clicked/dagRuns", json=body)["dag_run_id"]
            for _ in range(WARM_UP + each)
        ]
        with place.database.begin() as session:
            for statement in CLICKABLE:
                session.execute(statement)
        for run in runs[:WARM_UP]:
            place.airflow.mark_run("clicked", run, "failed")
        before = scans(place)
        for run in runs[WARM_UP:]:
            began = time.perf_counter()
            place.airflow.mark_run("clicked", run, "failed")
            taken[mode].append((time.perf_counter() - began) * 1000)
            time.sleep(PAUSE)
        looked[mode] = more(looked[mode], before, scans(place))
    for mode, times in taken.items():
        indexed, sequential = (count / len(times) for count in looked[mode])
        yield {**quantiles(mode, times, taken["off"]), "indexed": indexed, "sequential": sequential}


def quantiles(mode: str, times: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """The two quantiles, and what they are more than those of the base."""
    found: dict[str, Any] = {"mode": mode, "count": len(times)}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        found |= {name: quantile(times, share), f"{name}_more": quantile(times, share) - quantile(base, share)}
        found[f"{name}_ratio"] = quantile(times, share) / quantile(base, share)
    return found


def inside(environment: dict[str, str], mode: str, *arguments: str) -> dict[str, Any]:
    """Measure inside a process of its own."""
    command = [sys.executable, "-m", "tests.bench.inside", *arguments]
    switched = {**environment, SWITCH: str(mode == "on")}
    run = subprocess.run(command, env=switched, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(arguments)}, {mode}: {run.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if bool(found["listeners"]) is not (mode == "on"):
        raise RuntimeError(f"{' '.join(arguments)}, {mode}: the listeners of ours are {found['listeners']}")
    return found


def ends(place: Stage, rounds: int, count: int) -> Iterator[dict[str, Any]]:
    """What the end of a run takes the scheduler, in turns with the listener off and on."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    looked: dict[str, list[int]] = {mode: [0, 0] for mode in MODES}
    for _, mode in product(range(rounds), MODES):
        print(f"ends, {mode} ...", file=sys.stderr, flush=True)
        with place.database.begin() as session:
            session.execute(RUNNING_AGAIN)
        before = scans(place)
        found[mode].append(inside(place.airflow.environment, mode, "ends", "scheduler", "ended"))
        looked[mode] = more(looked[mode], before, scans(place))

    def times(mode: str, *names: str) -> list[float]:
        return [sum(both) for one in found[mode] for both in zip(*(one[name] for name in names), strict=True)]

    for mode, measured in found.items():
        last = measured[-1]
        yield {
            **quantiles(mode, times(mode, "hooks", "commits"), times("off", "hooks", "commits")),
            "hook": quantile(times(mode, "hooks"), 0.5),
            "hook_p99": quantile(times(mode, "hooks"), 0.99),
            "api": api_modules(measured),
            "indexed": looked[mode][0] / count / rounds,
            "sequential": looked[mode][1] / rounds,
            **{name: last[name] for name in ("helpers", "threads")},
        }


def api_modules(measured: Sequence[dict[str, Any]]) -> str:
    """Name the modules of the API's client that were loaded where none should be."""
    names = {name for one in measured for name in one["ours"] if f"{name}.".startswith(f"{OURS}.api.")}
    return ", ".join(sorted(names)) or "none"


def imports(environment: dict[str, str], rounds: int) -> Iterator[dict[str, Any]]:
    """What loading the plugin takes each kind of process; the first round only warms the disk up."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    modes = ("absent", *MODES)
    for turn, (process, mode) in product(range(rounds + 1), product(PROCESSES, modes)):
        print(f"imports, {process}, {mode} ...", file=sys.stderr, flush=True)
        measured = inside(environment, mode, "imports", process, mode)
        if turn:
            found[process, mode].append(measured)
    for process, mode in product(PROCESSES, modes):
        measured, base = found[process, mode], found[process, "absent"]
        row = {"process": process, "mode": mode, "api": api_modules(measured)}
        new, before = measured[-1]["new"], set(base[-1]["new"])
        row |= {"modules": len(set(new) - before), "ours": sum(name.startswith(OURS) for name in new)}
        for clock in ("cpu", "wall", "start"):
            if clock in measured[-1]:
                row[clock] = statistics.median(one[clock] for one in measured)
                row[f"{clock}_more"] = row[clock] - statistics.median(one[clock] for one in base)
        yield row


TIMES = {
    "p50 ms": "{p50:.2f}", "p99 ms": "{p99:.2f}", "more: p50 ms": "{p50_more:+.2f}", "more: p99 ms": "{p99_more:+.2f}",
    "of off: p50": "{p50_ratio:.2f}", "p99": "{p99_ratio:.2f}",
}  # fmt: skip
COLUMNS = {
    "marks": {"listener": "{mode}", "clicks": "{count}", **TIMES, "index scans a click": "{indexed:.2f}",
              "sequential": "{sequential:.2f}"},
    "ends": {"listener": "{mode}", "ends": "{count}", **TIMES, "the hook alone: p50 ms": "{hook:.3f}", "p99 ms ": "{hook_p99:.3f}",
             "index scans an end": "{indexed:.2f}", "sequential": "{sequential:.1f} in all",
             "helper processes": "{helpers}", "threads": "{threads}", "modules of api/": "{api}"},
    "imports": {"process": "{process}", "listener": "{mode}", "CPU ms": "{cpu:.1f}", "more": "{cpu_more:+.1f}", "wall ms": "{wall:.1f}",
                "more ": "{wall_more:+.1f}", "hears of its start ms": "{start:.1f}", "more  ": "{start_more:+.1f}",
                "modules more": "{modules}", "of them ours": "{ours}", "modules of api/": "{api}"},
}  # fmt: skip
EXPLAINED = {
    "marks": "A run without Capy tasks, marked failed over the REST API while one of its tasks runs; scans are those of `task_state_store`, by whoever has heard of it and by the planner of its query.",
    "ends": "A run without Capy tasks that fails by itself: what its listeners and the commit after them take the scheduler.",
    "imports": "Loading the plugins, in a process that has loaded what it has loaded by then; `absent` is Airflow without our plugin.",
}


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ends", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clicks", type=int, default=200, help="runs that are marked failed, off and on each")
    parser.add_argument("--ends", type=int, default=1000, help="runs that the scheduler ends, in each round")
    parser.add_argument("--records", type=int, default=10_000, help="records of other runs in the store")
    parser.add_argument("--rounds", type=int, default=3, help="how often off and on take turns")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with stage({"ends.py": DAGS}, env={}) as place:
        for name in ("scheduler", "dag-processor", "triggerer"):
            place.airflow.component(name).stop()
        prepare(place, options.records, options.ends)
        if "marks" in options.parts:
            results["marks"] = list(marks(place, options.rounds, options.clicks))
        place.airflow.component("api-server").stop()
        if "ends" in options.parts:
            results["ends"] = list(ends(place, options.rounds, options.ends))
        if "imports" in options.parts:
            results["imports"] = list(imports(place.airflow.environment, max(options.rounds, 5)))
        asked = len(place.capy.requests())
    print(
        f"{options.records} records of other runs in the store; load {os.getloadavg()[0]:.1f}; {asked} requests to Capy"
    )
    for part, rows in results.items():
        print(f"\n{EXPLAINED[part]}\n\n{table(COLUMNS[part], rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
