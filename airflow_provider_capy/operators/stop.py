"""Stops threads and says what it found: a task of its own, and a teardown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_capy.exceptions import CapyError, CapyInputError, CapyStopUnconfirmedError
from airflow_provider_capy.links import THREAD_URL_KEY, CapyThreadLink, push_link
from airflow_provider_capy.tasking import helpless
from airflow_provider_capy.templated import CheckedArguments, as_flag, as_seconds, as_text, as_thread_id, digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_capy.hooks.capy import CapyHook


class CapyStopThreadOperator(CheckedArguments, BaseOperator):
    """Stop one thread or many (``stopThread``): idempotent, and confirmed by looking until they are at rest.

    A thread that has settled already, or does not exist any more, is no error. That it is ``gone`` is said once Capy's own
    404 has stood for half a minute: with a shorter ``timeout`` such a thread counts as not confirmed. ``return_value`` is a list with one
    report per thread: ``thread_id``, ``result`` (``stopped``, ``already_settled``, ``gone``, ``requested``,
    ``not_confirmed``), ``run_state``, ``stopped_by_us``, ``error``, ``project_id``. A stopped thread reads ``ready`` like a finished
    one: ``stopped_by_us`` is how a later reader tells them apart. The ids of those that this task stopped are also the XCom
    ``stopped_threads``, by which a :class:`CapyThreadSensor` that is cleared later knows them.

    Args:
        thread_id: an id or a thread's web address, or a list of them; templated. Blank ones and ``None`` (a create that never ran) are left out.
        wait_for_stop: look until the threads are at rest; default ``True``. ``False`` only asks.
        timeout: seconds (or ``timedelta``) for all of them together; default 60.
        capy_conn_id: the connection; default ``capy_default``.

    Raises:
        CapyStopUnconfirmedError: a thread was still seen at work, could not be asked, or was not there for less than half a
            minute, when the time was over; the others were stopped all the same.
        CapyInputError: ``thread_id`` is neither an id nor a list of ids.
    """

    template_fields: Sequence[str] = ("thread_id", "timeout", "capy_conn_id")
    checks: ClassVar[Mapping[str, Any]] = {"wait_for_stop": as_flag, "timeout": as_seconds, "capy_conn_id": as_text}
    operator_extra_links = (CapyThreadLink(),)
    ui_color = "#f3e4e4"

    def __init__(
        self,
        *,
        thread_id: str | Sequence[str] | None,
        wait_for_stop: bool = True,
        timeout: float | timedelta | str = 60.0,
        capy_conn_id: str = "capy_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.thread_id = thread_id
        self.wait_for_stop = wait_for_stop
        self.timeout = timeout
        self.capy_conn_id = capy_conn_id
        self._check_init({name: getattr(self, name) for name in ("thread_id", *self.checks)})

    @classmethod
    def _check_known(cls, known: Mapping[str, Any]) -> None:
        super()._check_known(known)
        # At its run a wrong id must not keep the right ones from being stopped.
        for item in _ids(known.get("thread_id")):
            as_thread_id(item)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Stop them."""
        try:
            return self._stop_them(context)
        except CapyInputError as error:
            raise helpless(self, context, error) from error.__cause__

    def _stop_them(self, context: Context) -> list[dict[str, Any]]:
        from airflow_provider_capy.hooks.capy import CapyHook

        self._take_digits()
        self._check_rendered()
        timeout = as_seconds("timeout", self.timeout)
        thread_ids = _ids(self.thread_id)
        if not thread_ids:
            self.log.info("There is no thread to stop")
            return []
        hook = CapyHook(self.capy_conn_id)
        try:
            reports = self._stop_all(context, hook, thread_ids, time.time() + timeout)
            if len(reports) == 1 and (project_id := reports[0]["project_id"]):
                url = hook.thread_url(thread_ids[0], project_id)
                push_link(context["ti"], THREAD_URL_KEY, url, self.log)
            return reports
        finally:
            hook.close()

    def _leave_word(self, context: Context, thread_ids: Iterable[str]) -> list[str]:
        """Tell later readers which threads read ready because they were stopped, also by earlier tries of this task.

        Returns:
            all of them.
        """
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        from airflow_provider_capy.records import STOPPED_KEY

        store: Any = context.get("task_state_store")
        stopped = sorted(thread_ids)
        try:
            before = (store.get(STOPPED_KEY) if store is not None else None) or []
            stopped = sorted({*before, *stopped})
            # Airflow deletes the XComs of a task with its next try, and keeps its store.
            if store is not None and stopped != before:
                store.set(STOPPED_KEY, stopped, retention=NEVER_EXPIRE)
            if stopped:
                context["ti"].xcom_push(key=STOPPED_KEY, value=stopped)
        except Exception as error:  # noqa: BLE001 - of any store or XCom backend
            # How the stop ended must not be hidden by this.
            self.log.warning("A sensor that is cleared later may take %s for finished: %s", stopped, error)
        return stopped

    def _stop_all(self, context: Context, hook: CapyHook, thread_ids: list[str], until: float) -> list[dict[str, Any]]:
        from airflow_provider_capy.flow import arun_all
        from airflow_provider_capy.stopping import Found, StopReport, stop_and_confirm

        until = max(until, time.time() + 1.0)
        flows = [
            stop_and_confirm(
                thread_id, until=until, clock=time.time, ask_first=not self.wait_for_stop, confirm=self.wait_for_stop
            )
            for thread_id in thread_ids
        ]
        # Beside each other: each of them costs money by the second.
        ended = asyncio.run(arun_all(flows, hook))
        reports: list[StopReport] = []
        for thread_id, end in zip(thread_ids, ended, strict=True):
            report = StopReport(thread_id, Found.NOT_CONFIRMED, error=str(end)) if isinstance(end, CapyError) else end
            self.log.info("Thread %s: %s", thread_id, report.in_words)
            reports.append(report)
        ours = self._leave_word(context, [report.thread_id for report in reports if report.stopped_by_us])
        if unsure := [report for report in reports if report.result is Found.NOT_CONFIRMED]:
            listed = "; ".join(f"{report.thread_id}: {report.in_words}" for report in unsure)
            raise CapyStopUnconfirmedError(
                f"{len(unsure)} of {len(reports)} threads may still be at work: {listed}. A retry stops them again",
                thread_id=unsure[0].thread_id,
            )
        return [{**report.xcom(), "stopped_by_us": report.thread_id in ours} for report in reports]


def _ids(value: Any) -> list[str]:
    """Return the ids, each once, in order; those of tasks that never ran are left out."""
    from airflow_provider_capy.api.requests import NOTHING, id_in

    value = digits(value)
    try:
        found = [value] if isinstance(value, str) or value is None else [digits(item) for item in value]
    except TypeError:
        raise CapyInputError(f"thread_id: {value!r} is neither a thread id nor a list of them") from None
    if isinstance(value, (Mapping, bytes)) or not all(item is None or isinstance(item, str) for item in found):
        raise CapyInputError(f"thread_id: {value!r} is neither a thread id nor a list of them; give texts")
    # The text "None" is what a template makes of the XCom of a task that never ran.
    ids = (item.strip() for item in found if item is not None)
    return list(dict.fromkeys(id_in(item) for item in ids if item and item not in NOTHING))
