"""The one question before every stop in an ``on_kill``: is this task instance over?

Airflow calls ``on_kill`` for a user's cancel, but also when a worker shuts down, when the API server was away for 40
seconds, when a cleared task is on its way again, and when a triggerer was frozen while another one took its tasks over.
Only in the first case is the thread nobody's any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyThreadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

THREAD_KEY = "thread"

OVER = frozenset({"failed", "success", "skipped", "upstream_failed", "removed"})

# From SIGTERM to SIGKILL Airflow leaves five seconds: this much for the question, the rest for the stop.
ASK_BUDGET = 2.0
STOP_BUDGET = 2.0
KILL_BUDGET = 4.3

# So many requests to Airflow may get another one's answer: a kill and a timeout may each have left one behind.
LATE_ANSWERS = 4

# So long the triggers of a cancelled run are gathered for one question (seconds).
GATHER_FOR = 0.05
ASKED_AT_ONCE = 100


class CapyKilledError(CapyThreadError):
    """The task's process was told to end. Raised from a signal handler, in the middle of whatever it came into."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a task instance stands.

    Attributes:
        state: Airflow's state, e.g. ``"deferred"``; ``"gone"`` when it was deleted with its run, or that is over; ``"deleted"``
            when its run goes on, which may make it anew; ``"unknown"`` when nobody answers.
        reason: the same in words, for the log.
    """

    state: str
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether no try of this task instance will go on with the thread; unknown counts as not over."""
        return self.state in OVER or self.state == "gone"


UNKNOWN = Standing("unknown", "Airflow could not be asked for the task instance's state")
GONE = Standing("gone", "its task instance or run was deleted")
DELETED = Standing("deleted", "its task instance was deleted, and its run goes on")


def task_key(task_id: str, map_index: int | None) -> str:
    """Return the key under which Airflow reports a task instance's state; mapped ones carry their index."""
    return task_id if map_index is None or map_index < 0 else f"{task_id}_{map_index}"


def standing_from(task_states: Any, run_id: str, key: str) -> Standing:
    """Read Airflow's answer.

    Args:
        task_states: ``{run_id: {task key: state}}``.
        run_id: the run.
        key: see :func:`task_key`.
    """
    run = task_states.get(run_id) if isinstance(task_states, dict) else None
    if not run or key not in run:
        return GONE
    state = str(run[key]) if run[key] is not None else "none"
    return Standing(state, f"its task instance is {state}")


def _question(ti: Any) -> Any:
    from airflow.sdk.execution_time.comms import GetTaskStates

    return GetTaskStates(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)


def _question_of_run(ti: Any) -> Any:
    from airflow.sdk.execution_time.comms import GetDRCount

    return GetDRCount(dag_id=ti.dag_id, run_ids=[ti.run_id], states=["queued", "running"])


def _read_of_run(answer: Any) -> Standing:
    count = getattr(answer, "count", None)
    if count is None:
        return UNKNOWN
    return DELETED if count else GONE


def _read(answer: Any, ti: Any) -> Standing:
    states = getattr(answer, "task_states", None)
    if states is None:
        return UNKNOWN
    return standing_from(states, ti.run_id, task_key(ti.task_id, ti.map_index))


async def ask_from_trigger(ti: Any) -> Standing:
    """Ask from inside the triggerer's event loop; whoever asks about the same run at the same time shares one question.

    Args:
        ti: the trigger's task instance; ``None`` under ``dag.test()``.
    """
    if ti is None:
        return UNKNOWN
    questions = _QUESTIONS.setdefault(asyncio.get_running_loop(), {})
    run = (ti.dag_id, ti.run_id)
    if (question := questions.get(run)) is None:
        question = questions[run] = _SharedQuestion()
        # A task of nobody's: the trigger that happened to come first may end before it is answered.
        question.task = contextvars.Context().run(
            asyncio.get_running_loop().create_task, question.ask(*run, done=lambda: questions.pop(run))
        )
    question.task_ids.add(ti.task_id)
    answer = await asyncio.shield(question.task)
    if isinstance(answer, Standing):
        return answer
    standing = standing_from(answer, ti.run_id, task_key(ti.task_id, ti.map_index))
    if standing is not GONE:
        return standing
    from airflow.sdk.execution_time import task_runner

    try:
        return _read_of_run(await task_runner.SUPERVISOR_COMMS.asend(_question_of_run(ti)))
    except Exception as error:  # noqa: BLE001 - see below
        return Standing("unknown", f"{UNKNOWN.reason} ({type(error).__name__})")


class _SharedQuestion:
    """One question to Airflow about all task instances of a run that are killed at the same time."""

    task: asyncio.Task[Any]

    def __init__(self) -> None:
        self.task_ids: set[str] = set()

    async def ask(self, dag_id: str, run_id: str, *, done: Callable[[], Any]) -> Any:
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import GetTaskStates

        await asyncio.sleep(GATHER_FOR)
        # Whoever comes from here on would get an answer that is older than their kill.
        done()
        task_ids = sorted(self.task_ids)
        states: dict[str, Any] = {}
        try:
            # They travel in an address, which has a bound.
            for first in range(0, len(task_ids), ASKED_AT_ONCE):
                some = task_ids[first : first + ASKED_AT_ONCE]
                question = GetTaskStates(dag_id=dag_id, task_ids=some, run_ids=[run_id])
                answer = await task_runner.SUPERVISOR_COMMS.asend(question)
                if (found := getattr(answer, "task_states", None)) is None:
                    return UNKNOWN
                states.update(found.get(run_id) or {})
            return {run_id: states}
        except Exception as error:  # noqa: BLE001 - whatever it was, the answer is that nobody knows
            return Standing("unknown", f"{UNKNOWN.reason} ({type(error).__name__})")


async def told_by_its_end(ti: Any, thread_id: str) -> str:
    """Return the outcome that a task instance has told of the thread when its wait ended by itself; empty otherwise.

    A wait that somebody else cut short has told none; one that this try or another triggerer saw to its end has, and
    has done to the thread what that end called for.

    Args:
        ti: the trigger's task instance; ``None`` under ``dag.test()``.
        thread_id: the thread.
    """
    if ti is None:
        return ""
    from airflow.sdk.execution_time.xcom import XCom

    try:
        told = await XCom.aget_value(ti_key=ti, key=THREAD_KEY)
    except Exception:  # noqa: BLE001 - nobody knows, so the task instance's state decides
        return ""
    return str(told["outcome"]) if isinstance(told, dict) and told.get("thread_id") == thread_id else ""


def ask_from_signal_handler(ti: Any, budget: float = ASK_BUDGET) -> Standing:
    """Ask from a worker's signal handler, within a bound.

    The main thread may be inside a request to the supervisor, whose lock is not re-entrant: asking from here would
    hang until SIGKILL. A thread of its own waits for that lock instead, and is left behind when the time is over.

    Args:
        ti: the running task instance.
        budget: seconds.
    """
    answers: list[Standing] = []

    def ask() -> None:
        from airflow.sdk.execution_time import task_runner

        try:
            standing = _read(task_runner.SUPERVISOR_COMMS.send(_question(ti)), ti)
            if standing is GONE:
                standing = _read_of_run(task_runner.SUPERVISOR_COMMS.send(_question_of_run(ti)))
            answers.append(standing)
        except Exception as error:  # noqa: BLE001 - see above
            answers.append(Standing("unknown", f"{UNKNOWN.reason} ({type(error).__name__})"))

    asking = threading.Thread(target=ask, name="capy-is-it-over", daemon=True)
    asking.start()
    asking.join(budget)
    return answers[0] if answers else UNKNOWN


# Tests have a loop each, a triggerer has one for life.
_QUESTIONS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _SharedQuestion]] = (
    weakref.WeakKeyDictionary()
)


async def shielded(work: Awaitable[None], budget: float) -> bool:
    """Finish some work although the triggerer cancels us again every second.

    Args:
        work: what is to be finished, in a task of its own that those cancels do not reach.
        budget: seconds after which it is given up.

    Returns:
        whether it was finished.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    until = loop.time() + budget
    while not task.done() and loop.time() < until:
        try:
            await asyncio.wait({task}, timeout=until - loop.time())
        except asyncio.CancelledError:
            continue
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


@dataclass(frozen=True, slots=True)
class KillOrder:
    """What an ``on_kill`` does.

    Attributes:
        stop: whether the thread is stopped.
        may_retry: whether Airflow may try the task again after it.
        reason: why, for the log and the error.
        word_first: whether it is stopped only once the record tells of it. To Airflow a task instance that was cleared is a
            new one, and this try can no longer write into its record: the next try would take the stopped thread for a
            finished one.
    """

    stop: bool
    may_retry: bool
    reason: str
    word_first: bool = False


def kill_order(standing: Standing, *, tries_left: bool, stop_on_kill: bool, is_kept: bool = True) -> KillOrder:
    """Decide what a worker's ``on_kill`` does.

    Args:
        standing: how the task instance stands.
        tries_left: whether a next try would go on with the thread.
        stop_on_kill: what the user wants; ``False`` never stops.
        is_kept: whether another try can know of the thread; with ``durable=False`` none can.
    """
    may_retry = not standing.is_over
    if not stop_on_kill:
        return KillOrder(False, may_retry, f"{standing.reason}, but stop_on_kill is off")
    if standing.is_over or not is_kept:
        return KillOrder(True, may_retry, standing.reason)
    if standing.state == "restarting" or standing is DELETED:
        return KillOrder(False, may_retry, f"{standing.reason}: it begins anew, and sees to the thread itself")
    if tries_left:
        return KillOrder(False, may_retry, f"{standing.reason}: its worker goes away, the next try goes on with it")
    return KillOrder(True, may_retry, f"{standing.reason}: its worker goes away and no try is left", word_first=True)
