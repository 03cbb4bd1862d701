"""Servers that do on a socket what no well-behaved server does."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    Script = Callable[[socket.socket], None]

THREAD = {"id": "jam_1", "runState": "running", "status": "active"}


class RawServer:
    """Does with each connection what a script says, and remembers what was sent to it.

    Args:
        *scripts: one for each connection; the last one holds for all that follow.
        port: the port to bind; 0 takes any that is free.
        greeting: what is sent before anything was asked.

    Attributes:
        requests: head and body of every request, as they came.
    """

    def __init__(self, *scripts: Script, port: int = 0, greeting: bytes = b"") -> None:
        self.requests: list[bytes] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(30)
                self.request.sendall(greeting)
                request = received(self.request)
                if not request:
                    return
                outer.requests.append(request)
                script = scripts[min(len(outer.requests), len(scripts)) - 1]
                try:
                    script(self.request)
                except OSError:
                    return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def received(connection: socket.socket) -> bytes:
    """Read one whole request; empty when the other side left."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0]):
            body += connection.recv(65536)
    except OSError:
        return b""
    return head + b"\r\n\r\n" + body


def raw(status: int, body: bytes, **headers: str) -> bytes:
    """Write an HTTP answer; ``content_length`` and the like name headers."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def saying(status: int, body: Any = b"", **headers: str) -> Script:
    """Answer this; what is not bytes goes out as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection: connection.sendall(raw(status, data, **headers))


def sending(*parts: bytes, pause: float = 0.0) -> Script:
    """Send these parts, with a pause of so many seconds after each."""

    def script(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return script


def resetting(*parts: bytes) -> Script:
    """Send these parts and reset the connection."""

    def script(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return script


def silent(seconds: float) -> Script:
    """Answer nothing for so long, then close."""
    return lambda _connection: time.sleep(seconds)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
