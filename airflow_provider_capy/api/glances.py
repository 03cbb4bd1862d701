"""A page of threads read only as far as a wait needs it, for whoever reads pages all day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field
from typing_extensions import NotRequired, TypedDict

from airflow_provider_capy.api.calls import Call
from airflow_provider_capy.api.models import Cursor, Thread, Whole
from airflow_provider_capy.foreign_text import LONGEST_TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.api.requests import ListThreadsQuery


# Checked and not cleaned, which is done without any Python: an item that is not clean is asked for singly.
_Clean = Annotated[str, Field(max_length=LONGEST_TEXT, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")]


class LinkGlance(TypedDict):
    """Of a pull request, where it is."""

    url: NotRequired[_Clean]


class ThreadGlance(TypedDict):
    """Of an item of ``listThreads``, what tells whether a wait goes on, in the API's spelling.

    A dictionary and not a model: a page of 100 is read five times faster than into
    :class:`~airflow_provider_capy.api.models.Thread`.
    """

    id: _Clean
    runState: _Clean
    projectId: NotRequired[_Clean]
    status: NotRequired[_Clean]
    waitingOn: NotRequired[list[_Clean] | None]
    blockedOn: NotRequired[list[_Clean] | None]
    pendingWakeups: NotRequired[Whole | None]
    pullRequests: NotRequired[list[LinkGlance] | None]


_Unreadable = Annotated[None, BeforeValidator(lambda _: None)]


class GlancePage(TypedDict):
    """Answer of ``listThreads``; an item that is not a thread as we know it is ``None`` and spoils no neighbour."""

    items: list[Annotated[ThreadGlance | _Unreadable, Field(union_mode="left_to_right")]]
    nextCursor: NotRequired[Cursor]
    hasMore: NotRequired[bool]


def glance_at_threads(query: ListThreadsQuery) -> Call[GlancePage]:
    """Get one page of a project's threads (``listThreads``), narrowly."""
    return Call("listThreads", "GET", "/v1/threads", GlancePage, safe_to_retry=True, params=query.wire())


# What only a GET shows.
_FETCHED = ("title", "tasks", "created_at", "updated_at")


class _Link:
    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url


class GlancedThread:
    """A glance with the names of :class:`~airflow_provider_capy.api.models.Thread`, as far as a judgement needs them."""

    __slots__ = ("blocked_on", "glance", "pending_wakeups", "project_id", "pull_requests", "run_state", "status", "waiting_on")  # fmt: skip

    age: float | None = None
    tasks: Sequence[Any] = ()

    def __init__(self, glance: ThreadGlance) -> None:
        self.glance = glance
        self.run_state = glance["runState"]
        self.status = glance.get("status", "")
        self.project_id = glance.get("projectId", "")
        self.waiting_on = glance.get("waitingOn") or ()
        self.blocked_on = glance.get("blockedOn") or ()
        self.pending_wakeups = glance.get("pendingWakeups") or 0
        links = glance.get("pullRequests")
        self.pull_requests = [_Link(link.get("url", "")) for link in links] if links else ()

    def whole(self, known: Thread | None) -> Thread:
        """Return as much of a whole thread as is known: what the page showed, and the rest from the last GET."""
        seen = Thread.model_validate(self.glance)
        return seen.model_copy(update={name: getattr(known, name) for name in _FETCHED} if known else {})
