"""How a run or a wait ends without anybody's click: timeouts, failures, cancelled backfills."""

from __future__ import annotations

from tests.cancel import acts, phases
from tests.cancel.lab import WAYS
from tests.cancel.outcome import KEPT, Promise
from tests.cancel.rows.row import (
    CREATING,
    DISPATCH,
    GROUPS,
    OWNERS,
    SENSORS,
    SWEPT_WITHIN,
    WAITING,
    Row,
    goes_on,
    kept_failed,
    of,
    stopped_failed,
)

ROWS: tuple[Row, ...] = (
    Row("6a", "dagrun_timeout while it waits", of((WAITING, stopped_failed), (DISPATCH, kept_failed)), acts.nothing,
        variant="runtimeout", selection=("sensor_reschedule", "dispatch")),
    # A thread that nobody came to wait for was dispatched; a group's wait answers for its thread from the create on.
    Row("6a-gap", "dagrun_timeout in the gap after the create", of((GROUPS, stopped_failed), (SENSORS, kept_failed)),
        acts.nothing, phase=phases.gap, variant="gaptimeout"),
    Row("6b", "dagrun_timeout, create under way, answered too late, but found", of((CREATING, stopped_failed)),
        acts.nothing, phase=phases.started_slowly(75), variant="runtimeout"),
    Row("7", "the wait's own timeout", of((OWNERS, stopped_failed), (SENSORS, kept_failed)), acts.nothing,
        phase=phases.started, variant="impatient", selection=("group_poke", "sensor_deferred")),
    # Not in reschedule mode: each poke has the whole time anew.
    Row("7-exec", "execution_timeout while it waits",
        of((OWNERS, stopped_failed), (("sensor_poke", "sensor_deferred"), kept_failed)), acts.nothing,
        phase=phases.started, variant="executiontimeout"),
    Row("7a", "Airflow's own timeout of a deferral",
        of((("op_deferred", "group_deferred"), stopped_failed), (("sensor_deferred",), kept_failed)), acts.nothing,
        phase=phases.started, variant="backstop"),
    Row("7d", "nobody can look for tolerate_outage: the triggerer lacks the connection",
        of((("op_deferred", "group_deferred", "sensor_deferred"), kept_failed)), acts.nothing,
        phase=phases.started, variant="blind"),
    Row("by-itself", "another task fails, and fail_fast ends the run while it waits",
        of((WAITING, stopped_failed), (DISPATCH, kept_failed)), acts.let_go, variant="failfast"),
    Row("by-itself-ok", "all other tasks succeed", of((DISPATCH, Promise(KEPT, "success"))), acts.let_go, cancels=False,
        selection=DISPATCH),
    Row("backfill", "backfill cancelled while its run waits: Airflow lets it go on", of((WAYS, goes_on)),
        acts.cancel_backfill, phase=phases.backfilled, variant="backfill", cancels=False),
    # Airflow fails the run in the database alone: no listener is called, no task is told.
    Row("backfill-queued", "the same, the run set to queued before: Airflow fails it silently",
        of((WAITING, stopped_failed)), acts.queue_and_cancel_backfill, phase=phases.backfilled,
        variant="backfillqueued", stopped_within=SWEPT_WITHIN),
)  # fmt: skip
