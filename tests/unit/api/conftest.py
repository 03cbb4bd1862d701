"""One face for the sync and the async client, so that one test body holds for both."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from airflow_provider_capy.api import AsyncCapyClient, CapyClient, ClientSettings, RetryLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl

TOKEN = "capy_the-secret-token"
PROMPT = "Rewrite the confidential billing module\nof project \u201eHalley\u201c"
QUICK = RetryLimits(attempts=4, total=20.0, base=0.001, cap=0.002)


class Face:
    """A client whose answers are there at once: coroutines are run, iterators are read to their end."""

    def __init__(self, client: Any, run: Callable[[Any], Any]) -> None:
        self.client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if inspect.isasyncgen(result):
                return self._run(collected(result))
            if inspect.iscoroutine(result):
                return self._run(result)
            return list(result) if inspect.isgenerator(result) else result

        return call


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(params=["sync", "async"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Face]]:
    """Make a client, of either kind, from settings; it is closed at the end of the test."""
    loop = asyncio.new_event_loop()
    faces: list[Face] = []

    def make(base_url: str, token: str = TOKEN, **settings: Any) -> Face:
        given = ClientSettings(SecretStr(token), base_url, **{"retry": QUICK, **settings})
        face = Face((CapyClient if request.param == "sync" else AsyncCapyClient)(given), loop.run_until_complete)
        faces.append(face)
        return face

    yield make
    for face in faces:
        face.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def capy(client_of: Callable[..., Face], capy_emulator: EmulatorControl) -> Face:
    """A client of the emulator."""
    return client_of(capy_emulator.api_url, capy_emulator.token)


@pytest.fixture
def refused() -> Callable[..., Any]:
    """Return a context that expects an error, and that none of its words give the token or the prompt away."""

    @contextmanager
    def expect(kind: type[Exception]) -> Iterator[pytest.ExceptionInfo[Any]]:
        with pytest.raises(kind) as caught:
            yield caught
        assert type(caught.value) is kind
        said = everything_said(caught.value)
        for secret in (TOKEN, PROMPT, PROMPT[:24]):
            assert secret not in said

    return expect


def everything_said(error: BaseException) -> str:
    """Return whatever an error and those behind it say when they are shown, logged or sent on."""
    words = ["".join(traceback.format_exception(error))]
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        words += [str(error), repr(error), repr(error.args), repr(vars(error)), repr(getattr(error, "details", None))]
        error = error.__cause__ or error.__context__
    return "\n".join(words)
