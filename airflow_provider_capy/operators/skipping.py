"""Tells a task that its own DAG has skipped from one that somebody skipped by ending the run: Airflow calls both ``skipped``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Airflow's own key, under which branches and short circuits remember whom they skipped.
BRANCH_KEY = "skipmixin_key"
# Under any other rule a task may be skipped although none before it was, e.g. because nothing failed.
_SKIPPED_WITH_ITS_UPSTREAM = frozenset({"all_success", "none_failed", "none_failed_min_one_success", "none_skipped"})


def skipped_tasks(breadcrumbs: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Return which tasks of a run are skipped, and whether one of their instances ran, and so chose it itself.

    Args:
        breadcrumbs: what ``ti.get_task_breadcrumbs`` gives: ``task_id``, ``state``, ``duration`` of all that have ended.
    """
    found: dict[str, bool] = defaultdict(bool)
    for crumb in breadcrumbs:
        if crumb["state"] == "skipped":
            found[crumb["task_id"]] |= (crumb.get("duration") or 0.0) > 0.0
    return dict(found)


def was_skipped_by_its_dag(task: Any, skipped: Mapping[str, bool], branch: Callable[[str], Any]) -> bool:
    """Say whether something in the DAG accounts for a skipped task: a branch, or a skip before it that is accounted for.

    Args:
        task: the task, with its ``upstream_list``.
        skipped: see :func:`skipped_tasks`.
        branch: gives what a task pushed under :data:`BRANCH_KEY`, or ``None``.
    """
    if str(getattr(task.trigger_rule, "value", task.trigger_rule)) not in _SKIPPED_WITH_ITS_UPSTREAM:
        return True
    return any(
        _skips(branch(before.task_id), task.task_id)
        or (before.task_id in skipped and _accounts_for_itself(before, skipped, branch))
        for before in task.upstream_list
    )


def _accounts_for_itself(task: Any, skipped: Mapping[str, bool], branch: Callable[[str], Any]) -> bool:
    # Nothing to map over is a reason as well, which leaves no trace.
    return skipped[task.task_id] or task.is_mapped or was_skipped_by_its_dag(task, skipped, branch)


def _skips(word: Any, task_id: str) -> bool:
    if not isinstance(word, dict):
        return False
    return task_id in word.get("skipped", ()) or ("followed" in word and task_id not in word["followed"])
