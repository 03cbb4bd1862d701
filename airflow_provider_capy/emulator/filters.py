"""Decides which threads a list request asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.emulator.contract import Problem
from airflow_provider_capy.emulator.wire import PULL_REQUESTS_PER_THREAD, head_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_capy.emulator.life import State
    from airflow_provider_capy.emulator.threads import Thread

    Test = Callable[[Thread, float], bool]

_EXCLUSIVE = (("authorId", "authorEmail"), ("participantId", "participantEmail"))


def conflicts(query: Mapping[str, Any]) -> list[Problem]:
    """Find filters that cannot be given together, which the contract says in prose only."""
    return [
        Problem(second, f"cannot be given together with {first}: leave one of them out")
        for first, second in _EXCLUSIVE
        if first in query and second in query
    ]


def tests_for(query: Mapping[str, Any]) -> list[Test]:
    """Make the tests a thread has to pass; the cheap ones, which need no state, come first.

    Args:
        query: The values of a list request.

    Returns:
        Functions of a thread and the time (epoch seconds).
    """
    return [make(query[name]) for name, make in _TESTS.items() if name in query]


def pull_request_state(state: State) -> str:
    """Take a thread's pull requests together: open when any is, then merged, then closed; none without any."""
    kinds = {"open" if kind == "draft" else kind for kind in state.pull_requests}
    return next((kind for kind in ("open", "merged", "closed") if kind in kinds), "none")


def _text(value: str) -> Test:
    folded = value.casefold()
    return lambda thread, _now: folded in thread.text


def _origin(value: str) -> Test:
    return lambda thread, _now: thread.origin == value


def _tag(value: str) -> Test:
    return lambda thread, _now: value in thread.tags


def _user_id(value: str) -> Test:
    return lambda thread, _now: thread.author.id == value


def _user_email(value: str) -> Test:
    folded = value.casefold()
    return lambda thread, _now: thread.author.email.casefold() == folded


def _slack_channel(value: str) -> Test:
    return lambda thread, _now: thread.slack is not None and thread.slack.channel_id == value


def _slack_thread(value: str) -> Test:
    return lambda thread, _now: thread.slack is not None and thread.slack.thread_ts == value


def _status(value: str) -> Test:
    return lambda thread, now: thread.now(now).state.status == value


def _pull_request_state(value: str) -> Test:
    return lambda thread, now: pull_request_state(thread.now(now).state) == value


def _pull_request_number(value: int) -> Test:
    serial, index = divmod(value, PULL_REQUESTS_PER_THREAD)
    return lambda thread, now: thread.serial == serial and index < len(thread.now(now).state.pull_requests)


def _branch(value: str) -> Test:
    def test(thread: Thread, now: float) -> bool:
        if any(branch == value for _repository, branch in thread.repos):
            return True
        return any(head_ref(thread, index) == value for index in range(len(thread.now(now).state.pull_requests)))

    return test


_TESTS: dict[str, Callable[[Any], Test]] = {
    "origin": _origin,
    "tag": _tag,
    "authorId": _user_id,
    "authorEmail": _user_email,
    # Nobody but the author takes part in the emulator's threads.
    "participantId": _user_id,
    "participantEmail": _user_email,
    "slackChannelId": _slack_channel,
    "slackThreadTs": _slack_thread,
    "q": _text,
    "prNumber": _pull_request_number,
    "status": _status,
    "prState": _pull_request_state,
    "branch": _branch,
}
