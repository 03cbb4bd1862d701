"""Waits for a thread inside the triggerer, without a worker and without ever blocking the triggerer's loop."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
from airflow.sdk.configuration import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_capy.events import WaitEvent
from airflow_provider_capy.exceptions import CapyConnectError, CapyInputError, CapyRequestError
from airflow_provider_capy.hooks.look_ups import look_ups
from airflow_provider_capy.killing import UNKNOWN, ask_from_trigger, shielded, told_by_its_end
from airflow_provider_capy.lifecycle import TOLERATED_OUTAGE, OnBlocked, Policy, checked_on_blocked
from airflow_provider_capy.links import PULL_REQUEST_URL_KEY
from airflow_provider_capy.polling.registry import registry
from airflow_provider_capy.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_capy.api import AsyncCapyClient
    from airflow_provider_capy.hooks.capy import CapyHook
    from airflow_provider_capy.hooks.settings import ConnectionSettings
    from airflow_provider_capy.stopping import StopReport
    from airflow_provider_capy.waiting import Step

# Airflow gives on_kill 30 seconds, if it does not cut it off before; both parts together stay below.
KILL_BUDGET = 28.0
STOP_BUDGET = 18.0
FIRST_LOOK_WITHIN = 2.0
LOOK_UP_AGAIN = 5.0
# What Airflow's triggerer cancels a trigger with when its task instance is over, or another triggerer's.
USER_ACTION = "__airflow_user_action__"


class CapyThreadTrigger(BaseTrigger):
    """Looks at a thread until it has settled, and fires one event: a dumped ``WaitEvent``.

    Args:
        thread_id: the thread.
        capy_conn_id: the connection, looked up in the triggerer; nothing secret is serialised.
        project_id: the thread's project, if it is known.
        poll_interval: seconds between looks, spread by ±10 %.
        deadline: epoch seconds (UTC) after which the wait ends as ``timeout``; ``None`` for no end. It survives a
            restart of the triggerer.
        on_blocked: ``fail``, ``skip`` and ``succeed`` end the wait on a blocked thread, ``wait`` goes on.
        fail_on_task_error: end as ``task_error`` when a ready thread has a failed task.
        stop_on_kill: stop the thread when the deferred task is cancelled.
        tolerate_outage: seconds that nobody may be able to see the thread, nor to look its connection up; ``None`` for
            as long as the wait lasts. Default 3600.
    """

    def __init__(
        self,
        *,
        thread_id: str,
        capy_conn_id: str = "capy_default",
        project_id: str | None = None,
        poll_interval: float = 30.0,
        deadline: float | None = None,
        on_blocked: OnBlocked = "fail",
        fail_on_task_error: bool = False,
        stop_on_kill: bool = True,
        tolerate_outage: float | None = TOLERATED_OUTAGE,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.thread_id = thread_id
        self.capy_conn_id = capy_conn_id
        self.project_id = project_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.on_blocked = on_blocked
        self.fail_on_task_error = fail_on_task_error
        self.stop_on_kill = stop_on_kill
        self.tolerate_outage = tolerate_outage
        self._hook: CapyHook | None = None
        self._fired = self._killed = False
        self._settings: ConnectionSettings | None = None
        self._shown = ""
        self._side_tasks: list[asyncio.Task[None]] = []

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return (
            "airflow_provider_capy.triggers.thread.CapyThreadTrigger",
            {
                "thread_id": self.thread_id,
                "capy_conn_id": self.capy_conn_id,
                "project_id": self.project_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "on_blocked": self.on_blocked,
                "fail_on_task_error": self.fail_on_task_error,
                "stop_on_kill": self.stop_on_kill,
                "tolerate_outage": self.tolerate_outage,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the thread has settled, then fire."""
        try:
            event = await self._wait()
        except asyncio.CancelledError as cancelled:
            if cancelled.args[:1] == (USER_ACTION,):
                # Here, and not in on_kill: what runs there is cut off by the second cancel on Python before 3.12, and
                # the task's log closed, before it could say what became of the thread.
                await self.on_kill()
            elif self.task_instance is None:
                # Under dag.test() nothing else hears of a Ctrl-C.
                await self._interrupted()
            raise
        finally:
            for task in self._side_tasks:
                task.cancel()
        # Whoever is cancelled between this and the return is not killed: the event is on its way.
        self._fired = True
        yield TriggerEvent(event.payload())

    async def _wait(self) -> WaitEvent:
        """Look the connection up, which may fail for as long as Capy may be away, and wait for the thread's end."""
        wait = self._new_wait()
        attempts = 0
        while True:
            try:
                # Before anything else: a kill must find it looked up, the first look-up of a triggerer takes seconds.
                self._hook = await look_ups().hook(self.capy_conn_id)
                self._settings = await self._hook.asettings()
                event = await self._wait_with_others(wait, self._hook)
                return event or await self._wait_alone(wait, self._hook)
            except CapyInputError as error:
                return WaitEvent.failed(self.thread_id, wait.url, CapyRequestError(str(error)))
            except CapyConnectError as error:
                step = wait.failed(error, time.time())
                self._tell(step, wait)
                if step.event is not None:
                    return step.event
                attempts += 1
                await asyncio.sleep(min(step.look_again_in, LOOK_UP_AGAIN * attempts))

    async def _wait_with_others(self, wait: Wait, hook: CapyHook) -> WaitEvent | None:
        """Wait in the shared poll; ``None`` when there is none any more."""
        if not conf.getboolean("capy", "shared_poller", fallback=True):
            return None
        async with registry().joined(hook, wait, self.project_id) as waiter:
            while (step := await waiter.next()) is not None:
                self._tell(step, wait)
                if step.event is not None:
                    return step.event
        return None

    async def _wait_alone(self, wait: Wait, hook: CapyHook) -> WaitEvent:
        # A connection that outlived the interval would be one open file a wait.
        client = await hook.aclient(httpx.Limits(max_keepalive_connections=0))
        try:
            # After a restart of the triggerer all of its waits begin at once: the first looks are spread.
            await asyncio.sleep(random.random() * min(self.poll_interval, FIRST_LOOK_WITHIN))  # noqa: S311
            while True:
                step = await self._look(wait, client)
                self._tell(step, wait)
                if step.event is not None:
                    return step.event
                await asyncio.sleep(step.look_again_in)
        finally:
            await client.close()

    def _new_wait(self) -> Wait:
        return Wait(
            self.thread_id,
            thread_url=self._thread_url,
            policy=Policy(checked_on_blocked(self.on_blocked), self.fail_on_task_error),
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            tolerate_outage=self.tolerate_outage,
        )

    def _thread_url(self, project_id: str) -> str:
        return self._settings.thread_url(self.thread_id, project_id or self.project_id) if self._settings else ""

    def _tell(self, step: Step, wait: Wait) -> None:
        if step.line:
            (self.log.warning if step.warning else self.log.info)("%s", step.line)
        if step.event is not None or wait.last is None or not wait.last.pull_requests:
            return
        url = wait.last.pull_requests[0].url
        if url != self._shown:
            self._shown = url
            # The first request to the supervisor takes seconds in a fresh triggerer: the wait does not wait for it.
            self._side_tasks.append(asyncio.ensure_future(self._publish_pull_request(url)))

    async def _look(self, wait: Wait, client: AsyncCapyClient) -> Step:
        try:
            return wait.saw(await client.get_thread(self.thread_id), time.time())
        except CapyRequestError as error:
            return wait.failed(error, time.time())

    async def on_kill(self) -> None:
        """Stop the thread when the task instance is over; keep it when another try or triggerer goes on with it."""
        if self._fired or self._killed:
            return
        self._killed = True
        if not await shielded(self._kill(), KILL_BUDGET):
            self.log.error(
                "Thread %s: %.0f s were not enough to stop it; it may still be at work", self.thread_id, KILL_BUDGET
            )

    async def _interrupted(self) -> None:
        if self.stop_on_kill and not self._killed:
            self._killed = True
            await shielded(self._stop_and_tell("interrupted"), STOP_BUDGET)

    async def _kill(self) -> None:
        if not self.stop_on_kill:
            self.log.warning("Thread %s is not stopped: stop_on_kill is off", self.thread_id)
            return
        standing = await ask_from_trigger(self.task_instance)
        if not standing.is_over:
            whose = (
                "nobody is known to have cancelled it"
                if standing.state == UNKNOWN.state
                else "another try goes on with it"
            )
            self.log.warning("Thread %s is not stopped: %s, %s", self.thread_id, standing.reason, whose)
            return
        await self._stop_and_tell(standing.reason)

    async def _stop_and_tell(self, reason: str) -> None:
        try:
            # A triggerer that was frozen finds task instances over whose waits another one saw to their end: they may have
            # left the thread for its person, or to itself when the time was over.
            ended = self.deadline is not None and time.time() >= self.deadline
            report = None if ended else await self._stop(spare_blocked=True)
            if report is None or report.run_state == "blocked":
                if told := await told_by_its_end(self.task_instance, self.thread_id):
                    words = "its task instance came to its own end with the thread's outcome"
                    self.log.warning("Thread %s is not stopped: %s, %s", self.thread_id, words, told)
                    return
                report = await self._stop(spare_blocked=False)
            self.log.warning("Thread %s, %s: %s", self.thread_id, report.in_words, reason)
        except Exception:
            # Airflow logs that on_kill failed, and neither what nor why.
            self.log.exception("Thread %s: stopping it failed; it may still be at work", self.thread_id)

    async def _stop(self, *, spare_blocked: bool) -> StopReport:
        from airflow_provider_capy.triggers.stops import stop

        return await stop(self.thread_id, self._get_hook(), budget=STOP_BUDGET, spare_blocked=spare_blocked)

    def _get_hook(self) -> CapyHook:
        if self._hook is None:
            from airflow_provider_capy.hooks.capy import CapyHook

            self._hook = CapyHook(self.capy_conn_id)
        return self._hook

    async def _publish_pull_request(self, url: str) -> None:
        """Let the "Pull request" button work while the task is still deferred."""
        ti = self.task_instance
        if ti is None or not url:
            return
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import SetXCom

        message = SetXCom(
            key=PULL_REQUEST_URL_KEY,
            value=url,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
        )
        try:
            await task_runner.SUPERVISOR_COMMS.asend(message)
        except Exception as error:  # noqa: BLE001 - a button is not worth a wait
            self.log.warning("The pull request's link could not be stored: %s", error)
