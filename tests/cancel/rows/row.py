"""What a row is, and the words that rows are written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cancel import phases
from tests.cancel.lab import WAYS
from tests.cancel.outcome import KEPT, REPLACED, RUNNING, STOPPED, Promise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cancel.trial import Trial

LONE = ("op_worker", "op_deferred")
SENSORS = ("sensor_poke", "sensor_reschedule", "sensor_deferred")
GROUPS = ("group_poke", "group_deferred")
DISPATCH = ("dispatch",)
WAITING = (*LONE, *SENSORS, *GROUPS)
OWNERS = (*LONE, *GROUPS)
# A lone sensor creates nothing; what creates its thread here is a dispatching task.
CREATING = ("op_worker", "group_poke", "dispatch")
ON_WORKER = ("op_worker", "sensor_poke", "group_poke")
DEFERRED = ("op_deferred", "sensor_deferred", "group_deferred")

stopped_failed = Promise(STOPPED, "failed")
stopped_success = Promise(STOPPED, "success")
kept_failed = Promise(KEPT, "failed")
goes_on = Promise(KEPT, RUNNING, goes_on=True)
anew = Promise(REPLACED, RUNNING, goes_on=True)

# The listener is there at once; a stop that Capy is slow to take, or that a trigger does, takes some seconds.
STOPPED_WITHIN = 20.0
# Where the process that heard of the end died, the next sweep finds it.
SWEPT_WITHIN = 300.0


@dataclass(frozen=True)
class Row:
    """One row.

    `together` rows befall all their runs at once; their act takes all trials.
    `cancels`: a user or a timeout ends the run, so it must not end green. `marks_success`: that is what the user wants.
    `racy`: what is repeated in the full matrix, `at_most` so often, and `at_once` so many repetitions by one event where
    it befalls all runs together. `cleared`: the waiting task begins anew with the same thread. `stopped_within`: seconds
    after the end of the run in which the thread has to be stopped. `within`, `median`: seconds from the act to the stop
    request, of every trial and of all trials of a way. `selection`: the ways that CI runs.
    """

    key: str
    title: str
    promises: Mapping[str, Promise]
    act: Callable[[Any], None]
    phase: Callable[[Trial], None] = phases.waiting
    variant: str = "plain"
    lab: str = "two"
    cancels: bool = True
    marks_success: bool = False
    racy: bool = False
    at_most: int = 1000
    together: bool = False
    at_once: int = 1
    fault: Mapping[str, Any] | None = None
    cleared: bool = False
    stopped_within: float = STOPPED_WITHIN
    within: float | None = None
    median: float | None = None
    selection: tuple[str, ...] = ()

    def dag(self, way: str) -> str:
        """The DAG that has the way in the row's variant."""
        return f"removed_{way}" if self.variant == "removed" else f"{way}__{self.variant}"


def of(*parts: tuple[tuple[str, ...], Promise]) -> dict[str, Promise]:
    """Give ways their promises, the later ones win."""
    found = {way: promise for ways, promise in parts for way in ways}
    return {way: found[way] for way in WAYS if way in found}
