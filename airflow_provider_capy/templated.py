"""Reads what users template, in all its spellings: a duration (seconds, text, ``timedelta``) and a thread's id."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from airflow_provider_capy.exceptions import CapyInputError


def as_seconds(name: str, value: float | timedelta | str, *, least: float) -> float:
    """Return a duration in seconds.

    Args:
        name: the argument's name, for the error.
        value: seconds as a number or as text (a rendered template), or a ``timedelta``.
        least: the smallest value that makes sense.

    Raises:
        CapyInputError: when it is no such duration.
    """
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= least):
        raise CapyInputError(f"{name}: {value!r} is not a number of seconds of at least {least:g}, nor a timedelta")
    return seconds


def as_outage(value: float | timedelta | str | None) -> float | None:
    """Return the seconds of an argument ``tolerate_outage``; ``None`` for as long as the wait lasts.

    Raises:
        CapyInputError: when it is no duration.
    """
    return None if value is None else as_seconds("tolerate_outage", value, least=0.0)


def as_thread_id(thread_id: Any) -> str:
    """Return one thread's id, without white space around it, as a template may leave some.

    Raises:
        CapyInputError: when it is none: a list of them, the text that a template makes of nothing, a path.
    """
    from airflow_provider_capy.api.requests import thread_id_in_path

    if not isinstance(thread_id, str):
        raise CapyInputError(
            f"thread_id: {thread_id!r} is not a thread id but a {type(thread_id).__name__}; a sensor waits for one thread, "
            "use .expand(thread_id=…) for several"
        )
    return thread_id_in_path(thread_id.strip())
