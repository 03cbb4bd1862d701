"""A thread as a page of a list shows it, in the form that a judgement takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.api.models import Thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.api.glances import ThreadGlance

# What only a GET shows, and is kept when a page shows the rest.
_FETCHED = ("title", "tasks", "created_at", "updated_at")


class _Link:
    __slots__ = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url


class ListedThread:
    """An item of a page (``listThreads``), with the names of :class:`~airflow_provider_capy.api.models.Thread`."""

    __slots__ = ("blocked_on", "item", "pending_wakeups", "project_id", "pull_requests", "run_state", "status", "waiting_on")

    age: float | None = None
    tasks: Sequence[Any] = ()

    def __init__(self, item: ThreadGlance) -> None:
        self.item = item
        self.run_state = item["runState"]
        self.status = item.get("status", "")
        self.project_id = item.get("projectId", "")
        self.waiting_on = item.get("waitingOn") or ()
        self.blocked_on = item.get("blockedOn") or ()
        self.pending_wakeups = item.get("pendingWakeups") or 0
        links = item.get("pullRequests")
        self.pull_requests = [_Link(link.get("url", "")) for link in links] if links else ()

    def whole(self, known: Thread | None) -> Thread:
        """Return as much of a whole thread as is known: what the page showed, and the rest from the last GET."""
        seen = Thread.model_validate(self.item)
        return seen.model_copy(update={name: getattr(known, name) for name in _FETCHED} if known else {})
