"""Gets the one thread of a task: reattaches to it, looks it up, or creates it, whichever earlier tries call for."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from airflow_provider_capy.adopting import ThreadOfTask
from airflow_provider_capy.api.requests import CreateThreadBody, checked
from airflow_provider_capy.creating import create_once, outcome_unknown
from airflow_provider_capy.exceptions import CapyRequestError, with_words
from airflow_provider_capy.identity import (
    REFUSED,
    Action,
    Attempt,
    Record,
    decide,
    reference_for,
    reference_from,
    with_reference,
)
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.remembering import RecordStore

if TYPE_CHECKING:
    from airflow_provider_capy.identity import Decision

__all__ = ["RecordStore", "ThreadStart"]


class ThreadStart(ThreadOfTask):
    """Everything that is needed to get the one thread of a task; see :class:`~airflow_provider_capy.adopting.ThreadOfTask`."""

    def get(self) -> Record:
        """Return the record of the task's one thread; ``thread_id`` is set.

        Raises:
            CapyInputError: a field that is sure to be refused; nothing was started.
            CapyRequestError: Capy refused or could not be reached; nothing was started.
            CapyCreateUnknownError: a thread may have been started; the next try looks for it.
            CapyReferenceError: the lookup found what cannot be ours; nothing was started.
            CapyStopUnconfirmedError: the thread that is to be replaced could not be stopped; nothing was started.
            CapyError: the store cannot be read or written; nothing was started.
        """
        attempt = Attempt(self.clear_number, self.max_tries, self.retries, self.try_number)
        record = self.store.read()
        decision = decide(record, attempt, durable=self.durable)
        if record is not None and decision.action is Action.LOOK_UP and (found := self._adopt(record)) is not None:
            # From here on it is a known thread like any other, which may have ended badly meanwhile.
            record, decision = found, decide(found, attempt, durable=self.durable)
        kept = self._reattach(record) if record is not None and decision.action is Action.REATTACH else None
        return kept if kept is not None else self._start(record, decision)

    def _start(self, record: Record | None, decision: Decision) -> Record:
        # Checked before anything is done: an argument that is sure to be refused must leave no intent behind.
        body = self._body()
        nonce = record.nonce if record is not None else uuid.uuid4().hex
        generation = decision.generation
        if record is not None and decision.action is Action.LOOK_UP:
            if record.project_id == self.project_id:
                return self._create(body, record.model_copy(update={"sent_at": self.clock(), **self._now}), again=True)
            # A reference is looked up in one project only.
            generation += 1
        if record is not None and decision.action is Action.REPLACE:
            self._stop_old(record)
        if self.reference is not None:
            found, generation = self._find_shared(self.reference, generation)
            if found is not None:
                shared = self._intent(nonce, generation).model_copy(update={"shared": True})
                return self._keep(shared, found, f"is there already for the reference {self.reference!r}")
        return self._create(body, self._intent(nonce, generation))

    def _body(self) -> CreateThreadBody:
        return checked(CreateThreadBody, project_id=self.project_id, **self.fields)

    def _intent(self, nonce: str, generation: int) -> Record:
        """Return what is written before the create."""
        if not self.durable:
            reference = ""
        elif self.reference is not None:
            reference = reference_from(self.reference, generation)
        else:
            reference = reference_for(self.task, generation, nonce)
        now = self.clock()
        return Record(
            reference=reference,
            nonce=nonce,
            generation=generation,
            clear_number=self.clear_number,
            max_tries=self.max_tries,
            retries=self.retries,
            capy_conn_id=self.hook.capy_conn_id,
            project_id=self.project_id,
            intended_at=now,
            sent_at=now,
            stop_on_kill=self.stop_on_kill,
            owner=self.owner,
            fate=Fate.HELD,
        )

    def _create(self, body: CreateThreadBody, intent: Record, *, again: bool = False) -> Record:
        """Create the thread; ``again`` after a try that may have created it already."""
        if not self.durable:
            self.sending()
            flow = create_once(body, reference=None, clock=self.clock)
            # Kept for whoever ends the run, and for the next try, which brings this thread to rest before it starts another one.
            return self._keep(intent, self._run(flow), "created")
        self.announce(intent)
        body = body.model_copy(update={"prompt": with_reference(body.prompt, intent.reference)})
        # The last step before the POST, since it fails for a try that another one has replaced meanwhile.
        self.store.write_surely(intent)
        self.sending()
        flow = create_once(body, reference=intent.reference, clock=self.clock, patience=self.patience)
        try:
            created = self._run(flow)
        except CapyRequestError as error:
            # This one surely started nothing: what is unknown was raised as such.
            if again:
                raise outcome_unknown(intent.reference, f"{error}. This try started nothing") from error
            self.store.update(ended=REFUSED, fate=Fate.SETTLED)
            raise with_words(error, f"Nothing was started: {error}") from error.__cause__
        return self._keep(intent, created, "created")
