"""Reads the spellings of a duration that users template: seconds, text, ``timedelta``."""

from __future__ import annotations

import math
from datetime import timedelta


def as_seconds(name: str, value: float | timedelta | str, *, least: float) -> float:
    """Return a duration in seconds.

    Args:
        name: the argument's name, for the error.
        value: seconds as a number or as text (a rendered template), or a ``timedelta``.
        least: the smallest value that makes sense.

    Raises:
        CapyInputError: when it is no such duration.
    """
    from airflow_provider_capy.exceptions import CapyInputError

    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= least):
        raise CapyInputError(f"{name}: {value!r} is not a number of seconds of at least {least:g}, nor a timedelta")
    return seconds
