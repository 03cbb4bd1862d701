"""From a call to an httpx request, and from httpx's errors to ours: what both clients share when they send."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_capy.api.settings import stays_on_this_machine
from airflow_provider_capy.exceptions import CapyConnectError, CapyInputError, CapyNoAnswerError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.settings import ClientSettings

C = TypeVar("C")


@lru_cache(maxsize=1)
def ssl_context() -> ssl.SSLContext:
    """Return the process's one SSL context: making one takes 20 ms of CPU and half a megabyte."""
    return httpx.create_ssl_context()


def opened(make: Callable[..., C], settings: ClientSettings, **more: Any) -> C:
    """Make an ``httpx.Client`` or an ``httpx.AsyncClient``.

    Redirects are never followed: the token would travel with them. The environment's proxies are used, but never for
    this machine itself, whose ``http://`` is allowed only because nobody else hears it. Only gzip is asked for: it is
    what :class:`~airflow_provider_capy.api.answers.Answer` can unpack within bounds.

    Args:
        make: the class.
        settings: where Capy is and how to talk to it.
        **more: other arguments of the class.

    Raises:
        CapyInputError: when the environment names a proxy that cannot be used.
    """
    try:
        return make(
            base_url=settings.base_url,
            headers={
                "Authorization": f"Bearer {settings.token.get_secret_value()}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": settings.user_agent,
            },
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
            follow_redirects=False,
            verify=ssl_context(),
            trust_env=not stays_on_this_machine(settings.base_url),
            **more,
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        # Not the original's words: a proxy's URL may carry its password.
        raise CapyInputError(
            "proxy: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY of the environment is no proxy that can be used "
            "(http:// and https:// can; socks5:// needs the package httpx[socks])"
        ) from None


def request_arguments(call: Call[Any]) -> dict[str, Any]:
    """Return the arguments of ``httpx.Client.stream`` for a call."""
    arguments: dict[str, Any] = {"method": call.method, "url": call.path}
    if call.params:
        arguments["params"] = dict(call.params)
    if call.body is not None:
        arguments["json"] = dict(call.body)
    return arguments


@contextmanager
def translated(call: Call[Any]) -> Iterator[None]:
    """Turn httpx's errors into ours, telling apart what never reached Capy from what may have."""
    method, path = call.method, call.path
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise CapyConnectError(
            f"{method} {path} never reached Capy: {_reason(error)}; nothing was processed", method=method, path=path
        ) from error
    except httpx.TransportError as error:
        raise CapyNoAnswerError(
            f"{method} {path} was sent and got no complete answer: {_reason(error)}; it may have been processed",
            method=method,
            path=path,
        ) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
