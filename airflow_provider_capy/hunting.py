"""Stops the thread of a create whose answer did not come: it is found by its reference, beside whatever else goes on."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.api.settings import ClientSettings
    from airflow_provider_capy.creating import Patience
    from airflow_provider_capy.identity import Record


class Hunt:
    """A search for the thread of an intent, which ends in its stop; runs in a thread of its own once started.

    Args:
        settings: tells how to reach Capy; called in the search's own thread, since it may have to ask Airflow.
        intent: what the create was sent with.
        budget: seconds for the whole.
        log: the task's logger.
        patience: how the looks are spread; by default, as a handler with seconds to live looks.
    """

    def __init__(
        self,
        settings: Callable[[], ClientSettings],
        intent: Record,
        *,
        budget: float,
        log: Any,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._intent = intent
        self._budget = budget
        self._log = log
        self._patience = patience
        self._words = ""
        self._thread = threading.Thread(target=self._run, name="capy-hunt", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def outcome(self, wait: float) -> str:
        """Return what became of it after at most ``wait`` seconds, as a sentence."""
        self._thread.join(wait)
        return self._words or f"A thread with the reference {self._intent.reference} may be at work; it is looked for"

    def _run(self) -> None:
        try:
            self._words = self._search()
        except Exception as error:  # noqa: BLE001 - a handler that is about to be killed reports whatever it was
            self._words = f"{self._missing()} (its stop FAILED: {type(error).__name__}: {error})"
        self._log.warning("%s", self._words)

    def _search(self) -> str:
        from airflow_provider_capy.api import CapyClient
        from airflow_provider_capy.api.retry import RetryLimits
        from airflow_provider_capy.creating import Patience, find_and_stop
        from airflow_provider_capy.flow import run

        limits = RetryLimits(attempts=3, total=self._budget, base=0.1, cap=0.2)
        flow = find_and_stop(
            self._intent.reference,
            project_id=self._intent.project_id,
            not_before=None,
            until=time.time() + self._budget,
            clock=time.time,
            patience=self._patience or Patience(first_pause=0.3, longest_pause=0.5),
            retry=limits,
        )
        settings = replace(self._settings(), connect_timeout=self._budget, read_timeout=self._budget, retry=limits)
        with CapyClient(settings) as client:
            report = run(flow, client)
        return self._missing() if report is None else f"Thread {report.thread_id}: {report.in_words}"

    def _missing(self) -> str:
        return f"A thread with the reference {self._intent.reference} may be at work; it was not found"
