"""The pages people look at: the threads, one thread, one pull request."""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_capy.emulator.messages import Reply, failure
from airflow_provider_capy.emulator.wire import PULL_REQUESTS_PER_THREAD

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.messages import Request
    from airflow_provider_capy.emulator.world import World

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "html": "text/html; charset=utf-8"}
_ASSETS = frozenset({"style.css", "common.js", "threads.js", "thread.js"})
_THREAD = re.compile(r"/project/[^/]*/captain/(?P<thread>[^/]+)")
_PULL = re.compile(r"/pull/.+/(?P<number>[0-9]{1,18})")
# Nothing from elsewhere is loaded, and nothing a prompt contains can run.
_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:"
_HEADERS = (("content-security-policy", _POLICY), ("x-content-type-options", "nosniff"), ("cache-control", "no-cache"))


def page(request: Request, world: World) -> Reply:
    """Answer a request for a page or for a part of one.

    Args:
        request: The request.
        world: What the emulator remembers.

    Returns:
        The reply; 404 in the error shape for a path that is no page's.
    """
    reply = _find(request.path, world)
    if reply is None:
        return failure(404, "not_found", "There is nothing here; the API is under /api, the threads are at /")
    if request.method not in ("GET", "HEAD"):
        return failure(405, "method_not_allowed", "Use GET, HEAD", headers=(("allow", "GET, HEAD"),))
    return reply


def _find(path: str, world: World) -> Reply | None:
    if path == "/":
        return _reply(200, _text("threads.html"), "html")
    name = path.removeprefix("/assets/")
    if name != path and name in _ASSETS:
        return _reply(200, _text(name), name.rpartition(".")[2])
    if found := _THREAD.fullmatch(path):
        thread = world.threads.get(unquote(found["thread"]))
        return _thread(thread.id if thread else "", "")
    if found := _PULL.fullmatch(path):
        thread = world.threads.with_serial(int(found["number"]) // PULL_REQUESTS_PER_THREAD)
        return _thread(thread.id if thread else "", found["number"])
    return None


def _thread(thread_id: str, pull: str) -> Reply:
    text = Template(_text("thread.html")).substitute(thread=html.escape(thread_id), pull=html.escape(pull))
    return _reply(200 if thread_id else 404, text, "html")


def _reply(status: int, text: str, kind: str) -> Reply:
    return Reply(status, text.encode(), _TYPES[kind], _HEADERS)


@cache
def _text(name: str) -> str:
    return files("airflow_provider_capy.emulator").joinpath("assets", name).read_text(encoding="utf-8")
