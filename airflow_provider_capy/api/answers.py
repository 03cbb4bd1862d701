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

from airflow_provider_capy.api.models import ErrorAnswer
from airflow_provider_capy.api.retry import parse_retry_after
from airflow_provider_capy.api.scrubbing import scrubbed
from airflow_provider_capy.exceptions import CapyAPIError, CapyNoAnswerError, CapyResponseError, api_error_class

if TYPE_CHECKING:
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.settings import ClientSettings

T = TypeVar("T")

_HINTS = {
    401: "check the token in the connection's password; tokens are made at capy.ai/settings/tokens",
    403: "the token is valid but may not do this; check its organisation and project",
    404: "check the id, that the token's organisation owns it, and that the connection's host is the API's base URL",
}
_DETAILS_SHOWN = 1000
_MESSAGE_SHOWN = 2000
_WITH_GZIP_HEADER = zlib.MAX_WBITS | 16


class Answer(Generic[T]):
    """One answer: takes its body in up to a size and a time, then reads it.

    Of a refusal the status says enough: when its body is too large, too slow or broken off, the rest is let go.

    Args:
        call: what was asked.
        settings: the bounds, and the token that no error may show.
        response: the answer's status and headers.
        started: monotonic seconds when the call was sent; it may take one connect and two read timeouts from there.
    """

    def __init__(self, call: Call[T], settings: ClientSettings, response: httpx.Response, started: float) -> None:
        self._call = call
        self._settings = settings
        self._status = response.status_code
        self._headers = response.headers
        self._until = started + settings.connect_timeout + 2 * settings.read_timeout
        self._encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._unzip = zlib.decompressobj(_WITH_GZIP_HEADER)
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def _good(self) -> bool:
        return 200 <= self._status < 300

    def receiving(self) -> AbstractContextManager[None]:
        """Return the context to receive the body in."""
        return nullcontext() if self._good else suppress(httpx.TransportError, CapyResponseError, CapyNoAnswerError)

    def take(self, chunk: bytes, now: float) -> None:
        """Add a chunk as it came over the wire.

        Raises:
            CapyResponseError: beyond the size, or when it cannot be decompressed.
            CapyNoAnswerError: when the body drips in too slowly.
        """
        if now > self._until:
            raise CapyNoAnswerError(
                f"{self._name}: the answer came too slowly to be read to its end; it may have been processed",
                method=self._call.method,
                path=self._call.path,
            )
        chunk = self._decoded(chunk)
        self._size += len(chunk)
        if self._size > self._settings.max_answer_bytes:
            raise self._unreadable(f"the answer is larger than {self._settings.max_answer_bytes} bytes; refused")
        self._chunks.append(chunk)

    def _decoded(self, chunk: bytes) -> bytes:
        if self._encoding in {"", "identity"}:
            return chunk
        if self._encoding != "gzip":
            raise self._unreadable(f"the answer is encoded as {self._encoding[:40]!r}, which was not asked for")
        try:
            # One byte more than there is room for: enough to see that it is too much, whatever it would expand to.
            return self._unzip.decompress(chunk, self._settings.max_answer_bytes - self._size + 1)
        except zlib.error as error:
            raise self._unreadable(f"the answer cannot be decompressed ({error})") from None

    def concluded(self) -> T:
        """Read the answer.

        Returns:
            the call's response model.

        Raises:
            CapyAPIError: the subclass for the status; shows Capy's message and details.
            CapyResponseError: a redirect, or a success that cannot be read.
        """
        body = b"".join(self._chunks)
        if self._good:
            return self._read(body)
        if self._status < 400:
            target = scrubbed(self._headers.get("location", "nowhere"), self._secrets)
            raise self._unreadable(
                f"Capy answered {self._status}, a redirect to {target[:200]!r}, which is not followed because the "
                "token would travel with it; point the connection's host at the right base URL"
            )
        raise self._refusal(body)

    @property
    def _name(self) -> str:
        return f"{self._call.method} {self._call.path}"

    @property
    def _secrets(self) -> tuple[str, ...]:
        return self._settings.token.get_secret_value(), (self._call.body or {}).get("prompt", "")

    def _unreadable(self, why: str) -> CapyResponseError:
        return CapyResponseError(
            f"{self._name}: {why}", method=self._call.method, path=self._call.path, status_code=self._status
        )

    def _read(self, body: bytes) -> T:
        adapter: TypeAdapter[T] = _adapter(self._call.response)  # type: ignore[arg-type]  # a class is hashable
        try:
            try:
                return adapter.validate_json(body)
            except ValidationError as error:
                if error.errors(include_url=False, include_input=False)[0]["type"] != "json_invalid":
                    raise
                # A title cut in the middle of an emoji arrives as a lone surrogate, which the strict parser refuses.
                return adapter.validate_python(_without_surrogates(json.loads(body)))
        except (ValidationError, ValueError, RecursionError) as error:
            raise self._unreadable(f"the answer ({self._status}) is not {_expected(body, error)}") from None

    def _refusal(self, body: bytes) -> CapyAPIError:
        code, message, details = scrubbed(_error_body(body), self._secrets)
        text = f"{self._name}: Capy answered {self._status}"
        text += f" {code}: {_cut(message, _MESSAGE_SHOWN)}" if code or message else " without saying why"
        if details is not None:
            text += f" {_cut(json.dumps(details, ensure_ascii=False), _DETAILS_SHOWN)}"
        if hint := _HINTS.get(self._status):
            text += f" ({hint})"
        return api_error_class(self._status)(
            text,
            method=self._call.method,
            path=self._call.path,
            status_code=self._status,
            code=code,
            details=details,
            retry_after=parse_retry_after(self._headers.get("retry-after"), datetime.now(timezone.utc)),
        )


def _expected(body: bytes, error: Exception) -> str:
    if isinstance(error, ValidationError):
        fields = sorted({".".join(str(part) for part in item["loc"]) or "the whole" for item in error.errors()})
        return f"of the expected shape: {', '.join(fields[:5])}"
    return f"JSON ({len(body)} bytes); is the connection's host the API and not a web page or a proxy?"


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


@lru_cache(maxsize=16)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _error_body(body: bytes) -> tuple[str, str, Any]:
    try:
        error = ErrorAnswer.model_validate(_without_surrogates(json.loads(body))).error
    except (ValueError, RecursionError):
        return "", "", None
    return error.code, error.message, error.details


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
