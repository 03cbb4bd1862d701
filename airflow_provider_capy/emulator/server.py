"""Runs an emulator: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import uvicorn

from airflow_provider_capy.emulator.addresses import TOKEN, origin_of
from airflow_provider_capy.emulator.app import Emulator
from airflow_provider_capy.emulator.connection import protocol_class
from airflow_provider_capy.emulator.control import EmulatorControl
from airflow_provider_capy.emulator.world import World

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

HOST = "127.0.0.1"
"""Where an emulator listens until it is told otherwise: nobody else can reach it."""

_BACKLOG = 2048
_LONGEST_HEADERS = 64 * 1024
_START_SECONDS = 30.0
_STOP_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75
_ORIGIN = re.compile(r"(http://\S+)/api\b")


class HttpServer(uvicorn.Server):
    """The HTTP server of one emulator, bound but not yet running.

    Args:
        host: The address to bind.
        port: The port to bind; 0 takes any that is free.
        token: The token the API takes.
        speed: How many times faster than real time threads live.

    Raises:
        OSError: The address cannot be bound.
    """

    def __init__(self, host: str = HOST, port: int = 0, token: str = TOKEN, speed: float = 1.0) -> None:
        self.socket = _bind(host, port)
        self.origin = origin_of(host, self.socket.getsockname()[1])
        self.emulator = Emulator(World(token, speed), self.origin)
        super().__init__(
            uvicorn.Config(
                self.emulator,
                http=protocol_class(),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                date_header=False,  # a fault can put the clock wrong
                backlog=_BACKLOG,
                h11_max_incomplete_event_size=_LONGEST_HEADERS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )

    def listen(self) -> None:
        """Serve until told to end."""
        self.run(sockets=[self.socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; calls that a fault makes wait are let go first."""
        self.emulator.closing.set()
        await super().shutdown(sockets)


class EmulatorServer:
    """An emulator in a thread of this process, as a context manager.

    Args:
        token: The token its API takes.
        port: The port to bind; 0 takes any that is free.
        speed: How many times faster than real time threads live.
    """

    def __init__(self, token: str = TOKEN, port: int = 0, speed: float = 1.0) -> None:
        self._server = HttpServer(port=port, token=token, speed=speed)
        self._thread = threading.Thread(target=self._server.listen, name="capy-emulator", daemon=True)
        self.control = EmulatorControl(self._server.origin, token=token)

    def start(self) -> Self:
        """Start it, and return once it listens.

        Raises:
            RuntimeError: It did not start.
        """
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise RuntimeError("The emulator did not start; what went wrong is in its thread's traceback")
            time.sleep(0.002)
        return self

    def stop(self) -> None:
        """End it, and return once it has ended."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._server.socket.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class EmulatorProcess:
    """An emulator as a process of its own, as a context manager; ``control`` is there once it runs.

    Args:
        token: The token its API takes.
        port: The port to bind; 0 takes any that is free.
        speed: How many times faster than real time threads live.
        host: The address to bind.
    """

    control: EmulatorControl

    def __init__(self, token: str = TOKEN, port: int = 0, speed: float = 1.0, host: str = HOST) -> None:
        module = "airflow_provider_capy.emulator"
        options = ["--host", host, "--port", str(port), "--token", token, "--speed", str(speed)]
        self._command = [sys.executable, "-m", module, *options]
        self._token = token
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it, and return once it listens.

        Raises:
            RuntimeError: It did not start.
        """
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own module
        line = self._process.stdout.readline() if self._process.stdout else ""
        found = _ORIGIN.search(line)
        if not found:
            self.stop()
            raise RuntimeError("The emulator did not start; what went wrong is on its standard error")
        self.control = EmulatorControl(found[1], token=self._token)
        return self

    def stop(self) -> None:
        """End it, and return once it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        if hasattr(self, "control"):
            self.control.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
