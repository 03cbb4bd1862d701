"""The one question before every stop, and what follows from the answer."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DRCount, ErrorResponse, GetDRCount, GetTaskStates, TaskStatesResult

from airflow_provider_capy.killing import (
    ASKED_AT_ONCE,
    DELETED,
    UNKNOWN,
    KillOrder,
    Standing,
    ask_from_signal_handler,
    ask_from_trigger,
    kill_order,
    shielded,
    standing_from,
    task_key,
)

OVER = ["failed", "success", "skipped", "upstream_failed", "removed", "gone"]
ALIVE = ["deferred", "running", "queued", "scheduled", "none", "restarting", "up_for_retry", "up_for_reschedule"]
TI = SimpleNamespace(dag_id="dag", run_id="run", task_id="group.task", map_index=-1)
MAPPED = SimpleNamespace(dag_id="dag", run_id="run", task_id="group.task", map_index=3)


@pytest.mark.parametrize(("map_index", "key"), [(None, "t"), (-1, "t"), (0, "t_0"), (12, "t_12")])
def test_a_mapped_task_is_reported_with_its_index(map_index: int | None, key: str) -> None:
    assert task_key("t", map_index) == key


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"run": {"t": "failed"}}, "failed"),
        ({"run": {"t": "deferred", "t_3": "failed"}}, "deferred"),
        ({"run": {"t": None}}, "none"),
        ({"run": {"t_3": "failed"}}, "gone"),
        ({"run": {}}, "gone"),
        ({"another": {"t": "failed"}}, "gone"),
        ({}, "gone"),
    ],
)
def test_the_state_is_read_from_airflows_answer(states: Any, expected: str) -> None:
    assert standing_from(states, "run", "t").state == expected


@pytest.mark.parametrize("state", OVER)
def test_these_are_over(state: str) -> None:
    assert Standing(state, "").is_over


@pytest.mark.parametrize("state", [*ALIVE, "unknown"])
def test_these_are_not_over(state: str) -> None:
    assert not Standing(state, "").is_over


ORDERS = [
    # state, tries left, stop_on_kill, stopped, only once the record tells of it, may retry
    ("failed", True, True, True, False, False),
    ("failed", False, True, True, False, False),
    ("success", False, True, True, False, False),
    ("gone", True, True, True, False, False),
    ("failed", True, False, False, False, False),
    ("restarting", True, True, False, False, True),
    ("restarting", False, True, False, False, True),
    ("restarting", True, False, False, False, True),
    ("running", True, True, False, False, True),
    ("running", False, True, True, True, True),
    ("running", False, False, False, False, True),
    ("unknown", True, True, False, False, True),
    ("unknown", False, True, True, True, True),
    ("queued", False, True, True, True, True),
]


@pytest.mark.parametrize(("state", "tries_left", "stop_on_kill", "stops", "word_first", "retries"), ORDERS)
def test_what_a_kill_on_the_worker_does(
    state: str, tries_left: bool, stop_on_kill: bool, stops: bool, word_first: bool, retries: bool
) -> None:
    order = kill_order(Standing(state, f"it is {state}"), tries_left=tries_left, stop_on_kill=stop_on_kill)
    assert (order.stop, order.word_first, order.may_retry) == (stops, word_first, retries)
    assert order.reason.startswith(f"it is {state}")


def test_an_order_says_why() -> None:
    order = kill_order(Standing("running", "it is running"), tries_left=True, stop_on_kill=True)
    assert order == KillOrder(False, True, "it is running: its worker goes away, the next try goes on with it")


class Comms:
    """A supervisor's end of the line, with its lock."""

    def __init__(self, answer: Any, of_run: Any = None) -> None:
        self.answer, self.of_run = answer, of_run
        self.asked: list[Any] = []
        self.lock = threading.Lock()

    def send(self, message: GetTaskStates) -> Any:
        with self.lock:
            self.asked.append(message)
            answer = self.of_run if isinstance(message, GetDRCount) else self.answer
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def asend(self, message: GetTaskStates) -> Any:
        return self.send(message)


def states(**of_tasks: str | None) -> TaskStatesResult:
    return TaskStatesResult(task_states={"run": dict(of_tasks)})


def from_trigger(ti: Any) -> Standing:
    return asyncio.run(ask_from_trigger(ti))


ASK = pytest.mark.parametrize("ask", [from_trigger, ask_from_signal_handler], ids=["trigger", "signal handler"])


@ASK
@pytest.mark.parametrize(
    ("ti", "answer", "state"),
    [
        (TI, states(**{"group.task": "failed", "group.task_3": "running"}), "failed"),
        (MAPPED, states(**{"group.task": "failed", "group.task_3": "running"}), "running"),
        (TI, ErrorResponse(), "unknown"),
        (TI, None, "unknown"),
        (TI, OSError("broken"), "unknown"),
    ],
)
def test_airflow_is_asked_for_this_very_task_instance(
    ask: Any, ti: Any, answer: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    comms = Comms(answer)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    assert ask(ti).state == state
    [question] = comms.asked
    assert (question.dag_id, question.run_ids, question.task_ids) == ("dag", ["run"], ["group.task"])
    # A trigger asks for all map indexes at once, since others of the same run may be killed with it.
    assert question.map_index == (None if ask is from_trigger else ti.map_index)


@ASK
@pytest.mark.parametrize(
    ("of_run", "state"),
    [
        (DRCount(count=0), "gone"),
        (DRCount(count=1), "deleted"),
        (ErrorResponse(), "unknown"),
        (None, "unknown"),
        (OSError("broken"), "unknown"),
    ],
    ids=str,
)
def test_what_became_of_a_task_instance_that_was_deleted_is_up_to_its_run(
    ask: Any, of_run: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    comms = Comms(TaskStatesResult(task_states={}), of_run)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    standing = ask(TI)
    assert (standing.state, standing.is_over) == (state, state == "gone")
    _, question = comms.asked
    assert (question.dag_id, question.run_ids, question.states) == ("dag", ["run"], ["queued", "running"])


@pytest.mark.parametrize("tries_left", [True, False])
def test_a_task_instance_that_begins_anew_goes_on_with_its_thread(tries_left: bool) -> None:
    order = kill_order(DELETED, tries_left=tries_left, stop_on_kill=True)
    assert (order.stop, order.may_retry) == (False, True)


@ASK
def test_without_a_supervisor_nobody_knows(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)
    assert ask(TI).state == "unknown"


class Run:
    """A supervisor that answers each question about what it names, after a moment."""

    def __init__(self) -> None:
        self.asked: list[GetTaskStates] = []
        self.was_asked = asyncio.Event()

    async def asend(self, message: GetTaskStates) -> Any:
        self.asked.append(message)
        self.was_asked.set()
        await asyncio.sleep(0.05)
        [run] = message.run_ids or []
        of_tasks = {
            task_key(task_id, index): f"{run} {task_id} {index}"
            for task_id in message.task_ids
            for index in (-1, 0, 1, 2)
        }
        return TaskStatesResult(task_states={run: of_tasks})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", run, raising=False)
    return run


def instances(run_id: str) -> list[Any]:
    return [
        SimpleNamespace(dag_id="dag", run_id=run_id, task_id=task_id, map_index=index)
        for task_id in ("a", "b")
        for index in range(3)
    ]


async def test_the_triggers_of_a_run_share_one_question(run: Run) -> None:
    asking = [*instances("one"), *instances("two")]
    answers = await asyncio.gather(*map(ask_from_trigger, asking))
    assert [answer.state for answer in answers] == [f"{ti.run_id} {ti.task_id} {ti.map_index}" for ti in asking]
    assert [(question.run_ids, question.task_ids) for question in run.asked] == [
        (["one"], ["a", "b"]),
        (["two"], ["a", "b"]),
    ]


async def test_a_run_of_many_tasks_is_asked_about_in_chunks_that_fit_into_an_address(run: Run) -> None:
    many = [
        SimpleNamespace(dag_id="dag", run_id="one", task_id=f"t{number}", map_index=2)
        for number in range(2 * ASKED_AT_ONCE + 1)
    ]
    answers = await asyncio.gather(*map(ask_from_trigger, many))
    assert [answer.state for answer in answers] == [f"one {ti.task_id} 2" for ti in many]
    assert [len(question.task_ids) for question in run.asked] == [ASKED_AT_ONCE, ASKED_AT_ONCE, 1]
    assert sorted(task_id for question in run.asked for task_id in question.task_ids) == sorted(
        ti.task_id for ti in many
    )


@pytest.mark.parametrize("answer", [None, ErrorResponse(), OSError("broken")], ids=str)
async def test_a_chunk_without_an_answer_leaves_nobody_wiser(
    answer: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asend = run.asend

    async def fails_once(message: GetTaskStates) -> Any:
        if run.asked:
            if isinstance(answer, Exception):
                raise answer
            return answer
        return await asend(message)

    monkeypatch.setattr(run, "asend", fails_once)
    many = [
        SimpleNamespace(dag_id="dag", run_id="one", task_id=f"t{number}", map_index=-1)
        for number in range(ASKED_AT_ONCE + 1)
    ]
    # One that was not named in the answer would count as deleted, and its thread be stopped.
    assert {standing.state for standing in await asyncio.gather(*map(ask_from_trigger, many))} == {"unknown"}


async def test_whoever_comes_after_a_question_was_sent_asks_anew(run: Run) -> None:
    first = asyncio.ensure_future(ask_from_trigger(TI))
    await asyncio.wait_for(run.was_asked.wait(), 30)
    await ask_from_trigger(TI)
    await first
    assert len(run.asked) == 2


async def test_a_trigger_that_ends_takes_no_answer_from_the_others(run: Run) -> None:
    first, second = (asyncio.ensure_future(ask_from_trigger(ti)) for ti in instances("one")[:2])
    await asyncio.sleep(0.01)
    first.cancel()
    assert ((await second).state, len(run.asked)) == ("one a 1", 1)


def test_a_trigger_without_a_task_instance_asks_nobody() -> None:
    assert from_trigger(None) == UNKNOWN


def test_a_question_that_waits_for_a_held_lock_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    comms = Comms(states(**{"group.task": "failed"}))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    with comms.lock:
        began = time.monotonic()
        assert ask_from_signal_handler(TI, budget=0.3) == UNKNOWN
        assert 0.3 <= time.monotonic() - began < 3
    assert ask_from_signal_handler(TI).state == "failed"


async def test_shielded_work_outlives_cancels_that_come_every_moment() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.3)
        done.append("done")

    shielding = asyncio.ensure_future(shielded(work(), budget=20))
    for _ in range(10):
        await asyncio.sleep(0.02)
        shielding.cancel()
    assert (await shielding, done) == (True, ["done"])


async def test_shielded_work_is_given_up_when_its_time_is_over() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    assert await shielded(work(), budget=0.1) is False
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


async def test_what_shielded_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shielded(work(), budget=5)
