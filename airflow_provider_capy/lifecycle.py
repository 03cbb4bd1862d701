"""What a thread's state means for the task that waits for it: pure decisions, so that every way of waiting agrees."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.foreign_text import MOST_ITEMS, clean_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.api.models import Thread

OnBlocked = Literal["fail", "skip", "succeed", "wait"]

# Just after its create a thread may read ready before it has done anything: "ready" is believed from a thread that
# shows no trace of work only once it is this old, or has stood at ready for so long (seconds).
START_RACE_SECONDS = 15.0
# So long a "blocked" has to stand, which may resolve itself, and so soon what one look does not prove is looked at again.
SECOND_LOOK_SECONDS = 3.0
# So long a no of Capy's own has to stand (404, 401, 403, 422): right after a create, or in a hiccup, it proves nothing.
STANDS_AFTER = 30.0
ENOUGH_NOES = 3
SOONEST_AGAIN = 2.0
# So long nobody may be able to see a thread before its wait gives up (seconds).
TOLERATED_OUTAGE = 3600.0

_LONGEST_SHOWN = 500
_SHOWN_OF_TASK = {"identifier", "title", "status"}
_SHOWN_OF_REQUEST = {"number", "url", "repo_full_name", "state", "head_ref", "base_ref", "draft"}

KNOWN_STATES = frozenset({"running", "queued", "waiting", "blocked", "ready", "archived"})
# A queued thread has not begun, so that its ready may still be the start race's.
_AT_WORK = frozenset({"running", "waiting", "blocked"})
# What a task reads once somebody has worked on it.
_WORKED_ON = frozenset({"needs_review", "completed", "error"})


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
    def age(self) -> float | None: ...


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
    """What the task wants, and how much proof it asks for.

    Attributes:
        on_blocked: a thread that waits for a person makes the task ``fail``, ``skip``, ``succeed``, or ``wait`` on.
        fail_on_task_error: whether a ready thread with a failed task is a failure.
        start_race: seconds after which a ready without a trace of work is believed.
        second_look: seconds that a blocked has to stand.
    """

    on_blocked: OnBlocked = "fail"
    fail_on_task_error: bool = False
    start_race: float = START_RACE_SECONDS
    second_look: float = SECOND_LOOK_SECONDS


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier looks at the thread have shown.

    Attributes:
        seen_at_work: it was seen doing something.
        resting: ``ready`` or ``blocked`` when the last look showed that, empty otherwise.
        since: epoch seconds, of our clock, of the first look that showed it without a break since.
    """

    seen_at_work: bool = False
    resting: str = ""
    since: float = 0.0

    def seen(self, resting: str, now: float) -> Memory:
        """Return the memory after a look that showed ``ready`` or ``blocked``."""
        # A clock that was set back meanwhile makes no rest last longer.
        since = min(self.since, now) if self.resting == resting else now
        return Memory(self.seen_at_work, resting, since)


# Judged with this, whatever might end a wait does end it: nothing is looked at twice.
ENDS_AT_ONCE = Memory(seen_at_work=True, resting="blocked", since=-math.inf)


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

    Archived comes first, since an archived thread can keep a stale ``runState``; then blocked, which may resolve itself;
    then ready, which counts only when nothing is about to wake the thread up and the start race is over. Every other
    state, also one that is not known yet, goes on.

    Args:
        thread: the thread as ``getThread`` shows it.
        memory: what earlier looks have shown.
        policy: what the task wants.
        now: epoch seconds of our own clock; never compared with one of Capy's.
    """
    if thread.status == "archived" or thread.run_state == "archived":
        return Verdict(Outcome.ARCHIVED, memory)
    if thread.run_state == "blocked" and policy.on_blocked != "wait":
        memory = replace(memory.seen("blocked", now), seen_at_work=True)
        missing = policy.second_look - (now - memory.since)
        return _decided(Outcome.BLOCKED, memory, missing)
    if thread.run_state != "ready" or thread.pending_wakeups > 0 or thread.waiting_on:
        return Verdict(None, Memory(memory.seen_at_work or thread.run_state in _AT_WORK))
    memory = memory.seen("ready", now)
    ended = Outcome.TASK_ERROR if policy.fail_on_task_error and failed_tasks(thread) else Outcome.READY
    if memory.seen_at_work or thread.pull_requests or any(task.status in _WORKED_ON for task in thread.tasks):
        return _decided(ended, memory, 0.0)
    return _decided(ended, memory, policy.start_race - max(thread.age or 0.0, now - memory.since))


def _decided(outcome: Outcome, memory: Memory, missing: float) -> Verdict:
    """Return the outcome, or, when that many seconds of proof are missing, that it is to be looked at again."""
    if missing <= 0:
        return Verdict(outcome, memory)
    return Verdict(None, memory, look_again_in=min(missing, SECOND_LOOK_SECONDS))


@dataclass(slots=True)
class Denial:
    """A no of Capy's own (404, 403 and their like): believed once nothing else was answered for a while.

    Attributes:
        said: the last no; empty while there is none.
        since: epoch seconds of the first of those in a row.
        times: how many there were in a row.
        stands: whether it is believed by now.
    """

    said: str = ""
    since: float = 0.0
    times: int = 0
    stands: bool = False

    def heard(self, error: Exception, now: float) -> float:
        """Take a no in; another one than the last begins anew.

        Args:
            error: what the request raised.
            now: epoch seconds.

        Returns:
            in how many seconds to ask again, while it does not stand.
        """
        if (said := type(error).__name__) != self.said:
            self.said, self.since, self.times = said, now, 0
        self.since, self.times = min(self.since, now), self.times + 1
        left = self.since + STANDS_AFTER - now
        self.stands = left <= 0 and self.times >= ENOUGH_NOES
        return min(max(now - self.since, SOONEST_AGAIN), max(left, SOONEST_AGAIN))

    def refuted(self) -> None:
        """Take in that something else was answered, or nothing."""
        self.said, self.times, self.stands = "", 0, False


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
    """Return the small picture of a thread that goes into XCom: no transcript, no prompt, and no more than a row can take.

    Keys: ``thread_id``, ``thread_url``, ``project_id``, ``title``, ``outcome``, ``status``, ``run_state``,
    ``waiting_on``, ``blocked_on``, ``tasks`` (``identifier``, ``title``, ``status``), ``pull_requests`` (``number``,
    ``url``, ``repo_full_name``, ``state``, ``head_ref``, ``base_ref``, ``draft``), ``created_at``, ``updated_at``.
    Texts have 500 characters, lists 100 items at the most; of more tasks, the failed ones are kept first.
    """
    tasks = thread.tasks
    if len(tasks) > MOST_ITEMS:
        tasks = sorted(tasks, key=lambda task: task.status != "error")
    picture: dict[str, Any] = clean_json(
        {
            "thread_id": thread.id,
            "thread_url": url,
            "project_id": thread.project_id,
            "title": thread.title,
            "outcome": outcome.value,
            "status": thread.status,
            "run_state": thread.run_state,
            "waiting_on": thread.waiting_on,
            "blocked_on": thread.blocked_on,
            "tasks": [task.model_dump(include=_SHOWN_OF_TASK) for task in tasks],
            "pull_requests": [request.model_dump(include=_SHOWN_OF_REQUEST) for request in thread.pull_requests],
            "created_at": thread.created_at,
            "updated_at": thread.updated_at,
        },
        longest=_LONGEST_SHOWN,
    )
    return picture


def checked_on_blocked(value: Any) -> OnBlocked:
    """Return the value when it is a policy.

    Raises:
        CapyInputError: when it is none.
    """
    for known in get_args(OnBlocked):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise CapyInputError(f"on_blocked: {value!r} is none of {', '.join(map(repr, get_args(OnBlocked)))}")
