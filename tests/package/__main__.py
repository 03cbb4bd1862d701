"""Builds wheel and sdist, installs each into an environment of its own, and uses it there without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"

# Run by the clean environment's Python, in an empty folder: nothing of the repository can be imported by accident.
SMOKE = """
import importlib.metadata, pathlib, subprocess, sys
import airflow_provider_capy
from airflow_provider_capy.api import CapyClient, ClientSettings
from airflow_provider_capy.emulator.server import EmulatorProcess
from pydantic import SecretStr

home = pathlib.Path(airflow_provider_capy.__file__).resolve()
assert pathlib.Path(sys.prefix).resolve() in home.parents, home
assert (home.parent / "py.typed").is_file()
assert importlib.metadata.version("airflow-provider-capy") == airflow_provider_capy.__version__
with EmulatorProcess(port=0) as emulator:
    settings = ClientSettings(token=SecretStr(emulator.control.token), base_url=emulator.control.api_url)
    with CapyClient(settings) as client:
        thread = client.create_thread("prj_demo", "Say hello")
        assert client.get_thread(thread.id).id == thread.id
        assert [found.id for found in client.list_threads("prj_demo")] == [thread.id]
"""
DAG = """
from airflow.sdk import DAG
from airflow_provider_capy.task_groups import capy_thread
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator, CapyStopThreadOperator
from airflow_provider_capy.sensors.thread import CapyThreadSensor
from airflow_provider_capy.triggers.thread import CapyThreadTrigger
from airflow_provider_capy.hooks.capy import CapyHook

with DAG("packaged", schedule=None):
    CapyCreateThreadOperator(task_id="alone", prompt="Hello", wait_for_completion=True, deferrable=True)
    capy_thread("work", prompt="Hello")
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check(package: Path, folder: Path) -> None:
    """Install one package into a clean environment and use it."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL_ENV"))
    }
    env["AIRFLOW_HOME"] = str(folder / "airflow")
    environment, empty = folder / "venv", folder / "empty"
    empty.mkdir(parents=True)
    python = environment / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=empty, env=env)
    run(UV, "pip", "install", "--quiet", "--python", python, package, cwd=empty, env=env)
    run(python, "-c", SMOKE, cwd=empty, env=env)
    (empty / "packaged.py").write_text(DAG)
    run(python, empty / "packaged.py", cwd=empty, env=env)
    listed = run(environment / "bin" / "airflow", "providers", "list", "--output", "plain", cwd=empty, env=env)
    if "airflow-provider-capy" not in listed:
        sys.exit(f"`airflow providers list` does not show the provider:\n{listed}")
    plugins = run(environment / "bin" / "airflow", "plugins", "--output", "plain", cwd=empty, env=env)
    if "airflow_provider_capy.listeners.run_ends" not in plugins:
        sys.exit(f"`airflow plugins` does not show the listener of run ends:\n{plugins}")
    print(
        f"{package.name}: installs, is listed by Airflow with its listener, talks to the emulator, and its DAG parses"
    )


def main() -> None:
    """Build both and check both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(
            sys.executable,
            "-m",
            "build",
            "--installer",
            "uv",
            "--outdir",
            folder / "dist",
            ROOT,
            cwd=ROOT,
            env=dict(os.environ),
        )
        packages = sorted((folder / "dist").iterdir())
        if [package.suffix for package in packages] != [".whl", ".gz"]:
            sys.exit(f"expected one wheel and one sdist, got {[package.name for package in packages]}")
        for package in packages:
            check(package, folder / package.suffix.strip("."))


if __name__ == "__main__":
    main()
