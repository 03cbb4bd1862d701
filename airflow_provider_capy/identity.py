"""Which thread belongs to a task: the reference that finds it again, and the decision of every try. Pure."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_capy.exceptions import CapyInputError, CapyReferenceError
from airflow_provider_capy.records import STORE_KEY, TASKS_REFERENCE, USERS_REFERENCE, ThreadRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capy.api.models import Thread

REFERENCE_LABEL = "Airflow reference:"

# Why a record that names no thread is not looked up: Capy refused the create, so there is none.
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """The task instance that a thread is started for; the try number is no part of it.

    Attributes:
        dag_id: the DAG.
        run_id: the run.
        task_id: the task, with its groups.
        map_index: ``-1`` when it is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What Airflow says about a try, so far as it tells a retry from a clear.

    Attributes:
        clear_number: how often the run was cleared, by whichever of its tasks (``dag_run.clear_number``).
        max_tries: of this task instance; its clear raises it, and nothing else does. For one that runs a busy scheduler can
            forget to. ``None`` when it is not known.
        retries: of the task as its DAG stands now: a clear counts ``max_tries`` anew from it, so that a changed one can
            hide a clear. ``None`` when it is not known.
        try_number: of this try. Retries alone do not lead beyond ``max_tries + 1``; a clear does, and so does a scheduler that
            was lost with the task in its queue.
    """

    clear_number: int
    max_tries: int | None = None
    retries: int | None = None
    try_number: int = 1

    @property
    def is_beyond_retries(self) -> bool:
        """Whether there are more tries than retries alone lead to."""
        return self.max_tries is not None and self.try_number > self.max_tries + 1


class Record(ThreadRecord):
    """What a task that starts threads remembers across its tries.

    Attributes:
        reference: the word in the prompt's last line; empty with ``durable=False``.
        nonce: tells two Airflows apart that have the same DAG, run and task.
        generation: 0 for the first thread of this task, one more for each that replaced it.
        clear_number: how often the run had been cleared when it was written.
        max_tries: see :class:`Attempt`.
        retries: see there.
        intended_at: epoch seconds of the first intent under this reference.
        sent_at: epoch seconds of the last intent under it: deadlines count from here.
        succeeded: the task reached its success with it.
        ended: why a retry must not go on with it, e.g. ``"archived"``; empty while it may.
    """

    nonce: str
    generation: int = 0
    clear_number: int = 0
    max_tries: int | None = None
    retries: int | None = None
    intended_at: float
    sent_at: float = 0.0
    succeeded: bool = False
    ended: str = ""

    @property
    def started_at(self) -> float:
        """Epoch seconds from which a deadline counts, the same for every try that goes on with this thread."""
        return self.sent_at or self.intended_at


class Action(str, Enum):
    """What a try does first."""

    CREATE = "create"
    LOOK_UP = "look_up"
    REATTACH = "reattach"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a try does.

    Attributes:
        action: ``create`` a thread; ``look_up`` the reference first, since a create may have been processed;
            ``reattach`` to the known thread; ``replace`` it: bring it to rest, then create.
        generation: of the thread that is created, now or after the lookup or the stop.
    """

    action: Action
    generation: int


def decide(record: Record | None, attempt: Attempt, *, durable: bool = True) -> Decision:
    """Decide what a try does with what earlier tries left.

    A retry goes on with the thread of the try before; a clear wants a new one, and so does a retry that is not durable. No thread that this task started and
    that may still be at work is left behind by a new one: it is stopped first, also when it had ended badly for the
    task. Only a success is left as it is.

    Args:
        record: what the store holds.
        attempt: the try that asks.
        durable: whether a retry goes on with the thread.
    """
    if record is None:
        return Decision(Action.CREATE, 0)
    following = record.generation + 1
    if record.ended or record.was_stopped or not durable or was_cleared(record, attempt):
        if record.ended == REFUSED or record.shared:
            # Nothing was started under it, or by somebody else: its reference decides again, and nothing is stopped.
            return Decision(Action.CREATE, record.generation)
        consumed = record.succeeded and not record.ended and not record.was_stopped
        return Decision(Action.CREATE if consumed else Action.REPLACE, following)
    if record.thread_id is None:
        return Decision(Action.LOOK_UP, record.generation)
    return Decision(Action.REATTACH, following)


def was_cleared(record: Record, attempt: Attempt) -> bool:
    """Say whether this task was cleared since the record was written, and not only another one of its run.

    Airflow counts clears per run. A clear of this task raises its ``max_tries`` as well, or should; where its ``retries`` were
    changed meanwhile, from which the clear has counted, the run's number alone has to be believed.
    """
    if attempt.clear_number == record.clear_number:
        return False
    if record.max_tries is None or (record.max_tries, record.retries) != (attempt.max_tries, attempt.retries):
        return True
    return attempt.is_beyond_retries


def reference_for(task: TaskIdentity, generation: int, nonce: str) -> str:
    """Return the reference of one task instance's thread: one word, so that any text search finds it whole.

    The form is part of the promise: a change would break lookups of tasks that are being retried.
    """
    fields = [task.dag_id, task.run_id, task.task_id, task.map_index, generation, nonce]
    canonical = json.dumps(fields, separators=(",", ":"), ensure_ascii=True)
    return TASKS_REFERENCE + hashlib.sha256(canonical.encode()).hexdigest()[:32]


def reference_from(text: str, generation: int = 0) -> str:
    """Return the reference for a text of the user's own, e.g. a ticket number; the same in every run and Airflow.

    Args:
        text: the user's text.
        generation: more than 0 for a thread that replaces one that ended badly.

    Raises:
        CapyInputError: when it is blank, as a template that rendered to nothing is.
    """
    if not text.strip():
        raise CapyInputError("reference: is empty; give a text that names the work, or leave it out")
    canonical = json.dumps([text.strip(), generation], separators=(",", ":"), ensure_ascii=True)
    return USERS_REFERENCE + hashlib.sha256(canonical.encode()).hexdigest()[:32]


def with_reference(prompt: str, reference: str) -> str:
    """Return the prompt with the reference as its last line."""
    return f"{prompt.rstrip()}\n\n{REFERENCE_LABEL} {reference}"


def nobodys(reference: str) -> str:
    """Return a word like a reference that nobody has: a search that is exact finds nothing for it."""
    return reference[:2] + secrets.token_hex(16)


def the_one(hits: Sequence[Thread], *, reference: str, project_id: str) -> Thread:
    """Return our thread from what the lookup found.

    Args:
        hits: threads whose content holds the reference, at least one.
        reference: what was looked for.
        project_id: where ours must be.

    Raises:
        CapyReferenceError: for several hits that are not archived, or one that cannot be ours; it lists them, and
            nothing is guessed.
    """
    # Whoever was asked to leave one of several can only archive the others: Capy deletes no thread.
    alive = [hit for hit in hits if hit.status != "archived" and hit.run_state != "archived"]
    listed = ", ".join(
        f"{hit.id} (project {hit.project_id}, created {hit.created_at}, {hit.status} {hit.run_state})" for hit in hits
    )
    if len(hits) > 1 and len(alive) != 1:
        raise CapyReferenceError(
            f"{len(hits)} threads carry the reference {reference}: {listed}. None was chosen, stopped or started anew; "
            "archive all but the right one, then retry",
            thread_id=hits[0].id,
        )
    hit = alive[0] if alive else hits[0]
    if hit.project_id and hit.project_id != project_id:
        raise CapyReferenceError(
            f"The thread that carries the reference {reference} cannot be ours: {listed}; we wanted project "
            f"{project_id}. It was neither taken nor stopped, and none was started anew; see what it is, then delete the "
            f"key {STORE_KEY!r} from this task's state store and retry",
            thread_id=hit.id,
        )
    return hit
