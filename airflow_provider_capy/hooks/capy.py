"""The hook: from the id of an Airflow connection to a client of Capy's API."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from airflow_provider_capy.exceptions import (
    CapyError,
    CapyForbiddenError,
    CapyNotFoundError,
    CapyUnauthorizedError,
    CapyValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from typing_extensions import Self

    from airflow_provider_capy.api import AsyncCapyClient, CapyClient, CreatedThread, StoppedThread, Thread
    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.hooks.settings import ConnectionSettings

# An id that no thread has: asking for it tells a good token (404) from a bad one (401) without a project.
_PROBE_THREAD_ID = "jam_airflow_connection_test"


class CapyHook(BaseHook):
    """Reads a connection of type ``capy`` and talks to Capy with it.

    The connection is looked up when it is first needed, never in the constructor, and once per hook. A context manager:
    leaving it closes its connections.

    Args:
        capy_conn_id: the connection's id.
    """

    conn_name_attr = "capy_conn_id"
    default_conn_name = "capy_default"
    conn_type = "capy"
    hook_name = "Capy"

    def __init__(self, capy_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.capy_conn_id = capy_conn_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection's settings.

        Raises:
            AirflowNotFoundException: no such connection.
            CapyInputError: a field of it is wrong.
        """
        connection = self.get_connection(self.capy_conn_id)
        _ = connection.extra_dejson  # masks what is secret in it
        return self._read(connection)

    async def asettings(self) -> ConnectionSettings:
        """:attr:`settings` for an event loop: the supervisor is asked without blocking."""
        if "settings" not in self.__dict__:
            connection = await self.aget_connection(self.capy_conn_id)
            await connection.aextra_dejson()  # masks what is secret in it
            self.__dict__["settings"] = self._read(connection)
        return self.settings

    def _read(self, connection: Any) -> ConnectionSettings:
        settings = _settings_of(self.capy_conn_id, connection)
        if settings.warning:
            self.log.warning("%s", settings.warning)
        return settings

    @cached_property
    def client_settings(self) -> ClientSettings:
        """How to reach Capy; the token is masked in logs from here on."""
        _mask(self.settings)
        return self.settings.client

    @cached_property
    def client(self) -> CapyClient:
        """The hook's one client; connections are kept open until :meth:`close`."""
        from airflow_provider_capy.api import CapyClient

        return CapyClient(self.client_settings)

    def get_conn(self) -> CapyClient:
        """Return :attr:`client` (the name that every Airflow hook has)."""
        return self.client

    async def aclient(self, limits: httpx.Limits | None = None) -> AsyncCapyClient:
        """Return a new client for an event loop, with httpx's limits of its pool; the caller closes it."""
        from airflow.sdk.log import amask_secret

        from airflow_provider_capy.api import AsyncCapyClient

        settings = await self.asettings()
        await amask_secret(settings.client.token.get_secret_value())
        return AsyncCapyClient(settings.client, limits=limits)

    def close(self) -> None:
        """Close the client, if there is one."""
        if client := self.__dict__.pop("client", None):
            client.close()

    def create_thread(self, prompt: str, project_id: str | None = None, **fields: Any) -> CreatedThread:
        """Create a thread and start it; costs money.

        Args:
            prompt: what the agent is to do.
            project_id: the project; the connection's default when it is not given.
            **fields: every other field of :class:`~airflow_provider_capy.api.requests.CreateThreadBody`.
        """
        return self.client.create_thread(self.settings.project(project_id), prompt, **fields)

    def get_thread(self, thread_id: str) -> Thread:
        """Get one thread."""
        return self.client.get_thread(thread_id)

    def list_threads(self, project_id: str | None = None, **filters: Any) -> Iterator[Thread]:
        """Iterate over a project's threads, all pages.

        Args:
            project_id: the project; the connection's default when it is not given.
            **filters: the fields of :class:`~airflow_provider_capy.api.requests.ListThreadsQuery`.
        """
        return self.client.list_threads(self.settings.project(project_id), **filters)

    def stop_thread(self, thread_id: str) -> StoppedThread:
        """Ask a thread to stop; asynchronous, see ``CapyStopThreadOperator`` for a confirmed stop."""
        return self.client.stop_thread(thread_id)

    def thread_url(self, thread_id: str, project_id: str | None = None) -> str:
        """Return a thread's web address; ``project_id`` defaults to the connection's."""
        return self.settings.thread_url(thread_id, project_id)

    def test_connection(self) -> tuple[bool, str]:
        """Check the token and the default project with one GET, without such a project with two; starts nothing.

        Returns:
            whether it works, and in words what was checked.
        """
        from airflow_provider_capy.api.calls import get_thread, list_threads
        from airflow_provider_capy.api.requests import ListThreadsQuery, checked
        from airflow_provider_capy.api.retry import NO_RETRIES

        try:
            settings = self.settings
            where = settings.client.base_url
            note = f" But: {settings.warning}." if settings.warning else ""
            if settings.project_id:
                query = checked(ListThreadsQuery, project_id=settings.project_id, limit=1)
                self.client.send(list_threads(query), NO_RETRIES)
                return True, f"{where} accepts the token, and project {settings.project_id!r} can be listed.{note}"
            # Capy's own words, which it says only to a token it knows.
            with suppress(CapyNotFoundError, CapyValidationError):
                self.client.send(get_thread(_PROBE_THREAD_ID), NO_RETRIES)
            if not self._refuses_a_wrong_token():
                return False, f"{where} answers to any token: is it Capy's base URL, e.g. https://capy.ai/api?"
            return True, f"{where} accepts the token. No default project is set, so none was checked.{note}"
        except (CapyError, AirflowException) as error:
            return False, str(error)
        finally:
            self.close()

    def _refuses_a_wrong_token(self) -> bool:
        """Say whether the same question with a surely wrong token is refused: then the right one was believed."""
        from dataclasses import replace

        from pydantic import SecretStr

        from airflow_provider_capy.api import CapyClient
        from airflow_provider_capy.api.calls import get_thread
        from airflow_provider_capy.api.retry import NO_RETRIES

        with CapyClient(replace(self.settings.client, token=SecretStr("capy_surely_wrong"))) as stranger:
            try:
                stranger.send(get_thread(_PROBE_THREAD_ID), NO_RETRIES)
            except (CapyUnauthorizedError, CapyForbiddenError):
                return True
            except CapyError:
                pass
        return False


def _settings_of(conn_id: str, connection: Any) -> ConnectionSettings:
    from airflow_provider_capy.hooks.settings import connection_settings

    return connection_settings(
        conn_id=conn_id,
        host=connection.host,
        schema=connection.schema,
        port=connection.port,
        password=connection.password,
        extra=connection.extra,
    )


def _mask(settings: ConnectionSettings) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret(settings.client.token.get_secret_value())
