"""The operators that start and stop Capy threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, conf

from airflow_provider_capy.exceptions import CapyError, CapyInputError, CapyRequestError, CapyThreadError
from airflow_provider_capy.lifecycle import TOLERATED_OUTAGE, Fate, OnBlocked
from airflow_provider_capy.links import CapyPullRequestLink, CapyThreadLink
from airflow_provider_capy.operators.owning import OwningTask
from airflow_provider_capy.operators.stop import CapyStopThreadOperator
from airflow_provider_capy.tasking import SHARED_KEY
from airflow_provider_capy.templated import as_flag, as_seconds_or_none, as_text, optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_capy.identity import Record

__all__ = ["CapyCreateThreadOperator", "CapyStopThreadOperator"]

_BODY_FIELDS = (
    "prompt",
    "model",
    "speed",
    "reasoning",
    "build_model",
    "build_speed",
    "build_reasoning",
    "repos",
    "browser_snapshot_ids",
    "attachment_urls",
    "tags",
    "slack",
    "impersonate_user_email",
    "reliability_investigation_id",
)

DAY = 24 * 60 * 60.0


class CapyCreateThreadOperator(OwningTask, BaseOperator):
    """Start a Capy thread, and wait for it if wanted (``createAndStartThread``).

    A thread costs money from its creation. With ``durable`` (the default) a task has one thread: a retry after a crash
    or a lost answer goes on with the one that exists. Cancelling the run stops it, in whichever state the task is.

    XComs: ``return_value`` and ``thread_id`` (the id), ``thread_url`` at submit, ``thread`` (see
    :func:`~airflow_provider_capy.lifecycle.summary`) at the end of a wait, ``pull_request_url`` when there is one.

    Args:
        prompt: what the agent is to do; templated.
        project_id: the project; default: that of the connection.
        repos: ``[{"repo_full_name": "acme/api", "branch": "main"}, …]``; both keys are needed.
        model: model of the thread; any text, Capy decides.
        speed: ``fast`` or ``standard``.
        reasoning: a mode, e.g. ``"high"``, or ``{"mode": "high"}``.
        build_model: model of the build tasks.
        build_speed: as ``speed``.
        build_reasoning: as ``reasoning``.
        browser_snapshot_ids: ids of browser snapshots.
        attachment_urls: absolute URLs.
        tags: up to 20 tags that exist in the organisation.
        slack: a channel, or ``{"channel": …}``.
        impersonate_user_email: member of the organisation on whose behalf the thread runs.
        reliability_investigation_id: ``rel_…``.
        wait_for_completion: wait until the thread has settled; default ``False``.
        deferrable: wait in the triggerer instead of holding a worker; default: ``[operators] default_deferrable``.
        poke_interval: seconds between looks (or ``timedelta``), spread by ±10 %; default 30, at least 0.1.
        timeout: seconds (or ``timedelta``) that the thread may take, counted from its first try's create, also by a
            retry that reattaches to it; then it is stopped and the task fails. Default 24 h; ``None`` for no bound.
        on_blocked: a thread that waits for a person makes the task ``fail``, ``skip``, ``succeed`` or ``wait`` on.
        fail_on_task_error: fail when the thread is ready but one of its tasks failed; default ``False``.
        tolerate_outage: seconds (or ``timedelta``) that Capy may give no answer about the thread, growing ever seldomer
            asked; ``None`` for as long as the wait lasts. Then the task fails and the thread is left as it is. Default 3600.
        stop_on_kill: stop the thread when the task is cancelled, times out or fails for good; default ``True``.
        durable: one thread per task across retries; default ``True``.
        reference: a text of your own, e.g. a ticket number, that deduplicates across runs; needs ``durable``.
        capy_conn_id: the connection; default ``capy_default``.

    Raises:
        CapyInputError: an argument that is sure to be refused: at once when it is no template, else before anything is
            started.
        CapyRequestError: Capy refused, or could not be reached.
        CapyThreadError: the thread did not end well; each subclass says how, and what became of it.
        AirflowSkipException: blocked, under ``on_blocked="skip"``.
    """

    template_fields: Sequence[str] = (
        *_BODY_FIELDS,
        "project_id",
        "poke_interval",
        "timeout",
        "tolerate_outage",
        "on_blocked",
        "reference",
        "capy_conn_id",
    )
    template_fields_renderers = {"prompt": "md", "repos": "json"}  # noqa: RUF012 - Airflow's own declaration
    operator_extra_links = (CapyThreadLink(), CapyPullRequestLink())
    ui_color = "#e8e4f3"

    checks: ClassVar[Mapping[str, Any]] = {
        **OwningTask.checks,
        "wait_for_completion": as_flag,
        "durable": as_flag,
        "reference": optional(as_text),
    }

    # Id of the task that answers for the thread once this one has started it: a group's wait.
    thread_owner = ""

    def __init__(
        self,
        *,
        prompt: str,
        project_id: str | None = None,
        repos: Sequence[dict[str, str]] | None = None,
        model: str | None = None,
        speed: str | None = None,
        reasoning: str | dict[str, str] | None = None,
        build_model: str | None = None,
        build_speed: str | None = None,
        build_reasoning: str | dict[str, str] | None = None,
        browser_snapshot_ids: Sequence[str] | None = None,
        attachment_urls: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        slack: str | dict[str, str] | None = None,
        impersonate_user_email: str | None = None,
        reliability_investigation_id: str | None = None,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta | str = 30.0,
        timeout: float | timedelta | str | None = DAY,
        on_blocked: OnBlocked = "fail",
        fail_on_task_error: bool = False,
        tolerate_outage: float | timedelta | str | None = TOLERATED_OUTAGE,
        stop_on_kill: bool = True,
        durable: bool = True,
        reference: str | None = None,
        capy_conn_id: str = "capy_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.prompt = prompt
        self.project_id = project_id
        self.repos = repos
        self.model = model
        self.speed = speed
        self.reasoning = reasoning
        self.build_model = build_model
        self.build_speed = build_speed
        self.build_reasoning = build_reasoning
        self.browser_snapshot_ids = browser_snapshot_ids
        self.attachment_urls = attachment_urls
        self.tags = tags
        self.slack = slack
        self.impersonate_user_email = impersonate_user_email
        self.reliability_investigation_id = reliability_investigation_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = poke_interval
        self.timeout = timeout
        self.on_blocked = on_blocked
        self.fail_on_task_error = fail_on_task_error
        self.tolerate_outage = tolerate_outage
        self.stop_on_kill = stop_on_kill
        self.durable = durable
        self.reference = reference
        self.capy_conn_id = capy_conn_id
        self._check_init({name: getattr(self, name) for name in (*_BODY_FIELDS, *self.checks)})

    @classmethod
    def _check_known(cls, known: Mapping[str, Any]) -> None:
        super()._check_known(known)
        if known.get("reference") is not None and known.get("durable") is False:
            raise CapyInputError(
                f"reference: {known['reference']!r} needs durable=True, which keeps and looks up references"
            )
        # What is no template field, e.g. a decorated task's prompt, is made by the run.
        body = {name: known[name] for name in _BODY_FIELDS if name in known and name in cls.template_fields}
        if "prompt" in body or any(value is not None for value in body.values()):
            from airflow_provider_capy.api.requests import CreateThreadBody, checked

            checked(CreateThreadBody, **{"project_id": "-", "prompt": "-", **body})

    def execute(self, context: Context) -> Any:
        """Start the thread, or go on with the one that an earlier try started."""
        began = time.time()
        with self._at_work(context):
            # A kill or an error that comes before the thread is found again must know it.
            self._recall(context)
            # Whatever is sure to be refused is refused before anything is started.
            self._check_rendered()
            timeout = as_seconds_or_none("timeout", self.timeout)
            self._make_prompt(context)
            record = self._start(context)
            if not self.wait_for_completion:
                if not self.thread_owner and not self._remember(context, fate=Fate.DISPATCHED):
                    raise CapyError(f"Thread {record.thread_id} was started, which could not be kept")
                return record.thread_id
            wait = self._new_wait(record.thread_id or "", record.project_id, self._deadline(record, timeout))
            if not self.deferrable:
                return self._conclude(context, self._wait_here(context, wait))
            # A thread of an earlier try may have settled long ago, which needs no triggerer.
            if (
                record.started_at < began
                and (event := self._look(context, wait, told_elsewhere=True).event) is not None
            ):
                return self._conclude(context, event)
            return self._defer(wait, record.project_id)

    def _make_prompt(self, context: Context) -> None:
        """Make the prompt, where it is made by the run."""

    def _start(self, context: Context) -> Record:
        from airflow_provider_capy.identity import TaskIdentity
        from airflow_provider_capy.starting import ThreadStart

        ti: Any = context["ti"]
        run = self._run
        start = ThreadStart(
            hook=self.hook,
            owner=self.thread_owner,
            store=self._store(context),
            task=TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, ti.map_index),
            clear_number=getattr(context["dag_run"], "clear_number", 0) or 0,
            max_tries=ti.max_tries,
            retries=self.retries,
            try_number=ti.try_number,
            project_id=self.hook.settings.project(self.project_id),
            fields={name: getattr(self, name) for name in _BODY_FIELDS},
            durable=self.durable,
            reference=self.reference,
            fail_on_task_error=self.fail_on_task_error,
            stop_on_kill=self.stop_on_kill,
            log=self.log,
            announce=self._take,
            sending=self._sending,
        )
        try:
            record = start.get()
        except Exception as error:
            if isinstance(error, (CapyRequestError, CapyThreadError)):
                # Whoever looks for the thread of an earlier try, or replaces it, says itself what becomes of it.
                run.told = error
            if run.kill is not None and run.in_create:
                # The create brought no id: what it raised says whether a thread may exist.
                self.log.warning("%s", run.kill)
                run.kill = None
            raise
        finally:
            run.in_create = False
        self._take(record)
        run.is_found = True
        if run.kill is not None and run.order is not None:
            # Before anything else that asks Airflow: of the five seconds before SIGKILL the stop needs what is left.
            run.handed_over = True
            self._end_killed(run.order, run.kill)
        self._publish(context, record.thread_id or "", record.thread_url)
        if record.shared:
            # A wait of the same group must know that the thread is not its own to stop.
            self._push(context, SHARED_KEY, True)
        self._check_for_kill()
        return record

    def _sending(self) -> None:
        """From here to the thread's id a kill waits for the answer; one that came before sends no create at all."""
        self._check_for_kill()
        self._run.in_create = True
