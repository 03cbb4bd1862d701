"""``capy_thread``: create and wait as one group, for DAGs that want the thread's id early or to see both steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.operators.thread import DAY, CapyCreateThreadOperator
from airflow_provider_capy.sensors.wait import CapyThreadWait

if TYPE_CHECKING:
    from datetime import timedelta
    from types import EllipsisType

    from airflow.sdk import XComArg

    from airflow_provider_capy.lifecycle import OnBlocked

# What an argument means for the group as one unit decides which of its tasks is given it.
# Where, when and how often a task runs, what its templates see, how it is described, and how it fails: only one of them does.
BOTH = frozenset(
    {
        *("owner", "queue", "executor", "executor_config", "run_as_user", "resources"),
        *("pool", "pool_slots", "priority_weight", "weight_rule"),
        *("max_active_tis_per_dag", "max_active_tis_per_dagrun", "start_date", "end_date"),
        *("retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "retry_policy"),
        *("depends_on_past", "ignore_first_depends_on_past", "wait_for_past_depends_before_skipping"),
        *("params", "render_template_as_native_obj", "map_index_template", "inlets"),
        *("on_failure_callback", "on_retry_callback", "on_skipped_callback"),
        *("email", "email_on_retry", "email_on_failure", "execution_timeout"),
        *("doc", "doc_md", "doc_json", "doc_yaml", "doc_rst", "logger_name", "allow_nested_operators"),
        *("capy_conn_id", "stop_on_kill", "fail_on_task_error"),
    }
)
# The unit's begin, and what Capy is asked for.
CREATE = frozenset(
    {
        *("trigger_rule", "on_execute_callback", "pre_execute"),
        *("prompt", "project_id", "repos", "browser_snapshot_ids", "attachment_urls", "tags", "slack"),
        *("model", "speed", "reasoning", "build_model", "build_speed", "build_reasoning"),
        *("impersonate_user_email", "reliability_investigation_id", "durable", "reference"),
    }
)
# The unit's end: nobody is to be told of a thread that has only begun.
WAIT = frozenset(
    {
        *("outlets", "on_success_callback", "post_execute", "multiple_outputs", "sla"),
        *("deferrable", "poke_interval", "timeout", "tolerate_outage", "on_blocked"),
        *("mode", "soft_fail", "never_fail", "silent_fail", "exponential_backoff", "max_wait"),
    }
)
# The group's own, by the name that a task group has for it.
GROUP = {
    "dag": "dag",
    "task_group": "parent_group",
    "default_args": "default_args",
    "task_display_name": "group_display_name",
}
_ITS_OWN = "the group sets this itself; leave it out"
REFUSED = {
    "task_id": _ITS_OWN,
    "thread_id": _ITS_OWN,
    "wait_for_completion": _ITS_OWN,
    "do_xcom_push": _ITS_OWN,
    "wait_for_downstream": (
        "a group cannot hold its thread back until what came after it in the run before has ended; give the DAG "
        "max_active_runs=1, or use CapyCreateThreadOperator with wait_for_completion=True"
    ),
}
# What one of the tasks alone is to have reaches the other one from ``default_args`` unless that is told its neutral value.
_NEUTRAL = {
    "on_execute_callback": None,
    "pre_execute": None,
    "outlets": None,
    "on_success_callback": None,
    "post_execute": None,
    "multiple_outputs": False,
}


class CapyThreadGroup(TaskGroup):
    """The group that :func:`capy_thread` makes.

    Attributes:
        create: the task that starts the thread.
        wait: the task that waits for it, and answers for it.
    """

    create: CapyCreateThreadOperator
    wait: CapyThreadWait

    @property
    def output(self) -> XComArg:
        """The thread's summary, for downstream tasks (see :func:`~airflow_provider_capy.lifecycle.summary`)."""
        return self.wait.output

    @property
    def thread_id(self) -> XComArg:
        """The thread's id, for downstream tasks."""
        return self.create.output


def capy_thread(
    group_id: str,
    *,
    prompt: str,
    deferrable: bool | EllipsisType = ...,
    poke_interval: float | timedelta | str | EllipsisType = ...,
    timeout: float | timedelta | str | EllipsisType = ...,
    on_blocked: OnBlocked | EllipsisType = ...,
    fail_on_task_error: bool | EllipsisType = ...,
    stop_on_kill: bool | EllipsisType = ...,
    capy_conn_id: str | EllipsisType = ...,
    **more: Any,
) -> CapyThreadGroup:
    """Start a thread and wait for it, in two tasks: for DAGs that want the thread's id early, or to see both steps.

    One :class:`CapyCreateThreadOperator` with ``wait_for_completion=True`` does the same in one task. Put before another
    task with ``>>``, the group holds it back until the thread has settled. However the run ends, the thread does not
    outlive it: ``wait`` answers for it, and stops it on its timeout and when it fails for good. ``wait`` cannot start another
    thread: where only that would help, it fails without a further try, and says to clear ``create``.

    What is not given is taken from ``default_args``, by the task that it would have been given to, and only then from these
    defaults.

    Args:
        group_id: id of the group, prefix of its tasks.
        prompt: what the agent is to do; templated.
        deferrable: wait in the triggerer; default: ``[operators] default_deferrable``.
        poke_interval: seconds (or ``timedelta``) between looks; default 30, at least 0.1.
        timeout: seconds (or ``timedelta``) that the wait may take; then the thread is stopped. Default 24 h.
        on_blocked: a thread that waits for a person makes ``wait`` ``fail`` (the default), ``skip``, ``succeed`` or
            ``wait`` on; a blocked thread is left for its person.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        stop_on_kill: whether the thread may be stopped at all; default ``True``.
        capy_conn_id: the connection; default ``capy_default``.
        **more: every other argument of :class:`CapyCreateThreadOperator`, of the sensor, and Airflow's own. Each belongs to
            the task for which it means the same as for one task that starts and waits: ``outlets`` and
            ``on_success_callback`` to ``wait``, ``trigger_rule`` to ``create``, ``retries``, ``pool`` or ``params`` to both.
            With ``depends_on_past`` a thread is not started before the one of the run before was waited for.

    Returns:
        the group; ``.output`` is the thread's summary, ``.thread_id`` its id.

    Raises:
        CapyInputError: an argument that is sure to be refused, that is the group's own to set, or that it does not know.
    """
    given = {
        **more,
        **_given(deferrable=deferrable, poke_interval=poke_interval, timeout=timeout, on_blocked=on_blocked),
        **_given(fail_on_task_error=fail_on_task_error, stop_on_kill=stop_on_kill, capy_conn_id=capy_conn_id),
        "prompt": prompt,
    }
    for name in given:
        if name not in BOTH | CREATE | WAIT | GROUP.keys():
            raise _refused(name)
    group = CapyThreadGroup(group_id=group_id, **{GROUP[name]: given[name] for name in GROUP.keys() & given.keys()})
    told = _default_args(group)
    for name, why in REFUSED.items():
        # What the group sets itself does not come from there, and other tasks may need it; a default is no wish.
        if why != _ITS_OWN and told.get(name):
            raise _refused(name)
    with group:
        create = group.create = CapyCreateThreadOperator(
            task_id="create",
            dag=group.dag,
            task_group=group,
            **_of_task(given, BOTH | CREATE, instead_of=WAIT),
            wait_for_completion=False,
            do_xcom_push=True,
        )
        if not create.durable:
            raise CapyInputError(
                "durable: False leaves nothing by which the thread of a create that was cut off is found; leave it out, or "
                "use CapyCreateThreadOperator alone"
            )
        if create.depends_on_past:
            # Of the run before, not only its create is to have succeeded.
            create.wait_for_downstream = True
        wait = group.wait = CapyThreadWait(
            task_id="wait",
            dag=group.dag,
            task_group=group,
            create_task_id=create.task_id,
            thread_id=create.output,
            project_id=create.project_id,
            do_xcom_push=True,
            # Without a thread there is nothing to wait for, whatever lets the create start.
            trigger_rule="all_success",
            # A sensor's own would be a week.
            **{**({} if "timeout" in told else {"timeout": DAY}), **_of_task(given, BOTH | WAIT, instead_of=CREATE)},
        )
        # From its create on, the thread is the wait's to answer for.
        create.thread_owner = wait.task_id
        create >> wait
    return group


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not ...}


def _refused(name: str) -> CapyInputError:
    return CapyInputError(f"{name}: {REFUSED.get(name, 'is no argument that a group knows; check its spelling')}")


def _of_task(given: dict[str, Any], own: frozenset[str], *, instead_of: frozenset[str]) -> dict[str, Any]:
    """Return a task's arguments; what the other one alone is to have does not come to it from ``default_args`` either."""
    neutral = {name: value for name, value in _NEUTRAL.items() if name in instead_of}
    return neutral | {name: given[name] for name in own & given.keys()}


def _default_args(group: TaskGroup) -> dict[str, Any]:
    """Return what the tasks of a group take when they are not given it."""
    return {**(group.dag.default_args if group.dag else {}), **group.default_args}
