"""Looks at a thread that are believed: its absence has stood for a while, and its rest is proven as for a wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capy.api.calls import get_thread
from airflow_provider_capy.exceptions import CapyNotFoundError, CapyRequestError
from airflow_provider_capy.flow import Ask, Flow, Pause
from airflow_provider_capy.lifecycle import Denial, Memory, Policy, judge
from airflow_provider_capy.waiting import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.models import Thread

# An answer would set a blocked thread to work again, so that it is never at rest by itself.
_REST = Policy(on_blocked="wait")


def look_surely(thread_id: str, *, clock: Callable[[], float]) -> Flow[Thread | None]:
    """Look at a thread, and believe no no of Capy's before it has stood for a while.

    Args:
        thread_id: the thread.
        clock: gives epoch seconds.

    Returns:
        the thread; ``None`` when it is surely gone.

    Raises:
        CapyRequestError: it could not be looked at.
    """
    denial = Denial()
    while True:
        try:
            thread: Thread = yield Ask(get_thread(thread_id))
        except CapyRequestError as error:
            if is_passing(error):
                raise
            pause = denial.heard(error, clock())
            if denial.stands:
                if isinstance(error, CapyNotFoundError):
                    return None
                raise
        else:
            return thread
        yield Pause(pause)


def look_for_work(thread_id: str, *, clock: Callable[[], float]) -> Flow[Thread | None]:
    """Look at a thread until it is known whether it is at rest: for as long as the start race at the most.

    Args:
        thread_id: the thread.
        clock: gives epoch seconds.

    Returns:
        the thread while it is at work, or may be set to work again by a wake-up or a person's answer; ``None`` when it is
        surely at rest, or gone.

    Raises:
        CapyRequestError: it could not be looked at.
    """
    memory = Memory()
    while True:
        thread = yield from look_surely(thread_id, clock=clock)
        if thread is None:
            return None
        verdict = judge(thread, memory, _REST, clock())
        if verdict.outcome is not None:
            return None
        if verdict.look_again_in is None:
            return thread
        memory = verdict.memory
        yield Pause(verdict.look_again_in)
