"""From the click in Chromium to the stop request, with Airflow's default settings: the rows that are timed."""

from __future__ import annotations

from typing import Any

from tests.cancel import browser, phases
from tests.cancel.rows.row import Row, of, stopped_failed

TIMED: dict[str, Any] = {"lab": "ui", "racy": True, "at_most": 10, "within": 3.0, "median": 1.0}

ROWS: tuple[Row, ...] = (
    Row("click", "the UI's own buttons: run marked failed while it waits",
        of((("op_worker", "op_deferred", "sensor_reschedule", "group_deferred"), stopped_failed)),
        browser.mark_run_failed, **TIMED),
    Row("click-gap", "the same in the gap after the create",
        of((("sensor_deferred", "group_deferred"), stopped_failed)), browser.mark_run_failed, phase=phases.gap,
        variant="gap", **TIMED),
    Row("click-retry", "the same while up_for_retry",
        of((("op_worker", "group_deferred"), stopped_failed)), browser.mark_run_failed, phase=phases.retry,
        variant="failing", **TIMED),
)  # fmt: skip
