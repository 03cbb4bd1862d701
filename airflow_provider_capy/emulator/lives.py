"""The catalogue of lives: every way a thread is known to go, ready to be asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capy.emulator.life import Life, script

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = "default"
"""The life of a thread nobody scripted."""

_WORKING = ("in_progress",)
_DONE = ("completed",)


def _default() -> Life:
    return Life(
        DEFAULT,
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running"}),
            (1.5, {"run_state": "running", "tasks": _WORKING}),
            (2.5, {"run_state": "waiting", "waiting_on": ("task",)}),
            (
                4,
                {
                    "run_state": "waiting",
                    "waiting_on": ("task",),
                    "tasks": ("needs_review",),
                    "pull_requests": ("draft",),
                },
            ),
            (5, {"run_state": "ready", "tasks": _DONE, "pull_requests": ("open",)}),
        ),
    )


def _forever() -> Life:
    return Life(
        "forever",
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running"}),
            (1.5, {"run_state": "running", "tasks": _WORKING}),
        ),
    )


def _blocked(reasons: tuple[str, ...]) -> Life:
    until_blocked = script(
        (0, {"run_state": "queued"}),
        (0.5, {"run_state": "running", "tasks": _WORKING}),
        (2, {"run_state": "blocked", "blocked_on": reasons}),
    )
    afterwards = script(
        (0, {"run_state": "running"}),
        (1, {"run_state": "waiting", "waiting_on": ("task",)}),
        (2, {"run_state": "ready", "tasks": _DONE, "pull_requests": ("open",)}),
        began_with=until_blocked[-1].state,
    )
    return Life("blocked", until_blocked, afterwards)


def _archived(name: str, run_state: str) -> Life:
    return Life(
        name,
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running", "tasks": _WORKING}),
            (2, {"run_state": run_state, "status": "archived"}),
        ),
    )


def _task_error() -> Life:
    return Life(
        "task_error",
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running", "tasks": _WORKING}),
            (2, {"run_state": "waiting", "waiting_on": ("task",)}),
            (4, {"run_state": "ready", "tasks": ("error",)}),
        ),
    )


def _start_race() -> Life:
    return Life(
        "start_race",
        script(
            (0, {"run_state": "ready"}),
            (1.5, {"run_state": "running", "tasks": _WORKING}),
            (3, {"run_state": "waiting", "waiting_on": ("task",)}),
            (5, {"run_state": "ready", "tasks": _DONE, "pull_requests": ("open",)}),
        ),
    )


def _ready_twice(name: str, first: dict[str, object]) -> Life:
    return Life(
        name,
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running", "tasks": _WORKING}),
            (2, {"run_state": "ready", **first}),
            (3.5, {"run_state": "running"}),
            (5, {"run_state": "ready", "tasks": _DONE, "pull_requests": ("open",)}),
        ),
    )


def _several_prs() -> Life:
    return Life(
        "several_prs",
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running", "tasks": ("in_progress", "queued", "queued")}),
            (2, {"run_state": "waiting", "waiting_on": ("task",), "pull_requests": ("open",)}),
            (3.5, {"run_state": "waiting", "waiting_on": ("review", "ci"), "pull_requests": ("open", "draft")}),
            # A merged pull request is known to read "closed".
            (5, {"run_state": "ready", "tasks": _DONE * 3, "pull_requests": ("open", "draft", "closed")}),
        ),
    )


def _unknown_state(run_state: str) -> Life:
    return Life(
        "unknown_state",
        script(
            (0, {"run_state": "queued"}),
            (0.5, {"run_state": "running", "tasks": _WORKING}),
            (2, {"run_state": run_state}),
            (5, {"run_state": "ready", "tasks": _DONE, "pull_requests": ("open",)}),
        ),
    )


_LIVES: dict[str, Callable[[tuple[str, ...], str], Life]] = {
    DEFAULT: lambda _reasons, _state: _default(),
    "forever": lambda _reasons, _state: _forever(),
    "blocked": lambda reasons, _state: _blocked(reasons),
    "archived": lambda _reasons, _state: _archived("archived", "running"),
    "archived_clean": lambda _reasons, _state: _archived("archived_clean", "archived"),
    "task_error": lambda _reasons, _state: _task_error(),
    "start_race": lambda _reasons, _state: _start_race(),
    "pending_wakeups": lambda _reasons, _state: _ready_twice("pending_wakeups", {"pending_wakeups": 1}),
    "waiting_ready": lambda _reasons, _state: _ready_twice("waiting_ready", {"waiting_on": ("ci",)}),
    "several_prs": lambda _reasons, _state: _several_prs(),
    "unknown_state": lambda _reasons, state: _unknown_state(state),
}

NAMES = tuple(_LIVES)
"""Every life that can be asked for."""


def life_named(name: str, *, blocked_on: tuple[str, ...] = ("permission",), run_state: str = "stopping") -> Life:
    """Look a life up.

    Args:
        name: One of ``NAMES``.
        blocked_on: What the life ``blocked`` is blocked on.
        run_state: The value the life ``unknown_state`` passes through.

    Returns:
        The life.

    Raises:
        ValueError: There is no life of that name.
    """
    try:
        build = _LIVES[name]
    except KeyError:
        raise ValueError(f"life: there is no life {name!r}; ask for one of {', '.join(NAMES)}") from None
    return build(blocked_on, run_state)
