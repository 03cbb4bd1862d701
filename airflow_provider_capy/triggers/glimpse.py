"""What a page shows of a thread, in the form that a judgement takes."""

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


class Glimpse:
    """What a page shows of a thread, in the form that a judgement takes."""

    __slots__ = (
        "blocked_on",
        "pending_wakeups",
        "project_id",
        "pull_requests",
        "raw",
        "run_state",
        "status",
        "waiting_on",
    )

    age: float | None = None
    tasks: Sequence[Any] = ()

    def __init__(self, raw: ThreadGlance) -> None:
        self.raw = raw
        self.run_state = raw["runState"]
        self.status = raw.get("status", "")
        self.project_id = raw.get("projectId", "")
        self.waiting_on = raw.get("waitingOn") or ()
        self.blocked_on = raw.get("blockedOn") or ()
        self.pending_wakeups = raw.get("pendingWakeups") or 0
        links = raw.get("pullRequests")
        self.pull_requests = [_Link(link.get("url", "")) for link in links] if links else ()

    def thread(self, known: Thread | None) -> Thread:
        """Return as much of a whole thread as is known: the last one that was fetched, with what the page showed."""
        seen = Thread.model_validate(self.raw)
        if known is None:
            return seen
        return seen.model_copy(update={name: getattr(known, name) for name in _FETCHED})
