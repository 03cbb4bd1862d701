"""From the bytes of an answer to a model or an error, within bounds: an answer can be huge, slow, or not Capy's."""

from __future__ import annotations

import json
import zlib
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from airflow_provider_capy.api.echoes import repeats
from airflow_provider_capy.api.models import ErrorAnswer, ErrorBody
from airflow_provider_capy.api.retry import parse_retry_after
from airflow_provider_capy.exceptions import CapyAPIError, CapyResponseError, api_error_class
from airflow_provider_capy.foreign_text import clean_text

if TYPE_CHECKING:
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.settings import ClientSettings

T = TypeVar("T")

_HINTS = {
    401: "check the token in the connection's password; tokens are made at capy.ai/settings/tokens",
    403: "the token is valid but may not do this; check its organisation and project",
    404: "check the id, that the token's organisation owns it, and that the connection's host is the API's base URL",
}
# Short enough that whoever adds what became of the thread stays below the longest message of an error.
_DETAILS_SHOWN = 500
_MESSAGE_SHOWN = 1000
_WITHHELD = "(its words are withheld: they repeat what was sent)"
_LONGEST_WHOLE = 20
# Reads what the strict parser refuses: control characters, half characters, NaN, numbers of any length.
_LENIENT = json.JSONDecoder(
    strict=False,
    parse_int=lambda digits: int(digits) if len(digits) < _LONGEST_WHOLE else None,
    parse_constant=lambda _: None,
    # Names as well: a field that nobody knows is not worth a wait.
    object_pairs_hook=lambda pairs: {clean_text(name): value for name, value in pairs},
)


class Answer(Generic[T]):
    """One answer: takes its body in up to a size, then reads it.

    Of a refusal the status says enough: when its body is too large, too slow or broken off, the rest is let go.

    Args:
        call: what was asked.
        settings: the bounds, and the token that no error may show.
        response: the answer's status and headers.
    """

    def __init__(self, call: Call[T], settings: ClientSettings, response: httpx.Response) -> None:
        self._call = call
        self._settings = settings
        self._status = response.status_code
        self._headers = response.headers
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def _good(self) -> bool:
        return 200 <= self._status < 300

    def receiving(self) -> AbstractContextManager[None]:
        """Return the context to receive the body in."""
        return nullcontext() if self._good else suppress(httpx.TransportError, OSError, CapyResponseError)

    def take(self, chunk: bytes) -> None:
        """Add a chunk as it came over the wire.

        Raises:
            CapyResponseError: beyond the size.
        """
        self._size += len(chunk)
        if self._size > self._settings.max_answer_bytes:
            raise self._too_large()
        self._chunks.append(chunk)

    def _too_large(self) -> CapyResponseError:
        return self._unreadable(f"the answer is larger than {self._settings.max_answer_bytes} bytes; refused")

    def _body(self) -> bytes:
        """Return the body, unpacked where a proxy has packed it unasked.

        httpx would unpack each chunk without a bound, and keep what comes behind the end.
        """
        body = b"".join(self._chunks)
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if encoding in {"", "identity"}:
            return body
        if encoding not in {"gzip", "x-gzip"}:
            raise self._unreadable(f"the answer is encoded as {clean_text(encoding, 40)!r}, which was not asked for")
        try:
            body = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, self._settings.max_answer_bytes + 1)
        except zlib.error as error:
            raise self._unreadable(f"the answer cannot be unpacked ({error})") from None
        if len(body) > self._settings.max_answer_bytes:
            raise self._too_large()
        return body

    def concluded(self) -> T:
        """Read the answer.

        Returns:
            the call's response model.

        Raises:
            CapyAPIError: the subclass for the status; shows Capy's message and details.
            CapyResponseError: a redirect, a success that cannot be read, or a 4xx that is not Capy's.
        """
        if self._good:
            return self._read(self._body())
        if self._status < 400:
            target = clean_text(self._headers.get("location", "nowhere"), 200)
            target = _WITHHELD if self._echoes(target) else repr(target)
            raise self._unreadable(
                f"answered {self._status}, a redirect to {target}, which is not followed because the "
                "token would travel with it; point the connection's host at the right base URL"
            )
        body = b""
        with suppress(CapyResponseError):
            body = self._body()
        raise self._refusal(_error_body(body))

    @property
    def _name(self) -> str:
        return f"{self._call.method} {self._call.path}"

    def _echoes(self, text: str) -> bool:
        prompt = (self._call.body or {}).get("prompt", "")
        return repeats(text, prompt=prompt, token=self._settings.token.get_secret_value())

    def _unreadable(self, why: str) -> CapyResponseError:
        return CapyResponseError(
            f"{self._name}: {why}", method=self._call.method, path=self._call.path, status_code=self._status
        )

    def _read(self, body: bytes) -> T:
        adapter: TypeAdapter[T] = _adapter(self._call.response)  # type: ignore[arg-type]  # a class is hashable
        context = {"date": self._headers.get("date", "")}
        try:
            try:
                model = adapter.validate_json(body, context=context)
            except ValidationError as error:
                if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
                    raise
                # A title cut in the middle of an emoji arrives as a lone surrogate, which the strict parser refuses.
                model = adapter.validate_python(_leniently(body), context=context)
        except (ValidationError, ValueError, RecursionError) as error:
            raise self._unreadable(f"the answer ({self._status}) is not {_expected(body, error)}") from None
        about = self._call.thread_id and getattr(model, "id", "")
        if about and about != self._call.thread_id:
            raise self._unreadable(f"the answer is about another thread, {about[:100]!r}: does a proxy keep answers?")
        return model

    def _refusal(self, said: ErrorBody) -> CapyAPIError | CapyResponseError:
        if self._status < 500 and self._status != 429 and not said.code:
            return self._unreadable(
                f"answered {self._status} without Capy's error body: a proxy or load balancer before Capy said it, "
                "or the connection's host is not the API's base URL"
            )
        words, details = said.message, said.details
        more = "" if details is None else json.dumps(details, ensure_ascii=False)
        if self._echoes(f"{words} {more}"):
            words, details, more = _WITHHELD, None, ""
        shown = f"{clean_text(words, _MESSAGE_SHOWN)} {clean_text(more, _DETAILS_SHOWN)}".strip()
        text = f"{self._name}: Capy answered {self._status}"
        text += f" {': '.join(filter(None, (said.code, shown)))}" if said.code or shown else " without saying why"
        if hint := _HINTS.get(self._status):
            text += f" ({hint})"
        return api_error_class(self._status)(
            text,
            method=self._call.method,
            path=self._call.path,
            status_code=self._status,
            code=said.code,
            details=details,
            retry_after=parse_retry_after(self._headers.get("retry-after"), datetime.now(timezone.utc)),
        )


def _expected(body: bytes, error: Exception) -> str:
    if isinstance(error, ValidationError):
        fields = sorted({".".join(str(part) for part in item["loc"]) or "the whole" for item in error.errors()})
        return f"of the expected shape: {', '.join(fields[:5])}"
    return f"JSON ({len(body)} bytes); is the connection's host the API and not a web page or a proxy?"


def _leniently(body: bytes) -> Any:
    return _LENIENT.decode(body.decode("utf-8-sig", "replace"))


@lru_cache(maxsize=16)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _error_body(body: bytes) -> ErrorBody:
    try:
        return ErrorAnswer.model_validate(_leniently(body)).error
    except (ValueError, RecursionError):
        return ErrorBody()
