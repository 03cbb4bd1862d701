"""The one gate for what comes from outside: behind it a database, an event, an error and a log take everything."""

from __future__ import annotations

import re
from typing import Any

# What nobody reads to its end is cut: Airflow keeps XComs and events in rows of its database.
LONGEST_TEXT = 2000
MOST_ITEMS = 100
DEEPEST = 8
MOST_VALUES = 2000
# Beyond this a number is not the same to every reader of JSON, and Airflow's own messages refuse it from 2**64 on.
LARGEST_NUMBER = 2**53 - 1

REPLACEMENT = "\ufffd"
_CUT = "…"
# PostgreSQL's jsonb refuses NUL, UTF-8 has no half characters, and a terminal obeys the other control characters.
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def clean_text(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text that every reader takes: refused characters become U+FFFD, and what is too long is cut.

    Args:
        text: any text.
        longest: characters that are kept at the most; a text that is cut ends in ``…``.
    """
    if len(text) > longest:
        text = text[: longest - len(_CUT)] + _CUT
    if not _REFUSED.search(text):
        return text
    if _HALF_CHARACTER.search(text):
        # Two halves that belong together are one character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _REFUSED.sub(REPLACEMENT, text)


def clean_json(value: Any, *, longest: int = LONGEST_TEXT, most: int = MOST_ITEMS) -> Any:
    """Return a JSON value that PostgreSQL's ``jsonb``, Airflow's messages and every log take.

    Texts are cleaned, numbers that are not finite or beyond 2**53 become ``None``, what is no JSON becomes its text, and
    what is too much is left out: items beyond ``most``, levels below :data:`DEEPEST`, values beyond
    :data:`MOST_VALUES`.

    Args:
        value: any value.
        longest: characters of each text, see :func:`clean_text`.
        most: items of each list and object.
    """
    return _Cleaning(longest, most).clean(value, DEEPEST)


class _Cleaning:
    def __init__(self, longest: int, most: int) -> None:
        self._longest = longest
        self._most = most
        self._left = MOST_VALUES

    def clean(self, value: Any, levels: int) -> Any:
        self._left -= 1
        if self._left < 0:
            return None
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            # Also of a NaN, which is not below anything.
            return value if abs(value) <= LARGEST_NUMBER else None
        if isinstance(value, dict) and levels:
            some = list(value.items())[: self._most]
            return {self._text(key): self.clean(item, levels - 1) for key, item in some}
        if isinstance(value, (list, tuple)) and levels:
            return [self.clean(item, levels - 1) for item in value[: self._most]]
        return _CUT if isinstance(value, (dict, list, tuple)) else self._text(value)

    def _text(self, value: Any) -> str:
        return clean_text(value if isinstance(value, str) else str(value), self._longest)
