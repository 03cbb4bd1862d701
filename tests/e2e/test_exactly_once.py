"""One thread per task on a running Airflow: workers die at every step of the create, tasks are retried and cleared.

The runs of a table go side by side, since each of them mostly waits; each row is a test of its own.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import DAGS
from tests.harness.airflow import LocalAirflow
from tests.harness.client import AirflowError
from tests.harness.services import Postgres
from tests.harness.waiting import RUN_OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from airflow_provider_capy.emulator.control import EmulatorControl, ThreadTruth
    from airflow_provider_capy.emulator.server import EmulatorProcess

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

PATIENCE = 240.0
LOOK_EVERY = 1.5
TASK = "create"
# Seconds that threads live: enough for several looks, and for Airflow to see a deferral before it ends, since its
# scheduler trips over shorter ones.
LIFE = 12.0
# Of the tasks in dags/exactly_once.py.
RETRIES = 2
SCHEDULER_LAG = 8.0


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, capy_process: EmulatorProcess) -> Iterator[LocalAirflow]:
    """An Airflow on PostgreSQL: so many deaths side by side lock SQLite for longer than Airflow's scheduler lives."""
    env = {
        "AIRFLOW_CONN_CAPY_DEFAULT": capy_process.control.connection_json(),
        "AIRFLOW__CORE__PARALLELISM": "16",
        # The default pool of tasks of one DAG, so that all the runs of a table go side by side.
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "32",
    }
    home = tmp_path_factory.mktemp("airflow-postgres")
    with Postgres() as postgres, LocalAirflow(home, DAGS, database=postgres.url("airflow"), env=env) as airflow:
        yield airflow


@dataclass
class Scene:
    """One run, and its threads.

    Attributes:
        airflow: where it runs.
        capy: where its threads are.
        name: a word of its prompts, and of nobody else's.
        dag_id: its DAG.
        run_id: its run, once it was triggered.
    """

    airflow: LocalAirflow
    capy: EmulatorControl
    name: str
    dag_id: str
    run_id: str = field(default="")

    def begin(self, **conf: Any) -> Scene:
        self.run_id = self.airflow.trigger(self.dag_id, {"name": self.name, **conf})
        return self

    def clear(self, task_id: str = TASK) -> None:
        self.airflow.clear_task(self.dag_id, self.run_id, task_id)

    def cancel(self) -> None:
        self.airflow.mark_run(self.dag_id, self.run_id, "failed")

    def again(self, name: str | None = None) -> Scene:
        """Another run of the same DAG."""
        return Scene(self.airflow, self.capy, name or self.name, self.dag_id)

    def threads(self) -> list[ThreadTruth]:
        return [thread for thread in self.capy.threads() if self.name in thread["prompt"].split()]

    def task(self, name: str = TASK) -> dict[str, Any]:
        return self.airflow.tasks(self.dag_id, self.run_id)[name]

    def until(self, what: str, probe: Callable[[], Any]) -> Any:
        try:
            return self.airflow.wait_until(f"{self.name}: {what}", probe, PATIENCE, LOOK_EVERY)
        except AirflowError as error:
            raise AirflowError(f"{error}\n{self.airflow.describe_run(self.dag_id, self.run_id)}") from None

    def until_threads(self, count: int) -> list[ThreadTruth]:
        return self.until(f"{count} threads", lambda: threads if len(threads := self.threads()) >= count else None)

    def until_task(self, state: str, try_number: int = 1) -> None:
        def probe() -> bool:
            task = self.task()
            return task["state"] == state and task["try_number"] >= try_number

        self.until(f"try {try_number} is {state}", probe)

    def until_waiting(self, try_number: int = 1) -> None:
        """Until the wait is under way, on the worker or in a triggerer.

        A deferral that ends within a few seconds is one that a busy scheduler has not seen begin, and gets wrong.
        """
        if not self.dag_id.endswith("wait"):
            self.until_task("deferred", try_number)
            time.sleep(SCHEDULER_LAG)
        self.until_task("running" if self.dag_id.endswith("wait") else "deferred", try_number)

    def end(self, expected: str = "success") -> Scene:
        def probe() -> str | None:
            state = self.airflow.run_state(self.dag_id, self.run_id)
            return state if state in RUN_OVER else None

        state = self.until("the run is over", probe)
        assert state == expected, self.airflow.describe_run(self.dag_id, self.run_id)
        return self

    def result(self) -> Any:
        return self.airflow.xcom(self.dag_id, self.run_id, TASK)

    def log(self, try_number: int) -> str:
        return self.airflow.task_log(self.dag_id, self.run_id, TASK, try_number)

    def instance(self) -> dict[str, Any]:
        return self.airflow.tasks(self.dag_id, self.run_id)[TASK]

    def fail_first_try(self) -> None:
        """Let a look at the thread fail, with its attempts: the task fails, the thread goes on."""
        self.until_waiting()
        self.capy.fault("status", "getThread", status=503, match=self.name, times=4)

    def reference(self, thread: ThreadTruth) -> str:
        return thread["prompt"].rpartition("Airflow reference: ")[2]


def stopped_before(first: ThreadTruth, second: ThreadTruth) -> bool:
    return first["stopped"] is not None and first["stopped"] <= second["created"]


# The worker dies


@dataclass(frozen=True)
class Death:
    """A worker's death.

    Attributes:
        way: how the task waits; see the DAG file.
        step: where its first try dies.
        who: which process.
        then: where its second try dies.
        tries: how many tries it takes in all.
    """

    way: str
    step: str
    who: str = "task"
    then: str = ""
    tries: int = 2

    @property
    def name(self) -> str:
        return "-".join(filter(None, [self.way, self.step, self.who, self.then])).replace("_", "-")


CREATING = ("before_intent", "after_intent", "before_answer", "after_answer", "after_store")
DEATHS = [
    *(Death(way, step) for way in ("wait", "defer", "fire") for step in CREATING),
    Death("wait", "while_waiting"),
    Death("defer", "before_deferring"),
    # Airflow was told of the deferral, and yet counts the dead process as a failed try.
    Death("defer", "after_deferring"),
    Death("fire", "before_answer", then="while_looking_up", tries=3),
    Death("wait", "while_waiting", who="both"),
    Death("fire", "before_answer", who="both"),
    Death("defer", "before_answer", who="supervisor"),
]


@pytest.fixture(scope="module")
def survivors(airflow: LocalAirflow, capy_process: EmulatorProcess) -> dict[str, Scene]:
    """One run per death, all of them over."""
    capy = capy_process.control
    capy.reset()
    capy.script("exactly once", seconds=LIFE)
    scenes: dict[str, Scene] = {}
    # Those that wait longest go first.
    for death in sorted(DEATHS, key=lambda death: (death.who == "task", death.step != "after_intent")):
        if death.step == "before_answer":
            capy.fault("slow", "createAndStartThread", seconds=15, match=f"{death.name}\n", times=1)
        scene = Scene(airflow, capy, death.name, f"exactly_once_{death.way}")
        scenes[death.name] = scene.begin(step=death.step, who=death.who, then=death.then)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ways = ("wait", "defer", "fire")
        states = {state for way in ways for state in airflow.runs(f"exactly_once_{way}").values()}
        if states <= RUN_OVER:
            break
        time.sleep(LOOK_EVERY)
    return scenes


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.name)
def test_a_task_whose_worker_dies_succeeds_with_its_one_thread(survivors: dict[str, Scene], death: Death) -> None:
    scene = survivors[death.name].end()
    assert [thread["id"] for thread in scene.threads()] == [scene.result()]
    assert scene.task()["try_number"] == death.tries


def test_each_of_these_threads_has_a_reference_of_its_own(survivors: dict[str, Scene]) -> None:
    references = [scene.reference(thread) for scene in survivors.values() for thread in scene.threads()]
    assert len(references) == len(DEATHS)
    assert len(set(references)) == len(references)


# Retries and clears


def clear_after_success(scene: Scene) -> None:
    first = scene.begin().end().result()
    scene.clear()
    scene.until("the second thread's success", lambda: scene.result() not in {first, None} and scene.end())
    threads = scene.threads()
    assert [thread["id"] for thread in threads] == [first, scene.result()]
    assert threads[0]["stops"] == []


def clear_after_fire_and_forget(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    first = scene.begin().end().result()
    scene.clear()
    threads = scene.until_threads(2)
    assert threads[0]["id"] == first
    assert stopped_before(*threads)
    scene.end()


def retry_after_archived(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.capy.script(scene.name, seconds=LIFE)
    scene.capy.archive(first)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first, scene.result()]


def retry_after_reattachable(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.fail_first_try()
    scene.until_waiting(try_number=2)
    scene.capy.set_life(first, seconds=2)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first] == [scene.result()]
    assert f"Reattached to thread {first}" in scene.log(2)


def clear_while_working(scene: Scene) -> None:
    """On a worker, or deferred."""
    scene.capy.script(scene.name, life="forever")
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.until_waiting()
    scene.capy.script(scene.name, seconds=LIFE)
    scene.clear()
    scene.until("the next try", lambda: scene.instance()["try_number"] == 2)
    if scene.instance()["max_tries"] == RETRIES:
        # A scheduler that is busy forgets to count the clear of a running task: it looks like a retry, and goes on.
        scene.capy.set_life(first, seconds=2)
        scene.end()
        assert [thread["id"] for thread in scene.threads()] == [first] == [scene.result()]
        return
    threads = scene.until_threads(2)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first, scene.result()]
    assert stopped_before(*threads)


def timed_out(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever", stop_seconds=0.1)
    scene.begin(timeout=25)
    first = scene.until_threads(1)[0]["id"]
    scene.capy.script(scene.name, seconds=LIFE)
    threads = scene.until_threads(2)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first, scene.result()]
    assert stopped_before(*threads)


def gone(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.fail_first_try()
    scene.capy.script(scene.name, seconds=LIFE)
    for operation in ("getThread", "stopThread"):
        scene.capy.fault("status", operation, status=404, match=first)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first, scene.result()]
    assert f"Thread {first} of an earlier try does not exist any more; a new one is started" in scene.log(2)


def a_retry_keeps_the_deadline(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin(timeout=75)
    first = scene.until_threads(1)[0]
    scene.fail_first_try()
    scene.until_waiting(try_number=2)
    scene.until("the stop", lambda: scene.threads()[0]["stops"])
    asked = scene.threads()[0]["stops"][0] - first["created"]
    # Counted from the retry, it would be a dozen seconds later.
    assert 74 <= asked <= 83
    scene.cancel()


def another_task_is_cleared(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.until_waiting()
    scene.until("the other task", lambda: scene.task("other")["state"] == "success")
    scene.clear("other")
    scene.fail_first_try()
    scene.until_waiting(try_number=2)
    scene.capy.set_life(first, seconds=2)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first] == [scene.result()]


def cancelled_while_creating(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.capy.fault("slow", "createAndStartThread", seconds=60, match=f"{scene.name}\n", times=1)
    scene.begin()
    scene.until_threads(1)
    scene.cancel()
    scene.end("failed")
    scene.until("the stop", lambda: scene.threads()[0]["stops"])
    assert len(scene.threads()) == 1


def cleared_while_creating(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.capy.fault("slow", "createAndStartThread", seconds=60, match=f"{scene.name}\n", times=1)
    scene.begin()
    first = scene.until_threads(1)[0]["id"]
    scene.capy.script(scene.name, seconds=LIFE)
    scene.clear()
    threads = scene.until_threads(2)
    scene.end()
    assert [thread["id"] for thread in scene.threads()] == [first, scene.result()]
    assert stopped_before(*threads)


def mapped(scene: Scene) -> None:
    scene.begin(step="after_answer").end()
    threads = scene.threads()
    assert sorted(thread["prompt"].splitlines()[0][-1] for thread in threads) == ["a", "b"]
    assert len({scene.reference(thread) for thread in threads}) == 2
    results = {scene.airflow.xcom(scene.dag_id, scene.run_id, TASK, map_index=index) for index in (0, 1)}
    assert results == {thread["id"] for thread in threads}


def two_runs_of_one_dag(scene: Scene) -> None:
    """And one of another DAG, all of the same prompt."""
    runs = [
        scene.begin(step="after_answer"),
        scene.again().begin(step="after_answer"),
        Scene(scene.airflow, scene.capy, scene.name, "exactly_once_defer").begin(step="after_answer"),
    ]
    results = [run.end().result() for run in runs]
    assert sorted(results) == sorted(thread["id"] for thread in scene.threads())
    assert len(results) == 3


def own_reference(scene: Scene) -> None:
    first = scene.begin(reference="TICKET-1").end().result()
    second = scene.again().begin(reference="TICKET-1").end().result()
    assert [thread["id"] for thread in scene.threads()] == [first] == [second]
    third = scene.again().begin(reference="TICKET-2").end().result()
    assert [thread["id"] for thread in scene.threads()] == [first, third]


def cancelling_a_run_spares_the_thread_of_another(scene: Scene) -> None:
    scene.capy.script(scene.name, life="forever")
    scene.begin(reference="TICKET-3")
    first = scene.until_threads(1)[0]["id"]
    other = scene.again().begin(reference="TICKET-3")
    other.until_waiting()
    other.cancel()
    other.until("its trigger's end", lambda: f"Thread {first} is not stopped" in other.log(1))
    assert scene.threads()[0]["stops"] == []
    scene.capy.set_life(first, seconds=1)
    assert scene.end().result() == first


def not_durable(scene: Scene) -> None:
    scene.begin().end()
    [first] = scene.threads()
    assert first["prompt"] == f"exactly once: {scene.name}"
    # It is kept for whoever ends the run, and by nothing that a later try could find it by.
    record = scene.airflow.stored(scene.dag_id, scene.run_id, TASK, "capy_thread")
    assert (record["thread_id"], record["reference"]) == (first["id"], "")
    # There is one record only: the thread before is not to be lost from sight while it works.
    scene.clear()
    threads = scene.until_threads(2)
    scene.end()
    assert stopped_before(*threads)


ROWS: list[tuple[Callable[[Scene], None], str]] = [
    (a_retry_keeps_the_deadline, "defer"),
    (clear_while_working, "wait"),
    (clear_while_working, "defer"),
    (cleared_while_creating, "wait"),
    (cancelled_while_creating, "fire"),
    (timed_out, "wait"),
    (timed_out, "defer"),
    (own_reference, "own_reference"),
    (clear_after_success, "wait"),
    (clear_after_success, "defer"),
    (clear_after_fire_and_forget, "fire"),
    (retry_after_archived, "wait"),
    (retry_after_archived, "defer"),
    (retry_after_reattachable, "wait"),
    (retry_after_reattachable, "defer"),
    (gone, "defer"),
    (another_task_is_cleared, "beside_another"),
    (mapped, "mapped"),
    (two_runs_of_one_dag, "fire"),
    (cancelling_a_run_spares_the_thread_of_another, "own_reference"),
    (not_durable, "not_durable"),
]


def row_name(row: tuple[Callable[[Scene], None], str]) -> str:
    return f"{row[0].__name__.replace('_', '-')}-{row[1].replace('_', '-')}"


@pytest.fixture(scope="module")
def rows(airflow: LocalAirflow, capy_process: EmulatorProcess) -> dict[str, Future[None]]:
    """Every row of the table, played to its end."""
    capy = capy_process.control
    capy.reset()
    capy.script("exactly once", seconds=LIFE)
    with ThreadPoolExecutor(6) as pool:
        return {
            row_name(row): pool.submit(row[0], Scene(airflow, capy, row_name(row), f"exactly_once_{row[1]}"))
            for row in ROWS
        }


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_row(rows: dict[str, Future[None]], row: tuple[Callable[[Scene], None], str]) -> None:
    rows[row_name(row)].result()
