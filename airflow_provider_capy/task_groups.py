"""``capy_thread``: create, wait and stop as one group that keeps the promise in every state a run can get into."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.operators.teardown import CapyThreadTeardown
from airflow_provider_capy.operators.thread import DAY, CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor

if TYPE_CHECKING:
    from types import EllipsisType

    from airflow.sdk import XComArg

    from airflow_provider_capy.lifecycle import OnBlocked

# Airflow's own arguments that say where and how a task runs: meant for every task of the group.
_PLACEMENT = frozenset({"queue", "executor", "executor_config", "owner"})
# Those, the ones that say when it may run, and what a failure means: for the tasks that start and await the thread.
_SHARED = _PLACEMENT | {
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
# What the wait takes beside its own arguments.
_OF_THE_WAIT = frozenset({"mode", "soft_fail", "never_fail", "silent_fail", "exponential_backoff", "max_wait"})
_OURS = frozenset({"task_id", "wait_for_completion", "thread_id"})
# A stop waits for nobody: not for a slot of the pool that others fill with work, nor behind their tasks.
_AT_ONCE = {"pool": "default_pool", "pool_slots": 1, "weight_rule": "absolute", "priority_weight": 1_000_000}
STOP_RETRIES = 3
STOP_RETRY_DELAY = timedelta(seconds=10)


class CapyThreadGroup(TaskGroup):
    """The group that :func:`capy_thread` makes.

    Attributes:
        create: the task that starts the thread.
        wait: the task that waits for it.
        stop: the teardown.
    """

    create: CapyCreateThreadOperator
    wait: CapyThreadSensor
    stop: CapyThreadTeardown

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
    stop_timeout: float | timedelta | str = 60.0,
    capy_conn_id: str | EllipsisType = ...,
    **create_fields: Any,
) -> CapyThreadGroup:
    """Start a thread, wait for it, and be sure that it does not outlive the run.

    Three tasks: ``create``, ``wait`` and the teardown ``stop``. Put before another task with ``>>``, the group holds
    it back until the thread has settled; the teardown is not waited for. However the run ends (marked failed while
    ``create`` runs, while ``wait`` is deferred or in the gap between them, failed by itself, the triggerer dead),
    ``stop`` runs, stops the thread unless the wait ended well, and fails the run.

    What is not given is taken from the DAG's ``default_args``, and only then from these defaults.

    Args:
        group_id: id of the group, prefix of its tasks.
        prompt: what the agent is to do; templated.
        deferrable: wait in the triggerer; default: ``[operators] default_deferrable``.
        poke_interval: seconds (or ``timedelta``) between looks; default 30.
        timeout: seconds (or ``timedelta``) that the wait may take; then the thread is stopped. Default 24 h.
        on_blocked: a thread that waits for a person makes ``wait`` ``fail`` (the default), ``skip``, ``succeed`` or
            ``wait`` on; a blocked thread that failed the group is stopped, one that was skipped or succeeded is left for
            its person.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        stop_on_kill: whether the thread may be stopped at all; default ``True``.
        stop_timeout: seconds (or ``timedelta``) in which a stop is to be confirmed; default 60.
        capy_conn_id: the connection; default ``capy_default``.
        **create_fields: every other argument of :class:`CapyCreateThreadOperator`, e.g. ``repos``, ``project_id``,
            ``durable``; of the sensor's ``mode``, ``soft_fail`` and their like, for ``wait``; and Airflow's own: where a
            task runs (``queue``, ``executor``, …) is meant for all three, ``pool``, ``retries`` and their like for
            ``create`` and ``wait``: ``stop`` waits for no slot of a pool.

    Returns:
        the group; ``.output`` is the thread's summary, ``.thread_id`` its id.

    Raises:
        CapyInputError: an argument that is the group's own to set.
    """
    if ours := sorted(_OURS & create_fields.keys()):
        raise CapyInputError(f"{', '.join(ours)}: the group sets this itself; leave it out")
    of_wait = {name: create_fields.pop(name) for name in _OF_THE_WAIT & create_fields.keys()}
    of_wait |= {name: create_fields[name] for name in _SHARED & create_fields.keys()}
    of_stop = {name: create_fields[name] for name in _PLACEMENT & create_fields.keys()}
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
                "durable: False leaves the group no reference by which it finds the thread of a create that was cut off; "
                "leave it out, or use CapyCreateThreadOperator alone"
            )
        # A thread that a reference of the user's own found may be another task's: only the teardown can tell.
        of_wait["stop_on_kill"] = create.stop_on_kill and create.reference is None
        wait = group.wait = CapyThreadSensor(
            task_id="wait",
            **{
                **_default_timeout(group),
                **of_wait,
                "thread_id": create.output,
                "project_id": create.project_id,
                "do_xcom_push": True,
            },
        )
        group.stop = CapyThreadTeardown(
            task_id="stop",
            create_task_id=create.task_id,
            wait_task_id=wait.task_id,
            project_id=create.project_id,
            stop_on_kill=create.stop_on_kill,
            on_blocked=wait.on_blocked,
            forgiving=wait.soft_fail or wait.never_fail,
            timeout=stop_timeout,
            retries=STOP_RETRIES,
            retry_delay=STOP_RETRY_DELAY,
            # A DAG's default_args are not meant for what must run however this run, or the one before it, ended.
            depends_on_past=False,
            wait_for_downstream=False,
            execution_timeout=None,
            capy_conn_id=create.capy_conn_id,
            **_AT_ONCE,
            **of_stop,
        )
        group.create >> group.wait >> group.stop
        group.create >> group.stop
        # No setups: with them Airflow skips the teardown when create itself was killed, and the run ends green.
        group.stop.as_teardown(on_failure_fail_dagrun=True)
    return group


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not ...}


def _default_timeout(group: TaskGroup) -> dict[str, Any]:
    """Return the group's own timeout of the wait, unless ``default_args`` have one: a sensor's would be a week."""
    told = {**(group.dag.default_args if group.dag else {}), **group.default_args}
    return {} if "timeout" in told else {"timeout": DAY}
