"""Where Capy is and how to talk to it, checked once, so that no request is made to a place that was not meant."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import httpx

from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.exceptions import CapyInputError

if TYPE_CHECKING:
    from pydantic import SecretStr

DEFAULT_BASE_URL = "https://capy.ai/api"
# Observed, not part of the contract: therefore a template that a connection can replace.
DEFAULT_WEB_URL_TEMPLATE = "https://capy.ai/project/{project_id}/captain/{thread_id}"

_USER_INFO = re.compile(r"(^|//)[^/]*@")
_TRAILING_SLASHES = re.compile(r"(?<![:/])/+\Z|\A/+\Z")
_NOT_IN_URLS = re.compile(r"[\s\\\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Everything a client needs; checked when it is made, so that no client can leak the token.

    Attributes:
        token: API token, ``capy_…``; never shown in a ``repr``.
        base_url: what stands before ``/v1/threads``; see :func:`checked_base_url`.
        connect_timeout: seconds to reach Capy.
        read_timeout: seconds to wait for (more of) an answer; a whole request takes one connect and two read timeouts
            at the most.
        retry: how patient a request is.
        max_answer_bytes: an answer larger than this is refused.
        user_agent: who we say we are.
        allow_http: let ``http://`` reach other hosts than loopback, which shows the token to the network.
        ca_file: PEM file of CAs that are believed in addition to the public ones.

    Raises:
        CapyInputError: for a token or a base URL that cannot be used.
    """

    token: SecretStr
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    retry: RetryLimits = field(default_factory=RetryLimits)
    max_answer_bytes: int = 8 * 1024 * 1024
    user_agent: str = "airflow-provider-capy"
    allow_http: bool = False
    ca_file: str | None = None

    def __post_init__(self) -> None:
        checked_token(self.token.get_secret_value(), field="token")
        url = checked_base_url(self.base_url, allow_http=self.allow_http, field="base_url")
        object.__setattr__(self, "base_url", url)


def checked_token(text: str, *, field: str) -> str:
    """Return a token that a header can carry.

    A line break would let it forge headers, and the errors of an HTTP library would show the whole of it.

    Args:
        text: the token.
        field: what the caller calls it, for the error.

    Raises:
        CapyInputError: naming the field and the fix, never the token.
    """
    if not text:
        raise CapyInputError(f"{field}: is empty; it holds the API token (made at capy.ai/settings/tokens)")
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise CapyInputError(f"{field}: has characters that no API token has (blanks, line breaks, non-ASCII)")
    return text


def checked_base_url(text: str, *, allow_http: bool = False, field: str = "base_url") -> str:
    """Return a base URL that requests may be sent to.

    Args:
        text: with or without scheme; without one it is ``https://``, on loopback ``http://``. ``capy.ai`` without a
            path means ``https://capy.ai/api``.
        allow_http: let ``http://`` reach other hosts than loopback, which shows the token to the network.
        field: what the caller calls it, for the error.

    Raises:
        CapyInputError: naming the field, the host, what is wrong with it and the fix.
    """
    url = _TRAILING_SLASHES.sub("", text.strip()) or DEFAULT_BASE_URL
    # A user, a password or a query may be a token in the wrong place.
    shown = repr(_USER_INFO.sub(r"\1***@", url.partition("?")[0])[:200])
    try:
        if "://" not in url:
            url = f"{'http' if _is_loopback(httpx.URL('http://' + url).host) else 'https'}://{url}"
        # Read by the library that sends, so that what is checked is where the request goes.
        parts = httpx.URL(url)
        known = (
            parts.scheme in {"http", "https"}
            and _is_host(parts.host)
            and (parts.port or 0) < 2**16
            and not _NOT_IN_URLS.search(url)
        )
    except (httpx.InvalidURL, ValueError):
        known = False
    if not known:
        raise CapyInputError(f"{field}: {shown} is not an http(s) URL; give e.g. {DEFAULT_BASE_URL}")
    if parts.userinfo:
        raise CapyInputError(f"{field}: the URL carries a user or a password; put the token into the password field")
    if "?" in url or "#" in url:
        raise CapyInputError(f"{field}: {shown} has a query or a fragment; give the base URL alone")
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.host):
        raise CapyInputError(
            f"{field}: {shown} would send the token unencrypted; use https://, "
            "or set allow_http to true (in the connection's extra) if that is meant"
        )
    # The web pages are there, and answer anything that is asked of them.
    return f"{url}/api" if parts.host == "capy.ai" and parts.path == "/" else url


def stays_on_this_machine(base_url: str) -> bool:
    """Say whether requests to a base URL reach loopback only."""
    return _is_loopback(httpx.URL(base_url).host)


def checked_web_url_template(text: str) -> str:
    """Return a template for a thread's web address.

    Args:
        text: an http(s) URL with ``{thread_id}`` and, where wanted, ``{project_id}``.

    Raises:
        CapyInputError: when it is none.
    """
    template = text.strip() or DEFAULT_WEB_URL_TEMPLATE
    try:
        sample = template.format(project_id="p", thread_id="t")
        known = urlsplit(sample).scheme in {"http", "https"} and "{thread_id}" in template
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        known = False
    if not known:
        raise CapyInputError(
            f"web_url_template: {template!r} is not an http(s) URL with {{thread_id}} and optionally {{project_id}}; "
            f"give e.g. {DEFAULT_WEB_URL_TEMPLATE}"
        )
    return template


def web_url(template: str, *, project_id: str, thread_id: str) -> str:
    """Return the web address of a thread."""
    return template.format(project_id=quote(project_id, safe=""), thread_id=quote(thread_id, safe=""))


def _is_host(host: str) -> bool:
    # Python's own look-up raises a UnicodeError, not an OSError, for labels that no name server knows.
    return all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))


def _is_loopback(host: str) -> bool:
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
