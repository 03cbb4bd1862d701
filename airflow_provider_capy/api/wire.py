"""The one door to httpx: how a client is made, how a request is bounded, and httpx's errors in our words."""

from __future__ import annotations

import os
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.request import getproxies

import httpx

from airflow_provider_capy.api.settings import stays_on_this_machine
from airflow_provider_capy.exceptions import (
    CapyCertificateError,
    CapyConnectError,
    CapyInputError,
    CapyNoAnswerError,
    CapyRequestError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.settings import ClientSettings

C = TypeVar("C")

# The first one that is set replaces the public CAs: httpx's own two, then the one that `requests` knows.
CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")

# Monotonic seconds when the request that is under way has to be over; in a context, because connections are shared.
_UNTIL: ContextVar[float] = ContextVar("_UNTIL", default=float("inf"))


def ssl_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Return the SSL context of this process: making one takes 20 ms of CPU and half a megabyte.

    Args:
        ca_file: PEM file of CAs that are believed in addition to the public ones, or to those that the environment
            names: SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE, the first that is set.

    Raises:
        CapyInputError: naming the variable or field, the file, and the fix.
    """
    named = next(((name, path) for name in CA_VARIABLES if (path := os.environ.get(name))), None)
    return _context(named, ca_file)


@lru_cache(maxsize=8)
def _context(named: tuple[str, str] | None, ca_file: str | None) -> ssl.SSLContext:
    if named is None:
        context = httpx.create_ssl_context(trust_env=False)
    else:
        fix = "name a PEM file, or a directory of hashed ones, that this process can read, or unset the variable"
        context = _believing(ssl.create_default_context, *named, fix)
    if ca_file is not None:
        fix = "name a PEM file that exists wherever Airflow runs, in the connection's extra"
        _believing(context.load_verify_locations, "ca_file", ca_file, fix)
    return context


def _believing(load: Callable[..., C], name: str, path: str, fix: str) -> C:
    try:
        directories = all(Path(part).is_dir() for part in path.split(os.pathsep))
        return load(**{"capath" if directories else "cafile": path})
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CapyInputError(f"{name}: {path[:500]!r} cannot be read as CA certificates ({why}); {fix}") from None


def opened(make: Callable[..., C], settings: ClientSettings, **more: Any) -> C:
    """Make an ``httpx.Client`` or an ``httpx.AsyncClient``.

    Redirects are never followed: the token would travel with them. The environment's proxies are used, but never for
    this machine itself, whose ``http://`` is allowed only because nobody else hears it. Nothing compressed is asked
    for: a chunk of 64 KiB can unpack to 64 MiB before anybody counts, and a page of threads is not large.

    Args:
        make: the class.
        settings: where Capy is and how to talk to it.
        **more: other arguments of the class.

    Raises:
        CapyInputError: when the environment or the connection names a proxy or a CA file that cannot be used.
    """
    context = ssl_context(settings.ca_file)
    try:
        return make(
            base_url=settings.base_url,
            headers={
                "Authorization": f"Bearer {settings.token.get_secret_value()}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": settings.user_agent,
            },
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
            follow_redirects=False,
            verify=context,
            trust_env=not stays_on_this_machine(settings.base_url),
            **more,
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        raise _unusable_proxies(context) from None


def _unusable_proxies(context: ssl.SSLContext) -> CapyInputError:
    proxies = getproxies()
    for scheme in ("http", "https", "all"):
        url = proxies.get(scheme, "")
        try:
            if url:
                httpx.HTTPTransport(verify=context, proxy=url if "://" in url else f"http://{url}")
        except (ImportError, ValueError, httpx.InvalidURL):
            # Not the value, nor the original's words: a proxy's URL may carry its password.
            return CapyInputError(
                f"proxy: {scheme.upper()}_PROXY of the environment is no proxy that can be used "
                "(http:// and https:// can; socks5:// needs the package httpx[socks])"
            )
    return CapyInputError(
        f"proxy: NO_PROXY of the environment, {proxies.get('no', '')[:500]!r}, has an entry that cannot be read; "
        "give names, addresses or IPv4 networks, separated by commas (an IPv6 network such as fe80::/10 is none)"
    )


def request_arguments(call: Call[Any], *, traced: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of ``httpx.Client.stream`` for a call.

    Args:
        call: what is asked.
        traced: :func:`bound`, or :func:`abound` for an ``httpx.AsyncClient``.
    """
    arguments: dict[str, Any] = {"method": call.method, "url": call.path, "extensions": {"trace": traced}}
    if call.params:
        arguments["params"] = dict(call.params)
    if call.body is not None:
        arguments["json"] = dict(call.body)
    return arguments


def bound(event: str, info: dict[str, Any]) -> None:
    """Bound every read and write of a new connection by the time of the whole request (httpcore's ``trace``).

    httpx's own timeouts are for one read each: headers that drip in, or a ``102`` every second, would hold a request
    for ever.
    """
    if event.endswith(("connect_tcp.complete", "start_tls.complete")):
        stream = info["return_value"]
        stream.read = _within(stream.read)
        stream.write = _within(stream.write)


async def abound(event: str, info: dict[str, Any]) -> None:
    """See :func:`bound`."""
    bound(event, info)


def _within(step: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(data: Any, timeout: float | None = None) -> Any:
        left = _UNTIL.get() - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout("the whole of it took too long")
        return step(data, timeout=left if timeout is None else min(left, timeout))

    return bounded


@contextmanager
def translated(call: Call[Any], settings: ClientSettings) -> Iterator[None]:
    """Turn httpx's errors into ours, telling apart what never reached Capy from what may have.

    The request within may take one connect and two read timeouts altogether.
    """
    # Never reset: nothing is read but in here, and a coroutine that is only collected ends in another context.
    _UNTIL.set(time.monotonic() + settings.connect_timeout + 2 * settings.read_timeout)
    try:
        yield
    except (
        *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
        *(httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError),
    ) as error:
        raise _never_reached(call, settings, error) from error
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise CapyNoAnswerError(
            f"{call.method} {call.path} was sent and got no complete answer: {_reason(error)}; it may have been processed",
            method=call.method,
            path=call.path,
        ) from error


def _never_reached(call: Call[Any], settings: ClientSettings, error: Exception) -> CapyRequestError:
    url = httpx.URL(settings.base_url)
    where = f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"
    refused = _certificate_problem(error)
    if refused is None:
        kind, why = CapyConnectError, _reason(error)
    else:
        kind = CapyCertificateError
        why = (
            f"its certificate cannot be verified ({refused}); if a proxy of your organisation signs it, name that CA: "
            "ca_file in the connection's extra, or REQUESTS_CA_BUNDLE or SSL_CERT_FILE in the environment"
        )
    return kind(
        f"{call.method} {call.path} never reached Capy at {where}: {why}; nothing was processed",
        method=call.method,
        path=call.path,
    )


def _certificate_problem(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message or str(error)
        error = error.__cause__ or error.__context__
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
