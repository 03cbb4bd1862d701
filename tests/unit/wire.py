"""The supervisor of the unit tests behind Airflow's own connection to it: a signal leaves an answer unread, as it really does."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time import comms
from pydantic import TypeAdapter

from tests.unit.worker import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = 4


class WiredSupervisor(Supervisor):
    """Answers over a socket, and takes its time with the first request that `is_slow` says yes to."""

    def __init__(self, is_slow: Callable[[Any], bool], seconds: float = 0.5, standing: str = "running") -> None:
        super().__init__(standing=standing)
        self.is_busy = threading.Event()
        self._is_slow, self._seconds = is_slow, seconds
        ours, self._socket = socket.socketpair()
        self._comms: Any = comms.CommsDecoder(socket=ours)
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, msg: Any) -> Any:
        return self._comms.send(msg)

    def answer(self, message: Any) -> Any:
        """Answer a message that has come over the socket."""
        return super().send(message)

    def _serve(self) -> None:
        decoder, adapter = msgspec.msgpack.Decoder(comms._RequestFrame), TypeAdapter(comms.ToSupervisor)
        while length := self._read(_LENGTH):
            frame = decoder.decode(self._read(int.from_bytes(length, "big")))
            message: Any = adapter.validate_python(frame.body)
            if not self.is_busy.is_set() and self._is_slow(message):
                self.is_busy.set()
                time.sleep(self._seconds)
            body = error = None
            try:
                answer = self.answer(message)
                body = None if answer is None else answer.model_dump(mode="json", by_alias=True)
            except AirflowRuntimeError as raised:
                error = raised.error.model_dump(mode="json", by_alias=True)
            self._socket.sendall(comms._ResponseFrame(frame.id, body, error).as_bytes())

    def _read(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            if not (more := self._socket.recv(count - len(found))):
                return b""
            found += more
        return found
