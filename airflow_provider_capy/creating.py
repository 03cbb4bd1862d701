"""How a thread is started exactly once, although Capy's contract has no idempotency key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_capy.api.calls import create_thread, list_threads
from airflow_provider_capy.api.requests import ListThreadsQuery, checked
from airflow_provider_capy.exceptions import (
    CapyAPIError,
    CapyConnectError,
    CapyCreateUnknownError,
    CapyRequestError,
    CapyServerError,
)
from airflow_provider_capy.flow import Ask, Flow, Pause
from airflow_provider_capy.identity import reference_from, the_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.models import CreatedThread, Thread
    from airflow_provider_capy.api.requests import CreateThreadBody
    from airflow_provider_capy.api.retry import RetryLimits

# A proxy that gave up on a request it had already passed on.
_REQUEST_TIMEOUT = 408


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a lookup goes on when it finds nothing.

    Attributes:
        index_lag: seconds that the search index may lag behind a create: so long a lookup looks for a thread that may
            have been started, and a create is not repeated before its intent is twice as old.
        shared_lag: seconds to look for a thread that another task may just have started under the user's own reference.
        first_pause: seconds between the first two looks; each pause is half as long again as the one before.
        longest_pause: seconds between looks at the most.
    """

    index_lag: float = 30.0
    shared_lag: float = 10.0
    first_pause: float = 1.0
    longest_pause: float = 5.0


PATIENCE = Patience()


def was_surely_not_processed(error: CapyRequestError) -> bool:
    """Say whether a create that ended in ``error`` certainly started nothing."""
    if isinstance(error, CapyConnectError):
        return True
    if not isinstance(error, CapyAPIError) or isinstance(error, CapyServerError):
        return False
    return error.status_code != _REQUEST_TIMEOUT


def look_up(
    reference: str,
    *,
    project_id: str,
    not_before: float | None,
    until: float,
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
    retry: RetryLimits | None = None,
) -> Flow[Thread | None]:
    """Look for the thread that carries a reference, patiently, since a search index may lag.

    Args:
        reference: see :func:`~airflow_provider_capy.identity.reference_for`.
        project_id: where it must be.
        not_before: epoch seconds before which it cannot have been created; ``None`` for any age.
        until: epoch seconds until which an empty answer is not believed.
        clock: gives epoch seconds.
        patience: how the looks are spread.
        retry: how patient each look is.

    Raises:
        CapyReferenceError: for several hits, or one that cannot be ours.
        CapyRequestError: when Capy cannot be asked.
    """
    query = checked(ListThreadsQuery, project_id=project_id, origin="api", q=reference, limit=100)
    pause = patience.first_pause
    while True:
        page = yield Ask(list_threads(query), retry)
        found = the_one(page.items, reference=reference, project_id=project_id, not_before=not_before)
        if found is not None or clock() >= until:
            return found
        yield Pause(min(pause, max(until - clock(), 0.0)))
        pause = min(pause * 1.5, patience.longest_pause)


def find_shared(
    text: str,
    generation: int,
    *,
    project_id: str,
    counts: Callable[[Thread], bool],
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
) -> Flow[tuple[Thread | None, int]]:
    """Find the thread that carries a reference of the user's own, whoever started it.

    A thread that ended badly is followed by one of the next generation: the last that counts is the one.

    Args:
        text: the user's reference.
        generation: of the first thread to look for.
        project_id: where it must be.
        counts: says whether a thread may be gone on with.
        clock: gives epoch seconds.
        patience: how long the first that is missing is looked for.

    Returns:
        the thread and its generation; ``None`` and the generation of the one to be created.
    """
    last: tuple[Thread, int] | None = None
    while True:
        wait = patience.shared_lag if last is None else 0.0
        reference = reference_from(text, generation)
        found = yield from look_up(
            reference, project_id=project_id, not_before=None, until=clock() + wait, clock=clock, patience=patience
        )
        if found is None:
            return last if last is not None else (None, generation)
        last = (found, generation) if counts(found) else None
        generation += 1


def create_once(
    body: CreateThreadBody,
    *,
    reference: str | None,
    intended_at: float,
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
) -> Flow[CreatedThread | Thread]:
    """Send the create, and find its thread when the answer was lost; never send it a second time.

    Args:
        body: the thread; its prompt carries the reference, if there is one.
        reference: what to look for after a lost answer; ``None`` when the prompt carries none.
        intended_at: epoch seconds before which the thread cannot have been created.
        clock: gives epoch seconds.
        patience: how long it is looked for.

    Raises:
        CapyCreateUnknownError: the answer was lost, and no thread was found: one may exist.
        CapyRequestError: the create surely started nothing.
        CapyReferenceError: see :func:`look_up`.
    """
    try:
        created: CreatedThread = yield Ask(create_thread(body))
        return created
    except CapyRequestError as error:
        if was_surely_not_processed(error):
            raise
        lost = error
    if reference is None:
        raise CapyCreateUnknownError(
            f"{lost}. A thread may have been started and is not known here: durable=False gave it no reference to look "
            f"it up by. Look in project {body.project_id} before you retry; a retry starts another one"
        ) from lost
    try:
        found = yield from look_up(
            reference,
            project_id=body.project_id,
            not_before=intended_at,
            until=clock() + patience.index_lag,
            clock=clock,
            patience=patience,
        )
    except CapyRequestError as error:
        raise outcome_unknown(reference, f"{lost}. Looking the thread up failed as well ({error})") from lost
    if found is None:
        raise outcome_unknown(reference, f"{lost}. No thread was found within {patience.index_lag:g} s") from lost
    return found


def outcome_unknown(reference: str, what_happened: str) -> CapyCreateUnknownError:
    """Return the error for a thread that may exist; it carries what the thread can be found by."""
    return CapyCreateUnknownError(
        f"{what_happened}. The outcome is unknown: a thread with the reference {reference} may have been started; "
        "the next try looks for it again before it starts another one"
    )
