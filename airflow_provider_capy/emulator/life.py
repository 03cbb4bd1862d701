"""Says what state a thread is in at a given time, so that nothing in the emulator has to tick."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STOP_SECONDS = 0.5
"""How long a thread takes to settle after a stop request, at speed 1, in seconds."""

_STATUS_OF = {"queued": "active", "running": "active", "archived": "archived"}
_RESTING = frozenset({"ready", "blocked", "archived"})


@dataclass(frozen=True)
class State:
    """What the API would say about a thread, without its identity.

    Attributes:
        run_state: The API's ``runState``; any text, so that unknown values can be played.
        status: The API's coarse ``status``.
        waiting_on: What the system waits for.
        blocked_on: What a person has to do.
        pending_wakeups: Events that will make the thread run again.
        tasks: The status of each task.
        pull_requests: The state of each pull request; ``draft`` reads as an open draft.
    """

    run_state: str
    status: str
    waiting_on: tuple[str, ...] = ()
    blocked_on: tuple[str, ...] = ()
    pending_wakeups: int = 0
    tasks: tuple[str, ...] = ()
    pull_requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """A state and the time it begins.

    Attributes:
        at: Seconds after the life began, at speed 1.
        state: The state from then on.
    """

    at: float
    state: State


@dataclass(frozen=True)
class Life:
    """A script of what a thread goes through.

    Attributes:
        name: What the script is called.
        phases: The states in order of time; the first begins at 0.
        resume: The states after somebody unblocked the thread, counted from then; empty when it cannot be unblocked.
    """

    name: str
    phases: tuple[Phase, ...]
    resume: tuple[Phase, ...] = ()

    @property
    def seconds(self) -> float:
        """How long the life takes to reach its last state, at speed 1, in seconds."""
        return self.phases[-1].at


@dataclass(frozen=True)
class Course:
    """A life, and what was done to the thread that lives it. All times are epoch seconds.

    Attributes:
        life: The script.
        began: When the life began.
        pace: Real seconds for one second of the script.
        settle: Seconds between a stop request and the thread at rest.
        stopped: When a stop request took effect.
        unblocked: When somebody unblocked it.
        archived: When somebody archived it.
        archived_run_state: The ``runState`` it shows once archived; None leaves the stale one in place.
    """

    life: Life
    began: float
    pace: float = 1.0
    settle: float = STOP_SECONDS
    stopped: float | None = None
    unblocked: float | None = None
    archived: float | None = None
    archived_run_state: str | None = None


@dataclass(frozen=True)
class Moment:
    """The state of a thread, and how long that holds when nobody interferes.

    Attributes:
        state: The state.
        since: When it began, in epoch seconds.
        until: When the next one begins, in epoch seconds; infinite when none does.
        over: Whether the thread will not move again by itself.
    """

    state: State
    since: float
    until: float
    over: bool


def moment(course: Course, now: float) -> Moment:
    """Tell the state of a thread.

    Args:
        course: Its life and what was done to it.
        now: Epoch seconds.

    Returns:
        The state, with the span of time in which it holds.
    """
    if course.archived is not None and now >= course.archived:
        before = moment(replace(course, archived=None), course.archived).state
        run_state = course.archived_run_state or before.run_state
        return Moment(replace(before, status="archived", run_state=run_state), course.archived, inf, over=True)
    if course.stopped is not None and now >= course.stopped:
        return _stopping(course, course.stopped, now)
    return _scripted(course, now)


def pace_of(life: Life, seconds: float | None, speed: float) -> float:
    """Real seconds for one second of a life's script.

    Args:
        life: The script.
        seconds: How long the whole life shall take in real seconds; None for its own length divided by the speed.
        speed: How many times faster than real time the emulator runs. A length that was named is not touched by it.

    Returns:
        The pace.
    """
    if seconds is None:
        return 1 / speed
    return seconds / life.seconds if life.seconds else 0.0


def script(*steps: tuple[float, Mapping[str, Any]], began_with: State | None = None) -> tuple[Phase, ...]:
    """Write phases as patches.

    Args:
        steps: Pairs of seconds and the fields that change then. ``run_state`` is always named; ``status`` follows from it
            unless it is named too. Tasks and pull requests stay as they were, everything else starts empty again.
        began_with: The state whose tasks and pull requests the first step carries on.

    Returns:
        The phases.
    """
    phases: list[Phase] = []
    tasks = began_with.tasks if began_with else ()
    pull_requests = began_with.pull_requests if began_with else ()
    for at, patch in steps:
        fields = {"tasks": tasks, "pull_requests": pull_requests, "status": status_of(patch["run_state"]), **patch}
        state = State(**fields)
        tasks, pull_requests = state.tasks, state.pull_requests
        phases.append(Phase(at, state))
    return tuple(phases)


def status_of(run_state: str) -> str:
    """Tell the coarse status that goes with a run state; one the contract does not know counts as active."""
    if run_state in ("waiting", "blocked", "ready"):
        return "idle"
    return _STATUS_OF.get(run_state, "active")


def _scripted(course: Course, now: float) -> Moment:
    current: tuple[float, State] | None = None
    upcoming = inf
    for begins, state in _timeline(course):
        if current is not None and begins > now:
            upcoming = begins
            break
        current = (begins, state)
    if current is None:
        raise ValueError(f"The life {course.life.name!r} has no phases: give it at least one, at 0 seconds")
    since, state = current
    return Moment(state, since, upcoming, over=upcoming == inf and _rests(state))


def _timeline(course: Course) -> Iterable[tuple[float, State]]:
    for phase in course.life.phases:
        begins = course.began + phase.at * course.pace
        if course.unblocked is not None and begins > course.unblocked:
            break
        yield begins, phase.state
    if course.unblocked is not None:
        for phase in course.life.resume:
            yield course.unblocked + phase.at * course.pace, phase.state


def _stopping(course: Course, stopped: float, now: float) -> Moment:
    before = _scripted(course, stopped)
    settled = stopped + course.settle
    if now < settled:
        return Moment(before.state, before.since, settled, over=False)
    rest = State("ready", "idle", tasks=before.state.tasks, pull_requests=before.state.pull_requests)
    return Moment(rest, settled, inf, over=True)


def _rests(state: State) -> bool:
    return state.status == "archived" or state.run_state in _RESTING
