"""Turns a thread into the JSON the API answers with."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.life import State
    from airflow_provider_capy.emulator.threads import Slack, Thread

PULL_REQUESTS_PER_THREAD = 10
"""Pull request numbers are the thread's serial times this, and their place among its own."""

_COLORS = ("default", "primary", "success", "warning", "destructive", "blue", "purple", "pink", "orange", "lime")
_REPOSITORY = ("capy-demo/app", "main")


def created(thread: Thread, now: float) -> dict[str, Any]:
    """Answer to a create: no tasks, no pull requests, no time of change yet."""
    answer = _common(thread, now)
    if thread.slack:
        answer["slack"] = _slack(thread.slack)
    return answer


def item(thread: Thread, now: float, origin: str) -> dict[str, Any]:
    """Answer to a get, and an entry of a list.

    Args:
        thread: The thread.
        now: Epoch seconds.
        origin: The emulator's own origin, where pull request links lead.

    Returns:
        The JSON object.
    """
    moment = thread.now(now)
    return {
        **_common(thread, now),
        "tasks": _tasks(thread, moment.state),
        "pullRequests": pull_requests(thread, moment.state, origin),
        "slackThreads": [_slack(thread.slack)] if thread.slack else [],
        "updatedAt": timestamp(max([moment.since, thread.created, *thread.stops[-1:]])),
    }


def stopped(thread: Thread, now: float) -> dict[str, Any]:
    """Answer to a stop."""
    return {"id": thread.id, "status": thread.now(now).state.status}


def pull_requests(thread: Thread, state: State, origin: str) -> list[dict[str, Any]]:
    """Give the pull requests of a thread, spread over its repositories in turn."""
    repos = thread.repos or (_REPOSITORY,)
    found: list[dict[str, Any]] = []
    for index, pull_state in enumerate(state.pull_requests):
        repository, branch = repos[index % len(repos)]
        number = thread.serial * PULL_REQUESTS_PER_THREAD + index
        found.append(
            {
                "number": number,
                "url": f"{origin}/pull/{quote(repository, errors='replace')}/{number}",
                "repoFullName": repository,
                "state": "open" if pull_state == "draft" else pull_state,
                "headRef": head_ref(thread, index),
                "baseRef": branch,
                "draft": pull_state == "draft",
            }
        )
    return found


def head_ref(thread: Thread, index: int) -> str:
    """Name the branch of a thread's pull request, counted from 0."""
    suffix = f"-{index + 1}" if index else ""
    return f"capy/{thread.id.removeprefix('jam_')[:8]}{suffix}"


def timestamp(seconds: float) -> str:
    """Write epoch seconds the way the API does: ISO 8601, UTC, milliseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _common(thread: Thread, now: float) -> dict[str, Any]:
    state = thread.now(now).state
    return {
        "id": thread.id,
        "projectId": thread.project_id,
        # A title is made up by the agent: a thread that has not begun has none.
        "title": None if state.run_state == "queued" else thread.title,
        "status": state.status,
        "runState": state.run_state,
        "waitingOn": list(state.waiting_on),
        "blockedOn": list(state.blocked_on),
        "pendingWakeups": state.pending_wakeups,
        "participants": [
            {
                "userId": thread.author.id,
                "userType": thread.author.kind,
                "firstParticipatedAt": timestamp(thread.created),
                "lastParticipatedAt": timestamp(thread.stops[-1] if thread.stops else thread.created),
            }
        ],
        "tags": [{"name": tag, "color": _COLORS[sum(map(ord, tag)) % len(_COLORS)]} for tag in thread.tags],
        "createdAt": timestamp(thread.created),
    }


def _tasks(thread: Thread, state: State) -> list[dict[str, Any]]:
    return [
        {
            "id": f"tsk_{thread.id.removeprefix('jam_')}_{index}",
            "threadIndex": index,
            "identifier": f"EMU-{thread.serial}-{index}",
            "title": thread.title if index == 1 else f"{thread.title} ({index})",
            "status": status,
        }
        for index, status in enumerate(state.tasks, start=1)
    ]


def _slack(slack: Slack) -> dict[str, Any]:
    return {"teamId": slack.team_id, "channelId": slack.channel_id, "threadTs": slack.thread_ts, "url": slack.url}
