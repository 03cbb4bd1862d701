"""The edge where requests are read off a connection and replies are put on it, or the connection is broken on purpose."""

from __future__ import annotations

import asyncio
import importlib
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.messages import Reply, Request, read_query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from airflow_provider_capy.emulator.kinds import SlowHead

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TRANSPORT = "capy_transport"
_TIME_TO_READ = 0.05


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


def protocol_class() -> type[asyncio.Protocol]:
    """Make the HTTP protocol uvicorn shall use: the fastest one installed, which lets the application find the transport."""
    try:
        module = importlib.import_module("uvicorn.protocols.http.httptools_impl")
        base = module.HttpToolsProtocol
    except ImportError:
        module = importlib.import_module("uvicorn.protocols.http.h11_impl")
        base = module.H11Protocol

    def connection_made(self: Any, transport: asyncio.Transport) -> None:
        base.connection_made(self, transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}

    return type("ReachableProtocol", (base,), {"connection_made": connection_made})


async def read(scope: Scope, receive: Receive) -> Request:
    """Read a request to its end.

    Raises:
        ClientGoneError: The client left before that.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    client = scope.get("client")
    query_string = scope["query_string"].decode("latin-1")
    return Request(
        method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=read_query(query_string),
        query_string=query_string,
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        body=bytes(body),
        client_port=client[1] if client else None,
        transport=scope.get("state", {}).get(_TRANSPORT),
    )


async def write(send: Send, reply: Reply) -> None:
    """Send a whole reply."""
    await _start(send, reply)
    await send({"type": "http.response.body", "body": reply.body})


async def write_half(send: Send, receive: Receive, request: Request, reply: Reply) -> None:
    """Announce a whole reply, send half of its body and reset the connection."""
    await _start(send, reply)
    await send({"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True})
    # A reset overtakes what the other side has not read yet.
    await asyncio.sleep(_TIME_TO_READ)
    await reset(receive, request)


async def write_slowly(receive: Receive, request: Request, reply: Reply, pace: SlowHead) -> bool:
    """Send the head of a reply drop by drop, then its rest, and end the connection; tells whether it was all sent."""
    transport = request.transport
    if transport is None:
        return False
    status = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n".encode()
    drop, rest = (b"HTTP/1.1 102 Processing\r\n\r\n", status) if pace.interim else (b"x-drop: 1\r\n", b"")
    if not pace.interim:
        transport.write(status)
    loop = asyncio.get_running_loop()
    end = loop.time() + pace.seconds
    while loop.time() < end and not is_gone(request):
        transport.write(drop)
        await asyncio.sleep(min(pace.every, max(0.0, end - loop.time())))
    sent = not is_gone(request)
    head = b"".join(b"%s: %s\r\n" % header for header in [*_headers(reply), (b"connection", b"close")])
    transport.write(rest + head + b"\r\n" + reply.body)
    transport.close()
    await disconnected(receive)
    return sent


async def drop(receive: Receive, request: Request) -> None:
    """End the connection in good order, but without an answer."""
    await _abort(receive, request)


async def reset(receive: Receive, request: Request) -> None:
    """End the connection with a TCP reset."""
    if request.transport is not None and not is_gone(request):
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await _abort(receive, request)


def is_gone(request: Request) -> bool:
    """Tell whether the connection of a request has ended."""
    return request.transport is not None and request.transport.is_closing()


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, reply: Reply) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = {
        "date": formatdate(usegmt=True),
        "content-type": reply.content_type,
        "content-length": str(len(reply.body)),
        **dict(reply.headers),
    }
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def _abort(receive: Receive, request: Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    # The server takes an application that returns without an answer for broken, unless the client has gone.
    await disconnected(receive)
