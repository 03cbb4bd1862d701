"""The wire types of Capy's REST API: they read tolerantly, and keep nothing that a database, an event or a log refuses."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from airflow_provider_capy.api.requests import thread_id_in_path
from airflow_provider_capy.api.retry import parse_http_date
from airflow_provider_capy.foreign_text import LARGEST_NUMBER, clean_json, clean_text

if TYPE_CHECKING:
    from pydantic import ModelWrapValidatorHandler
    from typing_extensions import Self

T = TypeVar("T")


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return clean_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _none_is_empty(value: Any) -> Any:
    return [] if value is None else value


def _as_cursor(value: Any) -> Any:
    text = str(value) if isinstance(value, int) else value
    if isinstance(text, str):
        text.encode()  # half a character cannot be sent back
    return text


def _counted(value: Any) -> Any:
    return min(value or 0, LARGEST_NUMBER) if value is None or isinstance(value, (int, float)) else value


# What was a text once may come as a number or an object later: it is kept as the text that stood in the JSON. Every text
# is clean and bounded.
Text = Annotated[str, BeforeValidator(_as_text)]
OptionalText = Annotated[str | None, BeforeValidator(lambda value: value if value is None else _as_text(value))]
Listed = Annotated[list[T], BeforeValidator(_none_is_empty)]
# Neither is read by people: the one goes back to Capy as it came, the other has to fit into the path of a request.
Cursor = Annotated[str | None, BeforeValidator(_as_cursor)]
ThreadId = Annotated[str, AfterValidator(thread_id_in_path)]
Whole = Annotated[int, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]


_LONGEST_DETAILS = 20_000


def parse_timestamp(text: str) -> datetime | None:
    """Read one of Capy's timestamps.

    Args:
        text: what the API sent; ISO 8601 so far, but the contract only promises a string.

    Returns:
        an aware ``datetime`` in UTC, or ``None`` when the text is no date.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


class _Wire(BaseModel):
    # "allow" keeps fields we do not know yet, in `model_extra`, for callers who know them already.
    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        protected_namespaces=(),
        loc_by_alias=False,
    )
    # The fields that decisions rest on: an answer in which one of them cannot be read is refused. Any other field
    # that cannot be read takes its default, because a wait must not end over a colour.
    decisive: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _without_the_unreadable(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            unreadable = {str(item["loc"][0]) for item in error.errors(include_input=False) if item["loc"]}
            if not isinstance(data, dict) or not unreadable or unreadable & cls.decisive:
                raise
            dropped = unreadable | {to_camel(name) for name in unreadable}
            return handler({name: value for name, value in data.items() if name not in dropped})

    def model_post_init(self, _context: Any, /) -> None:
        """Clean what came beside the known fields."""
        if self.__pydantic_extra__:
            object.__setattr__(self, "__pydantic_extra__", clean_json(self.__pydantic_extra__))


class ThreadTask(_Wire):
    """One task of a thread; ``status`` is ``backlog``, ``queued``, ``in_progress``, ``needs_review``, ``completed``, ``error``, ``archived`` or a value that came later."""

    id: Text = ""
    thread_index: Whole | None = None
    identifier: Text = ""
    title: Text = ""
    status: Text = ""


class Participant(_Wire):
    """Somebody who took part in a thread; ``user_type`` is ``human`` or ``service_user``."""

    user_id: Text = ""
    user_type: Text = ""
    first_participated_at: Text = ""
    last_participated_at: Text = ""


class PullRequest(_Wire):
    """A pull request of a thread; ``state`` is a free text (a merged one may read ``closed``)."""

    number: Whole | None = None
    url: Text = ""
    repo_full_name: Text = ""
    state: Text = ""
    head_ref: Text = ""
    base_ref: Text = ""
    draft: bool = False


class SlackThread(_Wire):
    """A Slack thread that a Capy thread reports to."""

    team_id: Text = ""
    channel_id: Text = ""
    thread_ts: Text = ""
    url: Text = ""


class Tag(_Wire):
    """A tag of the organisation."""

    name: Text = ""
    color: Text = ""


class _ThreadCore(_Wire):
    id: ThreadId
    project_id: Text = ""
    title: OptionalText = None
    status: Text = ""
    run_state: Annotated[str, AfterValidator(clean_text)]
    waiting_on: Listed[Text] = []
    blocked_on: Listed[Text] = []
    pending_wakeups: Annotated[Whole, BeforeValidator(_counted)] = 0
    participants: Listed[Participant] = []
    tags: Listed[Tag] = []
    created_at: Text = ""

    _answered: str = PrivateAttr("")

    @property
    def created(self) -> datetime | None:
        """``created_at`` as an aware UTC ``datetime``, or ``None`` when it is no date."""
        return parse_timestamp(self.created_at)

    @property
    def age(self) -> float | None:
        """Seconds from ``created_at`` to the answer's own ``Date``, both by Capy's clock, never below 0; ``None`` when unknown."""
        answered, created = parse_http_date(self._answered), self.created
        return max(0.0, (answered - created).total_seconds()) if answered and created else None

    def model_post_init(self, context: Any, /) -> None:
        """Take the ``Date`` of the answer from the context."""
        super().model_post_init(context)
        self._answered = (context or {}).get("date", "")


class CreatedThread(_ThreadCore):
    """Answer of ``createAndStartThread``: no tasks and no pull requests yet.

    Only the id is taken as truth: a thread that exists must not be lost because another field drifted.
    """

    decisive = frozenset({"id"})

    run_state: Text = ""
    slack: SlackThread | None = None


class Thread(_ThreadCore):
    """Answer of ``getThread`` and an item of ``listThreads``.

    ``run_state`` is ``running``, ``queued``, ``waiting``, ``blocked``, ``ready``, ``archived`` or a value that came
    later; ``status`` (``active``, ``idle``, ``archived``) alone never tells that a thread is done.
    """

    decisive = frozenset({"id", "run_state", "status", "waiting_on", "blocked_on", "pending_wakeups", "tasks"})

    tasks: Listed[ThreadTask] = []
    pull_requests: Listed[PullRequest] = []
    slack_threads: Listed[SlackThread] = []
    updated_at: Text = ""


class ThreadPage(_Wire):
    """Answer of ``listThreads``: one page, and the cursor of the next."""

    # A page without one of its threads, or without its cursor, would make a look-up believe that there is none.
    decisive = frozenset({"items", "next_cursor", "has_more"})

    items: list[Thread]
    next_cursor: Cursor = None
    has_more: bool = False


class StoppedThread(_Wire):
    """Answer of ``stopThread``; the stop is asynchronous, so ``status`` may still be ``active``."""

    id: Text = ""
    status: Text = ""


def _details(value: Any) -> Any:
    clean = clean_json(value)
    text = json.dumps(clean, ensure_ascii=False)
    # They travel with every failed look: what is long is kept as the beginning of its text.
    return clean if len(text) <= _LONGEST_DETAILS else clean_text(text)


class ErrorBody(_Wire):
    """The inside of Capy's ``{"error": …}``; ``code`` is empty where it is not in Capy's style, e.g. ``not_found``."""

    code: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=64)] = ""
    message: Text = ""
    details: Annotated[Any, AfterValidator(_details)] = None


class ErrorAnswer(_Wire):
    """Capy's error answer."""

    decisive = frozenset({"error"})

    error: Annotated[ErrorBody, BeforeValidator(lambda value: {"message": value} if isinstance(value, str) else value)]
