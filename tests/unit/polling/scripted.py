"""A Capy on a real socket that does as a test says, with TLS or without, and many real triggers that wait on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_capy.triggers.thread import CapyThreadTrigger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from typing_extensions import Self

TOKEN = "capy_scripted"
INTERVAL = 0.3


class Asked(NamedTuple):
    """A request: when it came (epoch seconds), whose token it showed, and the thread or, of a page, the project."""

    at: float
    token: str
    thread_id: str
    project_id: str
    query: dict[str, str]


class Line(NamedTuple):
    """A connection: where to write, and the socket below."""

    writer: asyncio.StreamWriter

    @property
    def socket(self) -> Any:
        return self.writer.get_extra_info("socket")


def answer(status: int, body: Any, **headers: str) -> bytes:
    """Write an answer that keeps the connection open; what is not bytes goes out as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(data)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + data


def refusal(status: int) -> bytes:
    """Write a no of Capy's own."""
    return answer(status, {"error": {"code": f"code_{status}", "message": f"no {status}"}})


class ScriptedCapy:
    """Tells the truth about its threads, unless a script answers first.

    Args:
        tls: what it speaks TLS with.

    Attributes:
        ends: when each thread of a project is ready (epoch seconds), by project and id; before, it is running.
        script: what answers first: returns an answer, ``b""`` when it has dealt with the connection itself, or ``None``.
        asked: all requests.
        open, most_open: how many connections are open, and were at most.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.ends: dict[str, dict[str, float]] = {}
        self.script: Callable[[Asked, Line], Awaitable[bytes | None]] | None = None
        self.asked: list[Asked] = []
        self.open = self.most_open = 0
        self.port = 0
        self._tls = tls
        self._serving: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, again on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and break those that are open."""
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def connection(self, token: str = TOKEN, ca_file: Path | None = None, **extra: Any) -> str:
        """Return the Airflow connection that leads here."""
        host = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/api"
        given = {**({"ca_file": str(ca_file)} if ca_file else {}), **extra}
        return json.dumps({"conn_type": "capy", "host": host, "password": token, "extra": given})

    def threads(self, count: int, project_id: str = "prj", *, ready_in: float = 60.0, over: float = 0.0) -> list[str]:
        """Start threads that are ready in so many seconds, spread over some more."""
        known = self.ends.setdefault(project_id, {})
        ids = [f"jam_{project_id.strip()}_{len(known) + number}" for number in range(count)]
        began = time.time() + ready_in
        known.update({thread_id: began + over * number / count for number, thread_id in enumerate(ids)})
        return ids

    def end_of(self, thread_id: str) -> float:
        """Say when a thread is ready."""
        return next(known[thread_id] for known in self.ends.values() if thread_id in known)

    def gets(self) -> Counter[str]:
        """Count the requests for single threads."""
        return Counter(asked.thread_id for asked in self.asked if asked.thread_id)

    def pages(self) -> int:
        """Count the requests for pages."""
        return sum(not asked.thread_id for asked in self.asked)

    def shown(self, thread_id: str, project_id: str, *, lies: bool = False) -> dict[str, Any]:
        """Show a thread; with a lie, as running whatever it is."""
        is_ready = time.time() >= self.ends[project_id][thread_id] and not lies
        return {
            "id": thread_id,
            "projectId": project_id,
            "status": "active",
            "runState": "ready" if is_ready else "running",
            # Proof of work, so that its ready is believed at once.
            "tasks": [{"id": "1", "status": "completed"}] if is_ready else [],
        }

    def page(self, asked: Asked, *, lies: bool = False) -> bytes:
        """Write a page of a project's threads."""
        first, size = int(asked.query.get("cursor") or 0), int(asked.query["limit"])
        ids = list(self.ends.get(asked.project_id, ()))
        more = len(ids) > first + size
        items = [self.shown(thread_id, asked.project_id, lies=lies) for thread_id in ids[first : first + size]]
        return answer(200, {"items": items, "hasMore": more, "nextCursor": str(first + size) if more else None})

    def truth(self, asked: Asked) -> bytes:
        """Write what is true."""
        if not asked.thread_id:
            return self.page(asked)
        for project_id, known in self.ends.items():
            if asked.thread_id in known:
                return answer(200, self.shown(asked.thread_id, project_id))
        return refusal(404)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(task := asyncio.current_task())  # type: ignore[arg-type]
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            while asked := _read(await reader.readuntil(b"\r\n\r\n")):
                self.asked.append(asked)
                said = None if self.script is None else await self.script(asked, Line(writer))
                if said == b"":
                    return
                writer.write(said or self.truth(asked))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            self.open -= 1
            writer.transport.abort()


def _read(head: bytes) -> Asked:
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    url = urlsplit(first.split(" ")[1])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    thread_id = unquote(url.path.partition("/v1/threads/")[2])
    return Asked(time.time(), fields["authorization"].split(" ")[1], thread_id, query.get("projectId", ""), query)


class Ended(NamedTuple):
    """How a wait ended, and when (epoch seconds)."""

    thread_id: str
    outcome: str
    at: float
    event: dict[str, Any]


async def wait_for(thread_id: str, **arguments: Any) -> Ended:
    """Run one trigger to its event."""
    given = {"project_id": "prj", "poll_interval": INTERVAL, "stop_on_kill": False, **arguments}
    trigger = CapyThreadTrigger(thread_id=thread_id, **given)
    [event] = [event async for event in trigger.run()]
    assert isinstance(event.payload, dict)
    return Ended(thread_id, event.payload["outcome"], time.time(), event.payload)


async def wait_for_all(ids: Iterable[str], *, within: float = 20.0, **arguments: Any) -> list[Ended]:
    """Run many triggers at once; what is not over by then has failed."""
    waits = [asyncio.ensure_future(wait_for(thread_id, **arguments)) for thread_id in ids]
    try:
        return await asyncio.wait_for(asyncio.gather(*waits), within)
    finally:
        for wait in waits:
            wait.cancel()
        with contextlib.suppress(Exception):
            await asyncio.gather(*waits, return_exceptions=True)


def outcomes(ended: Iterable[Ended]) -> Counter[str]:
    """Count how waits ended."""
    return Counter(one.outcome for one in ended)


def latest(capy: ScriptedCapy, ended: Iterable[Ended]) -> float:
    """Return how many seconds after its thread was ready the latest wait ended."""
    return max(one.at - capy.end_of(one.thread_id) for one in ended)
