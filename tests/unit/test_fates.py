"""What a task's end leaves in its record: the listener of run ends goes by that, and by nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.sdk.execution_time.comms import SetTaskStateStore

from airflow_provider_capy import exceptions, stopping
from airflow_provider_capy.identity import reference_from, with_reference
from airflow_provider_capy.lifecycle import Fate
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.records import STORE_KEY, ThreadRecord
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.sensors.wait import CapyThreadWait
from tests.unit.operators.test_kill import killed
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")

HELD, DISPATCHED, SETTLED, LEFT, STOPPING, STOPPED = Fate
POKE = 0.1
WAYS: dict[str, dict[str, Any]] = {"worker": {"deferrable": False}, "deferred": {"deferrable": True}}
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}
NEVER_AGAIN = ExceptionRetryPolicy([RetryRule(exceptions.CapyError, RetryAction.FAIL)])


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's pauses between attempts are measured elsewhere."""
    from airflow_provider_capy.api import client

    original = client.policy
    monkeypatch.setattr(
        client, "policy", lambda limits, **kwargs: {**original(limits, **kwargs), "wait": lambda _: 0.002}
    )
    monkeypatch.setattr(stopping, "LOOK_EVERY", 0.05)


def operate(supervisor: Supervisor | None = None, *, retries: int = 0, try_number: int = 1, **arguments: Any) -> Ran:
    given = {"wait_for_completion": True, "poke_interval": POKE, "retries": retries, **arguments}
    return run_task(
        lambda: CapyCreateThreadOperator(task_id=TASK_ID, prompt="Work", **given),
        supervisor=supervisor,
        retries=retries,
        try_number=try_number,
    )


def sense(
    kind: type[CapyThreadSensor],
    thread_id: str,
    supervisor: Supervisor | None = None,
    *,
    retries: int = 0,
    **arguments: Any,
) -> Ran:
    more = {"create_task_id": "g.create"} if kind is CapyThreadWait else {}
    return run_task(
        lambda: kind(
            task_id=TASK_ID, thread_id=thread_id, retries=retries, **more, **{"poke_interval": POKE, **arguments}
        ),
        supervisor=supervisor,
        retries=retries,
    )


class StoppedMeanwhile(Supervisor):
    """Right after the task has kept its thread, somebody else stops it."""

    fate = STOPPING

    def send(self, msg: Any) -> Any:
        answer = super().send(msg)
        if isinstance(msg, SetTaskStateStore) and msg.key == STORE_KEY and msg.value["thread_id"]:
            self.store[STORE_KEY] |= {"fate": self.fate.value, "stopped_by": "the run was marked failed"}
        return answer


class Away(Supervisor):
    """Cannot be told that a thread was dispatched."""

    def send(self, msg: Any) -> Any:
        if isinstance(msg, SetTaskStateStore) and msg.value["fate"] == DISPATCHED:
            raise ConnectionError("the API server is away")
        return super().send(msg)


def kept(ran: Ran) -> ThreadRecord:
    record = ThreadRecord.read(ran.supervisor.store[STORE_KEY])
    assert record is not None
    return record


def fault(capy: EmulatorControl, status: int) -> None:
    capy.fault("status", "getThread", status=status, skip=1)


# The operator


@pytest.mark.parametrize("shared", [False, True])
def test_a_dispatched_thread_goes_on_when_its_run_ends_by_itself(shared: bool, capy_emulator: EmulatorControl) -> None:
    capy_emulator.script(life="forever")
    reference = "OPS-1" if shared else None
    if shared:
        capy_emulator.create(with_reference("Work", reference_from("OPS-1")), origin="api")
    record = kept(operate(wait_for_completion=False, reference=reference))
    assert (record.fate, record.shared, record.may_stop) == (DISPATCHED, shared, not shared)


def test_a_thread_that_is_handed_on_is_held_for_whoever_answers_for_it(capy_emulator: EmulatorControl) -> None:
    capy_emulator.script(life="forever")

    class Create(CapyCreateThreadOperator):
        thread_owner = "g.wait"

    record = kept(run_task(lambda: Create(task_id=TASK_ID, prompt="Work")))
    assert (record.fate, record.owner, record.project_id, record.capy_conn_id) == (
        HELD,
        "g.wait",
        "prj_demo",
        "capy_default",
    )


def test_a_dispatch_that_cannot_be_kept_is_no_success(capy_emulator: EmulatorControl) -> None:
    ran = operate(Away(), wait_for_completion=False, retries=1)
    assert (ran.state, "could not be kept" in str(ran.error), kept(ran).fate) == ("up_for_retry", True, HELD)


ENDS: dict[str, tuple[dict[str, Any], dict[str, Any], int, Fate, Fate, str]] = {
    # life, arguments, status of the polls, fate in the last try, fate with tries left, what a retry must not go on with
    "ready": ({"seconds": 0.2}, {}, 0, SETTLED, SETTLED, ""),
    "blocked": ({"life": "blocked", "seconds": 0}, {}, 0, LEFT, HELD, ""),
    "blocked, skip": ({"life": "blocked", "seconds": 0}, {"on_blocked": "skip"}, 0, LEFT, LEFT, ""),
    "blocked, succeed": ({"life": "blocked", "seconds": 0}, {"on_blocked": "succeed"}, 0, LEFT, LEFT, ""),
    "archived": ({"life": "archived", "seconds": 0.2}, {}, 0, SETTLED, SETTLED, "archived"),
    "task error": (
        {"life": "task_error", "seconds": 0.2},
        {"fail_on_task_error": True},
        0,
        SETTLED,
        SETTLED,
        "task_error",
    ),
    "timeout": ({"life": "forever"}, {"timeout": 0.4}, 0, STOPPED, STOPPED, "timeout"),
    "timeout, spared": ({"life": "forever"}, {"timeout": 0.4, "stop_on_kill": False}, 0, LEFT, LEFT, "timeout"),
    "gone": ({"life": "forever"}, {}, 404, SETTLED, SETTLED, "gone"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("name", ENDS)
def test_the_fate_that_an_operator_leaves(name: str, retries: int, way: str, capy_emulator: EmulatorControl) -> None:
    life, arguments, status, last, with_tries, ended = ENDS[name]
    capy_emulator.script(**life)
    if status:
        fault(capy_emulator, status)
    ran = operate(retries=retries, **WAYS[way], **arguments)
    [truth] = capy_emulator.threads()
    record = kept(ran)
    wanted = with_tries if ran.state == "up_for_retry" else last
    assert (record.fate, record.model_dump()["ended"], record.thread_id) == (wanted, ended, truth["id"])
    assert bool(truth["stops"]) is (wanted is STOPPED)
    assert record.stopped_by == ("its task, timeout" if wanted is STOPPED else "")


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("stop_on_kill", [True, False])
def test_what_is_not_durable_does_what_its_error_says(
    stop_on_kill: bool, retries: int, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(life="blocked", seconds=0)
    arguments = {"durable": False, "stop_on_kill": stop_on_kill, "retries": retries}
    first = operate(**arguments)
    promised = "stops it and starts another one" if stop_on_kill else "starts another one only once it is at rest"
    assert f"It was left as it is; a retry {promised}" in str(first.error)
    again = operate(first.supervisor, try_number=2, **arguments)
    threads = capy_emulator.threads()
    assert ([bool(thread["stops"]) for thread in threads]) == ([True, False] if stop_on_kill else [False])
    assert ("it is blocked" in str(again.error), kept(first).thread_id) == (not stop_on_kill, threads[-1]["id"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("retries", "policy", "fate"), [(0, None, LEFT), (1, None, HELD), (1, NEVER_AGAIN, LEFT)])
def test_a_thread_that_could_not_be_looked_at_is_never_stopped_for_it(
    retries: int, policy: Any, fate: Fate, way: str, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(life="forever")
    fault(capy_emulator, 403)
    ran = operate(retries=retries, retry_policy=policy, **WAYS[way])
    [truth] = capy_emulator.threads()
    assert (ran.state, kept(ran).fate, truth["stops"]) == ("up_for_retry" if fate is HELD else "failed", fate, [])
    assert ("It was left running; the next try" if fate is HELD else "It was left as it is, and costs money") in str(
        ran.error
    )


@pytest.mark.parametrize("policy", [None, ExceptionRetryPolicy([RetryRule(AirflowSensorTimeout, RetryAction.FAIL)])])
def test_a_rule_for_something_else_leaves_the_thread_to_the_next_try(
    policy: Any, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(life="forever")
    fault(capy_emulator, 403)
    ran = operate(retries=1, retry_policy=policy)
    assert (ran.state, kept(ran).fate) == ("up_for_retry", HELD)


@pytest.mark.parametrize(
    ("standing", "retries", "policy", "fate"),
    [
        ("failed", 0, None, STOPPING),
        ("failed", 2, None, STOPPING),
        ("restarting", 2, None, HELD),
        ("running", 0, None, STOPPING),
        ("running", 2, None, HELD),
        ("running", 2, NEVER_AGAIN, STOPPING),
    ],
)
def test_a_kill_leaves_word_of_its_stop(
    standing: str, retries: int, policy: Any, fate: Fate, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(life="forever")
    ran = killed(
        lambda: operate(Supervisor(standing=standing), retries=retries, retry_policy=policy, deferrable=False),
        lambda: capy_emulator.requests("getThread"),
    )
    record = kept(ran)
    [truth] = capy_emulator.threads()
    assert (record.fate, bool(truth["stops"])) == (fate, fate is STOPPING)
    assert record.stopped_by.startswith("its task was killed, its task instance is " if fate is STOPPING else "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fate", [STOPPING, STOPPED])
def test_the_ready_of_a_thread_that_somebody_has_stopped_is_no_success(
    fate: Fate, way: str, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(seconds=0.8)
    supervisor = StoppedMeanwhile()
    supervisor.fate = fate
    ran = operate(supervisor, retries=1, **WAYS[way])
    assert (ran.state, isinstance(ran.error, exceptions.CapyThreadStoppedError)) == ("failed", True)
    assert "was stopped (the run was marked failed), so its ready is no success" in str(ran.error)


# A sensor of its own, and the wait of a group

LONE, WAIT = CapyThreadSensor, CapyThreadWait
SENSED: dict[str, tuple[dict[str, Any], dict[str, Any], int, tuple[Fate, Fate], tuple[Fate, Fate]]] = {
    # life, arguments, status of the polls, fates of the lone sensor and of the wait: in the last try, with tries left
    "ready": ({"seconds": 0.2}, {}, 0, (SETTLED, SETTLED), (SETTLED, SETTLED)),
    "blocked": ({"life": "blocked", "seconds": 0}, {}, 0, (LEFT, HELD), (LEFT, HELD)),
    "blocked, skip": (
        {"life": "blocked", "seconds": 0},
        {"on_blocked": "skip"},
        0,
        (LEFT, LEFT),
        (LEFT, LEFT),
    ),
    "archived": ({"life": "archived", "seconds": 0.2}, {}, 0, (SETTLED, HELD), (SETTLED, SETTLED)),
    "task error": (
        {"life": "task_error", "seconds": 0.2},
        {"fail_on_task_error": True},
        0,
        (SETTLED, HELD),
        (SETTLED, SETTLED),
    ),
    "timeout": ({"life": "forever"}, {"timeout": 0.4}, 0, (LEFT, LEFT), (STOPPED, STOPPED)),
    "soft timeout": (
        {"life": "forever"},
        {"timeout": 0.4, "soft_fail": True},
        0,
        (LEFT, LEFT),
        (STOPPED, STOPPED),
    ),
    # A lone sensor is refused again by a next try; whoever answers for the thread tries again, and never stops it unseen.
    "polls that fail": ({"life": "forever"}, {}, 403, (LEFT, LEFT), (LEFT, HELD)),
    "polls that fail, by a rule": (
        {"life": "forever"},
        {"retry_policy": NEVER_AGAIN},
        403,
        (LEFT, LEFT),
        (LEFT, LEFT),
    ),
    # To a sensor of its own it may only be out of its token's sight.
    "gone": ({"life": "forever"}, {}, 404, (LEFT, LEFT), (SETTLED, SETTLED)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("kind", [LONE, WAIT])
@pytest.mark.parametrize("name", SENSED)
def test_the_fate_that_a_sensor_leaves(
    name: str, kind: type[CapyThreadSensor], retries: int, mode: str, capy_emulator: EmulatorControl
) -> None:
    life, arguments, status, lone, wait = SENSED[name]
    [thread_id] = capy_emulator.create(**life)
    if status:
        fault(capy_emulator, status)
    ran = sense(kind, thread_id, retries=retries, **{**MODES[mode], **arguments})
    wanted = (lone if kind is LONE else wait)[retries]
    record = kept(ran)
    assert (record.fate, record.thread_id, bool(capy_emulator.stops(thread_id))) == (
        wanted,
        thread_id,
        wanted is STOPPED,
    )
    assert (ran.state == "up_for_retry") is (wanted is HELD)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("archived", "Clear g.create to start a new one"),
        ("task error", "Clear g.create to start a new one"),
        ("gone", "Clear g.create to start a new one"),
        ("polls that fail", "It was left as it is, and costs money while it is at work; clear work to go on with it"),
        ("timeout", "It was stopped. Clear g.create to start a new one"),
        ("blocked", "It was left for its person; clear work once somebody has answered"),
    ],
)
def test_a_wait_says_what_helps(name: str, says: str, capy_emulator: EmulatorControl) -> None:
    life, arguments, status, _, _ = SENSED[name]
    [thread_id] = capy_emulator.create(**life)
    if status:
        fault(capy_emulator, status)
    assert str(sense(WAIT, thread_id, **arguments).error).endswith(says)


def test_a_wait_that_is_given_nonsense_is_not_tried_again(capy_emulator: EmulatorControl) -> None:
    ran = sense(WAIT, "{{ none }}", retries=1)
    assert (ran.state, isinstance(ran.error, exceptions.CapyInputError)) == ("failed", True)
    assert "Clear g.create" in str(ran.error)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"poke_interval": "{{ 'soon' }}"}, exceptions.CapyInputError),
        ({"timeout": "{{ 'later' }}"}, exceptions.CapyInputError),
        ({"on_blocked": "{{ 'perhaps' }}"}, exceptions.CapyInputError),
        ({"capy_conn_id": "nowhere"}, exceptions.CapyLookUpError),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", MODES)
def test_a_wait_that_cannot_begin_leaves_its_thread_and_says_so(
    mode: str, wrong: dict[str, Any], error: type[Exception], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = sense(WAIT, thread_id, **{**MODES[mode], **wrong})
    record = kept(ran)
    assert (ran.state, isinstance(ran.error, error)) == ("failed", True)
    assert (record.thread_id, record.fate, capy_emulator.stops(thread_id)) == (thread_id, LEFT, [])
    assert "It was left as it is, and costs money while it is at work; clear work to go on with it" in str(ran.error)


def test_a_wait_without_its_connection_is_tried_again_and_holds_its_thread(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = sense(WAIT, thread_id, retries=1, capy_conn_id="nowhere")
    assert (ran.state, kept(ran).fate, capy_emulator.stops(thread_id)) == ("up_for_retry", HELD, [])


@pytest.mark.parametrize(("stop_on_kill", "shared"), [(True, False), (True, True), (False, False)])
def test_a_trigger_stops_no_thread_that_is_not_its_tasks_own_to_stop(
    stop_on_kill: bool, shared: bool, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    triggers: list[Any] = []

    def deferred(trigger: Any) -> None:
        triggers.append(trigger)
        capy_emulator.set_life(thread_id, "default", seconds=0.1)

    ran = run_task(
        lambda: WAIT(
            task_id=TASK_ID,
            thread_id=thread_id,
            create_task_id="g.create",
            poke_interval=POKE,
            deferrable=True,
            stop_on_kill=stop_on_kill,
        ),
        supervisor=Supervisor(others={("g.create", "thread_is_shared"): True} if shared else {}),
        on_deferred=deferred,
    )
    assert [trigger.stop_on_kill for trigger in triggers] == [stop_on_kill and not shared]
    assert (ran.state, kept(ran).may_stop) == ("success", stop_on_kill and not shared)


@pytest.mark.parametrize("spared", ["stop_on_kill", "shared"])
def test_a_wait_stops_no_thread_that_is_not_its_own_to_stop(spared: str, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    supervisor = Supervisor(others={("g.create", "thread_is_shared"): spared == "shared"})
    ran = sense(WAIT, thread_id, supervisor, timeout=0.3, stop_on_kill=spared != "stop_on_kill")
    record = kept(ran)
    assert (record.fate, record.may_stop, capy_emulator.stops(thread_id)) == (LEFT, False, [])
    assert "It was left running" in str(ran.error)


@pytest.mark.parametrize("kind", [LONE, WAIT])
def test_a_sensor_keeps_what_it_waits_for_before_it_waits(
    kind: type[CapyThreadSensor], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.3)
    at_deferral: list[Any] = []
    supervisor = Supervisor()
    run_task(
        lambda: kind(
            task_id=TASK_ID,
            thread_id=thread_id,
            deferrable=True,
            poke_interval=POKE,
            stop_on_kill=False,
            project_id="prj_demo",
            **({"create_task_id": "g.create"} if kind is WAIT else {}),
        ),
        supervisor=supervisor,
        on_deferred=lambda _: at_deferral.append(json.loads(json.dumps(supervisor.store[STORE_KEY]))),
    )
    held = ThreadRecord.read(at_deferral[0])
    assert held is not None
    assert (held.thread_id, held.fate, held.stop_on_kill, held.project_id) == (thread_id, HELD, False, "prj_demo")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [LONE, WAIT])
@pytest.mark.parametrize("fate", [STOPPING, STOPPED])
def test_a_sensor_fails_for_good_on_a_thread_that_was_stopped(
    fate: Fate, kind: type[CapyThreadSensor], mode: str, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0, age=60)
    before = ThreadRecord(thread_id=thread_id, fate=fate, stopped_by="the run was marked failed")
    supervisor = Supervisor(store={STORE_KEY: before.model_dump(mode="json")})
    ran = sense(kind, thread_id, supervisor, retries=2, **MODES[mode])
    assert (ran.state, ran.deferred) == ("failed", 0)
    assert isinstance(ran.error, exceptions.CapyThreadStoppedError)
    assert isinstance(ran.error, AirflowFailException)
    assert f"Thread {thread_id} was stopped (the run was marked failed), so its ready is no success" in str(ran.error)
    assert kept(ran) == before


@pytest.mark.parametrize("kind", [LONE, WAIT])
def test_a_sensor_that_fails_on_a_thread_that_was_stopped_links_to_it(
    kind: type[CapyThreadSensor], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0, age=60)
    before = ThreadRecord(thread_id=thread_id, fate=STOPPED).model_dump(mode="json")
    ran = sense(kind, thread_id, Supervisor(store={STORE_KEY: before}))
    assert isinstance(ran.error, exceptions.CapyThreadStoppedError)
    assert thread_id in ran.xcoms["thread_url"]


def test_never_fail_is_for_a_thread_that_was_stopped_as_well(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(seconds=0, age=60)
    before = ThreadRecord(thread_id=thread_id, fate=STOPPED).model_dump(mode="json")
    ran = sense(LONE, thread_id, Supervisor(store={STORE_KEY: before}), never_fail=True)
    assert (ran.state, kept(ran).fate) == ("skipped", STOPPED)


@pytest.mark.parametrize("kind", [LONE, WAIT])
@pytest.mark.parametrize(
    "before",
    [
        {"thread_id": "jam_another", "fate": "stopped", "stopped_by": "the run was marked failed"},
        {"fate": "held"},
        {"fate": "settled"},
        {"fate": "left"},
        {},
    ],
    ids=["another thread was stopped", "held", "settled", "left", "an old record"],
)
def test_a_sensor_goes_on_with_any_other_thread(
    before: dict[str, Any], kind: type[CapyThreadSensor], capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0, age=60)
    supervisor = Supervisor(store={STORE_KEY: {"version": 1, "thread_id": thread_id, **before}})
    ran = sense(kind, thread_id, supervisor)
    assert (ran.state, kept(ran).thread_id, kept(ran).fate, kept(ran).stopped_by) == (
        "success",
        thread_id,
        SETTLED,
        "",
    )


@pytest.mark.parametrize("mode", ["poke", "deferred"])
def test_a_sensor_whose_thread_is_stopped_while_it_waits_does_not_succeed(
    mode: str, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(seconds=0.6)
    supervisor = StoppedMeanwhile()
    ran = sense(LONE, thread_id, supervisor, retries=1, **MODES[mode])
    assert (ran.state, isinstance(ran.error, exceptions.CapyThreadStoppedError)) == ("failed", True)
    assert kept(ran).fate is STOPPING


@pytest.mark.parametrize(("standing", "fate"), [("failed", STOPPING), ("restarting", HELD)])
def test_a_kill_of_a_sensor_leaves_word_of_its_stop(standing: str, fate: Fate, capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    ran = killed(
        lambda: sense(LONE, thread_id, Supervisor(standing=standing), retries=1),
        lambda: capy_emulator.requests("getThread"),
    )
    assert (kept(ran).fate, bool(capy_emulator.stops(thread_id))) == (fate, fate is STOPPING)


@pytest.mark.parametrize(
    ("kind", "retries", "fate"), [(LONE, 0, LEFT), (LONE, 1, HELD), (WAIT, 0, LEFT), (WAIT, 1, HELD)]
)
def test_a_trigger_that_fails_is_an_end_like_every_other(
    kind: type[CapyThreadSensor], retries: int, fate: Fate, capy_emulator: EmulatorControl
) -> None:
    [thread_id] = capy_emulator.create(life="forever")
    more = {"create_task_id": "g.create"} if kind is WAIT else {}
    held = ThreadRecord(thread_id=thread_id, fate=HELD).model_dump(mode="json")
    ran = run_task(
        lambda: kind(task_id=TASK_ID, thread_id=thread_id, deferrable=True, retries=retries, **more),
        supervisor=Supervisor(store={STORE_KEY: held}),
        retries=retries,
        resume={"next_method": "__fail__", "next_kwargs": {"error": "Trigger failure", "traceback": ["boom"]}},
    )
    assert (kept(ran).fate, capy_emulator.stops(thread_id)) == (fate, [])
    assert ran.state == ("up_for_retry" if retries else "failed")


@pytest.mark.parametrize(("soft", "state"), [({}, "failed"), ({"never_fail": True}, "skipped")], ids=str)
def test_a_trigger_that_fails_is_told_although_the_thread_is_not_known_any_more(soft: Any, state: str) -> None:
    ran = run_task(
        lambda: CapyThreadSensor(task_id=TASK_ID, thread_id="{{ none }}", deferrable=True, **soft),
        resume={"next_method": "__fail__", "next_kwargs": {"error": "Trigger failure", "traceback": ["boom"]}},
    )
    assert ran.state == state
    # A skip is no error to Airflow's task runner.
    assert (ran.error is None) is (state == "skipped")
    assert ran.error is None or "The triggerer could not go on: Trigger failure" in str(ran.error)


@pytest.mark.parametrize("kind", ["sensor", "operator"])
@pytest.mark.parametrize(
    ("word", "stopped"),
    [
        (["{id}", "jam_2"], True),
        ([["jam_2"], ["{id}"]], True),
        (["jam_2"], False),
        # An id that only begins like ours.
        (["{id}9"], False),
        ([["{id}9"], None], False),
        (None, False),
    ],
)
def test_a_stop_task_of_the_run_is_heard_by_whoever_waits(
    word: Any, stopped: bool, kind: str, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(seconds=0.2)
    supervisor = Supervisor()
    started = operate(supervisor, wait_for_completion=False)
    thread_id = started.xcoms["thread_id"]
    supervisor.others["stop", "stopped_threads"] = json.loads(json.dumps(word).replace("{id}", thread_id))

    def make() -> Any:
        CapyStopThreadOperator(task_id="stop", thread_id=thread_id)
        if kind == "sensor":
            return CapyThreadSensor(task_id=TASK_ID, thread_id=thread_id, poke_interval=POKE)
        return CapyCreateThreadOperator(
            task_id=TASK_ID, prompt="Work", wait_for_completion=True, poke_interval=POKE, deferrable=False
        )

    ran = run_task(make, supervisor=supervisor)
    assert (ran.state, isinstance(ran.error, exceptions.CapyThreadStoppedError)) == (
        "failed" if stopped else "success",
        stopped,
    )
    assert ("stopped (task stop of this run" in str(ran.error)) is stopped
