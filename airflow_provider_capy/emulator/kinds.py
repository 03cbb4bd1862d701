"""The kinds of faults that can be asked for, with what each of them takes."""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter

from airflow_provider_capy.emulator.orders import Order, Seconds


class _Fault(Order):
    """What every fault has.

    Attributes:
        operation: The operation it befalls; ``*`` is any.
        times: How often it happens; None is until it is cleared.
        skip: How many of the first matching calls are spared.
        probability: How likely it is on each call that is not spared.
        seed: Makes the probability repeatable.
        match: A part of the prompt or id of the thread (of the query, for lists) the call is about; empty is any.
    """

    operation: Literal["createAndStartThread", "getThread", "listThreads", "stopThread", "*"] = "*"
    times: Annotated[int, Field(ge=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: int | None = None
    match: str = ""


class Status(_Fault):
    """Answer a status instead of processing the call.

    The body is Capy's own error as ``json``, a proxy's page as ``html``, ``empty``, or ``half`` of Capy's own; with 304, which
    has none, it is empty. ``retry_after`` is sent as it is: seconds, or any text. ``retry_after_date`` is seconds from now, sent as an HTTP date.
    """

    kind: Literal["status"]
    status: Annotated[int, Field(ge=300, le=599)] = 503
    body: Literal["json", "html", "empty", "half"] = "json"
    code: str = ""
    message: str = "The emulator was told to answer this"
    retry_after: int | float | Annotated[str, Field(pattern=r"^[ -~]*$")] | None = None
    retry_after_date: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None


class ErrorAfter(_Fault):
    """Process the call, then answer an error all the same."""

    kind: Literal["error_after"]
    status: Annotated[int, Field(ge=500, le=599)] = 500
    body: Literal["json", "html"] = "json"


class Lost(_Fault):
    """Process the call, then close the connection without an answer."""

    kind: Literal["lost"]


class Reset(_Fault):
    """Reset the connection instead of processing the call."""

    kind: Literal["reset"]


class BlackHole(_Fault):
    """Take the request in, neither process nor answer it, and hold the connection until the client ends it."""

    kind: Literal["black_hole"]


class SlowHead(_Fault):
    """Process the call, and send the head of its answer drop by drop for so many seconds before the rest.

    ``every`` is the seconds between two drops. A drop is a header, or with ``interim`` an answer 102 of its own.
    """

    kind: Literal["slow_head"]
    seconds: Seconds
    every: Annotated[float, Field(ge=0.01, le=60)] = 0.2
    interim: bool = False


class Truncate(_Fault):
    """Process the call, send half of the answer's body and reset the connection."""

    kind: Literal["truncate"]


class NotJson(_Fault):
    """Answer 200 with a web page; ``processed`` tells whether the call was processed before."""

    kind: Literal["not_json"]
    processed: bool = True


class Huge(_Fault):
    """Process the call and pad the answer to this size."""

    kind: Literal["huge"]
    megabytes: Annotated[float, Field(gt=0, le=1024)] = 10.0


class Slow(_Fault):
    """Process the call at once, and answer only after this many real seconds."""

    kind: Literal["slow"]
    seconds: Seconds


class SlowBefore(_Fault):
    """Process the call only after this many real seconds."""

    kind: Literal["slow_before"]
    seconds: Seconds


class StopConflict(_Fault):
    """Answer 409 to a stop of a thread that is not running."""

    kind: Literal["stop_conflict"]


class ListLag(_Fault):
    """Leave threads whose prompt or id contains ``match`` out of lists for this many real seconds after their creation."""

    kind: Literal["list_lag"]
    seconds: Seconds


class BestMatch(_Fault):
    """Search as one that shows what comes nearest: ``q`` leaves no thread out."""

    kind: Literal["best_match"]


class Drift(_Fault):
    """Answer as a later version would: fields and values the contract does not know, and a time that is no date."""

    kind: Literal["drift"]


def _object(text: str) -> str:
    # The limits on numbers, names and depth are what this is to get past.
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004  # pydantic turns this one into an answer
    return text


class Distort(_Fault):
    """Change the threads in good answers, and whatever else a good answer is about, as a JSON merge patch (RFC 7396) says.

    ``patch`` is the text of a JSON object. It is not held to the contract, so that it can say what no good answer does: the
    escapes of a NUL or of half a character, ``NaN``, numbers and texts of any size, any type in any place.
    """

    kind: Literal["distort"]
    patch: Annotated[str, AfterValidator(_object)]


class Clock(_Fault):
    """Answer as a Capy whose clock is so many seconds ahead of ours (behind, below 0): ``Date`` and every time in a thread."""

    kind: Literal["clock"]
    seconds: Annotated[float, Field(ge=-1e9, le=1e9)]


# At most one of these befalls a call, in the order they were asked for; all of the others that are due do.
Outcome: TypeAlias = Status | ErrorAfter | Lost | Reset | BlackHole | Truncate | SlowHead | NotJson | Huge
Fault: TypeAlias = Annotated[
    Outcome | Slow | SlowBefore | StopConflict | ListLag | BestMatch | Drift | Distort | Clock,
    Field(discriminator="kind"),
]
FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)
"""Reads a fault from JSON."""
