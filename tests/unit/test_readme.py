"""The README's code does what it says: each Python block runs, each connection form is read, the names it lists exist."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import BaseOperator, TaskGroup
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_provider_capy import exceptions
from airflow_provider_capy.hooks.capy import CapyHook
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator
from tests.demo.examples import EXAMPLES
from tests.unit.worker import context_of, run_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk.types import Operator

    from airflow_provider_capy.emulator.control import EmulatorControl

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


PYTHON = blocks("python")
EXPORTS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("export ")]
ADDS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("airflow connections add")]


def test_there_are_blocks_to_check() -> None:
    assert (len(PYTHON), len(EXPORTS), len(ADDS)) == (3, 2, 1)


@pytest.mark.parametrize("source", [source for source in PYTHON if "def test_" not in source])
def test_a_python_block_runs(source: str, tmp_path: Path) -> None:
    path = tmp_path / "block.py"
    path.write_text(source)

    assert runpy.run_path(str(path))


def test_the_quickstart_is_one_task_that_waits_and_gates(tmp_path: Path) -> None:
    path = tmp_path / "quickstart.py"
    path.write_text(PYTHON[0])

    names = runpy.run_path(str(path))

    upgrade = names["upgrade"]
    assert isinstance(upgrade, CapyCreateThreadOperator)
    assert (upgrade.wait_for_completion, upgrade.deferrable) == (True, True)
    assert upgrade.downstream_task_ids == {"report"}


def test_the_pytest_block_is_green_as_a_user_would_run_it(tmp_path: Path) -> None:
    (source,) = [source for source in PYTHON if "def test_" in source]
    (tmp_path / "test_block.py").write_text(source)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error::pytest.PytestUnraisableExceptionWarning",
            "-p",
            "no:cacheprovider",
            "test_block.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_quickstart_runs_when_it_is_triggered_by_hand(tmp_path: Path, capy_emulator: EmulatorControl) -> None:
    path = tmp_path / "quickstart.py"
    path.write_text(PYTHON[0])

    ran = run_task(lambda: runpy.run_path(str(path))["upgrade"])

    assert (ran.state, ran.error) == ("success", None)
    (thread,) = capy_emulator.threads()
    assert thread["prompt"].startswith("Upgrade the dependencies of this service")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_examples_templates_need_no_logical_date(path: Path) -> None:
    made = runpy.run_path(str(path)).values()
    operators = [item for value in made for item in (value if isinstance(value, list) else [value])]
    dag = next(item.dag for item in operators if isinstance(item, (BaseOperator, MappedOperator, TaskGroup)))

    assert any("{{" in text for task in dag.tasks for _, text in texts(task)) == ("{{" in path.read_text())
    for task in dag.tasks:
        context = context_of(task, conf={"thread_id": "jam_1"})
        for _, text in texts(task):
            task.render_template(text, context)


def texts(task: Operator) -> Iterator[tuple[str, str]]:
    """Yield every text of a task that Airflow renders, with the name of its argument."""
    given = task.partial_kwargs if task.is_mapped else {name: getattr(task, name) for name in task.template_fields}
    stack = [(name, value) for name, value in given.items() if name in task.template_fields]
    while stack:
        name, value = stack.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, (list, tuple, dict)):
            stack += [(name, item) for item in (value.values() if isinstance(value, dict) else value)]


@pytest.mark.parametrize("line", EXPORTS)
def test_an_exported_connection_is_read(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (assignment,) = shlex.split(line.removeprefix("export "))
    name, _, value = assignment.partition("=")
    monkeypatch.setenv(name, value)

    settings = CapyHook().settings

    assert (settings.client.base_url, settings.project_id) == ("https://capy.ai/api", "prj_123")
    assert settings.client.token.get_secret_value() == "capy_your_token"


def test_every_argument_of_the_operator_is_in_its_table() -> None:
    table = README.split("**`CapyCreateThreadOperator`**")[1].split("XComs:")[0]
    named = set(
        re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|")))
    )
    arguments = set(inspect.signature(CapyCreateThreadOperator.__init__).parameters) - {"self", "kwargs"}

    assert named == arguments


def test_every_error_it_names_exists() -> None:
    named = set(re.findall(r"Capy\w+Error", README))

    assert {name for name in named if not hasattr(exceptions, name)} == set()


def test_the_emulators_command_prints_the_connection_to_export() -> None:
    (command,) = [
        line for block in blocks("bash") for line in block.splitlines() if "-m airflow_provider_capy.emulator" in line
    ]
    module = shlex.split(command)[1:3]

    with subprocess.Popen([sys.executable, *module, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = next(line for line in process.stdout if "AIRFLOW_CONN_CAPY_DEFAULT" in line)
        process.terminate()
        process.communicate(timeout=30)

    (assignment,) = shlex.split(printed.partition("export ")[2])
    name, _, value = assignment.partition("=")
    assert (name, json.loads(value)["conn_type"], process.returncode) == ("AIRFLOW_CONN_CAPY_DEFAULT", "capy", 0)
