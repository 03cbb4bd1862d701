"""Everything the emulator remembers: threads, scripts, faults, what the organisation has, and the log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_capy.emulator.faults import FaultBook
from airflow_provider_capy.emulator.journal import Journal
from airflow_provider_capy.emulator.life import STOP_SECONDS, Course, pace_of
from airflow_provider_capy.emulator.orders import LifeOrder, OrganisationOrder, ScriptOrder
from airflow_provider_capy.emulator.threads import TOKEN_USER, Slack, Thread, Threads, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.orders import ThreadOrder

TAGS = frozenset(
    {"airflow", "bug", "chore", "ci", "demo", "docs", "feature", "nightly", "release", "security", "urgent"}
)
"""The tags the organisation has until it is told otherwise."""


@dataclass(frozen=True)
class NewThread:
    """What is known of a thread before it exists.

    Attributes:
        project_id: The project.
        prompt: What it shall do.
        author: Who starts it.
        origin: From where.
        title: The title, when it does not follow from the prompt.
        tags: Tag names.
        repos: Pairs of repository and branch.
        slack: The Slack conversation it is linked to.
    """

    project_id: str
    prompt: str
    author: User = TOKEN_USER
    origin: str = "api"
    title: str = ""
    tags: tuple[str, ...] = ()
    repos: tuple[tuple[str, str], ...] = ()
    slack: Slack | None = None


class World:
    """The state of one emulator.

    Args:
        token: The token every call of the API has to carry.
        speed: How many times faster than real time threads live.
        clock: Gives epoch seconds.

    Attributes:
        era: How often it has been reset; a call that waited through a reset belongs to the past.
    """

    def __init__(self, token: str, speed: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self.token = token
        self.clock = clock
        self.journal = Journal(token)
        self.era = 0
        self.reset(speed)

    def reset(self, speed: float | None = None) -> None:
        """Forget threads, scripts, faults and the log; the speed stays unless another is given."""
        if speed is not None:
            self.speed = speed
        self.era += 1
        self.threads = Threads()
        self.faults = FaultBook()
        self.scripts: list[ScriptOrder] = []
        self.organisation = OrganisationOrder(projects=None, tags=TAGS)
        self.journal.clear()

    def start(self, new: NewThread, now: float, order: LifeOrder | None = None) -> Thread:
        """Create a thread and let it live.

        Args:
            new: What is known of it.
            now: When it begins, in epoch seconds.
            order: Its life; None asks the scripts, the latest first.

        Returns:
            The thread.
        """
        order = order or self._scripted(new.prompt)
        thread_id, serial = self.threads.new_identity()
        thread = Thread(
            id=thread_id,
            serial=serial,
            project_id=new.project_id,
            prompt=new.prompt,
            created=now,
            origin=new.origin,
            author=new.author,
            course=self.course(order, now),
            title=new.title,
            tags=new.tags,
            repos=new.repos,
            slack=new.slack,
        )
        self.threads.add(thread)
        return thread

    def start_elsewhere(self, order: ThreadOrder, now: float) -> list[Thread]:
        """Create the threads somebody started past the API, as many copies as the order says."""
        new = NewThread(
            project_id=order.project_id,
            prompt=order.prompt,
            author=User(order.author_email, "human"),
            origin=order.origin,
            title=order.title,
            tags=order.tags,
            repos=order.repos,
        )
        return [self.start(new, now - order.age, order) for _ in range(order.copies)]

    def course(self, order: LifeOrder, now: float) -> Course:
        """Work out the life an order asks for, beginning at ``now`` (epoch seconds)."""
        life = order.script()
        settle = STOP_SECONDS / self.speed if order.stop_seconds is None else order.stop_seconds
        return Course(life=life, began=now, pace=pace_of(life, order.seconds, self.speed), settle=settle)

    def _scripted(self, prompt: str) -> LifeOrder:
        return next((order for order in reversed(self.scripts) if order.match in prompt), LifeOrder())
