"""A procedure that is written once does the same in a worker and in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy import flow as flows
from airflow_provider_capy.api.calls import get_thread, stop_thread
from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.exceptions import CapyError, CapyNotFoundError, CapyRequestError
from airflow_provider_capy.flow import Ask, Flow, Pause, SharedClient, arun, arun_all, run

if TYPE_CHECKING:
    from collections.abc import Callable

# What a client answers to each question: a value, or an error to raise.
answers = st.integers(0, 9) | st.sampled_from([CapyRequestError("lost"), CapyNotFoundError("gone", status_code=404)])
steps = st.lists(st.tuples(st.sampled_from(["ask", "ask patiently", "pause"]), answers), max_size=10)


def procedure(course: list[tuple[str, Any]], seen: list[Any], *, forgiving: bool, name: str = "jam") -> Flow[int]:
    for number, (step, _) in enumerate(course):
        try:
            if step == "pause":
                seen.append((yield Pause(number / 1000)))
            else:
                limits = RetryLimits(attempts=number + 1) if step == "ask patiently" else None
                seen.append((yield Ask(get_thread(f"{name}_{number}"), limits)))
        except CapyRequestError as error:
            seen.append(error)
            if not forgiving:
                raise
    return len(seen)


class Scripted:
    """Answers from a list, and remembers what it was asked."""

    def __init__(self, course: list[tuple[str, Any]]) -> None:
        self.asked: list[Any] = []
        self._answers = [answer for step, answer in course if step != "pause"]

    def send(self, call: Any, retry: RetryLimits | None = None) -> Any:
        self.asked.append((call.path, retry))
        answer = self._answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedAsync(Scripted):
    async def send(self, call: Any, retry: RetryLimits | None = None) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().send(call, retry)


def trace(
    course: list[tuple[str, Any]],
    forgiving: bool,
    kind: type[Scripted],
    drive: Callable[..., Any],
    name: str = "jam",
) -> Any:
    """Return everything that can be told of one drive: answers, questions, pauses, and the end."""
    client, seen, slept = kind(course), [], []

    class Loop:
        @staticmethod
        async def sleep(seconds: float) -> None:
            slept.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "asyncio", Loop)
        try:
            end: Any = drive(procedure(course, seen, forgiving=forgiving, name=name), client, slept.append)
        except CapyError as error:
            end = error
    return seen, client.asked, slept, end


@given(steps, st.booleans())
def test_both_drivers_leave_the_same_trace(course: list[tuple[str, Any]], forgiving: bool) -> None:
    loop = asyncio.new_event_loop()
    try:
        awaited = trace(
            course, forgiving, ScriptedAsync, lambda flow, client, _: loop.run_until_complete(arun(flow, client))
        )
    finally:
        loop.close()
    assert trace(course, forgiving, Scripted, run) == awaited


class Shared:
    """One Capy for several flows, each of which asks for threads of its own."""

    def __init__(self, courses: list[list[tuple[str, Any]]]) -> None:
        self.clients = {f"flow{number}": ScriptedAsync(course) for number, course in enumerate(courses)}
        self.closed = 0

    async def opened(self, _: Any) -> Shared:
        return self

    async def send(self, call: Any, retry: RetryLimits | None = None) -> Any:
        return await self.clients[call.path.rpartition("/")[2].partition("_")[0]].send(call, retry)

    async def close(self) -> None:
        self.closed += 1


@given(st.lists(steps, max_size=4), st.booleans())
def test_flows_beside_each_other_end_as_each_does_alone(courses: list[list[tuple[str, Any]]], forgiving: bool) -> None:
    shared = Shared(courses)
    seen: list[list[Any]] = [[] for _ in courses]
    flows_ = [
        procedure(course, seen[number], forgiving=forgiving, name=f"flow{number}")
        for number, course in enumerate(courses)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedClient, "opened", shared.opened)
        ends = asyncio.run(arun_all(flows_, None))  # type: ignore[arg-type]
    together = [(seen[number], client.asked, ends[number]) for number, client in enumerate(shared.clients.values())]
    alone = []
    for number, course in enumerate(courses):
        told, asked, _, end = trace(course, forgiving, Scripted, run, name=f"flow{number}")
        alone.append((told, asked, end))
    assert together == alone
    assert shared.closed == 1


async def test_a_shared_client_has_no_more_in_flight_than_it_may_and_lets_stops_go_first() -> None:
    class Slow:
        now = most = 0
        begun: ClassVar[list[str]] = []

        async def send(self, call: Any, _: Any) -> Any:
            Slow.begun.append(call.method)
            Slow.now += 1
            Slow.most = max(Slow.most, Slow.now)
            await asyncio.sleep(0.005)
            Slow.now -= 1
            return call

    client = SharedClient(Slow(), in_flight=4)  # type: ignore[arg-type]
    calls = [get_thread(f"jam_{number}") for number in range(20)] + [
        stop_thread(f"jam_{number}") for number in range(20)
    ]
    assert await asyncio.gather(*(client.send(call) for call in calls)) == calls
    assert Slow.most == 4
    # Of four at a time one may be a look, although the looks came first.
    assert Slow.begun[:28].count("POST") >= 20


def test_pauses_are_slept() -> None:
    course = [("pause", 0), ("ask", 7), ("pause", 0)]
    assert trace(course, True, Scripted, run) == ([None, 7, None], [("/v1/threads/jam_1", None)], [0.0, 0.002], 3)


@pytest.mark.parametrize("driver", ["run", "arun"])
def test_a_bug_in_a_procedure_is_not_swallowed(driver: str) -> None:
    def broken() -> Flow[None]:
        yield Pause(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(broken(), None) if driver == "run" else asyncio.run(arun(broken(), None))  # type: ignore[arg-type,func-returns-value]
