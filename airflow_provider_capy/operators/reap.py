"""The safety net: stops the threads of runs that are over, where Airflow told nobody to stop them."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyReferenceError
from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.tasking import REFERENCE_KEY, THREAD_ID_KEY
from airflow_provider_capy.templated import as_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow.sdk import Context

    from airflow_provider_capy.api.models import Thread
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.ledger import AirflowLedger, Push

WEEK = timedelta(days=7)
RUN_OVER = frozenset({"success", "failed"})
# A reference is pushed before its create, by a clock that is not Capy's.
SKEW = timedelta(minutes=10)
_AT_REST = frozenset({"ready", "blocked", "archived"})


class CapyReapThreadsOperator(CapyStopThreadOperator):
    """Stop threads that this Airflow started and whose runs are over (``listThreads``, ``stopThread``).

    Airflow tells nobody about some ends of a run: a sensor between two pokes, a triggerer that died with another one
    alive, a worker that was killed in its last try, a DAG whose file is gone. ``capy_thread`` closes most of these
    gaps; this operator, in a small DAG of its own on a schedule, closes the rest.

    A thread is stopped only when a task of *this* Airflow pushed its reference, that task's run is over, and no run
    that knows the thread still goes on. Threads of others, those of tasks with ``stop_on_kill=False``,
    ``durable=False`` or a ``reference`` that found another task's thread, and threads that wait for a person are
    never touched. What was deleted from Airflow, a run or a DAG, is not known to it any more, and not reaped.

    ``return_value`` is a list with one report per thread, as that of :class:`CapyStopThreadOperator`, with ``dag_id``,
    ``run_id``, ``task_id`` and ``run_state``; under ``dry_run`` the ``result`` is ``would_be_stopped``.

    Args:
        project_id: the project whose threads are looked at; default: the connection's. Templated.
        dry_run: only report; default ``False``.
        started_within: threads older than this are left alone (``timedelta`` or seconds); default a week.
        airflow_conn_id: a connection that leads to this Airflow's API server: host, and login and password of a user
            who may read DAG runs and XComs, or a token as password; default ``airflow_api``.
        timeout: seconds (or ``timedelta``) in which all stops are to be confirmed; default 60.
        capy_conn_id: the connection; default ``capy_default``.
        **kwargs: of the base operator.

    Raises:
        CapyInputError: Airflow's API is not to be reached or refuses; nothing was stopped.
        CapyRequestError: Capy's list is not to be had; nothing was stopped.
        CapyStopUnconfirmedError: as :class:`CapyStopThreadOperator`.
    """

    template_fields: Sequence[str] = ("project_id", "started_within", "airflow_conn_id", "timeout", "capy_conn_id")

    def __init__(
        self,
        *,
        project_id: str | None = None,
        dry_run: bool = False,
        started_within: float | timedelta | str = WEEK,
        airflow_conn_id: str = "airflow_api",
        timeout: float | timedelta | str = 60.0,
        capy_conn_id: str = "capy_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "thread_id": None}, timeout=timeout, capy_conn_id=capy_conn_id)
        self.project_id = project_id
        # Airflow's operators have a method of that name.
        self.only_reports = dry_run
        self.started_within = started_within
        self.airflow_conn_id = airflow_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Find them, and stop them."""
        from airflow.sdk import BaseHook

        from airflow_provider_capy.hooks.capy import CapyHook
        from airflow_provider_capy.ledger import AirflowLedger, base_url_of

        within = as_seconds("started_within", self.started_within, least=0.0)
        timeout = as_seconds("timeout", self.timeout, least=0.0)
        oldest = datetime.now(timezone.utc) - timedelta(seconds=within)
        hook = CapyHook(self.capy_conn_id)
        try:
            alive = self._at_work(hook, oldest)
            if not alive:
                self.log.info("No thread that was started within %.0f s is at work", within)
                return []
            connection = BaseHook.get_connection(self.airflow_conn_id)
            with AirflowLedger(base_url_of(connection), connection.login, connection.password) as ledger:
                found = self._orphans(hook, ledger, alive)
            self.log.info("%d threads are at work, %d of them for runs that are over", len(alive), len(found))
            if self.only_reports:
                return [{**self._told(orphan), "result": "would_be_stopped"} for orphan in found.values()]
            if not found:
                return []
            reports = self._stop_all(context, hook, list(found), time.time() + timeout)
            return [{**report, **found[report["thread_id"]]} for report in reports]
        finally:
            hook.close()

    def _at_work(self, hook: CapyHook, oldest: datetime) -> dict[str, Thread]:
        """Return the threads that cost money: none that rests, waits for a person or is too old."""
        return {
            thread.id: thread
            for thread in created_since(oldest, hook.list_threads(self.project_id, origin="api"))
            if thread.run_state not in _AT_REST and thread.status != "archived"
        }

    def _orphans(self, hook: CapyHook, ledger: AirflowLedger, alive: dict[str, Thread]) -> dict[str, dict[str, Any]]:
        since = min(thread.created for thread in alive.values() if thread.created is not None) - SKEW
        over: dict[str, dict[str, Any]] = {}
        for push in ledger.pushes(REFERENCE_KEY, since):
            state = ledger.run_state(push.dag_id, push.run_id)
            if state in RUN_OVER and (thread_id := self._thread_of(hook, ledger, push)) in alive:
                task = {"dag_id": push.dag_id, "run_id": push.run_id, "task_id": push.task_id}
                over[thread_id] = {"thread_id": thread_id, **task, "run_state": state}
        # Another run may wait for it, or go on with it.
        for push in ledger.pushes(THREAD_ID_KEY, since) if over else ():
            if ledger.run_state(push.dag_id, push.run_id) not in RUN_OVER:
                over.pop(ledger.thread_id(push) or "", None)
        return over

    def _thread_of(self, hook: CapyHook, ledger: AirflowLedger, push: Push) -> str:
        """Return the id of the thread that a task started; blank when there is none that may be stopped."""
        from airflow_provider_capy.creating import look_up
        from airflow_provider_capy.flow import run

        reference = ledger.reference(push)
        if not reference:
            return ""
        if (thread_id := ledger.thread_id(push)) is not None:
            return thread_id
        # Its create was cut off.
        project_id = hook.settings.project(self.project_id)
        flow = look_up(reference, project_id=project_id, not_before=None, until=time.time(), clock=time.time)
        try:
            found = run(flow, hook.client)
        except CapyReferenceError as error:
            self.log.warning("%s of run %s of %s: %s", push.task_id, push.run_id, push.dag_id, error)
            return ""
        return found.id if found is not None else ""

    def _told(self, orphan: dict[str, Any]) -> dict[str, Any]:
        words = "Thread %(thread_id)s would be stopped: run %(run_id)s of %(dag_id)s is %(run_state)s"
        self.log.info(words, orphan)
        return orphan


def created_since(oldest: datetime, threads: Iterable[Thread]) -> Iterator[Thread]:
    """Yield the threads that were created since then.

    A project's history is long, and its list comes newest first, which Capy does not promise: as long as it does, a
    whole page of threads that are too old ends it.

    Args:
        oldest: aware UTC time.
        threads: in the order of the list; read no further than need be.
    """
    from airflow_provider_capy.api.pages import LARGEST_PAGE

    newest_first, last, too_old = True, None, 0
    for thread in threads:
        if (created := thread.created) is None:
            continue
        newest_first = newest_first and (last is None or created <= last)
        last = created
        if created >= oldest:
            too_old = 0
            yield thread
        else:
            too_old += 1
        if newest_first and too_old >= LARGEST_PAGE:
            return
