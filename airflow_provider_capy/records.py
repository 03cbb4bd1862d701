"""What a task leaves about its thread for everybody who may have to stop it: its next try, and the listener of run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_capy.exceptions import CapyReferenceError
from airflow_provider_capy.lifecycle import Fate

if TYPE_CHECKING:
    from typing_extensions import Self

STORE_KEY = "capy_thread"
# The XCom with the ids of threads that were stopped, of a task that stops them, or that started them.
STOPPED_KEY = "stopped_threads"
# How a reference begins: one that is a task's own, and one that is made of a text of the user's.
TASKS_REFERENCE, USERS_REFERENCE = "af", "au"

# What may still call for a stop.
OPEN = frozenset({Fate.HELD, Fate.DISPATCHED, Fate.STOPPING})


class ThreadRecord(BaseModel):
    """A task's record of its thread, in Airflow's task state store under :data:`STORE_KEY`, for as long as its run lives.

    Fields that a later version added are kept, also when this one writes the record again.

    Attributes:
        version: of this form; it moves only when an older provider could misread it.
        thread_id: the thread; ``None`` while only intended.
        thread_url: its web address.
        capy_conn_id: the connection that reaches it.
        project_id: where it is; empty when that is not known.
        reference: what the thread of a create without an answer is found by; empty when there is nothing.
        stop_on_kill: whether it may be stopped on this task's behalf.
        shared: another task started it, and answers for it.
        owner: id of the task that answers for it in this one's place; empty: this one does.
        fate: what is to become of it; ``None`` in a record of a version that did not say.
        stopped_by: who stopped it and why, in words; empty while nobody has.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    version: Literal[1] = 1
    thread_id: str | None = None
    thread_url: str = ""
    capy_conn_id: str = "capy_default"
    project_id: str = ""
    reference: str = ""
    stop_on_kill: bool = True
    shared: bool = False
    owner: str = ""
    fate: Fate | None = None
    stopped_by: str = ""

    @property
    def may_stop(self) -> bool:
        """Whether the thread may be stopped on this task's behalf."""
        return self.stop_on_kill and not self.shared

    @property
    def was_stopped(self) -> bool:
        """Whether somebody stopped the thread, or was about to."""
        return self.fate in {Fate.STOPPING, Fate.STOPPED}

    @property
    def is_waited_for(self) -> bool:
        """Whether it may be another task that waits for the thread."""
        return self.thread_id is not None and (bool(self.owner) or self.fate is Fate.DISPATCHED)

    @property
    def is_shareable(self) -> bool:
        """Whether its reference is one of the user's own, by which tasks of other runs find the same thread."""
        return self.reference.startswith(USERS_REFERENCE)

    @property
    def intended(self) -> float:
        """Epoch seconds before which the thread of a create cannot have been started; 0 in a record of no creator."""
        return float(getattr(self, "intended_at", 0.0))

    @property
    def sent(self) -> float:
        """Epoch seconds at which the create was last sent; 0 in a record of no creator."""
        return float(getattr(self, "sent_at", 0.0)) or self.intended

    def stopping(self, by: str) -> Self:
        """Return the record with the word that the thread is about to be stopped."""
        return self.model_copy(update={"fate": Fate.STOPPING, "stopped_by": self.stopped_by or by})

    @classmethod
    def read(cls, stored: Any) -> Self | None:
        """Read what the store holds; ``None`` when it holds nothing.

        Raises:
            CapyReferenceError: when it holds something that is not ours to read: guessing could start a second agent.
        """
        if stored is None:
            return None
        try:
            return cls.model_validate(stored)
        except ValidationError as error:
            raise CapyReferenceError(
                f"The task state store holds a {STORE_KEY!r} that cannot be read ({error.error_count()} faults); "
                "nothing was started. Delete that key of the task instance and retry"
            ) from None
