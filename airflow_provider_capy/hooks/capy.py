"""The hook: from the id of an Airflow connection to a client of Capy's API."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook

from airflow_provider_capy.exceptions import (
    CapyError,
    CapyForbiddenError,
    CapyInputError,
    CapyLookUpError,
    CapyNotFoundError,
    CapyUnauthorizedError,
    CapyValidationError,
)
from airflow_provider_capy.killing import CapyKilledError
from airflow_provider_capy.templated import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from typing_extensions import Self

    from airflow_provider_capy.api import AsyncCapyClient, CapyClient, CreatedThread, StoppedThread, Thread
    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.hooks.settings import ConnectionSettings

T = TypeVar("T")

# An id that no thread has: asking for it tells a good token (404) from a bad one (401) without a project.
_PROBE_THREAD_ID = "jam_airflow_connection_test"


class CapyHook(BaseHook):
    """Reads a connection of type ``capy`` and talks to Capy with it.

    The connection is looked up when it is first needed, never in the constructor, once per hook and once more after a 401.
    A context manager: leaving it closes its connections.

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
        # No cached property: on Python 3.11 those have a lock, and a kill may come into a look-up.
        self._settings: ConnectionSettings | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def settings(self) -> ConnectionSettings:
        """The connection's settings; the token is masked in logs from here on.

        Raises:
            CapyLookUpError: it could not be looked up, for whatever reason.
            CapyInputError: a field of it is wrong.
        """
        return self._settings or self._looked_up()

    @property
    def is_looked_up(self) -> bool:
        """Whether :attr:`settings` needs nothing of Airflow any more."""
        return self._settings is not None

    async def asettings(self) -> ConnectionSettings:
        """:attr:`settings` for an event loop: the supervisor is asked without blocking."""
        return self._settings or await self._alooked_up()

    def _looked_up(self) -> ConnectionSettings:
        from airflow.sdk.log import mask_secret

        with self._looking_up() as conn_id:
            connection = self.get_connection(conn_id)
            _ = connection.extra_dejson  # masks what is secret in it
            settings = _settings_of(conn_id, connection)
            mask_secret(settings.client.token.get_secret_value())
        return self._keep(settings)

    async def _alooked_up(self) -> ConnectionSettings:
        from airflow.sdk.log import amask_secret

        with self._looking_up() as conn_id:
            connection = await self.aget_connection(conn_id)
            # A scheduler's own kind of connection has none.
            if mask_extra := getattr(connection, "aextra_dejson", None):
                await mask_extra()
            settings = _settings_of(conn_id, connection)
            await amask_secret(settings.client.token.get_secret_value())
        return self._keep(settings)

    @contextmanager
    def _looking_up(self) -> Iterator[str]:
        """Give the connection's id, and make one kind of whatever Airflow or a secrets backend raises for it."""
        conn_id = as_text("capy_conn_id", self.capy_conn_id)
        try:
            yield conn_id
        except (CapyInputError, CapyKilledError):
            raise
        except Exception as error:
            raise CapyLookUpError(
                f"The connection {conn_id!r} could not be looked up ({type(error).__name__}: {error})"
            ) from error

    def _keep(self, settings: ConnectionSettings) -> ConnectionSettings:
        self._settings = settings
        if settings.warning:
            self.log.warning("%s", settings.warning)
        return settings

    @cached_property
    def client(self) -> CapyClient:
        """The hook's one client; connections are kept open until :meth:`close`.

        After a 401 it looks the connection up once more, and goes on with what that says by now.
        """
        return self.new_client()

    def new_client(self, **changes: Any) -> CapyClient:
        """Return a client like :attr:`client` for another thread; the caller closes it.

        Args:
            **changes: fields of :class:`~airflow_provider_capy.api.settings.ClientSettings` that it has otherwise.
        """
        from airflow_provider_capy.hooks.clients import HookClient

        return HookClient(
            replace(self.settings.client, **changes), lambda: replace(self._looked_up().client, **changes)
        )

    def get_conn(self) -> CapyClient:
        """Return :attr:`client` (the name that every Airflow hook has)."""
        return self.client

    async def aclient(self, limits: httpx.Limits | None = None, **changes: Any) -> AsyncCapyClient:
        """Return a client like :attr:`client` for an event loop; the caller closes it.

        Args:
            limits: httpx's, of its pool.
            **changes: see :meth:`new_client`.
        """
        from airflow_provider_capy.hooks.clients import AsyncHookClient

        async def look_up() -> ClientSettings:
            return replace((await self._alooked_up()).client, **changes)

        return AsyncHookClient(replace((await self.asettings()).client, **changes), look_up, limits=limits)

    def close(self) -> None:
        """Close the client, if there is one."""
        if client := self.__dict__.pop("client", None):
            client.close()

    def send(self, call: Call[T], retry: RetryLimits | None = None) -> T:
        """Send one call with :attr:`client`; see :meth:`~airflow_provider_capy.api.CapyClient.send`."""
        return self.client.send(call, retry)

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
        """Return a thread's web address, also from one; ``project_id`` defaults to the connection's."""
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
        except CapyError as error:
            return False, str(error)
        finally:
            self.close()

    def _refuses_a_wrong_token(self) -> bool:
        """Say whether the same question with a surely wrong token is refused: then the right one was believed."""
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
