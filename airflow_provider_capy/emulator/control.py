"""The Python handle of a running emulator: what a test asks of it and learns from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

import httpx

from airflow_provider_capy.emulator.addresses import PROJECT, TOKEN, Addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import EllipsisType

    from typing_extensions import Self

_TIMEOUT = 60.0
_FINE = 400


class ThreadTruth(TypedDict):
    """What the emulator knows of a thread. Times are epoch seconds; ``stopped`` is when a stop took effect."""

    id: str
    project_id: str
    title: str
    prompt: str
    origin: str
    author_email: str
    life: str
    created: float
    stops: list[float]
    stopped: float | None
    status: str
    run_state: str
    waiting_on: list[str]
    blocked_on: list[str]
    pending_wakeups: int
    tasks: list[str]
    pull_requests: list[dict[str, Any]]
    since: float
    over: bool


class LoggedRequest(TypedDict):
    """A request the API got. ``time`` is epoch seconds; ``status`` is ``"dropped"`` when no answer was completed."""

    number: int
    time: float
    method: str
    path: str
    query: dict[str, str]
    body: Any
    operation: str | None
    thread_id: str | None
    status: int | str | None
    user_agent: str | None
    client_port: int | None


class EmulatorControlError(Exception):
    """The emulator refused what was asked of it; the message says why."""


class EmulatorControl:
    """The control interface of an emulator.

    Args:
        base: Its origin, such as ``http://127.0.0.1:8010``; a trailing ``/`` or ``/api`` is taken off.
        token: The token its API takes; nothing on the control interface needs it.
    """

    def __init__(self, base: str, token: str = TOKEN) -> None:
        self.addresses = Addresses(base.rstrip("/").removesuffix("/api"), token)
        # Proxies of the environment are for the network, not for the machine itself.
        self._http = httpx.Client(base_url=f"{self.addresses.origin}/_emulator", timeout=_TIMEOUT, trust_env=False)

    @property
    def api_url(self) -> str:
        """The base URL of the API."""
        return self.addresses.api_url

    @property
    def page_url(self) -> str:
        """The page that shows the threads."""
        return self.addresses.page_url

    @property
    def token(self) -> str:
        """The token the API takes."""
        return self.addresses.token

    def connection_json(self, **extra: Any) -> str:
        """Write the Airflow connection that leads to the emulator; see ``Addresses.connection_json``."""
        return self.addresses.connection_json(**extra)

    def script(self, match: str = "", life: str = "default", seconds: float | None = None, **options: Any) -> None:
        """Script the threads that are created from now on; of several scripts that match, the latest counts.

        Args:
            match: A part of their prompt; empty is every thread.
            life: The name of a life.
            seconds: How long the whole life takes in real seconds; None for its own length divided by the speed.
            **options: ``stop_seconds`` (real seconds from a stop to rest), ``blocked_on``, ``run_state``, ``phases``.
        """
        self._call("POST", "/lives", {"match": match, **_life(life, seconds, options)})

    def set_life(
        self, thread_id: str, life: str = "default", seconds: float | None = None, **options: Any
    ) -> ThreadTruth:
        """Let an existing thread begin another life now; the arguments are those of ``script``."""
        return cast("ThreadTruth", self._call("POST", f"/threads/{thread_id}/life", _life(life, seconds, options)))

    def fault(self, kind: str, operation: str = "*", **fields: Any) -> int:
        """Ask for a fault.

        Args:
            kind: ``status``, ``error_after``, ``lost``, ``reset``, ``black_hole``, ``truncate``, ``slow_head``, ``not_json``,
                ``huge``, ``slow``, ``slow_before``, ``stop_conflict``, ``list_lag``, ``drift``, ``distort`` or ``clock``.
            operation: The ``operationId`` it befalls; ``*`` is any.
            **fields: ``times`` (None: until cleared), ``skip``, ``probability``, ``seed``, ``match``, and the kind's own, which
                the docstrings of :mod:`~airflow_provider_capy.emulator.kinds` tell.

        Returns:
            Its number.
        """
        return int(self._call("POST", "/faults", {"kind": kind, "operation": operation, **fields})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Show the faults that were asked for, with ``calls`` that matched and how often each has ``fired``."""
        return cast("list[dict[str, Any]]", self._call("GET", "/faults")["items"])

    def clear_faults(self) -> None:
        """Make everything work again."""
        self._call("DELETE", "/faults")

    def threads(self) -> list[ThreadTruth]:
        """Tell the truth about every thread, in the order of creation."""
        return cast("list[ThreadTruth]", self._call("GET", "/threads")["items"])

    def thread(self, thread_id: str) -> ThreadTruth:
        """Tell the truth about one thread."""
        return cast("ThreadTruth", self._call("GET", f"/threads/{thread_id}"))

    def requests(
        self, operation: str | None = None, *, thread_id: str | None = None, after: int = 0
    ) -> list[LoggedRequest]:
        """Show the requests the API got, oldest first.

        Args:
            operation: Only of this ``operationId``.
            thread_id: Only about this thread.
            after: Only those with a higher number.

        Returns:
            The log.
        """
        query = {"operation": operation, "thread_id": thread_id, "after": after}
        given = {name: value for name, value in query.items() if value is not None}
        return cast("list[LoggedRequest]", self._call("GET", "/requests", query=given)["items"])

    def stops(self, thread_id: str) -> list[float]:
        """Tell when stops of a thread were asked for, in epoch seconds."""
        return self.thread(thread_id)["stops"]

    def archive(self, thread_id: str, *, stale: bool = False) -> ThreadTruth:
        """Archive a thread; ``stale`` leaves its run state as it was, as Capy sometimes does."""
        return cast("ThreadTruth", self._call("POST", f"/threads/{thread_id}/archive", {"stale": stale}))

    def unblock(self, thread_id: str) -> ThreadTruth:
        """Do what a blocked thread waits for: it goes on."""
        return cast("ThreadTruth", self._call("POST", f"/threads/{thread_id}/unblock"))

    def create(
        self,
        prompt: str = "Started elsewhere",
        *,
        project_id: str = PROJECT,
        life: str = "default",
        seconds: float | None = None,
        copies: int = 1,
        **fields: Any,
    ) -> list[str]:
        """Start threads past the API, as somebody at the web page would.

        Args:
            prompt: What they are asked to do.
            project_id: Their project.
            life: The name of their life.
            seconds: How long the whole life takes in real seconds.
            copies: How many threads.
            **fields: ``title``, ``origin``, ``age`` (seconds), ``tags``, ``repos``, ``author_email``, and the options of ``script``.

        Returns:
            Their ids.
        """
        body = {"prompt": prompt, "project_id": project_id, "copies": copies, **_life(life, seconds, fields)}
        return cast("list[str]", self._call("POST", "/threads", body)["ids"])

    def organisation(
        self,
        *,
        projects: Iterable[str] | EllipsisType | None = ...,
        tags: Sequence[str] | EllipsisType | None = ...,
        token: str | EllipsisType | None = ...,
    ) -> None:
        """Say which projects, and which tags, exist; None means that every name does, what is left out stays as it is.

        ``token`` is what the API takes from now on, as after a rotation; None is the emulator's own again.
        """
        given: dict[str, Any] = {} if token is ... else {"token": token}
        given |= {
            name: None if names is None else list(names)
            for name, names in (("projects", projects), ("tags", tags))
            if names is not ...
        }
        self._call("POST", "/organisation", given)

    def reset(self, speed: float | None = None) -> None:
        """Forget threads, faults, scripts and the log; the speed stays unless another is given."""
        self._call("POST", "/reset", {"speed": speed})

    def health(self) -> dict[str, Any]:
        """Tell whether the emulator is up, its speed and how many threads it has."""
        return self._call("GET", "/health")

    def close(self) -> None:
        """Close the connections to the emulator."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        response = self._http.request(method, path, json=body, params=query)
        answer = response.json()
        if response.status_code >= _FINE:
            raise EmulatorControlError(f"{method} {path}: {answer['error']['message']}")
        return cast("dict[str, Any]", answer)


def _life(life: str, seconds: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"life": life, "seconds": seconds, **options}
