"""What users give is read in every spelling that Airflow makes of it, and what is sure to be refused breaks the parse."""

from __future__ import annotations

from datetime import timedelta

import jinja2
import pytest
from airflow.sdk import DAG, Param, task, task_group

from airflow_provider_capy.decorators.thread import capy_thread_task
from airflow_provider_capy.exceptions import CapyError, CapyInputError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.task_groups import capy_thread
from airflow_provider_capy.templated import TEN_YEARS, as_seconds, as_text, as_thread_id, is_literal
from tests.unit.worker import TASK_ID, run_task

pytestmark = pytest.mark.usefixtures("quick_proof")

CREATE = {"prompt": "Hello", "wait_for_completion": True, "deferrable": False, "poke_interval": 0.1}
SENSOR = {"thread_id": "jam_1", "poke_interval": 0.1}
STOP = {"thread_id": "jam_1"}
KINDS = [(CapyCreateThreadOperator, CREATE), (CapyThreadSensor, SENSOR), (CapyStopThreadOperator, STOP)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("5", 5.0), (" 2.5 ", 2.5), (timedelta(minutes=1), 60.0), (TEN_YEARS, TEN_YEARS)],
)
def test_a_duration_is_read(value, seconds):
    assert as_seconds("timeout", value, least=0.5) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(0.4, -1, "0.4", "soon", "", "nan", "inf", float("nan"), float("inf"), True, None, [5], {"seconds": 5}),
        *(10**400, 10**12, timedelta(seconds=-1), timedelta(0), timedelta.max, b"soon"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_none_is_refused_by_name_and_value(value):
    with pytest.raises(CapyInputError) as caught:
        as_seconds("poke_interval", value, least=0.5)
    assert (
        str(caught.value)
        == f"poke_interval: {value!r} is not a number of seconds from 0.5 to 315360000, nor a timedelta"
    )


@pytest.mark.parametrize(("value", "text"), [(4711, "4711"), (-5, "-5"), (" prj ", "prj")])
def test_whole_numbers_stand_for_their_digits(value, text):
    assert as_text("project_id", value) == text


@pytest.mark.parametrize("value", [1.1, True, None, ["a"], {"a": 1}, b"a"], ids=str)
def test_what_cannot_be_turned_back_is_refused_with_a_word_on_native_rendering(value):
    with pytest.raises(CapyInputError, match=r"^project_id: ") as caught:
        as_text("project_id", value)
    assert ("bytes" if value == b"a" else "render_template_as_native_obj=False") in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *("jam_1", " jam_1 ", "https://capy.ai/project/prj_1/captain/jam_1", "http://localhost:8010/jam_1/"),
        *("https://capy.ai/project/p/captain/jam_1?tab=tasks#top", "HTTPS://capy.ai/jam_1"),
    ],
)
def test_a_threads_web_address_stands_for_its_id(address):
    assert as_thread_id(address) == "jam_1"


@pytest.mark.parametrize(
    "address", ["https://capy.ai", "https://capy.ai/", "ftp://capy.ai/jam_1", "https://capy.ai/a%2Fb", "https:///jam_1/..", "//x/jam_1"]
)  # fmt: skip
def test_an_address_without_an_id_is_refused(address):
    with pytest.raises(CapyInputError, match=r"^thread_id: "):
        as_thread_id(address)


def test_a_literal_is_what_rendering_leaves_alone():
    with DAG("dag_1", schedule=None):

        @task
        def make():
            return "x"

        made = make()
    assert all(map(is_literal, ["x", 5, None, timedelta(1), ["a", {"b": 1}], "{ {"]))
    assert not any(map(is_literal, ["{{ x }}", "{% if x %}", "a {# b #}", ["a", "{{ x }}"], {"b": ("{{ x }}",)}, made]))


WRONG = [
    (CapyCreateThreadOperator, {"prompt": " "}, "prompt: is empty"),
    (CapyCreateThreadOperator, {"prompt": None}, "prompt: is missing"),
    (CapyCreateThreadOperator, {"on_blocked": "ignore"}, "on_blocked: 'ignore' is none of 'fail'"),
    (CapyCreateThreadOperator, {"repos": "acme/api"}, "repos: 'acme/api' is not a list"),
    (CapyCreateThreadOperator, {"repos": [{"repo_full_name": "acme/api"}]}, "repos.0.branch: is missing"),
    (CapyCreateThreadOperator, {"tags": ["Bad Tag"]}, "tags.0: 'Bad Tag' is no tag"),
    (CapyCreateThreadOperator, {"model": 1.1}, "model: 1.1 is of type float, not text"),
    (CapyCreateThreadOperator, {"impersonate_user_email": "ada"}, "impersonate_user_email: 'ada' is not an e-mail"),
    (CapyCreateThreadOperator, {"project_id": ["p"]}, r"project_id: \['p'\] is of type list"),
    (CapyCreateThreadOperator, {"reference": " "}, "reference: ' ' is empty"),
    (CapyCreateThreadOperator, {"reference": "T-1", "durable": False}, "reference: 'T-1' needs durable=True"),
    (CapyCreateThreadOperator, {"capy_conn_id": None}, "capy_conn_id: None is of type NoneType"),
    (CapyCreateThreadOperator, {"durable": "{{ params.durable }}"}, "durable: .* no template is rendered here"),
    *(
        (kind, wrong, says)
        for kind in (CapyCreateThreadOperator, CapyThreadSensor)
        for wrong, says in [
            ({"poke_interval": "30 s"}, "poke_interval: '30 s' is not a number of seconds from 0.1 to"),
            ({"poke_interval": 0}, "poke_interval: 0 is not a number of seconds from 0.1 to"),
            ({"timeout": 10**12}, "timeout: 1000000000000 is not a number of seconds from 0 to 315360000"),
            ({"timeout": -1}, "timeout: -1 is not a number of seconds"),
            ({"stop_on_kill": "False"}, "stop_on_kill: 'False' is neither True nor False"),
        ]
    ),
    (CapyThreadSensor, {"on_blocked": "ignore"}, "on_blocked: 'ignore' is none of"),
    (CapyThreadSensor, {"thread_id": "a/b"}, "thread_id: 'a/b' is not a thread id"),
    (CapyThreadSensor, {"thread_id": None}, "thread_id: None is not a thread id"),
    (CapyThreadSensor, {"thread_id": ["jam_1"]}, "thread_id: .* is not a thread id but a list"),
    (CapyStopThreadOperator, {"thread_id": ["jam_1", "a/b"]}, "thread_id: 'a/b' is not a thread id"),
    (CapyStopThreadOperator, {"thread_id": 1.5}, "thread_id: 1.5 is neither"),
    (CapyStopThreadOperator, {"timeout": "soon"}, "timeout: 'soon' is not a number of seconds"),
]


@pytest.mark.parametrize(("kind", "wrong", "says"), WRONG, ids=str)
def test_a_mistake_breaks_the_parse(kind, wrong, says):
    arguments = {**dict(KINDS)[kind], **wrong}
    with DAG("dag_1", schedule=None), pytest.raises(CapyInputError, match=f"^{says}"):
        kind(task_id="work", **arguments)
    with DAG("dag_1", schedule=None), pytest.raises(CapyInputError, match=f"^{says}"):
        kind.partial(task_id="work", **arguments)
    rest = {name: value for name, value in arguments.items() if name not in wrong}
    with DAG("dag_1", schedule=None, default_args=wrong), pytest.raises(CapyInputError, match=f"^{says}"):
        kind(task_id="work", **rest)


def test_a_mistake_of_a_decorated_task_breaks_the_parse():
    with pytest.raises(CapyInputError, match=r"^on_blocked: 'ignore' is none of"):
        capy_thread_task(lambda: "x", on_blocked="ignore")
    with pytest.raises(CapyInputError, match=r"^repos: 'acme/api' is not a list"):
        task.capy_thread(repos="acme/api")(lambda name: name).expand(name=["a"])


TEMPLATED = {
    "prompt": "{{ params.x }}",
    "repos": [{"repo_full_name": "{{ params.x }}", "branch": ""}],
    "on_blocked": "{{ params.x }}",
    "poke_interval": "{{ params.x }}",
    "timeout": "{{ params.x }}",
    "tags": "{{ params.x }}",
    "reference": "{{ params.x }}",
    "capy_conn_id": "{{ params.x }}",
    "thread_id": "{{ params.x }}",
}


@pytest.mark.parametrize(("kind", "arguments"), KINDS)
def test_a_template_waits_for_its_run(kind, arguments):
    with DAG("dag_1", schedule=None):
        kind(task_id="one", **arguments | {name: TEMPLATED[name] for name in TEMPLATED if name in kind.template_fields})


@pytest.mark.parametrize(("kind", "arguments"), KINDS)
def test_a_dag_may_choose_what_marks_its_templates(kind, arguments):
    marked = {name: "[[ params.x ]]" for name in TEMPLATED if name in kind.template_fields}
    marks = {"variable_start_string": "[[", "variable_end_string": "]]"}
    with DAG("dag_1", schedule=None, jinja_environment_kwargs=marks):
        kind(task_id="one", **arguments | marked)
    kind(task_id="two", **arguments | marked, dag=DAG("dag_2", schedule=None, jinja_environment_kwargs=marks))


def test_what_a_mapped_group_hands_on_waits_for_its_run():
    with DAG("dag_1", schedule=None):

        @task_group
        def work(prompt, policy):
            capy_thread("inner", prompt=prompt, on_blocked=policy)

        work.expand(prompt=["a", "b"], policy=["skip", "fail"])


NATIVE = [12345, 1.1, True, None, ["a"], {"a": 1}]


def run_native(kind, arguments, field, value):
    def make():
        return kind(
            task_id=TASK_ID,
            render_template_as_native_obj=True,
            params={"x": Param(value)},
            **{**arguments, field: "{{ params.x }}"},
        )

    return run_task(make)


@pytest.mark.parametrize(
    ("kind", "arguments", "field"),
    [
        pytest.param(kind, arguments, field, id=f"{kind.__name__}-{field}")
        for kind, arguments in KINDS
        for field in kind.template_fields
    ],
)
@pytest.mark.parametrize("value", NATIVE, ids=str)
def test_native_rendering_makes_nothing_of_a_field_that_raises_an_error_of_pythons(
    capy_emulator, monkeypatch, kind, arguments, field, value
):
    monkeypatch.setenv("AIRFLOW_CONN_12345", capy_emulator.connection_json())
    if kind is not CapyCreateThreadOperator:
        arguments = {**arguments, "thread_id": capy_emulator.create("Hello")[0]}
    # Nobody waits for hours here.
    ran = run_native(kind, arguments, field, 1 if (field, value) == ("poke_interval", 12345) else value)
    # What it ends with is told by us, and names the field where the value is no good.
    assert ran.error is None or isinstance(ran.error, CapyError), ran.error
    if isinstance(ran.error, CapyInputError):
        assert str(ran.error).split(":")[0].split(".")[0] == field


@pytest.mark.parametrize("value", ["12345", "4711"])
def test_texts_that_look_like_numbers_reach_capy_under_native_rendering(capy_emulator, monkeypatch, value):
    monkeypatch.setenv(f"AIRFLOW_CONN_{value}", capy_emulator.connection_json())

    def make():
        with_params = {
            "prompt": "{{ params.x }}",
            "project_id": "{{ params.x }}",
            "capy_conn_id": "{{ params.x }}",
            "slack": "{{ params.x }}",
            "repos": [{"repo_full_name": "acme/{{ params.x }}", "branch": "{{ params.x }}"}],
        }
        return CapyCreateThreadOperator(
            task_id=TASK_ID, render_template_as_native_obj=True, params={"x": value}, **with_params
        )

    ran = run_task(make)
    assert (ran.state, ran.error) == ("success", None)
    (sent,) = capy_emulator.requests("createAndStartThread")
    body = sent["body"]
    assert body["prompt"].splitlines()[0] == value
    assert (body["projectId"], body["slack"]) == (value, {"channel": value})
    assert body["repos"] == [{"repoFullName": f"acme/{value}", "branch": value}]


def test_the_fix_that_the_error_names_does_help():
    """No filter or quotes of the template's own do: literal_eval reads what they make."""
    env = jinja2.nativetypes.NativeEnvironment()
    assert env.from_string("{{ x | string }}").render(x="1.10") == 1.1
    with DAG("dag_1", schedule=None, render_template_as_native_obj=True):
        made = CapyCreateThreadOperator(
            task_id="work", prompt="x", model="{{ params.x }}", render_template_as_native_obj=False
        )
    made.render_template_fields({"params": {"x": "1.10"}, "dag": made.dag})
    assert made.model == "1.10"


@pytest.mark.parametrize("kind", [CapyThreadSensor, CapyStopThreadOperator])
def test_a_pasted_address_is_the_thread(capy_emulator, kind):
    [thread_id] = capy_emulator.create("Hello", life="default")
    address = f"https://capy.ai/project/prj_demo/captain/{thread_id}?tab=1"
    often = {"poke_interval": 0.1} if kind is CapyThreadSensor else {}
    ran = run_task(lambda: kind(task_id=TASK_ID, thread_id=address, **often))
    assert (ran.state, ran.error) == ("success", None)
    (found,) = [ran.xcoms["return_value"]] if kind is CapyThreadSensor else ran.xcoms["return_value"]
    assert found["thread_id"] == thread_id
