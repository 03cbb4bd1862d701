"""What a group hands to which of its tasks."""

from __future__ import annotations

import inspect
from datetime import datetime, timezone

import pytest
from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator
from airflow.sdk.execution_time import comms

from airflow_provider_capy import task_groups
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import CapyThreadGroup, capy_thread
from tests.unit.worker import Ran, Supervisor, run_task


def group(defaults: dict[str, object] | None = None, **arguments: object) -> CapyThreadGroup:
    with DAG("groups", schedule=None, default_args=defaults or {}):
        return capy_thread("work", prompt="Hello", **arguments)


def test_a_group_is_two_tasks_the_second_of_which_answers_for_the_thread() -> None:
    made = group()

    assert set(made.children) == {"work.create", "work.wait"}
    assert made.create.downstream_task_ids == {"work.wait"}
    assert (made.create.thread_owner, made.wait.create_task_id) == ("work.wait", "work.create")
    assert [task.is_teardown for task in (made.create, made.wait)] == [False, False]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"queue": "agents"}, {"pool": "threads"}, {"priority_weight": 7}, {"retries": 7}, {"depends_on_past": True}),
        *({"max_active_tis_per_dag": 2}, {"doc_md": "# Read me"}, {"render_template_as_native_obj": True}),
        {"start_date": datetime(2026, 1, 1, tzinfo=timezone.utc)},
    ],
    ids=str,
)
def test_where_and_how_a_task_runs_is_meant_for_both(arguments: dict[str, object]) -> None:
    made = group(**arguments)

    assert [{name: getattr(task, name) for name in arguments} for task in (made.create, made.wait)] == [arguments] * 2


def test_a_dags_default_args_reach_the_group() -> None:
    defaults = {
        "capy_conn_id": "capy_team",
        "project_id": "prj_team",
        "deferrable": True,
        "poke_interval": 7,
        "timeout": 8,
        "on_blocked": "skip",
        "fail_on_task_error": True,
        "stop_on_kill": False,
    }
    made = group(defaults)

    assert {task.capy_conn_id for task in (made.create, made.wait)} == {"capy_team"}
    assert {task.project_id for task in (made.create, made.wait)} == {"prj_team"}
    assert {task.stop_on_kill for task in (made.create, made.wait)} == {False}
    assert (made.wait.deferrable, made.wait.poke_interval, made.wait.timeout) == (True, 7, 8)
    assert made.wait.on_blocked == "skip"
    assert (made.create.fail_on_task_error, made.wait.fail_on_task_error) == (True, True)


def test_what_is_given_wins_over_default_args_and_those_over_the_groups_defaults() -> None:
    assert group({"timeout": 8}, timeout=9).wait.timeout == 9
    assert group({"on_blocked": "skip"}, on_blocked="wait").wait.on_blocked == "wait"
    assert group().wait.timeout == 24 * 60 * 60


def test_the_sensors_arguments_reach_the_wait() -> None:
    made = group(mode="reschedule", soft_fail=True)

    assert (made.wait.mode, made.wait.soft_fail) == ("reschedule", True)


def test_a_group_without_a_reference_is_refused() -> None:
    with pytest.raises(CapyInputError, match="durable: False leaves nothing by which"):
        group(durable=False)


@pytest.mark.parametrize("name", ["task_id", "wait_for_completion", "thread_id", "do_xcom_push"])
def test_what_the_group_sets_itself_is_refused(name: str) -> None:
    with pytest.raises(CapyInputError, match=f"{name}: the group sets this itself"):
        group(**{name: "x"})


def test_every_argument_of_airflow_and_of_ours_is_decided() -> None:
    decided = [*task_groups.BOTH, *task_groups.CREATE, *task_groups.WAIT, *task_groups.GROUP, *task_groups.REFUSED]
    kinds = (BaseOperator, BaseSensorOperator, CapyCreateThreadOperator, CapyThreadSensor)
    known = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters} - {"self", "kwargs"}

    assert sorted(decided) == sorted(known)


@pytest.mark.parametrize("name", ["outlet", "create_task_id", "wait_for_downstream"])
def test_what_a_group_does_not_know_or_cannot_keep_is_refused(name: str) -> None:
    with pytest.raises(CapyInputError, match=f"^{name}: "):
        group(**{name: True})


@pytest.mark.parametrize("of_the_group", [False, True])
def test_what_a_group_cannot_keep_is_refused_from_default_args_too(of_the_group: bool) -> None:
    defaults = {"wait_for_downstream": True}
    with pytest.raises(CapyInputError) as given:
        group(**defaults)
    with pytest.raises(CapyInputError) as told:
        group(default_args=defaults) if of_the_group else group(defaults)
    assert str(told.value) == str(given.value)


def test_a_group_beside_tasks_that_need_what_it_refuses_can_be_kept_from_it() -> None:
    made = group(
        {"wait_for_downstream": True, "wait_for_completion": True}, default_args={"wait_for_downstream": False}
    )
    assert [task.wait_for_downstream for task in (made.create, made.wait)] == [False, False]
    assert not made.create.wait_for_completion


def test_what_is_one_tasks_alone_comes_to_no_other_from_default_args() -> None:
    def hook(*_: object) -> None:
        """Stand for any."""

    callbacks = ("on_execute_callback", "on_success_callback")
    defaults = {
        **dict.fromkeys([*callbacks, "pre_execute", "post_execute"], hook),
        "outlets": [Asset("default")],
        "multiple_outputs": True,
    }
    made = group(defaults)

    def has(task: BaseOperator) -> set[str]:
        own = {name for name in ("pre_execute", "post_execute") if getattr(task, f"_{name}_hook") is not None}
        return own | {name for name in defaults if name not in {"pre_execute", "post_execute"} and getattr(task, name)}

    assert has(made.create) == task_groups.CREATE & defaults.keys() == {"on_execute_callback", "pre_execute"}
    assert has(made.wait) == task_groups.WAIT & defaults.keys()


def test_nobody_is_told_by_default_args_before_the_agent_is_done(capy_emulator) -> None:
    told: list[str] = []
    defaults = {
        "outlets": [Asset("default")],
        "on_success_callback": lambda context: told.append(context["ti"].task_id),
        "multiple_outputs": True,
    }
    create = run({}, "create", Supervisor(), defaults)
    assert (create.state, create.error, outlets(create), told) == ("success", None, [], [])

    others = {("work.create", "return_value"): create.xcoms["return_value"]}
    wait = run({}, "wait", Supervisor(others=others), defaults)
    assert (wait.state, wait.error, outlets(wait), told) == ("success", None, ["default"], ["work.wait"])


def run(
    made_of: dict[str, object], name: str, supervisor: Supervisor, defaults: dict[str, object] | None = None
) -> Ran:
    """Run one task of a group as a worker does."""
    arguments = {"prompt": "Hello", "deferrable": False, "poke_interval": 0.1, **made_of}
    return run_task(
        lambda: getattr(capy_thread("work", default_args=defaults or {}, **arguments), name), supervisor=supervisor
    )


def outlets(ran: Ran) -> list[str]:
    ends = [message for message in ran.supervisor.messages if isinstance(message, comms.SucceedTask)]
    assert len(ends) == 1
    return [outlet.name for outlet in ends[0].task_outlets]


@pytest.mark.parametrize("has_defaults", [False, True])
def test_the_world_is_told_when_the_wait_ends_and_not_when_the_create_does(capy_emulator, has_defaults) -> None:
    told: list[str] = []
    defaults = {"outlets": [Asset("default")], "on_success_callback": lambda _: told.append("default")}
    defaults = defaults if has_defaults else {}
    given = {
        "outlets": [Asset("deployable")],
        "on_execute_callback": lambda context: told.append(f"begin of {context['ti'].task_id}"),
        "on_success_callback": lambda context: told.append(f"success of {context['ti'].task_id}"),
        "post_execute": lambda context, result: told.append(f"result of {context['ti'].task_id}"),  # noqa: ARG005
    }
    create = run(given, "create", Supervisor(), defaults)
    assert (create.state, create.error, outlets(create), told) == ("success", None, [], ["begin of work.create"])

    others = {("work.create", "return_value"): create.xcoms["return_value"]}
    wait = run(given, "wait", Supervisor(others=others), defaults)
    assert (wait.state, wait.error, outlets(wait)) == ("success", None, ["deployable"])
    assert told[1:] == ["result of work.wait", "success of work.wait"]


def test_a_failure_is_told_once_by_the_task_that_failed(capy_emulator) -> None:
    told: list[str] = []
    given = {"on_failure_callback": lambda context: told.append(context["ti"].task_id)}
    create = run({**given, "tags": ["no-such-tag"]}, "create", Supervisor())
    assert (create.state, told) == ("failed", ["work.create"])


def test_a_templated_argument_sees_the_params_that_the_group_was_given(capy_emulator) -> None:
    [thread_id] = capy_emulator.create("Hello", life="blocked")
    given = {"on_blocked": "{{ params.policy }}", "params": {"policy": "skip"}}
    wait = run(given, "wait", Supervisor(others={("work.create", "return_value"): thread_id}))
    assert wait.state == "skipped"
    create = run(given, "create", Supervisor())
    assert (create.state, create.error) == ("success", None)


def test_a_group_that_depends_on_the_past_starts_no_thread_beside_one_that_is_waited_for() -> None:
    assert [task.wait_for_downstream for task in (group().create, group(depends_on_past=True).create)] == [False, True]
    assert group({"depends_on_past": True}).create.wait_for_downstream


def test_the_wait_has_a_thread_whatever_lets_the_create_start() -> None:
    for made in (group(trigger_rule="all_done"), group({"trigger_rule": "all_done"})):
        assert (made.create.trigger_rule, made.wait.trigger_rule) == ("all_done", "all_success")


def test_a_group_is_made_where_its_arguments_say() -> None:
    dag = DAG("elsewhere", schedule=None)
    made = capy_thread("work", prompt="Hello", dag=dag, task_display_name="Nightly work", default_args={"retries": 5})
    assert set(dag.task_dict) == {"work.create", "work.wait"}
    assert (made.group_display_name, made.create.retries, made.wait.retries) == ("Nightly work", 5, 5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"on_blocked": "ignore"}, "on_blocked: 'ignore' is none of"),
        ({"repos": "acme/api"}, "repos: 'acme/api' is not a list"),
        ({"poke_interval": "30 s"}, "poke_interval: '30 s' is not a number of seconds"),
        ({"timeout": 10**12}, "timeout: 1000000000000 is not a number of seconds"),
    ],
)
def test_a_mistake_breaks_the_parse(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(CapyInputError, match=says):
        group(**arguments)
