"""The operators and the sensor as Airflow objects: templates, mapping, defaults, refusals, what they leave in XCom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_provider_capy import exceptions
from airflow_provider_capy.exceptions import CapyInputError, CapyStopUnconfirmedError
from airflow_provider_capy.lifecycle import Outcome
from airflow_provider_capy.operators.owning import LEFT_UNSEEN, Ending, ending_of
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from tests.harness.settings import with_bytecode
from tests.unit.worker import TASK_ID, Ran, Supervisor, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capy.emulator.control import EmulatorControl

pytestmark = pytest.mark.usefixtures("quick_proof")


def create(**arguments: Any) -> Callable[[], CapyCreateThreadOperator]:
    return lambda: CapyCreateThreadOperator(task_id=TASK_ID, **{"prompt": "Fix it", **arguments})


def sense(**arguments: Any) -> Callable[[], CapyThreadSensor]:
    return lambda: CapyThreadSensor(task_id=TASK_ID, **{"poke_interval": 0.1, **arguments})


def stop(**arguments: Any) -> Callable[[], CapyStopThreadOperator]:
    return lambda: CapyStopThreadOperator(task_id=TASK_ID, **arguments)


def body_of(capy: EmulatorControl) -> dict[str, Any]:
    [request] = capy.requests("createAndStartThread")
    return dict(request["body"])


# Templates


def test_every_field_of_the_request_can_be_templated(capy_emulator: EmulatorControl) -> None:
    given: dict[str, Any] = {
        "prompt": "{{ 'fix' }} {{ run_id }}",
        "project_id": "prj_{{ 1 + 1 }}",
        "model": "{{ 'glm' }}-5",
        "speed": "{{ 'fast' }}",
        "reasoning": {"mode": "{{ 'high' }}"},
        "build_model": "{{ 'glm' }}-5.1",
        "build_speed": "{{ 'standard' }}",
        "build_reasoning": {"mode": "{{ 'low' }}"},
        "repos": [{"repo_full_name": "acme/{{ 'api' }}", "branch": "{{ 'main' }}"}],
        "browser_snapshot_ids": ["snap_{{ 5 }}"],
        "attachment_urls": ["https://example.com/{{ 6 }}"],
        "tags": ["{{ 'nightly' }}"],
        "slack": {"channel": "C{{ 7 }}"},
        "impersonate_user_email": "{{ 'ada' }}@example.com",
        "reliability_investigation_id": "rel_{{ 'a' * 40 }}",
    }
    ran = run_task(create(**given, durable=False))
    assert (ran.state, body_of(capy_emulator)) == (
        "success",
        {
            "prompt": "fix run_1",
            "projectId": "prj_2",
            "model": "glm-5",
            "speed": "fast",
            "reasoning": {"mode": "high"},
            "buildModel": "glm-5.1",
            "buildSpeed": "standard",
            "buildReasoning": {"mode": "low"},
            "repos": [{"repoFullName": "acme/api", "branch": "main"}],
            "browserSnapshotIds": ["snap_5"],
            "attachmentUrls": ["https://example.com/6"],
            "tags": ["nightly"],
            "slack": {"channel": "C7"},
            "impersonateUserEmail": "ada@example.com",
            "reliabilityInvestigationId": f"rel_{'a' * 40}",
        },
    )


def test_intervals_policies_and_connections_can_be_templated(
    capy_emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_OTHER", capy_emulator.connection_json(project_id="prj_other"))
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_DEFAULT")
    capy_emulator.script(life="blocked", seconds=0)
    common = {
        "poke_interval": "{{ 0.1 }}",
        "timeout": "{{ 6 * 5 }}",
        "on_blocked": "{{ 'skip' }}",
        "capy_conn_id": "capy_{{ 'other' }}",
    }
    created = run_task(create(wait_for_completion=True, **common))
    sensed = run_task(sense(thread_id="{{ '" + created.xcoms["thread_id"] + "' }}", project_id="{{ 'p' }}", **common))
    assert (created.state, sensed.state) == ("skipped", "skipped")
    assert capy_emulator.threads()[0]["project_id"] == "prj_other"
    stopped = run_task(
        stop(thread_id=["{{ '" + created.xcoms["thread_id"] + "' }}"], timeout="{{ 20 }}", capy_conn_id="capy_other")
    )
    assert stopped.xcoms["return_value"][0]["thread_id"] == created.xcoms["thread_id"]


@pytest.mark.parametrize("kind", [CapyCreateThreadOperator, CapyThreadSensor, CapyStopThreadOperator])
def test_every_template_field_is_an_attribute(kind: type[BaseOperator]) -> None:
    arguments = {"prompt": "x"} if kind is CapyCreateThreadOperator else {"thread_id": "jam_1"}
    made = kind(task_id="t", **arguments)
    assert [name for name in made.template_fields if not hasattr(made, name)] == []


def test_a_prompt_is_rendered_once_although_what_it_renders_to_looks_like_a_template(
    capy_emulator: EmulatorControl,
) -> None:
    ran = run_task(create(prompt="{{ dag_run.conf['text'] }}", durable=False), conf={"text": "Explain {{ this }}"})
    assert (ran.state, body_of(capy_emulator)["prompt"]) == ("success", "Explain {{ this }}")


# XCom


def test_a_task_that_shall_not_push_pushes_only_what_its_buttons_need(capy_emulator: EmulatorControl) -> None:
    ran = run_task(
        create(wait_for_completion=True, deferrable=False, poke_interval=0.1, do_xcom_push=False),
        supervisor=Supervisor(),
    )
    assert (ran.state, {key for key, value in ran.xcoms.items() if value}) == (
        "success",
        {"thread_url", "pull_request_url"},
    )


def test_a_task_that_does_not_wait_returns_the_id_and_the_link(capy_emulator: EmulatorControl) -> None:
    ran = run_task(create())
    [truth] = capy_emulator.threads()
    assert (ran.xcoms["return_value"], ran.xcoms["thread_id"]) == (truth["id"], truth["id"])
    assert "thread" not in ran.xcoms
    assert capy_emulator.requests("getThread") == []


def test_an_address_is_never_the_text_none(capy_emulator: EmulatorControl) -> None:
    ran = run_task(create())
    assert ran.xcoms["pull_request_url"] == ""


# Mapping and defaults


@pytest.mark.parametrize(
    ("partial", "expanded"),
    [
        (CapyCreateThreadOperator.partial(task_id="a", repos=None), {"prompt": ["one", "two"]}),
        (CapyThreadSensor.partial(task_id="b", mode="reschedule"), {"thread_id": ["jam_1", "jam_2"]}),
        (CapyStopThreadOperator.partial(task_id="c"), {"thread_id": ["jam_1", "jam_2"]}),
    ],
    ids=["create", "wait", "stop"],
)
def test_every_operator_can_be_mapped(partial: Any, expanded: dict[str, list[str]]) -> None:
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
        mapped = partial.expand(**expanded)
    assert isinstance(mapped, MappedOperator)
    [name] = expanded
    unmapped = mapped.unmap({name: expanded[name][1]})
    assert getattr(unmapped, name) == expanded[name][1]


def test_what_a_sensor_is_mapped_over_may_be_templates(capy_emulator: EmulatorControl) -> None:
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
        mapped = CapyThreadSensor.partial(task_id=TASK_ID, poke_interval="{{ 0.1 }}").expand(thread_id=["x", "y"])
    assert mapped.unmap({"thread_id": "x"}).poke_interval == "{{ 0.1 }}"


def test_default_args_reach_every_operator() -> None:
    defaults = {
        "capy_conn_id": "capy_team",
        "poke_interval": timedelta(minutes=2),
        "on_blocked": "skip",
        "deferrable": True,
    }
    with DAG("defaults", schedule=None, default_args=defaults):
        made = [
            CapyCreateThreadOperator(task_id="a", prompt="x"),
            CapyThreadSensor(task_id="b", thread_id="jam_1"),
            CapyStopThreadOperator(task_id="c", thread_id="jam_1"),
        ]
    assert {one.capy_conn_id for one in made} == {"capy_team"}
    assert [(one.on_blocked, one.deferrable) for one in made[:2]] == [("skip", True)] * 2


def test_deferring_follows_airflows_own_default() -> None:
    code = (
        "from airflow_provider_capy.operators.thread import CapyCreateThreadOperator as C\n"
        "from airflow_provider_capy.sensors.thread import CapyThreadSensor as S\n"
        "print(C(task_id='a', prompt='x').deferrable, S(task_id='b', thread_id='jam_1').deferrable)"
    )

    def printed(**env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**with_bytecode(os.environ), **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    assert (create()().deferrable, sense(thread_id="jam_1")().deferrable) == (False, False)
    assert printed(AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE="True") == "True True"


# Refusals: each names the field, the value and the fix, and starts nothing


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (create(reference="{{ '' }}"), "reference: "),
        (create(prompt="{{ ' ' }}"), "prompt"),
        (create(on_blocked="{{ 'ignore' }}"), "on_blocked: 'ignore' is none of 'fail', 'skip', 'succeed', 'wait'"),
        (create(poke_interval="{{ 'soon' }}"), "poke_interval: 'soon' is not a number of seconds"),
        (create(timeout="{{ -1 }}"), "timeout: '-1' is not a number of seconds from 0 to"),
        (create(repos=[{"repo_full_name": "{{ 'acme/api' }}"}]), "repos.0.branch"),
        (create(tags=["{{ 'Not A Tag' }}"]), "tags"),
        (sense(thread_id=["jam_1", "{{ 'jam_2' }}"]), "thread_id: ['jam_1', 'jam_2'] is not a thread id but a list"),
        (sense(thread_id="{{ '' }}"), "thread_id: ''"),
        (sense(thread_id="{{ none }}/../x"), "thread_id: 'None/../x'"),
        (sense(thread_id="jam_1", on_blocked="{{ 'ignore' }}"), "on_blocked: 'ignore'"),
        (sense(thread_id="jam_1", timeout="{{ 'never' }}"), "timeout: 'never'"),
        (stop(thread_id=["{{ 'jam_1' }}", 1.5]), "thread_id: ['jam_1', 1.5] is neither a thread id nor a list of them"),
        (stop(thread_id="jam_1", timeout="{{ 'x' }}"), "timeout: 'x'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    make: Callable[[], BaseOperator], says: str, capy_emulator: EmulatorControl
) -> None:
    ran = run_task(make)
    assert (ran.state, isinstance(ran.error, CapyInputError)) == ("failed", True)
    assert says in str(ran.error)
    assert capy_emulator.requests() == []


def test_one_id_that_is_none_leaves_no_other_at_work(capy_emulator: EmulatorControl) -> None:
    ids = [*capy_emulator.create(life="forever"), "{{ '../x' }}", *capy_emulator.create(life="forever")]
    ran = run_task(stop(thread_id=ids))
    assert type(ran.error) is CapyStopUnconfirmedError
    assert "1 of 3 threads may still be at work: ../x: it could NOT be asked to stop" in str(ran.error)
    assert all(capy_emulator.thread(thread_id)["run_state"] == "ready" for thread_id in (ids[0], ids[2]))


# What a wait that did not end well calls for


@pytest.mark.parametrize(
    ("outcome", "gone", "durable", "may_stop", "tries_left", "expected"),
    [
        (Outcome.ARCHIVED, False, True, True, True, Ending("archived", False, "A retry starts a new thread")),
        (Outcome.TASK_ERROR, False, True, True, True, Ending("task_error", False, "A retry starts a new thread")),
        (
            Outcome.TIMEOUT,
            False,
            True,
            True,
            True,
            Ending("timeout", True, "A retry starts a new thread once this one is at rest"),
        ),
        (
            Outcome.TIMEOUT,
            False,
            False,
            True,
            False,
            Ending("timeout", True, "A retry starts a new thread once this one is at rest"),
        ),
        (
            Outcome.BLOCKED,
            False,
            True,
            True,
            True,
            Ending("", False, "It was left as it is; a retry looks at it again"),
        ),
        (
            Outcome.BLOCKED,
            False,
            False,
            True,
            True,
            Ending("", False, "It was left as it is; a retry stops it and starts another one"),
        ),
        (
            Outcome.POLL_FAILED,
            False,
            True,
            True,
            True,
            Ending("", False, "It was left running; the next try reattaches to it"),
        ),
        (Outcome.POLL_FAILED, False, True, True, False, Ending("", False, LEFT_UNSEEN)),
        (
            Outcome.POLL_FAILED,
            False,
            False,
            True,
            True,
            Ending("", False, "It was left running; the next try stops it and starts another one"),
        ),
        (
            Outcome.BLOCKED,
            False,
            False,
            False,
            True,
            Ending("", False, "It was left as it is; a retry starts another one only once it is at rest"),
        ),
        (
            Outcome.POLL_FAILED,
            False,
            False,
            False,
            True,
            Ending("", False, "It was left running; the next try starts another one only once it is at rest"),
        ),
        (
            Outcome.POLL_FAILED,
            True,
            True,
            True,
            True,
            Ending("gone", False, "It does not exist any more. A retry starts a new thread"),
        ),
    ],
)
def test_what_a_wait_that_did_not_end_well_calls_for(
    outcome: Outcome, gone: bool, durable: bool, may_stop: bool, tries_left: bool, expected: Ending
) -> None:
    ending = ending_of(outcome, thread_is_gone=gone, durable=durable, may_stop=may_stop, tries_left=tries_left)
    assert ending == expected


@pytest.mark.parametrize(
    ("next_kwargs", "error"),
    [
        ({"error": "Trigger timeout", "traceback": ["gone"]}, "TaskDeferralTimeout"),
        # Only that nobody looks any more is known.
        ({"error": "Trigger failure", "traceback": ["boom"]}, "TaskDeferralError"),
    ],
)
@pytest.mark.parametrize("retries", [0, 1])
def test_a_triggerer_that_gives_up_is_told_with_the_threads_fate(
    next_kwargs: dict[str, Any], error: str, retries: int, capy_emulator: EmulatorControl
) -> None:
    capy_emulator.script(life="forever")
    supervisor = Supervisor()
    run_task(create(), supervisor=supervisor)
    ran = run_task(
        create(wait_for_completion=True, deferrable=True, retries=retries),
        supervisor=supervisor,
        retries=retries,
        resume={"next_method": "__fail__", "next_kwargs": next_kwargs},
    )
    [truth] = capy_emulator.threads()
    is_timeout = error == "TaskDeferralTimeout"
    assert (type(ran.error).__name__, bool(truth["stops"])) == (error, retries == 0 and is_timeout)
    fate = "It was stopped" if is_timeout else "It was left as it is, and costs money"
    assert ("the next try reattaches to it" if retries else fate) in str(ran.error)


@pytest.mark.parametrize("event", [None, {}, {"outcome": "ready", "thread_id": "jam_other"}, "success"], ids=repr)
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_task_never_succeeds_by_an_event_that_is_not_its_own(
    kind: str, event: Any, capy_emulator: EmulatorControl
) -> None:
    supervisor = Supervisor()
    started = run_task(create(), supervisor=supervisor)
    resume = {"next_method": "execute_complete", "next_kwargs": {"event": event}}
    make = create(wait_for_completion=True) if kind == "operator" else sense(thread_id=started.xcoms["thread_id"])
    ran = run_task(make, supervisor=supervisor, resume=resume)
    assert (ran.state, type(ran.error)) == ("failed", exceptions.CapyEventError)


# Stopping


def test_stopping_many_reports_each(capy_emulator: EmulatorControl) -> None:
    working = capy_emulator.create(life="forever", copies=3)
    [done] = capy_emulator.create(seconds=0, age=60)
    ran = run_task(stop(thread_id=[*working, done, "jam_nobody", "", None, working[0]]))
    assert [(report["thread_id"], report["result"]) for report in ran.xcoms["return_value"]] == [
        *((one, "stopped") for one in working),
        (done, "already_settled"),
        ("jam_nobody", "gone"),
    ]


def test_many_threads_are_all_asked_before_one_is_waited_for(capy_emulator: EmulatorControl) -> None:
    working = capy_emulator.create(life="forever", copies=3, stop_seconds=2)
    run_task(stop(thread_id=working))
    operations = [request["operation"] for request in capy_emulator.requests()]
    assert sorted(operations[:6]) == sorted(["getThread", "stopThread"] * 3)


@pytest.mark.parametrize("nothing", [None, "", [], ["", None]], ids=repr)
def test_nothing_to_stop_is_no_error(nothing: Any, capy_emulator: EmulatorControl) -> None:
    ran = run_task(stop(thread_id=nothing))
    assert (ran.state, ran.xcoms["return_value"], capy_emulator.requests()) == ("success", [], [])


def test_a_thread_that_does_not_stop_fails_the_task_that_stops_it(capy_emulator: EmulatorControl) -> None:
    [stubborn] = capy_emulator.create(life="forever", stop_seconds=1000)
    [other] = capy_emulator.create(life="forever")
    ran = run_task(stop(thread_id=[stubborn, other], timeout=4))
    assert isinstance(ran.error, exceptions.CapyStopUnconfirmedError)
    assert "1 of 2 threads may still be at work" in str(ran.error)
    assert capy_emulator.thread(other)["run_state"] == "ready"


def test_without_waiting_a_stop_is_one_request(capy_emulator: EmulatorControl) -> None:
    [working] = capy_emulator.create(life="forever")
    ran = run_task(stop(thread_id=working, wait_for_stop=False))
    assert ran.xcoms["return_value"][0]["result"] == "requested"
    assert [request["operation"] for request in capy_emulator.requests()] == ["stopThread"]


def test_a_stop_task_names_the_threads_that_it_stopped_and_no_others(capy_emulator: EmulatorControl) -> None:
    [at_work] = capy_emulator.create(life="forever")
    [finished] = capy_emulator.create(seconds=0, age=60)
    ran = run_task(stop(thread_id=[at_work, finished]))
    assert ran.xcoms["stopped_threads"] == [at_work]


def test_many_are_stopped_beside_each_other(capy_emulator: EmulatorControl) -> None:
    working = capy_emulator.create(life="forever", copies=120)
    began = time.monotonic()
    ran = run_task(stop(thread_id=working))
    assert {report["result"] for report in ran.xcoms["return_value"]} == {"stopped"}
    # Each is looked at again after a second: one after another would take minutes.
    assert time.monotonic() - began < 30


def test_a_stop_of_one_thread_has_a_button(capy_emulator: EmulatorControl) -> None:
    [working] = capy_emulator.create(life="forever", project_id="prj_other")
    ran = run_task(stop(thread_id=working))
    assert ran.xcoms["thread_url"].endswith(f"/project/prj_other/captain/{working}")


# The decorator


def decorated(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    def make() -> Any:
        arguments = {"task_id": TASK_ID, "durable": False, **kwargs}
        return task.capy_thread(**arguments)(function)(*args).operator

    return make


def test_a_decorated_function_returns_the_prompt_from_its_arguments_and_the_context(
    capy_emulator: EmulatorControl,
) -> None:
    def ask(what: str, run_id: str | None = None, **context: Any) -> str:
        return f"{what} in {run_id} of {context['ti'].task_id}"

    ran = run_task(decorated(ask, "Fix {{ 1 + 1 }}", model="glm-{{ 5 }}"))
    assert ran.state == "success", ran.error
    assert body_of(capy_emulator) == {
        "projectId": "prj_demo",
        "prompt": "Fix 2 in run_1 of work",
        "model": "glm-5",
    }


def test_a_decorated_prompt_is_never_rendered(capy_emulator: EmulatorControl) -> None:
    def ask() -> str:
        return "Explain {{ ti.secret }} and {% raw %}"

    assert run_task(decorated(ask)).state == "success"
    assert body_of(capy_emulator)["prompt"] == "Explain {{ ti.secret }} and {% raw %}"


def test_a_decorated_function_can_wait_for_its_thread(capy_emulator: EmulatorControl) -> None:
    def ask() -> str:
        return "Work"

    ran = run_task(decorated(ask, wait_for_completion=True, deferrable=True, poke_interval=0.1))
    assert (ran.state, ran.deferred, ran.xcoms["thread"]["outcome"]) == ("success", 1, "ready")
    assert len(capy_emulator.threads()) == 1


@pytest.mark.parametrize("returned", [None, 7, ["a"]], ids=repr)
def test_a_decorated_function_that_returns_no_text_is_told_so(returned: Any, capy_emulator: EmulatorControl) -> None:
    def ask() -> Any:
        return returned

    ran = run_task(decorated(ask))
    assert str(ran.error) == (
        f"prompt: ask returned a {type(returned).__name__}; a @task.capy_thread function returns the prompt as text"
    )
    assert capy_emulator.requests() == []


# What crosses into the database


def test_a_trigger_is_made_of_ids_and_times_alone(capy_emulator: EmulatorControl) -> None:
    seen: list[Any] = []
    ran: Ran = run_task(
        create(wait_for_completion=True, deferrable=True, poke_interval=0.1, timeout=100, prompt="a secret plan"),
        on_deferred=seen.append,
    )
    [truth] = capy_emulator.threads()
    path, arguments = seen[0].serialize()
    assert path == "airflow_provider_capy.triggers.thread.CapyThreadTrigger"
    assert arguments.pop("deadline") == pytest.approx(truth["created"] + 100, abs=20)
    assert arguments == {
        "thread_id": truth["id"],
        "capy_conn_id": "capy_default",
        "project_id": "prj_demo",
        "poll_interval": 0.1,
        "on_blocked": "fail",
        "fail_on_task_error": False,
        "stop_on_kill": True,
        "tolerate_outage": 3600.0,
    }
    told = json.dumps([arguments, ran.supervisor.store])
    assert ("a secret plan" in told, capy_emulator.token in json.dumps([told, ran.supervisor.events])) == (False, False)


def test_parsing_does_no_io() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('a socket at parse time')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from airflow.sdk import DAG, task\n"
        "from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator\n"
        "from airflow_provider_capy.sensors.thread import CapyThreadSensor\n"
        "from airflow_provider_capy.triggers.thread import CapyThreadTrigger\n"
        "from airflow_provider_capy.task_groups import capy_thread\n"
        "from airflow_provider_capy.hooks.capy import CapyHook\n"
        "with DAG('d', schedule=None):\n"
        "    a = CapyCreateThreadOperator(task_id='a', prompt='x', capy_conn_id='nowhere')\n"
        "    CapyThreadSensor(task_id='b', thread_id=a.output, capy_conn_id='nowhere')\n"
        "    CapyStopThreadOperator(task_id='c', thread_id=a.output, capy_conn_id='nowhere')\n"
        "    CapyThreadSensor.partial(task_id='m').expand(thread_id=['x'])\n"
        "    capy_thread('g', prompt='x')\n"
        "    task.capy_thread(lambda: 'x', task_id='f')()\n"
        "CapyThreadTrigger(thread_id='jam_1').serialize(); CapyHook('nowhere')\n"
        "print('parsed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=with_bytecode(os.environ), capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["parsed"], 0), done.stderr
