"""What a thread's state means for the task that waits for it: pure decisions, so that every way of waiting agrees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from airflow_provider_capy.exceptions import CapyInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_provider_capy.api.models import Thread

OnBlocked = Literal["fail", "skip", "succeed", "wait"]

# Just after its create a thread may read ready before it has done anything: "ready" is believed from a thread that
# shows no trace of work only at this age, or when a second look this much later finds the same.
START_RACE_SECONDS = 15.0
SECOND_LOOK_SECONDS = 3.0

# Each failed poll was already retried by the client, so five in a row are minutes without an answer.
TOLERATED_FAILURES = 5

_AT_WORK = frozenset({"running", "queued", "waiting", "blocked"})


class ThreadState(Protocol):
    """What a judgement needs to see of a thread."""

    @property
    def status(self) -> str: ...
    @property
    def run_state(self) -> str: ...
    @property
    def waiting_on(self) -> Sequence[str]: ...
    @property
    def pending_wakeups(self) -> int: ...
    @property
    def tasks(self) -> Sequence[Any]: ...
    @property
    def pull_requests(self) -> Sequence[Any]: ...
    @property
    def created(self) -> datetime | None: ...


class Outcome(str, Enum):
    """How a wait for a thread can end."""

    READY = "ready"
    TASK_ERROR = "task_error"
    BLOCKED = "blocked"
    ARCHIVED = "archived"
    TIMEOUT = "timeout"
    POLL_FAILED = "poll_failed"


class Fate(str, Enum):
    """What is to become of a thread.

    Attributes:
        HELD: a task waits for it, or may come back to it.
        DISPATCHED: its task succeeded without waiting for it, so it goes on when its run ends by itself.
        SETTLED: its task saw it come to its own end: ready, archived or gone.
        LEFT: its task ended otherwise, and left it to whoever needs it.
        STOPPING: somebody is about to ask it to stop, or has asked; it was not seen at rest.
        STOPPED: it came to rest because it was asked to: its ``ready`` is no success.
    """

    HELD = "held"
    DISPATCHED = "dispatched"
    SETTLED = "settled"
    LEFT = "left"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the task wants.

    Attributes:
        on_blocked: a thread that waits for a person makes the task ``fail``, ``skip``, ``succeed``, or ``wait`` on.
        fail_on_task_error: whether a ready thread with a failed task is a failure.
    """

    on_blocked: OnBlocked = "fail"
    fail_on_task_error: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier looks at the thread have shown.

    Attributes:
        seen_at_work: it was seen doing something.
        ready_since: epoch seconds of the first look that found it ready, without a break since; ``None`` otherwise.
    """

    seen_at_work: bool = False
    ready_since: float | None = None


# Judged with this, whatever might end a wait does end it: no start race is waited out.
ENDS_AT_ONCE = Memory(seen_at_work=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look at a thread says.

    Attributes:
        outcome: how the wait ends; ``None`` when it goes on.
        memory: to be handed to the next look.
        look_again_in: seconds; set when the next look should come sooner than the usual interval.
    """

    outcome: Outcome | None
    memory: Memory
    look_again_in: float | None = None


def judge(thread: ThreadState, memory: Memory, policy: Policy, now: float) -> Verdict:
    """Judge one look at a thread.

    Archived comes first, since an archived thread can keep a stale ``runState``; then blocked; then ready, which
    counts only when nothing is about to wake the thread up and the start race is over. Every other state, also one
    that is not known yet, goes on.

    Args:
        thread: the thread as ``getThread`` shows it.
        memory: what earlier looks have shown.
        policy: what the task wants.
        now: epoch seconds.
    """
    if thread.status == "archived" or thread.run_state == "archived":
        return Verdict(Outcome.ARCHIVED, memory)
    if thread.run_state == "blocked" and policy.on_blocked != "wait":
        return Verdict(Outcome.BLOCKED, memory)
    if thread.run_state != "ready":
        at_work = memory.seen_at_work or thread.run_state in _AT_WORK
        return Verdict(None, Memory(seen_at_work=at_work))
    return _judge_ready(thread, memory, policy, now)


def _judge_ready(thread: ThreadState, memory: Memory, policy: Policy, now: float) -> Verdict:
    if thread.pending_wakeups > 0 or thread.waiting_on:
        return Verdict(None, Memory(seen_at_work=True))
    since = memory.ready_since if memory.ready_since is not None else now
    memory = replace(memory, ready_since=since)
    if not _is_settled(thread, memory, now):
        return Verdict(None, memory, look_again_in=SECOND_LOOK_SECONDS)
    if policy.fail_on_task_error and failed_tasks(thread):
        return Verdict(Outcome.TASK_ERROR, memory)
    return Verdict(Outcome.READY, memory)


def _is_settled(thread: ThreadState, memory: Memory, now: float) -> bool:
    if memory.seen_at_work or thread.tasks or thread.pull_requests:
        return True
    created = thread.created
    if created is not None and now - created.timestamp() >= START_RACE_SECONDS:
        return True
    return memory.ready_since is not None and now - memory.ready_since >= SECOND_LOOK_SECONDS


def fate_after(outcome: Outcome | None, *, gone: bool = False) -> Fate:
    """Return the fate of a thread that its task lets go without stopping it.

    Args:
        outcome: how the task's wait ended; ``None`` when it came to no end of the thread's.
        gone: whether Capy does not know the thread any more.
    """
    came_to_rest = gone or outcome in {Outcome.READY, Outcome.TASK_ERROR, Outcome.ARCHIVED}
    return Fate.SETTLED if came_to_rest else Fate.LEFT


def failed_tasks(thread: Any) -> list[str]:
    """Return the identifiers of the thread's tasks with status ``error``."""
    return [task.identifier or task.id for task in thread.tasks if task.status == "error"]


def summary(thread: Thread, *, outcome: Outcome, url: str) -> dict[str, Any]:
    """Return the small picture of a thread that goes into XCom: no transcript, no prompt.

    Keys: ``thread_id``, ``thread_url``, ``project_id``, ``title``, ``outcome``, ``status``, ``run_state``,
    ``waiting_on``, ``blocked_on``, ``tasks`` (``identifier``, ``title``, ``status``), ``pull_requests`` (``number``,
    ``url``, ``repo_full_name``, ``state``, ``head_ref``, ``base_ref``, ``draft``), ``created_at``, ``updated_at``.
    """
    return {
        "thread_id": thread.id,
        "thread_url": url,
        "project_id": thread.project_id,
        "title": thread.title,
        "outcome": outcome.value,
        "status": thread.status,
        "run_state": thread.run_state,
        "waiting_on": list(thread.waiting_on),
        "blocked_on": list(thread.blocked_on),
        "tasks": [{"identifier": task.identifier, "title": task.title, "status": task.status} for task in thread.tasks],
        "pull_requests": [
            {
                "number": request.number,
                "url": request.url,
                "repo_full_name": request.repo_full_name,
                "state": request.state,
                "head_ref": request.head_ref,
                "base_ref": request.base_ref,
                "draft": request.draft,
            }
            for request in thread.pull_requests
        ],
        "created_at": thread.created_at,
        "updated_at": thread.updated_at,
    }


def checked_on_blocked(value: Any) -> OnBlocked:
    """Return the value when it is a policy.

    Raises:
        CapyInputError: when it is none.
    """
    for known in get_args(OnBlocked):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise CapyInputError(f"on_blocked: {value!r} is none of {', '.join(map(repr, get_args(OnBlocked)))}")
