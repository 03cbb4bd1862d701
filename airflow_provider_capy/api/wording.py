"""Says what is wrong with an argument in words that name the field, the value and the fix, and never the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_SECRET_FIELDS = frozenset({"prompt"})
_LONGEST_SHOWN = 100

# pydantic's own words speak of inputs and instances; these name what is wrong with the argument and the fix.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of this request; check its spelling",
    "string_type": "is not text",
    "list_type": "is not a list; put a single one into [ ]",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "greater_than": "is not above {gt:g}",
    "greater_than_equal": "is below {ge}, the least that is taken",
    "less_than_equal": "is not {le:.17g} or less, the most that is taken",
    "too_long": "has {actual_length} entries, Capy takes {max_length} at the most",
}


_EXAMPLES = {
    "Repo": "{'repo_full_name': 'owner/name', 'branch': 'main'}",
    "Reasoning": "{'mode': 'high'}",
    "Slack": "{'channel': 'C0123456789'}",
}


def explained(error: ValidationError) -> str:
    """Name every field that is wrong, its value unless it may be the prompt, and the fix."""
    lines = []
    for item in error.errors(include_url=False):
        location = item["loc"]
        words = _words(item["type"], item["msg"], item.get("ctx", {}))
        if not location:
            lines.append(words)
            continue
        # The value of an unknown field may be the prompt under a misspelt name.
        hidden = location[0] in _SECRET_FIELDS or item["type"] in {"missing", "extra_forbidden"}
        name = ".".join(str(part) for part in location)
        lines.append(f"{name}: {words}" if hidden else f"{name}: {shown(item['input'])} {words}")
    return "; ".join(lines)


def _words(kind: str, message: str, context: dict[str, Any]) -> str:
    if kind == "model_type":
        return f"is not an object such as {_EXAMPLES[context['class_name']]}"
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    return message.removeprefix("Value error, ")


def shown(value: Any) -> str:
    """Return a value's ``repr``, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
