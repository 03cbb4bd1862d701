"""The control interface: scripts lives, arms faults, and tells the truth about what happened. Not part of Capy's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from pydantic import ValidationError

from airflow_provider_capy.emulator import wire
from airflow_provider_capy.emulator.contract import Problem
from airflow_provider_capy.emulator.kinds import FAULT
from airflow_provider_capy.emulator.messages import Reply, failure, invalid, json_reply
from airflow_provider_capy.emulator.orders import (
    ArchiveOrder,
    LifeOrder,
    Order,
    OrganisationOrder,
    ResetOrder,
    ScriptOrder,
    ThreadOrder,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.messages import Request
    from airflow_provider_capy.emulator.threads import Thread
    from airflow_provider_capy.emulator.world import World

    Handler = Callable[[Request], Reply]
    ThreadHandler = Callable[[Thread, Request], Reply]

PREFIX = "/_emulator"
"""Where the control interface lives, off the paths of the contract."""

_Order = TypeVar("_Order", bound=Order)


class Admin:
    """The control interface of one emulator.

    Args:
        world: What the emulator remembers.
        origin: The emulator's own origin, where links lead.
    """

    def __init__(self, world: World, origin: str) -> None:
        self._world = world
        self._origin = origin
        self._routes: dict[str, dict[str, Handler]] = {
            "health": {"GET": self._health},
            "threads": {"GET": self._threads, "POST": self._start},
            "lives": {"GET": self._lives, "POST": self._script},
            "faults": {"GET": self._faults, "POST": self._arm, "DELETE": self._disarm},
            "organisation": {"POST": self._organise},
            "requests": {"GET": self._requests},
            "reset": {"POST": self._reset},
        }
        self._thread_routes: dict[str, dict[str, ThreadHandler]] = {
            "": {"GET": self._thread},
            "archive": {"POST": self._archive},
            "unblock": {"POST": self._unblock},
            "life": {"POST": self._live},
        }

    def answer(self, request: Request) -> Reply:
        """Answer a request whose path begins with ``PREFIX``."""
        segments = [unquote(segment) for segment in request.path.removeprefix(PREFIX).strip("/").split("/")]
        try:
            return self._dispatch(request, segments)
        except ValidationError as error:
            return invalid([_problem(item) for item in error.errors(include_url=False, include_context=False)])
        except ValueError as error:
            return invalid([Problem("", str(error))])

    def _dispatch(self, request: Request, segments: list[str]) -> Reply:
        if segments[0] == "threads" and len(segments) in (2, 3):
            thread_methods = self._thread_routes.get("".join(segments[2:]), {})
            thread_handler = thread_methods.get(request.method)
            if thread_handler is None:
                return _not_allowed(thread_methods)
            thread = self._world.threads.get(segments[1])
            return thread_handler(thread, request) if thread else failure(404, "not_found", "There is no such thread")
        methods = self._routes.get(segments[0], {}) if len(segments) == 1 else {}
        handler = methods.get(request.method)
        return handler(request) if handler else _not_allowed(methods)

    def _health(self, _request: Request) -> Reply:
        return json_reply({"status": "ok", "speed": self._world.speed, "threads": len(self._world.threads)})

    def _threads(self, request: Request) -> Reply:
        query = dict(request.query)
        now = self._world.clock()
        chosen = list(self._world.threads)
        if "limit" in query:
            chosen = chosen[: -int(query["limit"]) - 1 : -1]
        return json_reply(
            {"now": now, "total": len(self._world.threads), "items": [self._truth(item, now) for item in chosen]}
        )

    def _start(self, request: Request) -> Reply:
        started = self._world.start_elsewhere(_read(ThreadOrder, request), self._world.clock())
        return json_reply({"ids": [thread.id for thread in started]})

    def _lives(self, _request: Request) -> Reply:
        return json_reply({"items": [order.model_dump() for order in self._world.scripts]})

    def _script(self, request: Request) -> Reply:
        order = _read(ScriptOrder, request)
        self._world.scripts.append(order)
        return json_reply(order.model_dump())

    def _faults(self, _request: Request) -> Reply:
        return json_reply({"items": self._world.faults.view()})

    def _arm(self, request: Request) -> Reply:
        return json_reply({"id": self._world.faults.add(FAULT.validate_python(request.json()))})

    def _disarm(self, _request: Request) -> Reply:
        self._world.faults.clear()
        return json_reply({})

    def _organise(self, request: Request) -> Reply:
        given = _read(OrganisationOrder, request).model_dump(exclude_unset=True)
        self._world.organisation = self._world.organisation.model_copy(update=given)
        return json_reply({})

    def _requests(self, request: Request) -> Reply:
        query = dict(request.query)
        entries = self._world.journal.entries(
            query.get("operation"), query.get("thread_id"), int(query.get("after", "0"))
        )
        return json_reply({"items": list(entries)})

    def _reset(self, request: Request) -> Reply:
        self._world.reset(_read(ResetOrder, request).speed)
        return json_reply({})

    def _thread(self, thread: Thread, _request: Request) -> Reply:
        now = self._world.clock()
        return json_reply({"now": now, **self._truth(thread, now)})

    def _archive(self, thread: Thread, request: Request) -> Reply:
        order = _read(ArchiveOrder, request)
        thread.archive(self._world.clock(), None if order.stale else "archived")
        return self._thread(thread, request)

    def _unblock(self, thread: Thread, request: Request) -> Reply:
        thread.unblock(self._world.clock())
        return self._thread(thread, request)

    def _live(self, thread: Thread, request: Request) -> Reply:
        order = _read(LifeOrder, request)
        thread.start_over(self._world.course(order, self._world.clock()))
        return self._thread(thread, request)

    def _truth(self, thread: Thread, now: float) -> dict[str, Any]:
        moment = thread.now(now)
        state = moment.state
        return {
            "id": thread.id,
            "project_id": thread.project_id,
            "title": thread.title,
            "prompt": thread.prompt,
            "origin": thread.origin,
            "author_email": thread.author.email,
            "life": thread.course.life.name,
            "created": thread.created,
            "stops": thread.stops,
            "stopped": thread.course.stopped,
            "status": state.status,
            "run_state": state.run_state,
            "waiting_on": state.waiting_on,
            "blocked_on": state.blocked_on,
            "pending_wakeups": state.pending_wakeups,
            "tasks": state.tasks,
            "pull_requests": wire.pull_requests(thread, state, self._origin),
            "since": moment.since,
            "over": moment.over,
        }


def _read(model: type[_Order], request: Request) -> _Order:
    return model.model_validate(request.json() if request.body else {})


def _problem(error: Any) -> Problem:
    return Problem(".".join(map(str, error["loc"])), error["msg"])


def _not_allowed(methods: dict[str, Any]) -> Reply:
    if not methods:
        return failure(404, "not_found", "The control interface has no such path")
    allowed = ", ".join(sorted(methods))
    return failure(405, "method_not_allowed", f"Use {allowed}", headers=(("allow", allowed),))
