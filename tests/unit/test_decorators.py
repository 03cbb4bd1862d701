"""``@task.capy_thread``: what the function returns is the prompt, and nothing else renders it."""

import pytest
from airflow.sdk import DAG, task

from airflow_provider_capy.decorators.thread import capy_thread_task
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from tests.unit.worker import run_task


def prompts(capy_emulator):
    return [thread["prompt"] for thread in capy_emulator.threads()]


def test_what_the_function_returns_is_the_prompt(capy_emulator):
    def make():
        @task.capy_thread(task_id="work", durable=False, model="gpt-5.5")
        def work():
            return "Fix the flaky test"

        return work().operator

    ran = run_task(make)
    assert (ran.state, ran.error) == ("success", None)
    assert prompts(capy_emulator) == ["Fix the flaky test"]
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"]["model"] == "gpt-5.5"
    assert ran.xcoms["thread_id"] == sent["thread_id"]


def test_the_functions_arguments_are_rendered_and_its_prompt_is_not(capy_emulator):
    def make():
        @task.capy_thread(task_id="work", durable=False)
        def work(day, *, of):
            return f"On {day} of {of}: leave {{{{ ds }}}} and {{% raw %}} alone"

        return work("{{ dag.dag_id }}", of="{{ task.task_id }}").operator

    assert run_task(make).state == "success"
    assert prompts(capy_emulator) == ["On dag_under_test of work: leave {{ ds }} and {% raw %} alone"]


def test_the_function_is_given_the_context_it_asks_for(capy_emulator):
    def make():
        @task.capy_thread(task_id="work", durable=False)
        def work(name, ti=None, **context):
            return f"{name} {ti.task_id} {context['run_id']}"

        return work("Ada").operator

    assert run_task(make).state == "success"
    assert prompts(capy_emulator) == ["Ada work run_1"]


@pytest.mark.parametrize(("returned", "kind"), [(None, "NoneType"), (5, "int"), (["a"], "list"), (b"a", "bytes")])
def test_a_function_that_returns_no_text_is_told_so(capy_emulator, returned, kind):
    def make():
        @task.capy_thread(task_id="work")
        def work():
            return returned

        return work().operator

    ran = run_task(make)
    assert ran.state == "failed"
    assert isinstance(ran.error, CapyInputError)
    assert str(ran.error) == (
        f"prompt: work returned a {kind}; a @task.capy_thread function returns the prompt as text"
    )
    assert capy_emulator.requests() == []


def test_an_empty_prompt_starts_nothing(capy_emulator):
    def make():
        @task.capy_thread(task_id="work")
        def work():
            return " "

        return work().operator

    ran = run_task(make)
    assert ran.state == "failed"
    assert isinstance(ran.error, CapyInputError)
    assert capy_emulator.threads() == []


def test_the_decorated_task_is_the_operator_with_its_fields_templated():
    with DAG("dag_1", schedule=None):

        @capy_thread_task
        def work():
            return "x"

        operator = work().operator
    assert isinstance(operator, CapyCreateThreadOperator)
    assert operator.custom_operator_name == "@task.capy_thread"
    expected = {*CapyCreateThreadOperator.template_fields, "op_args", "op_kwargs", "templates_dict"} - {"prompt"}
    assert set(operator.template_fields) >= expected - {"templates_dict"}
    assert "prompt" not in operator.template_fields
    assert len(set(operator.template_fields)) == len(operator.template_fields)


def test_the_decorated_task_can_be_mapped():
    with DAG("dag_1", schedule=None) as dag:

        @task.capy_thread
        def work(name):
            return f"Look at {name}"

        work.expand(name=["a", "b"])
    assert dag.task_dict["work"].is_mapped
