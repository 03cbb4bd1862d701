"""Requests and replies as plain values, between the HTTP server and everything that decides."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

    from airflow_provider_capy.emulator.contract import Problem

_LONGEST_BODY = 8 * 1024 * 1024
_DEEPEST = 50
_PROBLEMS_IN_MESSAGE = 3


class BadJsonError(ValueError):
    """The body of a request is not JSON."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, read to its end.

    Attributes:
        method: The method, in upper case.
        path: The path, still percent-encoded.
        query: Query parameters in their order, decoded.
        query_string: The same as it was sent.
        headers: Header names in lower case, with their values.
        body: The body.
        client_port: The port the client sent it from; None when it is not known.
        transport: The connection it came on.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    query_string: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    client_port: int | None
    transport: asyncio.Transport | None = None

    def header(self, name: str) -> str | None:
        """Give a header's value; None when it was not sent exactly once."""
        values = [value for key, value in self.headers if key == name]
        return values[0] if len(values) == 1 else None

    def json(self) -> Any:
        """Parse the body.

        Raises:
            BadJsonError: It is not JSON; the message says what is wrong.
        """
        if len(self.body) > _LONGEST_BODY:
            raise BadJsonError(f"is longer than {_LONGEST_BODY} bytes")
        try:
            return parse(self.body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BadJsonError(f"is not UTF-8: {error}") from error


@dataclass(frozen=True)
class Reply:
    """One HTTP answer.

    Attributes:
        status: The status code.
        body: The body.
        content_type: Its media type.
        headers: More headers, names in lower case.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())


def read_query(query_string: str) -> tuple[tuple[str, str], ...]:
    """Decode a query string; bytes that are not UTF-8 become replacement characters."""
    return tuple(parse_qsl(query_string, keep_blank_values=True))


def parse(text: str) -> Any:
    """Parse JSON, strictly.

    Raises:
        BadJsonError: It is not JSON, has numbers that are none, or is nested too deeply to be handled.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    # A number of thousands of digits is a ValueError, thousands of brackets are a RecursionError.
    except (ValueError, RecursionError) as error:
        raise BadJsonError(f"is not JSON: {error}") from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise BadJsonError(f"is nested more than {_DEEPEST} levels deep")


def json_reply(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Answer with JSON; pure ASCII, so that a lone surrogate a client sent cannot break the answer."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode("ascii"), headers=headers)


def failure(
    status: int, code: str, message: str, details: object = None, headers: tuple[tuple[str, str], ...] = ()
) -> Reply:
    """Answer with an error in the contract's shape.

    Args:
        status: The status code.
        code: The machine-readable code.
        message: The sentence for people.
        details: What else there is to say; left out when None.
        headers: More headers.

    Returns:
        The reply.
    """
    error: dict[str, object] = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    return json_reply({"error": error}, status, headers)


def invalid(problems: Sequence[Problem]) -> Reply:
    """Answer 422 with every problem in the details and the first few in the message."""
    told = "; ".join(f"{item.path or 'request'}: {item.message}" for item in problems[:_PROBLEMS_IN_MESSAGE])
    details = [{"path": item.path, "message": item.message} for item in problems]
    return failure(422, "validation_error", told, details)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:50]} is out of range")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
