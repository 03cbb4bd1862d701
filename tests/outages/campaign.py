"""One kind of outage on a running Airflow: begin every wait, take Capy away three times, let the threads finish, count."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.server import EmulatorProcess
from tests.harness.airflow import LocalAirflow
from tests.harness.services import Postgres
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_capy.emulator.control import EmulatorControl

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HOST = "capy.outage.test"
DAG = "outages"
WAITS = 50
POLL_SECONDS, TOLERATED_SECONDS, READ_TIMEOUT_SECONDS = 30.0, 3600.0, 30.0
# What befalls calls; a name that leads nowhere also resets the connections that are open.
KINDS: dict[str, dict[str, Any]] = {
    "refused": {"kind": "reset"},
    "reset": {"kind": "reset"},
    "black hole": {"kind": "black_hole"},
    "503 with HTML": {"kind": "status", "status": 503, "body": "html"},
    "unresolvable": {"kind": "reset"},
}
TOLD = ("could not be looked at", "is seen again")
SENSORS = ("poke", "reschedule", "deferred")
SETTLED_WITHIN = 600.0
# Those whose state alone does not tell that they have begun to wait.
AWAY = ("operator_worker", "sensor_poke", "sensor_reschedule", "group_worker.wait")


@dataclass(frozen=True)
class Span:
    """What one outage cost.

    Attributes:
        minutes: how long Capy would have been gone at speed 1.
        requests: requests of all waits in each third of it.
        lines: log lines of all waits that tell of it.
    """

    minutes: float
    requests: tuple[int, int, int]
    lines: int


@dataclass
class Outcome:
    """What came of one kind.

    Attributes:
        kind: the outage.
        spans: its outages, in order.
        lost: what went wrong, in words; empty when every wait went on and succeeded.
        waits: how many waits there were.
    """

    kind: str
    spans: list[Span] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    waits: int = 0


@dataclass
class Lab:
    """A running Airflow whose connection leads to an emulator by a name that can vanish."""

    airflow: LocalAirflow
    capy: EmulatorControl
    state: Path
    speed: float

    def outage(self, kind: str, minutes: float) -> Span:
        """Take Capy away for so many minutes, divided by the speed."""
        before, lines = self.capy.requests()[-1]["number"], self._lines()
        began = time.time()
        self.state.write_text(kind if kind in {"refused", "unresolvable"} else "")
        self.capy.fault(**KINDS[kind])
        seconds = minutes * 60 / self.speed
        time.sleep(seconds)
        self.capy.clear_faults()
        self.state.write_text("")
        times = [entry["time"] for entry in self.capy.requests(after=before)] + self._looked_up()
        thirds = [
            [when for when in times if 0 <= when - began - third * seconds / 3 < seconds / 3] for third in range(3)
        ]
        # Each wait looks again within half of what the outage lasted, or five minutes.
        time.sleep(min(seconds / 2, 300.0) + 2 * POLL_SECONDS / self.speed + 5.0)
        first, second, last = (len(third) for third in thirds)
        return Span(minutes, (first, second, last), self._lines() - lines)

    def _looked_up(self) -> list[float]:
        log = Path(f"{self.state}.log")
        return [float(line) for line in log.read_text().split()] if log.exists() else []

    def _lines(self) -> int:
        logs = (self.airflow.home / "logs").rglob("dag_id=*/**/*.log*")
        return sum(sum(any(words in line for words in TOLD) for line in log.open(errors="replace")) for log in logs)

    def begin(self, waits: int) -> str:
        """Start a run, and return its id once all of it waits."""
        self.capy.script(life="forever")
        threads = self.capy.create("of somebody else", life="forever", copies=waits + len(SENSORS))
        watched = dict(zip(SENSORS, threads, strict=False))
        run_id = self.airflow.trigger(DAG, {"threads": threads[len(SENSORS) :], **watched})

        def all_wait() -> bool:
            states = self.airflow.task_states(DAG, run_id)
            done = [name for name, state in states.items() if name == "threads" or name.endswith(".create")]
            rest = {name: state for name, state in states.items() if name not in done}
            # One that comes again is seldom met at rest.
            known = [self.airflow.xcom(DAG, run_id, name, "thread_id") for name in AWAY if name in rest]
            crowd = sum(name.startswith("crowd[") for name in rest)
            here = {name for name, state in rest.items() if state not in {"deferred", "running"}}
            return crowd == waits and here <= {"sensor_reschedule"} and len(known) == len(AWAY) and all(known)

        self.airflow.wait_until("everything waits", all_wait, SETTLED_WITHIN, 2.0)
        # The last one's first look.
        time.sleep(5)
        return run_id

    def finish(self, run_id: str) -> None:
        """Let every thread come to its end, and wait for the run's."""
        for truth in self.capy.threads():
            self.capy.set_life(truth["id"], seconds=1)
        self.airflow.wait_until(
            "the run is over", lambda: self.airflow.run_state(DAG, run_id) in RUN_OVER, SETTLED_WITHIN, 2.0
        )

    def losses(self, run_id: str, waits: int) -> list[str]:
        """Tell every wait that did not go on and succeed, and every thread that was stopped or started beside ours."""
        tasks = self.airflow.tasks(DAG, run_id)
        found = [
            f"{name} is {task['state']} in try {task['try_number']}"
            for name, task in tasks.items()
            if task["state"] != "success" or task["try_number"] > 1
        ]
        threads = self.capy.threads()
        found += [f"{truth['prompt']} was asked to stop" for truth in threads if truth["stops"]]
        expected = waits + len(SENSORS) + 4
        return found if len(threads) == expected else [*found, f"{len(threads)} threads instead of {expected}"]


@contextmanager
def lab(home: Path, speed: float) -> Iterator[Lab]:
    """Run an Airflow on PostgreSQL and an emulator for the length of a `with` block."""
    with ExitStack() as stack:
        process = stack.enter_context(EmulatorProcess())
        state = home / "mode"
        state.write_text("")
        connection = json.loads(process.control.connection_json(allow_http=True, timeout=READ_TIMEOUT_SECONDS / speed))
        connection["host"] = connection["host"].replace("127.0.0.1", HOST)
        env = {
            "AIRFLOW_CONN_CAPY_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "128",
            "OUTAGES_STATE": str(state),
            "OUTAGES_POLL": str(POLL_SECONDS / speed),
            "OUTAGES_TOLERATED": str(TOLERATED_SECONDS / speed),
            "PYTHONPATH": os.pathsep.join([str(HERE / "resolver"), str(ROOT)]),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), f"127.0.0.1,localhost,{HOST}"),
        }
        database = stack.enter_context(Postgres()).url("airflow")
        airflow = stack.enter_context(LocalAirflow(home / "airflow", HERE / "dags", database=database, env=env))
        yield Lab(airflow, process.control, state, speed)


def try_kind(lab: Lab, kind: str, minutes: Sequence[float], waits: int = WAITS) -> Outcome:
    """Take Capy away in one way for each of these lengths, under the same waits, and tell what came of them."""
    lab.capy.reset()
    outcome = Outcome(kind, waits=waits + 7)
    run_id = lab.begin(waits)
    for length in minutes:
        outcome.spans.append(lab.outage(kind, length))
        states = lab.airflow.task_states(DAG, run_id)
        ended = [name for name, state in states.items() if state in {"failed", "skipped", "upstream_failed"}]
        outcome.lost += [f"{name} ended in the outage of {length:g} min" for name in ended]
    lab.finish(run_id)
    outcome.lost += lab.losses(run_id, waits)
    return outcome
