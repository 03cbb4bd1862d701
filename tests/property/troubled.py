"""A Capy to which the faults of a drawn world happen, and whose lists lie."""

from __future__ import annotations

import asyncio
import ssl
from math import inf
from typing import TYPE_CHECKING, Any
from zlib import crc32

from airflow_provider_capy.exceptions import (
    CapyCertificateError,
    CapyConnectError,
    CapyNoAnswerError,
    CapyResponseError,
    api_error_class,
)
from tests.unit.polling.virtual import FakeCapy, Request, _Aged, now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.api.calls import Call
    from tests.property.worlds import Fault, Lie, World

# Of what a client should never raise; each time another object.
_RAW: dict[Any, type[Exception]] = {"tls": ssl.SSLError, "runtime": RuntimeError, "value": ValueError}
_PASSING: dict[Any, Any] = {
    "connect": CapyConnectError,
    "certificate": CapyCertificateError,
    "reset": CapyNoAnswerError,
    "stranger": CapyResponseError,
}
_STATUS = {"limit": 429, "down": 503}


class TroubledCapy(FakeCapy):
    """A Capy to which a world's faults happen, and whose lists lie."""

    def __init__(self, world: World) -> None:
        super().__init__(world.lives, page=world.page, others=world.others, mangle=self._shown)
        self.world = world
        self._whole: dict[tuple[str, str], _Aged] = {}

    async def once(self, call: Call[Any], token: str, conn: str) -> Any:
        """Answer one request."""
        thread_id = call.thread_id if call.operation == "getThread" else None
        request = Request(now(), call.operation, thread_id, params=dict(call.params))
        self.requests.append(request)
        self.in_flight += 1
        self.busiest = max(self.busiest, self.in_flight)
        try:
            hits = [fault for fault in self.world.faults if fault.hits(now(), call.operation, thread_id, conn)]
            await asyncio.sleep(max([self.world.latency, *(fault.takes for fault in hits)]))
            for fault in hits:
                _befall(fault)
            if token == "old" and now() >= self.world.revoked_at:
                raise api_error_class(401)("revoked", status_code=401, code="unauthorized")
            answer = self._answer(request)
        finally:
            self.in_flight -= 1
        request.ok = True
        return answer

    def _answer(self, request: Request) -> Any:
        if request.thread_id is None:
            return self._page(request.params)
        request.state = state = self._item(request.thread_id, now())
        # Read once for each state: reading is most of what such a world costs.
        key = request.thread_id, repr(self.lives[request.thread_id].at(now()))
        if key not in self._whole:
            self._whole[key] = _Aged.model_validate(state)
        return self._whole[key]

    def _lies(self, *what: str) -> Iterator[Lie]:
        return (lie for lie in self.world.lies if lie.what in what and lie.begins <= now() < lie.ends)

    def _item(self, thread_id: str, when: float, *, listed: bool = False) -> dict[str, Any]:
        if listed:
            for lie in self._lies("stale", "lags"):
                if _concerned(lie, thread_id):
                    when = min(when, lie.begins if lie.what == "stale" else max(when - lie.seconds, 0.0))
        return super()._item(thread_id, when)

    def _page(self, params: dict[str, Any]) -> dict[str, Any]:
        honest, self._item = self._item, lambda one, when: honest(one, when, listed=True)  # type: ignore[method-assign]
        if params.get("cursor") and any(self._lies("shifts")):
            # What was on this page has come to be on the one before, or was there as well.
            off = crc32(f"{now():.1f}".encode()) % 5 - 2
            params = {**params, "cursor": str(max(int(params["cursor"]) + off, 1))}
        try:
            return super()._page(params)
        finally:
            del self._item

    def _shown(self, thread_id: str, item: dict[str, Any], when: float) -> dict[str, Any] | None:
        for lie in self._lies("hides", "ends"):
            if _concerned(lie, thread_id) and (lie.ends == inf or int(when / lie.seconds) % 2):
                return None if lie.what == "hides" else {**item, "runState": "ready", "pendingWakeups": 0}
        return item


def _concerned(lie: Lie, thread_id: str) -> bool:
    return crc32(thread_id.encode()) % lie.every == 0


def _befall(fault: Fault) -> None:
    if fault.what in _RAW:
        raise _RAW[fault.what](f"{fault.what} at {now():.3f}")
    if fault.what in _PASSING:
        raise _PASSING[fault.what](str(fault.what))
    status = _STATUS.get(fault.what) if isinstance(fault.what, str) else fault.what  # type: ignore[call-overload]
    if status is not None:
        raise api_error_class(status)(str(status), status_code=status, code="no", retry_after=fault.retry_after)
