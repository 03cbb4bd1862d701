"""What can be asked of the control interface: the shape of every request body, checked on arrival."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from airflow_provider_capy.emulator.life import Life, script
from airflow_provider_capy.emulator.lives import DEFAULT, NAMES, life_named

_LONGEST = 1e9

Seconds = Annotated[float, Field(ge=0, le=_LONGEST)]
"""A span of time; up to some thirty years, which every clock can take."""

_PULL_REQUESTS_AT_MOST = 9


class Order(BaseModel):
    """Any request to the control interface: unknown fields are refused, so that a typo is not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseOrder(Order):
    """One phase of a life of the caller's own; what is left out starts empty, tasks and pull requests carry on."""

    at: Seconds
    run_state: str
    status: str | None = None
    waiting_on: tuple[str, ...] | None = None
    blocked_on: tuple[str, ...] | None = None
    pending_wakeups: Annotated[int, Field(ge=0)] | None = None
    tasks: tuple[str, ...] | None = None
    pull_requests: Annotated[tuple[str, ...], Field(max_length=_PULL_REQUESTS_AT_MOST)] | None = None


class LifeOrder(Order):
    """Which life a thread lives.

    Attributes:
        life: One of the catalogue's names.
        phases: A life of the caller's own instead.
        seconds: How long the whole life takes in real seconds; None for its own length divided by the speed.
        stop_seconds: Real seconds between a stop request and the thread at rest; None for half a second divided by the speed.
        blocked_on: What the life ``blocked`` is blocked on.
        run_state: The value the life ``unknown_state`` passes through.
    """

    life: str = DEFAULT
    phases: Annotated[tuple[PhaseOrder, ...], Field(min_length=1)] | None = None
    seconds: Seconds | None = None
    stop_seconds: Seconds | None = None
    blocked_on: tuple[Literal["auth", "permission"], ...] = ("permission",)
    run_state: str = "stopping"

    @field_validator("life")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in NAMES:
            raise ValueError(f"there is no life {value!r}; ask for one of {', '.join(NAMES)}")
        return value

    @model_validator(mode="after")
    def _phases_are_in_order(self) -> LifeOrder:
        if self.phases:
            times = [phase.at for phase in self.phases]
            if times[0] != 0 or times != sorted(times):
                raise ValueError(f"phases begin at 0 and go on in the order of time, not at {times}: reorder them")
        return self

    def script(self) -> Life:
        """Make the life that was asked for."""
        if self.phases is None:
            return life_named(self.life, blocked_on=self.blocked_on, run_state=self.run_state)
        steps = [(phase.at, phase.model_dump(exclude={"at"}, exclude_none=True)) for phase in self.phases]
        return Life("phases", script(*steps))


class ScriptOrder(LifeOrder):
    """The life of every thread created from now on whose prompt contains ``match``; an empty one matches all."""

    match: str = ""


class ThreadOrder(LifeOrder):
    """Threads that somebody started elsewhere, past the API.

    Attributes:
        prompt: What they were asked to do.
        project_id: The project they belong to.
        title: Their title; the first line of the prompt when empty.
        origin: Where they were started.
        copies: How many.
        age: How many seconds ago they were started.
        tags: Tag names.
        repos: Pairs of repository and branch.
        author_email: Who started them.
    """

    prompt: Annotated[str, Field(min_length=1)] = "Started elsewhere"
    project_id: str = "prj_demo"
    title: str = ""
    origin: Literal["web", "slack", "api", "linear", "automation"] = "web"
    copies: Annotated[int, Field(ge=1, le=200_000)] = 1
    age: Seconds = 0
    tags: tuple[str, ...] = ()
    repos: tuple[tuple[str, str], ...] = ()
    author_email: str = "somebody@capy.example"


class ArchiveOrder(Order):
    """How a thread is archived; ``stale`` leaves the run state it had in place."""

    stale: bool = False


class ResetOrder(Order):
    """How to start over; ``speed`` None keeps the speed."""

    speed: Annotated[float, Field(gt=0, le=_LONGEST)] | None = None


class OrganisationOrder(Order):
    """What exists in the organisation; None means that every name does. A token takes the place of the emulator's own."""

    projects: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    token: str | None = None
