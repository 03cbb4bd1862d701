"""When a request is sent again, and after how long: pure decisions, and one tenacity policy for sync and async."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, retry_if_exception

from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyCertificateError,
    CapyConnectError,
    CapyNoAnswerError,
    CapyRateLimitError,
    CapyServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds: who asks for more than a day makes a mistake.
RETRY_AFTER_CAP = 86400.0


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How patient one request is.

    Attributes:
        attempts: how often it is sent at the most, the first time included.
        total: seconds after which it is not sent again; when a ``Retry-After`` reaches beyond, the error comes at once.
        base: seconds; the wait before attempt n+1 is drawn evenly from 0 to ``base * 2**(n-1)`` (full jitter).
        cap: seconds; upper bound of that range.
    """

    attempts: int = 4
    total: float = 60.0
    base: float = 0.5
    cap: float = 8.0


NO_RETRIES = RetryLimits(attempts=1)


def may_send_again(error: BaseException, *, safe_to_retry: bool) -> bool:
    """Say whether a request that ended in ``error`` may be sent again.

    Args:
        error: what the request raised.
        safe_to_retry: the call's own word; ``False`` for the create.

    Returns:
        ``True`` for what was surely not processed (no connection, 429), and, where sending twice does no harm, also
        for what may have been (no answer, 5xx); never where the certificate is refused, which is so a second later.
    """
    if isinstance(error, CapyCertificateError):
        return False
    if isinstance(error, (CapyConnectError, CapyRateLimitError)):
        return True
    return safe_to_retry and isinstance(error, (CapyNoAnswerError, CapyServerError))


def parse_retry_after(header: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header.

    Args:
        header: seconds (``"7"``, ``"1.5"``) or an HTTP date.
        now: aware UTC time to count a date from.

    Returns:
        seconds from ``now``, between 0 and :data:`RETRY_AFTER_CAP`; ``None`` when there is none or it cannot be read.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        moment = parse_http_date(header)
        if moment is None:
            return None
        seconds = (moment - now).total_seconds()
    if seconds != seconds:  # noqa: PLR0124 - NaN is the one number that differs from itself
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def parse_http_date(header: str) -> datetime | None:
    """Return an HTTP date as an aware ``datetime``, or ``None`` when it is none."""
    try:
        moment = parsedate_to_datetime(header)
        return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return None


def wait_before(attempt: int, error: BaseException | None, limits: RetryLimits, draw: Callable[[], float]) -> float:
    """Say how many seconds to wait before the next attempt.

    Args:
        attempt: how many attempts were made, 1 or more.
        error: what the last one raised.
        limits: base and cap of the backoff.
        draw: gives a number in [0, 1), e.g. ``random.random``.
    """
    backoff = draw() * min(limits.cap, limits.base * 2.0 ** min(attempt - 1, 32))
    if isinstance(error, CapyAPIError) and error.retry_after is not None:
        # A little above what was asked, and never together with the neighbours who were told the same.
        return error.retry_after + min(backoff, 1.0)
    return backoff


def policy(limits: RetryLimits, *, safe_to_retry: bool, draw: Callable[[], float] = random.random) -> dict[str, Any]:
    """Return the keyword arguments that ``tenacity.Retrying`` and ``tenacity.AsyncRetrying`` share."""

    def wait(state: RetryCallState) -> float:
        return wait_before(state.attempt_number, _error_of(state), limits, draw)

    def stop(state: RetryCallState) -> bool:
        elapsed = state.seconds_since_start or 0.0
        return state.attempt_number >= limits.attempts or elapsed + state.upcoming_sleep > limits.total

    return {
        "retry": retry_if_exception(lambda error: may_send_again(error, safe_to_retry=safe_to_retry)),
        "wait": wait,
        "stop": stop,
        "reraise": True,
    }


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
