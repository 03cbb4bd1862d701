"""What the benches in one process leave out: a real triggerer on PostgreSQL that takes a thousand deferred sensors up, polls for them and settles them."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import create_engine, text

from airflow_provider_capy.emulator.addresses import PROJECT
from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.harness.airflow import LocalAirflow
from tests.harness.client import AirflowError
from tests.harness.services import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.harness.processes import Component

NAMES = ("supervisor", "runner")
ROOT = Path(__file__).parents[2]
ROWS = {"sleep": True, "capy": True, "capy_alone": False, "capy_sealed": True}
# Seconds from its start during which a triggerer of the last row is told by its secrets backend that there is no connection.
SEALED_FOR = 25.0
INTERVAL = 10.0
INTERVALS = 3
# Seconds within which all settle.
SETTLE_OVER = 5.0
READY = {"at": 0, "run_state": "ready", "tasks": ["completed"], "pull_requests": ["open"]}
STARTING = re.compile(r"trigger \S+ \(ID \d+\) starting")
WAITING = "airflow_provider_capy.triggers.thread.CapyThreadTrigger"

SLEEPER = """\
import asyncio, time
from airflow.triggers.base import BaseTrigger, TriggerEvent


class Sleeper(BaseTrigger):
    def __init__(self, until):
        super().__init__()
        self.until = until

    def serialize(self):
        return "bench_sleeper.Sleeper", {"until": self.until}

    async def run(self):
        await asyncio.sleep(max(self.until - time.time(), 0))
        yield TriggerEvent({"outcome": "ready"})
"""
SECRETS = """\
import os, time
from airflow.secrets import BaseSecretsBackend


class Sealed(BaseSecretsBackend):
    def get_conn_value(self, conn_id, team_name=None):
        if time.time() < float(os.environ["BENCH_OPENS_AT"]):
            raise RuntimeError("the vault is sealed")
        return os.environ["BENCH_CONNECTION"] if conn_id == "capy_default" else None
"""
# Paused: the scheduler must not touch the run, which the database turns into a deferred one.
DAG = """\
from airflow.sdk import DAG
from airflow_provider_capy.sensors.thread import CapyThreadSensor

with DAG("waits", schedule=None, is_paused_upon_creation=True):
    ids = [f"jam_{number}" for number in range(WAITS)]
    CapyThreadSensor.partial(task_id="wait", deferrable=True, poke_interval=INTERVAL).expand(thread_id=ids)
"""

# As the execution API stores a deferral: it encrypts no arguments.
ADD_TRIGGER = text(
    "INSERT INTO trigger (classpath, kwargs, created_date) VALUES (:classpath, :kwargs, now()) RETURNING id"
)
DEFER = text(
    "UPDATE task_instance SET state = 'deferred', trigger_id = :trigger, try_number = 1, start_date = now(), "
    "next_method = 'execute_complete', next_kwargs = '{}', trigger_timeout = now() + interval '1 day' WHERE id = :id"
)
RUN = text("UPDATE dag_run SET state = 'running', start_date = now() WHERE run_id = :run")
TASKS = text("SELECT id FROM task_instance WHERE run_id = :run ORDER BY map_index")
LEFT = text("SELECT count(*) FROM task_instance WHERE run_id = :run AND state = 'deferred'")
SETTLED = text(
    "SELECT count(*), extract(epoch FROM max(scheduled_dttm)) FROM task_instance WHERE run_id = :run "
    "AND state = 'scheduled' AND next_method = 'execute_complete' AND CAST(next_kwargs AS text) LIKE '%\"ready\"%'"
)


@dataclass
class Lab:
    airflow: LocalAirflow
    capy: EmulatorControl
    database: Engine
    waits: int

    @property
    def triggerer(self) -> Component:
        return self.airflow.component("triggerer")

    @property
    def allowance(self) -> float:
        """Seconds that starting everything may take on a slow machine."""
        return 45 + 0.075 * self.waits


@contextmanager
def lab(waits: int) -> Iterator[Lab]:
    """Run PostgreSQL, an emulator and an Airflow, of which only the API server goes on."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for folder, name, code in (
            ("dags", "waits.py", DAG), ("modules", "bench_sleeper.py", SLEEPER), ("modules", "bench_secrets.py", SECRETS)
        ):  # fmt: skip
            (home / folder).mkdir(exist_ok=True)
            (home / folder / name).write_text(code.replace("WAITS", str(waits)).replace("INTERVAL", str(INTERVAL)))
        capy = stack.enter_context(EmulatorProcess()).control
        url = stack.enter_context(Postgres()).url("airflow")
        env = {
            "AIRFLOW_CONN_CAPY_DEFAULT": capy.connection_json(),
            "AIRFLOW__CORE__MAX_MAP_LENGTH": str(max(waits, 1024)),
            "AIRFLOW__TRIGGERER__CAPACITY": str(max(waits, 1000)),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(home / "modules")]),
        }
        airflow = LocalAirflow(home / "airflow", home / "dags", database=url, env=env, quick=False)
        stack.enter_context(airflow)
        # A scheduler would start the tasks as they settle, which is no part of the question.
        for name in ("scheduler", "dag-processor", "triggerer"):
            airflow.component(name).stop()
        database = create_engine(url)
        stack.callback(database.dispose)
        yield Lab(airflow, capy, database, waits)


def defer(lab: Lab, row: str, triggers: list[tuple[str, dict[str, Any]]]) -> None:
    """Make a run with one deferred task instance a trigger, as workers would have left it."""
    lab.airflow.request("POST", "/dags/waits/dagRuns", json={"logical_date": None, "dag_run_id": row})
    with lab.database.begin() as session:
        ids = session.scalars(TASKS, {"run": row}).all()
        for task, (classpath, arguments) in zip(ids, triggers, strict=True):
            made = session.scalar(ADD_TRIGGER, {"classpath": classpath, "kwargs": json.dumps(arguments)})
            session.execute(DEFER, {"trigger": made, "id": task})
        session.execute(RUN, {"run": row})


def forget(lab: Lab) -> None:
    """Leave the next row the same database."""
    with lab.database.begin() as session:
        session.execute(text("DELETE FROM dag_run"))
        session.execute(text("DELETE FROM trigger"))


@dataclass
class Watch:
    """The two processes of a triggerer, and what they had used when."""

    component: Component
    born: float = field(default_factory=time.time)
    samples: list[tuple[float, list[float]]] = field(default_factory=list)

    @property
    def processes(self) -> list[psutil.Process]:
        """Supervisor and runner; the second is forked late."""
        supervisor = psutil.Process(self.component.pid)
        return [supervisor, *supervisor.children()[:1]]

    def sample(self) -> None:
        # While it boots, it has short-lived children too.
        with suppress(psutil.NoSuchProcess):
            self.samples.append((time.time(), [sum(process.cpu_times()[:2]) for process in self.processes]))

    def cpu(self, when: float) -> list[float]:
        """CPU seconds of the two at a time."""
        used = next((used for at, used in self.samples if at >= when), self.samples[-1][1])
        return [*used, 0.0][:2]


def logs(lab: Lab, row: str) -> list[Path]:
    """The log files of the triggers: one is made when its trigger starts."""
    return list((lab.airflow.home / "logs").glob(f"dag_id=waits/run_id={row}/*/*/*.trigger.*.log"))


def started(lab: Lab, row: str) -> list[float]:
    """When each trigger started: the runner itself logs it."""
    lines = [json.loads(line) for path in logs(lab, row) for line in path.read_text().splitlines()]
    starts = [line["timestamp"] for line in lines if STARTING.fullmatch(line["event"])]
    return sorted(datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp() for start in starts)


def watch_the_start(lab: Lab, row: str) -> Watch:
    """Start the triggerer and return when every trigger has started."""
    lab.triggerer.start()
    watch = Watch(lab.triggerer)
    while True:
        time.sleep(0.1)
        watch.sample()
        # Cheap first: the supervisor keeps a log file open for each trigger.
        if watch.processes[0].num_fds() > lab.waits and len(logs(lab, row)) == lab.waits:
            return watch
        if time.time() > watch.born + lab.allowance:
            raise AirflowError(f"{len(logs(lab, row))} triggers started in time:\n{lab.triggerer.log_text()[-3000:]}")


class Requests:
    """What the emulator was asked for, and over which connections."""

    def __init__(self, capy: EmulatorControl) -> None:
        self._capy = capy
        self._last = 0
        self.ports: set[int | None] = set()

    def new(self) -> int:
        """How many there were since the last call."""
        found = self._capy.requests(after=self._last)
        self._last = max([self._last, *(request["number"] for request in found)])
        self.ports.update(request["client_port"] for request in found)
        return len(found)


def settle(lab: Lab, threads: list[str]) -> None:
    """Let all threads get ready, one after the other."""
    began = time.time()
    for number, thread in enumerate(threads):
        time.sleep(max(began + SETTLE_OVER * number / len(threads) - time.time(), 0))
        lab.capy.set_life(thread, phases=[READY])


def wait_until_settled(lab: Lab, row: str) -> tuple[int, float]:
    """Return how many tasks are to be resumed as they should, and when the last of them was."""
    limit = time.time() + SETTLE_OVER + 4 * INTERVAL + lab.allowance
    while True:
        with lab.database.begin() as session:
            if not session.scalar(LEFT, {"run": row}) or time.time() > limit:
                settled, last = session.execute(SETTLED, {"run": row}).one()
                return settled, float(last or limit)
        time.sleep(0.25)


def triggers_of(lab: Lab, threads: list[str], wake: float) -> list[tuple[str, dict[str, Any]]]:
    """Return a trigger for each thread, or, when there are none, as many that sleep until they end as threads do."""
    wait = {"project_id": PROJECT, "poll_interval": INTERVAL, "deadline": time.time() + 86400}
    if threads:
        return [(WAITING, {"thread_id": thread, **wait}) for thread in threads]
    step = SETTLE_OVER / lab.waits
    return [("bench_sleeper.Sleeper", {"until": wake + number * step}) for number in range(lab.waits)]


def seal(lab: Lab) -> None:
    """Let the next triggerer have its connection from a secrets backend that fails at first, as after a restart of everything."""
    env = lab.triggerer._env
    env["BENCH_CONNECTION"] = env.pop("AIRFLOW_CONN_CAPY_DEFAULT")
    env["BENCH_OPENS_AT"] = str(time.time() + SEALED_FOR)
    env["AIRFLOW__SECRETS__BACKEND"] = "bench_secrets.Sealed"


def measure(lab: Lab, row: str) -> dict[str, Any]:
    """Measure one row."""
    lab.capy.reset()
    wake = time.time() + lab.allowance + 2 * INTERVAL
    threads = [] if row == "sleep" else lab.capy.create(copies=lab.waits, origin="api", life="forever")
    defer(lab, row, triggers_of(lab, threads, wake))
    requests, already, found = Requests(lab.capy), len(lab.triggerer.log_text()), {"row": row}
    lab.triggerer._env["AIRFLOW__CAPY__SHARED_POLLER"] = str(ROWS[row])
    if row == "capy_sealed":
        seal(lab)
    try:
        watch = watch_the_start(lab, row)
        time.sleep(2 * INTERVAL if threads else INTERVAL)
        if row == "capy_sealed":
            # A look-up that failed is made again after 5, 10, 10 ... seconds.
            time.sleep(SEALED_FOR + INTERVAL)
        first, *_, last = started(lab, row)
        found |= {"boot": first - watch.born, "pick_up": last - first, "at_first": requests.new()}
        for name, before, after in zip(NAMES, watch.cpu(first), watch.cpu(last), strict=True):
            found[f"{name}_cpu"] = f"{before:.1f} + {after - before:.1f}"
        time.sleep(INTERVALS * INTERVAL if threads else 0)
        found["steady"] = requests.new() / lab.waits / INTERVALS
        for name, process in zip(NAMES, watch.processes, strict=True):
            found |= {f"{name}_rss": process.memory_info().rss / 1e6, f"{name}_fds": process.num_fds()}
        began = time.time() if threads else wake
        settle(lab, threads)
        found["settled"], ended = wait_until_settled(lab, row)
        found |= {"settle": ended - began, "settle_requests": requests.new() / lab.waits, "tcp": len(requests.ports)}
        found["blocked"] = lab.triggerer.log_text()[already:].count("async thread was blocked")
    finally:
        lab.triggerer.stop()
        forget(lab)
    return found


COLUMNS = {
    "row": "{row}", "boot s": "{boot:.1f}", "pick-up s": "{pick_up:.1f}", "of sleep's": "{ratio:.2f}",
    "CPU s: supervisor": "{supervisor_cpu}", "runner": "{runner_cpu}", "blocked": "{blocked}", "requests at first": "{at_first}",
    "a wait and interval": "{steady:.3f}", "TCP": "{tcp}", "RSS MB: supervisor": "{supervisor_rss:.0f}", "runner ": "{runner_rss:.0f}",
    "fds: supervisor": "{supervisor_fds}", "runner  ": "{runner_fds}", "settled": "{settled}", "in s": "{settle:.1f}",
    "settle: requests a wait": "{settle_requests:.2f}",
}  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Return the results in Markdown."""
    sleep = next((result["pick_up"] for result in results if result["row"] == "sleep"), float("nan"))
    lines = ["| " + " | ".join(map(str.strip, COLUMNS)) + " |", "|" + "---|" * len(COLUMNS)]
    for result in results:
        shown = {**result, "ratio": result["pick_up"] / sleep}
        lines.append("| " + " | ".join(form.format(**shown) for form in COLUMNS.values()) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real", description=__doc__)
    parser.add_argument("--waits", type=int, default=1000, help="deferred task instances (default 1000)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    results = []
    with lab(options.waits) as place:
        for row in options.rows:
            print(f"{row} x {options.waits} ...", file=sys.stderr, flush=True)
            results.append(measure(place, row))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(
        f"{options.waits} waits, {INTERVAL:g} s apart; CPU until the first trigger started, and from there to the last:\n"
    )
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
