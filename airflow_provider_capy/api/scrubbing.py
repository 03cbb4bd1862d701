"""Takes what must not be shown out of what Capy says: a service may echo what it was sent, the prompt included."""

from __future__ import annotations

import json
from typing import Any, TypeVar

T = TypeVar("T")

HIDDEN = "***"
# An echo is often cut short: this much of a secret's beginning is taken for the secret.
_HEAD = 24
# Shorter secrets are words that every message may hold; they are hidden only where they stand alone.
_TELLING = 8


def scrubbed(value: T, secrets: tuple[str, ...]) -> T:
    """Return a JSON value, or a tuple of them, without secrets.

    Args:
        value: what came from outside.
        secrets: texts that may not be shown; every echo of one, also a cut or JSON-escaped one, becomes ``***``.
    """
    return _walk(value, [spelling for secret in secrets for spelling in _spellings(secret)])  # type: ignore[no-any-return]


def _walk(value: Any, spellings: list[str]) -> Any:
    if isinstance(value, str):
        return _without(value, spellings)
    if isinstance(value, (list, tuple)):
        return type(value)(_walk(item, spellings) for item in value)
    if isinstance(value, dict):
        return {_walk(key, spellings): _walk(item, spellings) for key, item in value.items()}
    return value


def _spellings(secret: str) -> set[str]:
    plain = secret.strip()
    if not plain:
        return set()
    return {plain, json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1], repr(plain)[1:-1]}


def _without(text: str, spellings: list[str]) -> str:
    if text.strip() in spellings:
        return text.replace(text.strip(), HIDDEN)
    parts, at = [], 0
    while found := _next_echo(text, at, spellings):
        start, end = found
        parts += [text[at:start], HIDDEN]
        at = end
    return "".join([*parts, text[at:]])


def _next_echo(text: str, at: int, spellings: list[str]) -> tuple[int, int] | None:
    # The spellings of one secret often begin alike: at each place, the one that reaches farthest counts.
    echoes = [
        (start, start + _in_common(text, start, spelling))
        for spelling in spellings
        if len(spelling) >= _TELLING and (start := text.find(spelling[:_HEAD], at)) >= 0
    ]
    return min(echoes, key=lambda echo: (echo[0], -echo[1]), default=None)


def _in_common(text: str, start: int, spelling: str) -> int:
    length = 0
    while length < len(spelling) and text[start + length : start + length + 1] == spelling[length]:
        length += 1
    return length
