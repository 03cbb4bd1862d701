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
    CapyReferenceError,
    CapyRequestError,
    CapyServerError,
)
from airflow_provider_capy.flow import Ask, Flow, Pause
from airflow_provider_capy.identity import nobodys, reference_from, the_one
from airflow_provider_capy.records import STORE_KEY
from airflow_provider_capy.waiting import is_passing

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
        between: seconds between the looks for two generations of the user's own reference.
    """

    index_lag: float = 30.0
    shared_lag: float = 10.0
    first_pause: float = 1.0
    longest_pause: float = 5.0
    between: float = 0.2


PATIENCE = Patience()

# A reference of the user's own under which more threads than this have ended badly is refused.
MOST_GENERATIONS = 100


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
    until: float,
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
    retry: RetryLimits | None = None,
) -> Flow[Thread | None]:
    """Look for the thread that carries a reference, patiently, since a search index may lag and Capy may be away.

    Args:
        reference: see :func:`~airflow_provider_capy.identity.reference_for`.
        project_id: where it must be.
        until: epoch seconds until which an empty answer is not believed, and a failure that may pass is sat out.
        clock: gives epoch seconds.
        patience: how the looks are spread.
        retry: how patient each look is.

    Raises:
        CapyReferenceError: for several hits, one that cannot be ours, or a search that finds what it was not asked for.
        CapyRequestError: when Capy cannot be asked.
    """
    pause = patience.first_pause
    while True:
        failure: CapyRequestError | None = None
        at_least = 0.0
        try:
            if hits := (yield from _search(reference, project_id, retry)):
                # The contract calls it free text: a search that shows what comes nearest would show somebody else's.
                if (yield from _search(nobodys(reference), project_id, retry)):
                    raise CapyReferenceError(
                        f"Capy's search is not exact: it finds threads of project {project_id} for a word that none has, so "
                        f"none can be found by its reference {reference}. Nothing was taken, stopped or started; see whether "
                        "a thread is at work there, then leave reference= out, set durable=False and delete the key "
                        f"{STORE_KEY!r} from this task's state store, if it is there"
                    )
                return the_one(hits, reference=reference, project_id=project_id)
        except CapyRequestError as error:
            if not is_passing(error):
                raise
            failure, at_least = error, getattr(error, "retry_after", None) or 0.0
        left = until - clock()
        if left <= 0:
            if failure is not None:
                raise failure
            return None
        yield Pause(min(max(pause, at_least), left))
        pause = min(pause * 1.5, patience.longest_pause)


def _search(word: str, project_id: str, retry: RetryLimits | None) -> Flow[list[Thread]]:
    query = checked(ListThreadsQuery, project_id=project_id, origin="api", q=word, limit=100)
    page = yield Ask(list_threads(query), retry)
    return page.items  # type: ignore[no-any-return]


def find_shared(
    text: str,
    generation: int,
    *,
    project_id: str,
    counts: Callable[[Thread], Flow[bool]],
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
) -> Flow[tuple[Thread | None, int]]:
    """Find the thread that carries a reference of the user's own, whoever started it.

    A thread that ended badly is followed by one of the next generation: the last that counts is the one.

    Args:
        text: the user's reference.
        generation: of the first thread to look for.
        project_id: where it must be.
        counts: asks whether a thread that was found may be gone on with.
        clock: gives epoch seconds.
        patience: how long the first that is missing is looked for.

    Returns:
        the thread and its generation; ``None`` and the generation of the one to be created.

    Raises:
        CapyReferenceError: see :func:`look_up`; or too many generations ended badly.
        CapyRequestError: when Capy cannot be asked.
    """
    last: tuple[Thread, int] | None = None
    for following in range(generation, generation + MOST_GENERATIONS):
        wait = patience.shared_lag if last is None else 0.0
        reference = reference_from(text, following)
        found = yield from look_up(
            reference, project_id=project_id, until=clock() + wait, clock=clock, patience=patience
        )
        if found is None:
            return last if last is not None else (None, following)
        last = (found, following) if (yield from counts(found)) else None
        yield Pause(patience.between)
    raise CapyReferenceError(
        f"reference: {MOST_GENERATIONS} threads carry {text!r} and followed each other. Nothing was started; "
        "give another reference, e.g. with a number of its own"
    )


def create_once(
    body: CreateThreadBody,
    *,
    reference: str | None,
    clock: Callable[[], float],
    patience: Patience = PATIENCE,
) -> Flow[CreatedThread | Thread]:
    """Send the create, and find its thread when the answer was lost; never send it a second time.

    Args:
        body: the thread; its prompt carries the reference, if there is one.
        reference: what to look for after a lost answer; ``None`` when the prompt carries none.
        clock: gives epoch seconds.
        patience: how long it is looked for.

    Raises:
        CapyCreateUnknownError: the answer was lost, and no thread was surely found: one may exist.
        CapyRequestError: the create surely started nothing.
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
            f"A thread may have been started and is not known here: {lost}. durable=False gave it no reference to look "
            f"it up by. Look in project {body.project_id} before you retry; a retry starts another one"
        ) from lost
    try:
        found = yield from look_up(
            reference,
            project_id=body.project_id,
            until=clock() + patience.index_lag,
            clock=clock,
            patience=patience,
        )
    except (CapyRequestError, CapyReferenceError) as error:
        raise outcome_unknown(reference, f"{lost}. Looking the thread up failed as well ({error})") from lost
    if found is None:
        raise outcome_unknown(reference, f"{lost}. No thread was found within {patience.index_lag:g} s") from lost
    return found


def outcome_unknown(reference: str, what_happened: str) -> CapyCreateUnknownError:
    """Return the error for a thread that may exist; it carries what the thread can be found by."""
    return CapyCreateUnknownError(
        f"A thread may have been started, the outcome is unknown: {what_happened}. It carries the reference {reference}; "
        "the next try looks for it again before it starts another one"
    )
