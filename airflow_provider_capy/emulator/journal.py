"""The log of the requests the API got, bounded and free of secrets, so that tests can count and time them."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.messages import BadJsonError, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_capy.emulator.messages import Request

LONGEST = 200_000
"""How many requests are remembered; the oldest go first."""

_BEARER = re.compile(r"(bearer\s+)[^\s\"']+", re.IGNORECASE)


@dataclass
class Entry:
    """One request to the API.

    Attributes:
        number: Its place since the last reset, from 1.
        time: When it had arrived as a whole, in epoch seconds.
        method: The HTTP method.
        path: The path as it was sent.
        query: The query parameters.
        body: The JSON body; text when it is not JSON, None when there was none.
        operation: The ``operationId``; None when the API has no such operation.
        thread_id: The thread it is about; of a create, the one it made.
        status: The status answered, ``"dropped"`` when the connection ended first, None while it is under way.
        user_agent: The client's own words.
        client_port: The port it came from, which tells connections apart.
    """

    number: int
    time: float
    method: str
    path: str
    query: dict[str, str]
    body: Any
    operation: str | None = None
    thread_id: str | None = None
    status: int | str | None = None
    user_agent: str | None = None
    client_port: int | None = None


class Journal:
    """The bounded log.

    Args:
        secret: The token, which is blotted out wherever it appears.
        longest: How many entries are kept.
    """

    def __init__(self, secret: str, longest: int = LONGEST) -> None:
        self._secret = secret
        self._entries: deque[Entry] = deque(maxlen=longest)
        self._count = 0

    def begin(self, request: Request, now: float) -> Entry:
        """Note a request that has arrived (epoch seconds)."""
        self._count += 1
        entry = Entry(
            number=self._count,
            time=now,
            method=request.method,
            path=self.blot(request.path),
            query={self.blot(name): self.blot(value) for name, value in request.query},
            body=self._body(request.body),
            user_agent=self.blot(request.header("user-agent") or "") or None,
            client_port=request.client_port,
        )
        self._entries.append(entry)
        return entry

    def entries(
        self, operation: str | None = None, thread_id: str | None = None, after: int = 0
    ) -> Iterable[dict[str, Any]]:
        """Give the entries, oldest first.

        Args:
            operation: Only of this operation.
            thread_id: Only about this thread.
            after: Only those with a higher number.

        Yields:
            Entries as JSON objects.
        """
        for entry in self._entries:
            if entry.number <= after:
                continue
            if operation is not None and entry.operation != operation:
                continue
            if thread_id is not None and entry.thread_id != thread_id:
                continue
            yield dict(vars(entry))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._count = 0

    def blot(self, text: str) -> str:
        """Take the token, and whatever follows the word Bearer, out of a text."""
        if self._secret:
            text = text.replace(self._secret, "***")
        return _BEARER.sub(r"\1***", text)

    def _body(self, body: bytes) -> Any:
        if not body:
            return None
        text = self.blot(body.decode("utf-8", "replace"))
        try:
            return parse(text)
        except BadJsonError:
            return text
