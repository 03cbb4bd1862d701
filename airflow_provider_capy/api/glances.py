"""A page of threads read only as far as a wait needs it, for whoever reads pages all day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field
from typing_extensions import NotRequired, TypedDict

from airflow_provider_capy.api.calls import Call

if TYPE_CHECKING:
    from airflow_provider_capy.api.requests import ListThreadsQuery


class LinkGlance(TypedDict):
    """Of a pull request, where it is."""

    url: NotRequired[str]


class ThreadGlance(TypedDict):
    """Of an item of ``listThreads``, what tells whether a wait goes on, in the API's spelling.

    A dictionary and not a model: a page of 100 is read five times faster than into
    :class:`~airflow_provider_capy.api.models.Thread`.
    """

    id: str
    runState: str
    projectId: NotRequired[str]
    status: NotRequired[str]
    waitingOn: NotRequired[list[str] | None]
    blockedOn: NotRequired[list[str] | None]
    pendingWakeups: NotRequired[int | None]
    pullRequests: NotRequired[list[LinkGlance] | None]


_Unreadable = Annotated[None, BeforeValidator(lambda _: None)]


class GlancePage(TypedDict):
    """Answer of ``listThreads``; an item that is not a thread as we know it is ``None`` and spoils no neighbour."""

    items: list[Annotated[ThreadGlance | _Unreadable, Field(union_mode="left_to_right")]]
    nextCursor: NotRequired[str | None]
    hasMore: NotRequired[bool]


def glance_at_threads(query: ListThreadsQuery) -> Call[GlancePage]:
    """Get one page of a project's threads (``listThreads``), narrowly."""
    return Call("listThreads", "GET", "/v1/threads", GlancePage, safe_to_retry=True, params=query.wire())
