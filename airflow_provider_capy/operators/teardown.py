"""The last task of a ``capy_thread`` group: no thread outlives its run, and a cancelled run does not end green."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.killing import THREAD_KEY
from airflow_provider_capy.lifecycle import OnBlocked, Outcome
from airflow_provider_capy.operators.skipping import BRANCH_KEY, Skips
from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.tasking import REFERENCE_KEY, THREAD_ID_KEY
from airflow_provider_capy.templated import as_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_provider_capy.hooks.capy import CapyHook

# A cancelled create lives on for up to a heartbeat and five seconds of grace, and may send its request in that time.
LATE_CREATE_SECONDS = 12.0
# Once its reference is known, the search index may lag behind it as well.
INDEX_LAG_SECONDS = 30.0
LOOK_EVERY = 1.0


class _Ending(Enum):
    """How a group ended: by itself, marked by somebody, by a failure that its wait forgives, skipped by its DAG, or badly."""

    WELL = "well"
    MARKED_SUCCESS = "marked success"
    FORGIVEN = "forgiven"
    SKIPPED = "skipped"
    BADLY = "badly"


class CapyThreadTeardown(CapyStopThreadOperator):
    """Stop the thread of a group unless the group ended well, and fail the run when it did not.

    Built by :func:`~airflow_provider_capy.task_groups.capy_thread`, which makes it a teardown without setups: that is
    the one arrangement that runs after every way a run can be cancelled, and whose failure fails the run.

    Args:
        create_task_id: the task that started the thread.
        wait_task_id: the task that waited for it.
        project_id: where the thread is, for the lookup of one whose create was cut off; default: the connection's.
        stop_on_kill: whether threads may be stopped at all.
        on_blocked: what the wait makes of a blocked thread.
        forgiving: whether the wait skips on a failure (``soft_fail``, ``never_fail``), which then fails no run.
        **kwargs: of :class:`CapyStopThreadOperator`.
    """

    template_fields: Sequence[str] = (*CapyStopThreadOperator.template_fields, "project_id")

    def __init__(
        self,
        *,
        create_task_id: str,
        wait_task_id: str,
        project_id: str | None = None,
        stop_on_kill: bool = True,
        on_blocked: OnBlocked = "fail",
        forgiving: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"thread_id": None, **kwargs})
        self.create_task_id = create_task_id
        self.wait_task_id = wait_task_id
        self.project_id = project_id
        self.stop_on_kill = stop_on_kill
        self.on_blocked = on_blocked
        self.forgiving = forgiving

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Do what is left to do after the group, whatever happened to it."""
        ti: Any = context["ti"]
        states = self._states(ti)
        ending = self._ending(ti, states)
        if ending is _Ending.WELL:
            self.log.info("The thread's wait ended as it should; there is nothing to stop")
            return []
        reports: list[dict[str, Any]] = []
        if self._pulled(ti, self.create_task_id, REFERENCE_KEY) == "":
            self.log.warning("The thread is not stopped: stop_on_kill is off, or another task started it")
        elif self.stop_on_kill:
            reports = self._stop_what_there_is(context, may_come_late=states[self.create_task_id] != "success")
            # One at rest already was stopped by the wait's own end, unless the wait has told how the thread ended.
            if self._seen(ti) is None:
                self._leave_word(context, [report["thread_id"] for report in reports])
        else:
            self.log.warning("The thread is not stopped: stop_on_kill is off")
        if ending is not _Ending.BADLY:
            words = "%s ended as %s before its thread had settled well. %s"
            self.log.warning(words, self.wait_task_id, ending.value, _in_words(reports))
            return reports
        # Raised although the stop went well: otherwise a run that was marked failed would end green.
        ended = ", ".join(f"{task_id} is {state}" for task_id, state in states.items())
        raise AirflowFailException(f"The thread's group did not end well: {ended}. {_in_words(reports)}")

    def _states(self, ti: Any) -> dict[str, str]:
        task_ids = [self.create_task_id, self.wait_task_id]
        map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        answer = ti.get_task_states(
            dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=task_ids, map_index=ti.map_index
        ).get(ti.run_id, {})
        suffix = "" if map_index is None else f"_{map_index}"
        return {task_id: str(answer.get(f"{task_id}{suffix}", "removed")) for task_id in task_ids}

    def _ending(self, ti: Any, states: dict[str, str]) -> _Ending:
        created, waited = states[self.create_task_id], states[self.wait_task_id]
        if created == "skipped":
            if not self._skips(ti).are_accounted_for(self.dag.get_task(self.create_task_id)):
                return _Ending.BADLY
            # It may have begun before: between two tries, or before a clear after which its branch went another way.
            begun = any(self._pulled(ti, self.create_task_id, key) for key in (THREAD_ID_KEY, REFERENCE_KEY))
            return _Ending.SKIPPED if begun else _Ending.WELL
        if created != "success" or waited not in {"success", "skipped"}:
            return _Ending.BADLY
        # A wait that came to its own end has said how; one that somebody marked, or that a cancel skipped, has not.
        seen = self._seen(ti)
        blocked_is = {"succeed": "success", "skip": "skipped"}.get(self.on_blocked)
        ends = {(Outcome.READY.value, "success"), (Outcome.BLOCKED.value, blocked_is)}
        if seen is not None and (seen.get("outcome"), waited) in ends:
            return _Ending.WELL
        if waited == "success":
            return _Ending.MARKED_SUCCESS
        forgiven = self.forgiving and self._skips(ti).was_chosen(self.wait_task_id, ti.map_index)
        return _Ending.FORGIVEN if forgiven else _Ending.BADLY

    def _skips(self, ti: Any) -> Skips:
        ended = ti.get_task_breadcrumbs(dag_id=ti.dag_id, run_id=ti.run_id)
        return Skips(ended, lambda task_id: ti.xcom_pull(task_ids=task_id, key=BRANCH_KEY))

    def _seen(self, ti: Any) -> dict[str, Any] | None:
        """Return what the wait has told of the thread's end; what it told of an earlier thread says nothing of this one."""
        seen = self._pulled(ti, self.wait_task_id, THREAD_KEY)
        if not isinstance(seen, dict) or seen.get("thread_id") != self._pulled(ti, self.create_task_id, THREAD_ID_KEY):
            return None
        return seen

    def _pulled(self, ti: Any, task_id: str, key: str) -> Any:
        return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=ti.map_index)

    def _stop_what_there_is(self, context: Context, *, may_come_late: bool) -> list[dict[str, Any]]:
        """Stop the group's thread, also when its create was cut off, or is only now being cut off.

        Args:
            context: of this task.
            may_come_late: whether the create's process may still be alive: then one thread that is found is no proof
                that there is no other.
        """
        from airflow_provider_capy.hooks.capy import CapyHook

        ti: Any = context["ti"]
        timeout = as_seconds("timeout", self.timeout, least=0.0)
        began = time.time()
        reports: dict[str, dict[str, Any]] = {}
        found: dict[str, str] = {}
        hook = CapyHook(self.capy_conn_id)
        try:
            while True:
                lost = self._find(ti, hook, found, may_come_late=may_come_late)
                for thread_id in dict.fromkeys(found.values()):
                    if thread_id not in reports:
                        [reports[thread_id]] = self._stop_all(
                            context, hook, [thread_id], max(began + timeout, time.time() + 10.0)
                        )
                patience = LATE_CREATE_SECONDS + (INDEX_LAG_SECONDS if lost else 0.0)
                if (reports and not may_come_late) or time.time() >= began + patience:
                    break
                time.sleep(LOOK_EVERY)
        finally:
            hook.close()
        if not reports:
            self.log.info("No thread of this run was found")
        return list(reports.values())

    def _find(self, ti: Any, hook: CapyHook, found: dict[str, str], *, may_come_late: bool) -> bool:
        """Add what can be found by now, by its id or its reference, and say whether a reference has no thread yet."""
        if thread_id := self._pulled(ti, self.create_task_id, THREAD_ID_KEY):
            found[THREAD_ID_KEY] = str(thread_id)
            if not may_come_late:
                return False
        if not (reference := self._pulled(ti, self.create_task_id, REFERENCE_KEY)) or reference in found:
            return False
        # An id is as good as its reference, but both change when a new try replaces its thread.
        try:
            looked_up = self._look_up(hook, str(reference))
        except CapyError as error:
            if not found:
                raise
            # What is known is not to go on working because of what is not.
            self.log.warning("The reference %s could not be looked up: %s", reference, error)
            return True
        if looked_up is None:
            return True
        found[reference] = looked_up
        return False

    def _look_up(self, hook: CapyHook, reference: str) -> str | None:
        from airflow_provider_capy.creating import look_up
        from airflow_provider_capy.flow import run

        project_id = hook.settings.project(self.project_id)
        flow = look_up(reference, project_id=project_id, not_before=None, until=time.time(), clock=time.time)
        found = run(flow, hook.client)
        return found.id if found is not None else None


def _in_words(reports: list[dict[str, Any]]) -> str:
    if not reports:
        return "No thread was stopped"
    return "; ".join(f"thread {report['thread_id']}: {report['result']}" for report in reports)
