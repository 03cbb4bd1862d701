"""Tells a task that its own DAG has skipped from one that somebody skipped by ending the run: Airflow calls both ``skipped``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Airflow's own key, under which branches and short circuits remember whom they skipped.
BRANCH_KEY = "skipmixin_key"
# When a task is skipped because of those before it: with any of them, with all of them, or not at all.
_WITH_ANY = frozenset({"all_success", "none_skipped"})
_WITH_ALL = frozenset({"none_failed_min_one_success"})
_NEVER = frozenset({"none_failed", "all_done", "all_done_setup_success", "always"})


class Skips:
    """Which tasks of a run are skipped, and what accounts for it.

    Args:
        breadcrumbs: what ``ti.get_task_breadcrumbs`` gives: ``task_id``, ``map_index``, ``state``, ``duration`` (seconds) of
            all that have ended.
        branch: gives what a task pushed under :data:`BRANCH_KEY`, or ``None``; asked at most once for each.
    """

    def __init__(self, breadcrumbs: Iterable[Mapping[str, Any]], branch: Callable[[str], Any]) -> None:
        self._branch = branch
        self._words: dict[str, Any] = {}
        self._known: dict[str, bool] = {}
        self._chose: dict[tuple[str, int], bool] = {}
        self._failed: set[str] = set()
        for crumb in breadcrumbs:
            if crumb["state"] == "skipped":
                # One that a cancel or a branch skips takes no time.
                self._chose[crumb["task_id"], crumb["map_index"]] = (crumb.get("duration") or 0.0) > 0.0
            elif crumb["state"] in {"failed", "upstream_failed"}:
                self._failed.add(crumb["task_id"])

    def was_chosen(self, task_id: str, map_index: int) -> bool:
        """Say whether a task instance ran and skipped itself."""
        return self._chose.get((task_id, map_index), False)

    def are_accounted_for(self, task: Any) -> bool:
        """Say whether something in the DAG accounts for a skipped task: a branch, or a skip before it that is accounted for.

        Args:
            task: the task, with its ``upstream_list`` and ``trigger_rule``.
        """
        if task.task_id not in self._known:
            self._known[task.task_id] = self._judge(task)
        return self._known[task.task_id]

    def _judge(self, task: Any) -> bool:
        if any(self._skips(before.task_id, task.task_id) for before in task.upstream_list):
            return True
        rule = str(getattr(task.trigger_rule, "value", task.trigger_rule))
        skipped = [before for before in task.upstream_list if self._is_skipped(before.task_id)]
        if rule in _NEVER or (rule in _WITH_ALL and len(skipped) < len(task.upstream_list)):
            return False
        if rule not in _WITH_ANY | _WITH_ALL:
            # Such a task may be skipped although none before it was, e.g. because nothing failed.
            return True
        return any(self._accounts_for_itself(before) for before in skipped)

    def _accounts_for_itself(self, task: Any) -> bool:
        # Nothing to map over is a reason as well, which leaves no trace.
        if task.is_mapped or self.are_accounted_for(task):
            return True
        # A task that was cleared keeps its time, but has not run again after one that failed.
        ran = any(chose for (task_id, _), chose in self._chose.items() if task_id == task.task_id)
        return ran and not any(before.task_id in self._failed for before in task.upstream_list)

    def _is_skipped(self, task_id: str) -> bool:
        return any(known == task_id for known, _ in self._chose)

    def _skips(self, task_id: str, whom: str) -> bool:
        if task_id not in self._words:
            self._words[task_id] = self._branch(task_id)
        word = self._words[task_id]
        if not isinstance(word, dict):
            return False
        return whom in word.get("skipped", ()) or ("followed" in word and whom not in word["followed"])
