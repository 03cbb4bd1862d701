"""What we send to Capy: strict, so that what is sure to be refused is refused before it costs a request."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from airflow_provider_capy.api.wording import explained, shown
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.templated import digits, not_text

_EMAIL = re.compile(
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}\Z"
)
_TAG = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}\Z")
_INVESTIGATION = re.compile(r"^rel_[a-f0-9]{40}\Z")
NOTHING = frozenset({"None", "none", "null"})
_THREAD_ID = re.compile(r"^(?!\.+\Z)[A-Za-z0-9._~-]{1,256}\Z")
_WEB_ADDRESS = re.compile(r"^https?://[^/?#\s]+/(?:[^?#\s]*/)?([^/?#\s]+)/?(?:[?#]\S*)?\Z", re.IGNORECASE)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_MAX_SAFE_INTEGER = 2**53 - 1


def _text(value: Any) -> Any:
    value = digits(value)
    if not isinstance(value, str):
        raise ValueError(not_text(value))  # noqa: TRY004 - pydantic reports ValueError only
    # pydantic would take half a surrogate pair for a character; no JSON can carry that.
    if _HALF_CHARACTER.search(value):
        raise ValueError("holds half of a character (a lone surrogate), which cannot be sent; cut it elsewhere")
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is not a whole number")  # noqa: TRY004 - pydantic reports ValueError only
    return value


def _email(value: str) -> str:
    if not _EMAIL.match(value):
        raise ValueError("is not an e-mail address that Capy accepts, e.g. ada@example.com")
    return value


def _tag(value: str) -> str:
    if not _TAG.match(value):
        raise ValueError("is no tag: 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or a digit")
    return value


def _investigation(value: str) -> str:
    if not _INVESTIGATION.match(value):
        raise ValueError("is no reliability investigation: 'rel_' and 40 of 0-9, a-f")
    return value


def _prompt(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty: say what the agent is to do (a template may have rendered to nothing)")
    return value


def _absolute_url(value: str) -> str:
    try:
        absolute = bool(urlsplit(value).scheme)
    except ValueError:
        absolute = False
    if not absolute:
        raise ValueError("is no absolute URL, e.g. https://example.com/trace.log")
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _as_object(key: str) -> BeforeValidator:
    """Let ``"high"`` stand for ``{"mode": "high"}`` and the like."""
    return BeforeValidator(lambda value: {key: value} if isinstance(digits(value), str) else value)


Text = Annotated[str, BeforeValidator(_text)]
Email = Annotated[Text, AfterValidator(_email)]
Filled = Annotated[Text, AfterValidator(_filled)]
Whole = Annotated[int, BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        loc_by_alias=False,
    )

    def wire(self) -> dict[str, Any]:
        """Return what goes over the wire: the API's spelling, and only what was given."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Repo(_Request):
    """A repository and the branch that the agent starts from; Capy wants both."""

    repo_full_name: Filled
    branch: Filled


class Reasoning(_Request):
    """How hard a model thinks; ``mode`` is any text that Capy knows."""

    mode: Filled


class Slack(_Request):
    """Where Capy reports in Slack."""

    channel: Filled


class CreateThreadBody(_Request):
    """Body of ``createAndStartThread``.

    ``model``, ``speed`` and the reasoning modes are free text on purpose: Capy's lists change often, and its 422 is
    the authority.
    """

    project_id: Filled
    # Not in the repr, which ends in logs.
    prompt: Annotated[Text, AfterValidator(_prompt)] = Field(repr=False)
    impersonate_user_email: Email | None = None
    model: Filled | None = None
    speed: Filled | None = None
    reasoning: Annotated[Reasoning | None, _as_object("mode")] = None
    build_model: Filled | None = None
    build_speed: Filled | None = None
    build_reasoning: Annotated[Reasoning | None, _as_object("mode")] = None
    repos: list[Repo] | None = None
    browser_snapshot_ids: list[Text] | None = None
    attachment_urls: list[Annotated[Text, AfterValidator(_absolute_url)]] | None = None
    tags: Annotated[list[Annotated[Text, AfterValidator(_tag)]] | None, Field(max_length=20)] = None
    slack: Annotated[Slack | None, _as_object("channel")] = None
    reliability_investigation_id: Annotated[Text, AfterValidator(_investigation)] | None = None


class ListThreadsQuery(_Request):
    """Query of ``listThreads``; ``status``, ``origin`` and ``pr_state`` are free text, Capy's 422 is the authority."""

    project_id: Filled
    limit: Annotated[Whole, Field(ge=1, le=100)] | None = None
    cursor: Text | None = None
    status: Filled | None = None
    pr_number: Annotated[Whole, Field(ge=-_MAX_SAFE_INTEGER, le=_MAX_SAFE_INTEGER)] | None = None
    branch: Text | None = None
    slack_thread_ts: Text | None = None
    author_id: Filled | None = None
    author_email: Email | None = None
    participant_id: Filled | None = None
    participant_email: Email | None = None
    origin: Filled | None = None
    pr_state: Filled | None = None
    tag: Filled | None = None
    slack_channel_id: Filled | None = None
    q: Text | None = None

    @model_validator(mode="after")
    def _exclusive(self) -> ListThreadsQuery:
        for one, other in (("author_id", "author_email"), ("participant_id", "participant_email")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} exclude each other: give one of them")
        return self


M = TypeVar("M", bound=_Request)


def checked(model: type[M], /, **values: Any) -> M:
    """Build a request model.

    Args:
        model: the request model.
        **values: its fields; ``None`` means "not given".

    Raises:
        CapyInputError: naming every field that is sure to be refused, its value (never the prompt) and the fix.
    """
    try:
        return model(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        # `from None`: the original carries the input, which may be the prompt.
        raise CapyInputError(explained(error)) from None


def id_in(text: str) -> str:
    """Return the last segment of a web address, which is the id of the thread that it shows; any other text as it is."""
    address = _WEB_ADDRESS.match(text)
    return address[1] if address else text


def thread_id_in_path(thread_id: str) -> str:
    """Return the id, also from a thread's web address, when it is safe inside a path.

    An id with ``/``, ``?``, ``#``, ``%`` or only dots could reach another endpoint, even percent-encoded, when a
    proxy on the way decodes it: such an id is refused instead of quoted.

    Raises:
        CapyInputError: when it is not a thread id.
    """
    # A template that finds nothing renders to the text "None", which would be asked for like any other id.
    found = digits(thread_id)
    if isinstance(found, str):
        found = id_in(found)
    if not isinstance(found, str) or not _THREAD_ID.match(found) or found in NOTHING:
        raise CapyInputError(
            f"thread_id: {shown(thread_id)} is not a thread id: letters, digits, '.', '_', '~' and '-' only, e.g. 'jam_123', or its "
            "web address. Did a template render to nothing, or to a list?"
        )
    return found
