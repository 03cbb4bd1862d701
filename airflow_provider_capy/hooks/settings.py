"""From an Airflow Connection to checked settings: pure, so that every form of a connection is tested without Airflow."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv6Address
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from airflow_provider_capy import __version__
from airflow_provider_capy.api.requests import id_in
from airflow_provider_capy.api.settings import (
    ClientSettings,
    checked_base_url,
    checked_token,
    checked_web_url_template,
    web_url,
)
from airflow_provider_capy.api.wording import explained
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.foreign_text import clean_text
from airflow_provider_capy.templated import as_text_or_none


def _blank_is_none(value: Any) -> Any:
    return (value.strip() or None) if isinstance(value, str) else value


_Optional = BeforeValidator(_blank_is_none)


class ConnectionExtra(BaseModel):
    """The fields that a ``capy`` connection keeps in its extra; a URI gives them as text, JSON with types."""

    # What is not known is named in a warning: a key may as well come from a secrets backend, or from a later version.
    model_config = ConfigDict(extra="ignore", frozen=True)

    project_id: Annotated[str | None, _Optional] = None
    web_url_template: Annotated[str | None, _Optional] = None
    timeout: Annotated[Annotated[float, Field(gt=0, le=600)] | None, _Optional] = None
    connect_timeout: Annotated[Annotated[float, Field(gt=0, le=120)] | None, _Optional] = None
    ca_file: Annotated[str | None, _Optional] = None
    allow_http: Annotated[bool | None, _Optional] = None


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What a ``capy`` connection says.

    Attributes:
        conn_id: the connection's id, for messages.
        client: how to reach Capy.
        project_id: default project, or ``None``.
        web_url_template: see :func:`~airflow_provider_capy.api.settings.checked_web_url_template`.
        warning: what in the connection is without effect, in words; empty when nothing is.
    """

    conn_id: str
    client: ClientSettings
    project_id: str | None
    web_url_template: str
    warning: str = ""

    def project(self, project_id: str | None) -> str:
        """Return the given project or the connection's default.

        Raises:
            CapyInputError: when there is neither.
        """
        if chosen := as_text_or_none("project_id", project_id) or self.project_id:
            return chosen
        raise CapyInputError(
            f"project_id: none was given, and the connection {self.conn_id!r} has no default; "
            "pass project_id= or put project_id into the connection's extra"
        )

    def thread_url(self, thread_id: str, project_id: str | None) -> str:
        """Return a thread's web address, also from one."""
        return web_url(
            self.web_url_template,
            project_id=as_text_or_none("project_id", project_id) or self.project_id or "-",
            thread_id=id_in(thread_id),
        )


def connection_settings(
    *,
    conn_id: str,
    host: str | None,
    schema: str | None,
    port: int | None,
    password: str | None,
    extra: Mapping[str, Any] | str | None,
) -> ConnectionSettings:
    """Read a connection's fields.

    Args:
        conn_id: the connection's id.
        host: base URL, with or without scheme and path.
        schema: ``http`` or ``https`` is the scheme, as in Airflow's HTTP connections; anything else is the path, which
            is where the URI form ``capy://:token@capy.ai/api`` puts it.
        port: port, when the host does not carry it.
        password: API token.
        extra: see :class:`ConnectionExtra`; as an object or as the JSON text that the connection holds.

    Raises:
        CapyInputError: naming the connection, the field, what is wrong with it and the fix; never the token.
    """
    try:
        given = _object(extra)
        more = ConnectionExtra.model_validate(given)
        allow_http = bool(more.allow_http)
        settings = ClientSettings(
            token=SecretStr(checked_token((password or "").strip(), field="password")),
            base_url=checked_base_url(_joined(host, schema, port), allow_http=allow_http, field="host"),
            connect_timeout=more.connect_timeout or 5.0,
            read_timeout=more.timeout or 30.0,
            user_agent=user_agent(),
            allow_http=allow_http,
            ca_file=more.ca_file,
        )
        template = checked_web_url_template(more.web_url_template or "")
    except ValidationError as error:
        raise CapyInputError(f"connection {conn_id!r}, extra: {explained(error)}") from None
    except CapyInputError as error:
        raise CapyInputError(f"connection {conn_id!r}, {error}") from None
    return ConnectionSettings(conn_id, settings, more.project_id, template, _warning(conn_id, given))


def user_agent() -> str:
    """Return who we say we are, e.g. ``airflow-provider-capy/0.1.0 airflow/3.3.2 python/3.11.7``."""
    try:
        airflow = version("apache-airflow-core")
    except PackageNotFoundError:
        airflow = "unknown"
    return f"airflow-provider-capy/{__version__} airflow/{airflow} python/{platform.python_version()}"


def _object(extra: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(extra, str):
        try:
            # Airflow itself takes an extra that is no JSON for an empty one, and every field in it is lost.
            extra = json.loads(extra) if extra.strip() else {}
        except ValueError:
            raise CapyInputError('extra: is not JSON; give an object, e.g. {"project_id": "prj_123"}') from None
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise CapyInputError('extra: is not a JSON object; give e.g. {"project_id": "prj_123"}')
    return dict(extra)


def _warning(conn_id: str, extra: dict[str, Any]) -> str:
    known = list(ConnectionExtra.model_fields)
    # Airflow's own keys, and those of an older Airflow's form.
    unknown = [key for key in extra if key not in known and not key.startswith(("__", "extra__"))]
    if not unknown:
        return ""
    words = []
    for key in unknown[:5]:
        near = get_close_matches(key.lower().replace("-", "_"), known, 1)
        words.append(f"{clean_text(key, 50)!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
    return f"connection {conn_id!r}, extra: {', '.join(words)} is not known and has no effect; known are {', '.join(known)}"


def _joined(host: str | None, schema: str | None, port: int | None) -> str:
    url = _bracketed((host or "").strip().rstrip("/"))
    if not url:
        return ""
    scheme, path = "", ""
    if (schema or "").lower() in {"http", "https"}:
        scheme = "" if "://" in url else f"{schema}://"
    elif schema:
        path = f"/{schema.strip('/')}"
    if port:
        before, separator, after = url.partition("://")
        authority, slash, rest = (after or before).partition("/")
        if ":" not in authority.rpartition("]")[2]:
            authority = f"{authority}:{port}"
        url = f"{before}{separator}{authority}{slash}{rest}" if separator else f"{authority}{slash}{rest}"
    return f"{scheme}{url}{path}"


def _bracketed(host: str) -> str:
    # Airflow takes the brackets off an IPv6 address when it reads a connection's URI.
    before, separator, after = host.rpartition("://")
    try:
        return f"{before}{separator}[{IPv6Address(after)}]"
    except ValueError:
        return host
