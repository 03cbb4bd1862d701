"""Every endpoint of the contract once, as a pure value, so that the sync and the async client cannot drift."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_capy.api.models import CreatedThread, StoppedThread, Thread, ThreadPage
from airflow_provider_capy.api.requests import CreateThreadBody, ListThreadsQuery, thread_id_in_path

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, before anybody sends it.

    Attributes:
        operation: the contract's ``operationId``.
        method: HTTP method.
        path: path below the base URL.
        response: model of the 200 answer.
        safe_to_retry: whether sending it twice does no harm; a create is not.
        params: query parameters.
        body: JSON body, or ``None`` for none.
        thread_id: the thread that the answer has to be about, if it is about one.
    """

    operation: str
    method: str
    path: str
    response: type[T]
    safe_to_retry: bool
    params: Mapping[str, Any] = field(default_factory=dict)
    # Not in the repr, which ends in logs: it holds the prompt.
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    thread_id: str | None = None


def create_thread(body: CreateThreadBody) -> Call[CreatedThread]:
    """Create a thread and start it at once (``createAndStartThread``): the one call that costs money."""
    return Call("createAndStartThread", "POST", "/v1/threads", CreatedThread, safe_to_retry=False, body=body.wire())


def get_thread(thread_id: str) -> Call[Thread]:
    """Get one thread (``getThread``)."""
    found = thread_id_in_path(thread_id)
    return Call("getThread", "GET", f"/v1/threads/{found}", Thread, safe_to_retry=True, thread_id=found)


def list_threads(query: ListThreadsQuery) -> Call[ThreadPage]:
    """Get one page of a project's threads (``listThreads``)."""
    return Call("listThreads", "GET", "/v1/threads", ThreadPage, safe_to_retry=True, params=query.wire())


def stop_thread(thread_id: str) -> Call[StoppedThread]:
    """Ask a thread to stop (``stopThread``); asking twice does no harm."""
    found = thread_id_in_path(thread_id)
    return Call("stopThread", "POST", f"/v1/threads/{found}/stop", StoppedThread, safe_to_retry=True, thread_id=found)
