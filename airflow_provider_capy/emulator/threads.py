"""Keeps the emulator's threads: who they are, what happened to them, and in which order they are listed."""

from __future__ import annotations

import uuid
from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from airflow_provider_capy.emulator.life import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.life import Course, Moment

_TITLE_LENGTH = 80


@dataclass(frozen=True)
class User:
    """Somebody of the organisation.

    Attributes:
        email: The address.
        kind: The API's ``userType``: ``human`` or ``service_user``.
    """

    email: str
    kind: str

    @property
    def id(self) -> str:
        """The user id, which follows from the address."""
        return f"usr_{sha256(self.email.casefold().encode('utf-8', 'replace')).hexdigest()[:16]}"


@dataclass(frozen=True)
class Slack:
    """A Slack conversation a thread is linked to."""

    channel_id: str
    thread_ts: str
    team_id: str = "T0EMULATOR"

    @property
    def url(self) -> str:
        """Where Slack would show it."""
        return f"https://slack.example/archives/{self.channel_id}/p{self.thread_ts.replace('.', '')}"


TOKEN_USER = User("emulator@capy.example", "service_user")
"""The user behind the token."""


@dataclass
class Thread:
    """One thread.

    Attributes:
        id: Its id.
        serial: Its number in the order of creation, from 1.
        project_id: The project it belongs to.
        prompt: What it was asked to do.
        created: When, in epoch seconds.
        origin: The API's ``origin``.
        author: Who started it.
        course: Its life and what was done to it.
        title: Its title; the first line of the prompt when empty.
        tags: Tag names.
        repos: Pairs of repository and branch.
        slack: The Slack conversation it is linked to.
        stops: When stops were asked for, in epoch seconds.
        text: What a free-text search looks at, folded.
    """

    id: str
    serial: int
    project_id: str
    prompt: str
    created: float
    origin: str
    author: User
    course: Course
    title: str = ""
    tags: tuple[str, ...] = ()
    repos: tuple[tuple[str, str], ...] = ()
    slack: Slack | None = None
    stops: list[float] = field(default_factory=list)
    text: str = field(init=False)
    _moment: Moment | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Derive the title and the searched text."""
        if not self.title:
            first = next((line.strip() for line in self.prompt.splitlines() if line.strip()), self.prompt)
            self.title = first[:_TITLE_LENGTH]
        self.text = f"{self.title}\n{self.prompt}".casefold()

    @property
    def key(self) -> tuple[float, int]:
        """The place in lists: by time, then in the order of creation."""
        return (self.created, self.serial)

    def now(self, now: float) -> Moment:
        """Tell the state at a time (epoch seconds); worked out anew only when the last one has run out."""
        known = self._moment
        if known is None or not known.since <= now < known.until:
            known = self._moment = moment(self.course, now)
        return known

    def stop(self, now: float) -> None:
        """Take a stop request: it takes effect once, and only on a thread that has not come to rest."""
        self.stops.append(now)
        if self.course.stopped is None and not self.now(now).over:
            self._alter(replace(self.course, stopped=now))

    def archive(self, now: float, run_state: str | None) -> None:
        """Archive it; ``run_state`` None leaves the stale one in place."""
        self._alter(replace(self.course, archived=now, archived_run_state=run_state))

    def unblock(self, now: float) -> None:
        """Let a blocked thread go on.

        Raises:
            ValueError: It is not blocked.
        """
        state = self.now(now).state
        if state.run_state != "blocked" or state.status == "archived" or not self.course.life.resume:
            raise ValueError(f"thread {self.id} is {state.run_state}, not blocked: unblock it once it is")
        self._alter(replace(self.course, unblocked=now))

    def start_over(self, course: Course) -> None:
        """Begin another life; what was done to the thread before no longer counts."""
        self._alter(course)

    def _alter(self, course: Course) -> None:
        self.course = course
        self._moment = None


class Threads:
    """Every thread, by id, by serial and by project in the order of creation."""

    def __init__(self) -> None:
        self._by_id: dict[str, Thread] = {}
        self._by_serial: dict[int, Thread] = {}
        self._order: dict[str, list[tuple[float, int]]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Thread]:
        return iter(self._by_id.values())

    def new_identity(self) -> tuple[str, int]:
        """Give out the next id and serial."""
        self._serial += 1
        return f"jam_{uuid.uuid4().hex[:20]}", self._serial

    def add(self, thread: Thread) -> None:
        """Take a thread in."""
        self._by_id[thread.id] = thread
        self._by_serial[thread.serial] = thread
        insort(self._order.setdefault(thread.project_id, []), thread.key)

    def get(self, thread_id: str) -> Thread | None:
        """Find a thread by its id."""
        return self._by_id.get(thread_id)

    def with_serial(self, serial: int) -> Thread | None:
        """Find a thread by its serial."""
        return self._by_serial.get(serial)

    def newest_first(self, project_id: str, before: tuple[float, int] | None = None) -> Iterator[Thread]:
        """Walk through a project's threads.

        Args:
            project_id: The project.
            before: Begin with the first thread older than this key; None begins with the newest.

        Yields:
            Threads, newest first.
        """
        order = self._order.get(project_id, [])
        end = len(order) if before is None else bisect_left(order, before)
        for place in range(end - 1, -1, -1):
            yield self._by_serial[order[place][1]]
