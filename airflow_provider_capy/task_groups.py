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

# Airflow's own arguments that say where and how a task runs, when it may run, and what a failure means: meant for both.
_SHARED = frozenset(
    {
        "queue",
        "executor",
        "executor_config",
        "owner",
        "pool",
        "pool_slots",
        "priority_weight",
        "retries",
        "retry_delay",
        "retry_exponential_backoff",
        "max_retry_delay",
        "retry_policy",
        "on_failure_callback",
        "email",
    }
)
# What the wait takes beside its own arguments.
_OF_THE_WAIT = frozenset({"mode", "soft_fail", "never_fail", "silent_fail", "exponential_backoff", "max_wait"})
_OURS = frozenset({"task_id", "wait_for_completion", "thread_id"})


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
    **create_fields: Any,
) -> CapyThreadGroup:
    """Start a thread and wait for it, in two tasks: for DAGs that want the thread's id early, or to see both steps.

    One :class:`CapyCreateThreadOperator` with ``wait_for_completion=True`` does the same in one task. Put before another
    task with ``>>``, the group holds it back until the thread has settled. However the run ends, the thread does not
    outlive it: ``wait`` answers for it, and stops it on its timeout and on its last failure. ``wait`` cannot start another
    thread: where only that would help, it fails without a further try, and says to clear ``create``.

    What is not given is taken from the DAG's ``default_args``, and only then from these defaults.

    Args:
        group_id: id of the group, prefix of its tasks.
        prompt: what the agent is to do; templated.
        deferrable: wait in the triggerer; default: ``[operators] default_deferrable``.
        poke_interval: seconds (or ``timedelta``) between looks; default 30.
        timeout: seconds (or ``timedelta``) that the wait may take; then the thread is stopped. Default 24 h.
        on_blocked: a thread that waits for a person makes ``wait`` ``fail`` (the default), ``skip``, ``succeed`` or
            ``wait`` on; a blocked thread is left for its person.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        stop_on_kill: whether the thread may be stopped at all; default ``True``.
        capy_conn_id: the connection; default ``capy_default``.
        **create_fields: every other argument of :class:`CapyCreateThreadOperator`, e.g. ``repos``, ``project_id``,
            ``durable``; of the sensor's ``mode``, ``soft_fail`` and their like, for ``wait``; and Airflow's own: ``queue``,
            ``pool``, ``retries`` and their like are meant for both tasks.

    Returns:
        the group; ``.output`` is the thread's summary, ``.thread_id`` its id.

    Raises:
        CapyInputError: an argument that is the group's own to set.
    """
    if ours := sorted(_OURS & create_fields.keys()):
        raise CapyInputError(f"{', '.join(ours)}: the group sets this itself; leave it out")
    of_wait = {name: create_fields.pop(name) for name in _OF_THE_WAIT & create_fields.keys()}
    of_wait |= {name: create_fields[name] for name in _SHARED & create_fields.keys()}
    of_both = _given(stop_on_kill=stop_on_kill, fail_on_task_error=fail_on_task_error, capy_conn_id=capy_conn_id)
    of_wait |= of_both | _given(
        deferrable=deferrable, poke_interval=poke_interval, timeout=timeout, on_blocked=on_blocked
    )
    group = CapyThreadGroup(group_id=group_id)
    with group:
        create = group.create = CapyCreateThreadOperator(
            task_id="create",
            prompt=prompt,
            **{**create_fields, **of_both, "wait_for_completion": False, "do_xcom_push": True},
        )
        if not create.durable:
            raise CapyInputError(
                "durable: False leaves nothing by which the thread of a create that was cut off is found; leave it out, or "
                "use CapyCreateThreadOperator alone"
            )
        wait = group.wait = CapyThreadWait(
            task_id="wait",
            create_task_id=create.task_id,
            **{
                **_default_timeout(group),
                **of_wait,
                "thread_id": create.output,
                "project_id": create.project_id,
                "do_xcom_push": True,
            },
        )
        # From its create on, the thread is the wait's to answer for.
        create.thread_owner = wait.task_id
        create >> wait
    return group


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not ...}


def _default_timeout(group: TaskGroup) -> dict[str, Any]:
    """Return the group's own timeout of the wait, unless ``default_args`` have one: a sensor's would be a week."""
    told = {**(group.dag.default_args if group.dag else {}), **group.default_args}
    return {} if "timeout" in told else {"timeout": DAY}
