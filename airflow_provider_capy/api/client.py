"""The two clients of Capy's REST API: thin drivers that differ only in how they send and sleep."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
from tenacity import AsyncRetrying, Retrying

from airflow_provider_capy.api import calls, wire
from airflow_provider_capy.api.answers import Answer
from airflow_provider_capy.api.pages import PageWalk
from airflow_provider_capy.api.requests import CreateThreadBody, ListThreadsQuery, checked
from airflow_provider_capy.api.retry import policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from typing_extensions import Self

    from airflow_provider_capy.api.calls import Call
    from airflow_provider_capy.api.models import CreatedThread, StoppedThread, Thread, ThreadPage
    from airflow_provider_capy.api.retry import RetryLimits
    from airflow_provider_capy.api.settings import ClientSettings

T = TypeVar("T")


class CapyClient:
    """Talks to Capy from ordinary code; a context manager, safe to use from one thread at a time.

    Every method raises from the tree in :mod:`airflow_provider_capy.exceptions`: ``CapyInputError`` before a request
    is made, a ``CapyRequestError`` after.

    Args:
        settings: where Capy is and how to talk to it.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._http = wire.opened(httpx.Client, settings)
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_thread(self, project_id: str, prompt: str, **fields: Any) -> CreatedThread:
        """Create a thread and start it (``createAndStartThread``): it costs money from here on.

        Args:
            project_id: the project.
            prompt: what the agent is to do.
            **fields: every other field of :class:`~airflow_provider_capy.api.requests.CreateThreadBody`.
        """
        return self.send(calls.create_thread(checked(CreateThreadBody, project_id=project_id, prompt=prompt, **fields)))

    def get_thread(self, thread_id: str) -> Thread:
        """Get one thread (``getThread``)."""
        return self.send(calls.get_thread(thread_id))

    def list_page(self, project_id: str, **filters: Any) -> ThreadPage:
        """Get one page (``listThreads``); ``filters`` as in :class:`~airflow_provider_capy.api.requests.ListThreadsQuery`."""
        return self.send(calls.list_threads(checked(ListThreadsQuery, project_id=project_id, **filters)))

    def list_threads(self, project_id: str, **filters: Any) -> Iterator[Thread]:
        """Iterate over all pages (``listThreads``), each thread once although pages shift while they are read.

        Args:
            project_id: the project.
            **filters: ``limit`` is the size of a page (1 to 100, here 100 by default), the others are those of
                :class:`~airflow_provider_capy.api.requests.ListThreadsQuery`.
        """
        walk = PageWalk(project_id, filters)
        while walk.query is not None:
            yield from walk.take(self.send(calls.list_threads(walk.query)))

    def stop_thread(self, thread_id: str) -> StoppedThread:
        """Ask a thread to stop (``stopThread``); the stop is asynchronous."""
        return self.send(calls.stop_thread(thread_id))

    def send(self, call: Call[T], retry: RetryLimits | None = None) -> T:
        """Send one call, with the retries that are safe for it.

        Args:
            call: what to send.
            retry: how patient to be; the settings' own by default.
        """
        retrying = Retrying(**policy(retry or self.settings.retry, safe_to_retry=call.safe_to_retry))
        answer: T = retrying(self._once, call)
        return answer

    def _once(self, call: Call[T]) -> T:
        request = wire.request_arguments(call, traced=wire.bound)
        with wire.translated(call, self.settings), self._http.stream(**request) as response:
            answer = Answer(call, self.settings, response)
            with answer.receiving():
                for chunk in response.iter_raw():
                    answer.take(chunk)
        return answer.concluded()


class AsyncCapyClient:
    """:class:`CapyClient` for one event loop: the same calls, errors and retries, awaited.

    Its connections belong to the loop in which they were opened, so a client is not shared between loops; within its
    loop any number of tasks may use it at once.

    Args:
        settings: where Capy is and how to talk to it.
        limits: how many connections are kept, and how long; httpx's defaults (an idle one is closed after 5 s) when
            it is not given.
    """

    def __init__(self, settings: ClientSettings, *, limits: httpx.Limits | None = None) -> None:
        more: dict[str, Any] = {} if limits is None else {"limits": limits}
        self._http = wire.opened(httpx.AsyncClient, settings, **more)
        self.settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def create_thread(self, project_id: str, prompt: str, **fields: Any) -> CreatedThread:
        """See :meth:`CapyClient.create_thread`."""
        body = checked(CreateThreadBody, project_id=project_id, prompt=prompt, **fields)
        return await self.send(calls.create_thread(body))

    async def get_thread(self, thread_id: str) -> Thread:
        """See :meth:`CapyClient.get_thread`."""
        return await self.send(calls.get_thread(thread_id))

    async def list_page(self, project_id: str, **filters: Any) -> ThreadPage:
        """See :meth:`CapyClient.list_page`."""
        return await self.send(calls.list_threads(checked(ListThreadsQuery, project_id=project_id, **filters)))

    async def list_threads(self, project_id: str, **filters: Any) -> AsyncIterator[Thread]:
        """See :meth:`CapyClient.list_threads`."""
        walk = PageWalk(project_id, filters)
        while walk.query is not None:
            for thread in walk.take(await self.send(calls.list_threads(walk.query))):
                yield thread

    async def stop_thread(self, thread_id: str) -> StoppedThread:
        """See :meth:`CapyClient.stop_thread`."""
        return await self.send(calls.stop_thread(thread_id))

    async def send(self, call: Call[T], retry: RetryLimits | None = None) -> T:
        """See :meth:`CapyClient.send`."""
        limits = retry or self.settings.retry
        if limits.attempts <= 1:
            return await self._once(call)
        retrying = AsyncRetrying(**policy(limits, safe_to_retry=call.safe_to_retry))
        return await retrying(self._once, call)

    async def _once(self, call: Call[T]) -> T:
        request = wire.request_arguments(call, traced=wire.abound)
        with wire.translated(call, self.settings):
            async with self._http.stream(**request) as response:
                answer = Answer(call, self.settings, response)
                with answer.receiving():
                    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
                        async for chunk in chunks:
                            answer.take(chunk)
        return answer.concluded()
