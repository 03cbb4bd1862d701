"""Tells whether what a service says repeats what it was sent: no error may show a prompt or a token."""

from __future__ import annotations

import json
import re

# Letters and digits in a row; fewer of a prompt are words that every message may hold.
_OF_PROMPT = 16
_OF_TOKEN = 8
_NEITHER = re.compile(r"[\W_]+")


def repeats(text: str, *, prompt: str, token: str) -> bool:
    """Say whether a text repeats a piece of the prompt or of the token, whole or cut, escaped or not.

    Takes as long as the prompt is: the text has to be a short one.

    Args:
        text: what was said.
        prompt: the prompt that was sent; may be empty.
        token: the token that was sent, e.g. ``capy_…``.
    """
    plain = _plain(text)
    secret = token.partition("_")[2] or token
    return any(
        _share(plain, _plain(sent), run)
        for sent, run in ((secret, _OF_TOKEN), (prompt, _OF_PROMPT), (json.dumps(prompt), _OF_PROMPT))
    )


def _plain(text: str) -> str:
    return _NEITHER.sub("", text.casefold())


def _share(short: str, long: str, run: int) -> bool:
    pieces = {short[at : at + run] for at in range(len(short) - run + 1)}
    return bool(pieces) and any(long[at : at + run] in pieces for at in range(len(long) - run + 1))
