"""The emulator starts and ends cleanly: as a thread, as a process, as a command and as a fixture."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time

import httpx
import pytest

from airflow_provider_capy.emulator.server import EmulatorProcess, EmulatorServer

MODULE = [sys.executable, "-m", "airflow_provider_capy.emulator"]


def test_a_server_has_a_token_a_port_and_a_speed_of_its_own():
    with EmulatorServer(token="capy_mine", speed=3) as server, EmulatorServer() as other:
        assert server.control.health()["speed"] == 3
        assert server.control.api_url != other.control.api_url
        for control, status in ((server.control, 200), (other.control, 401)):
            url = f"{control.api_url}/v1/threads?projectId=p"
            assert httpx.get(url, headers={"Authorization": "Bearer capy_mine"}).status_code == status


def test_a_server_ends_quickly_while_a_slow_call_is_under_way():
    with EmulatorServer() as server:
        server.control.fault("slow", seconds=60)
        url = f"{server.control.api_url}/v1/threads?projectId=p"
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, timeout=0.05)
        waiting = httpx.Client(timeout=0.2)
        with pytest.raises(httpx.ReadTimeout):
            waiting.get(url)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    waiting.close()


def test_a_server_says_so_when_its_port_is_taken():
    with EmulatorServer() as server:
        port = int(server.control.addresses.origin.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            EmulatorServer(port=port)


def test_a_process_runs_beside_the_test():
    with EmulatorProcess(token="capy_other", speed=50) as process:
        assert process.pid
        assert process.control.token == "capy_other"
        assert process.control.health()["speed"] == 50
    assert process.pid is None


def test_a_process_that_cannot_start_says_so(capfd):
    with EmulatorServer() as server:
        port = int(server.control.addresses.origin.rsplit(":", 1)[1])
        with pytest.raises(RuntimeError, match="standard error"):
            EmulatorProcess(port=port).start()
    assert f"--port {port}: cannot listen there (Address already in use)" in capfd.readouterr().err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_two_lines_and_ends_cleanly_on_a_signal(sent):
    with subprocess.Popen(
        [*MODULE, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line, export = process.stdout.readline(), process.stdout.readline()
        process.send_signal(sent)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")
    origin = re.search(r"API (http://127\.0\.0\.1:\d+)/api ", line)[1]
    assert line.endswith(f"page {origin}/\n")
    name, _, value = shlex.split(export.removeprefix("export "))[0].partition("=")
    assert name == "AIRFLOW_CONN_CAPY_DEFAULT"
    assert json.loads(value) == {
        "conn_type": "capy",
        "host": f"{origin}/api",
        "password": "capy_emulator",
        "extra": {
            "project_id": "prj_demo",
            "web_url_template": f"{origin}/project/{{project_id}}/captain/{{thread_id}}",
        },
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "http"], "argument --port: 'http' is not a port: give a number from 0"),
        (["--port", "65536"], "argument --port: '65536' is not a port"),
        (["--speed", "0"], "argument --speed: '0' is not a speed: give a number above 0"),
        (["--speed", "nan"], "argument --speed: 'nan' is not a speed"),
        (["--token", "two words"], "argument --token: 'two words' is not a token: give printable ASCII"),
        (["--host", "256.256.256.256", "--port", "0"], "--host 256.256.256.256 --port 0: cannot listen there"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_the_command_names_the_argument_the_value_and_the_fix(arguments, told):
    done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert told in done.stderr


def test_a_server_works_without_the_faster_http_parser(monkeypatch):
    monkeypatch.setitem(sys.modules, "httptools", None)
    monkeypatch.delitem(sys.modules, "uvicorn.protocols.http.httptools_impl", raising=False)
    with EmulatorServer() as server:
        headers = {"Authorization": f"Bearer {server.control.token}"}
        url = f"{server.control.api_url}/v1/threads"
        assert httpx.get(f"{url}?projectId=p", headers=headers).status_code == 200
        server.control.fault("reset", times=1)
        with pytest.raises(httpx.ReadError, match="reset by peer"):
            httpx.get(url, headers=headers)
        server.control.fault("lost", times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url, headers=headers)


def test_the_plugin_imports_nothing_heavy():
    heavy = "{'fastapi', 'starlette', 'uvicorn', 'httpx', 'airflow', 'pydantic', 'jsonschema', 'yaml'}"
    code = (
        f"import sys, airflow_provider_capy.emulator.pytest_plugin; sys.exit(str({heavy} & sys.modules.keys() or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_the_fixture_is_all_a_users_test_needs(tmp_path):
    (tmp_path / "test_theirs.py").write_text(
        """
import json, os, pytest

def test_default(capy_emulator):
    assert capy_emulator.health()["speed"] == 20
    assert json.loads(os.environ["AIRFLOW_CONN_CAPY_DEFAULT"])["host"] == capy_emulator.api_url
    capy_emulator.create()

@pytest.mark.capy_speed(1.5)
def test_slower_and_empty_again(capy_emulator):
    assert capy_emulator.health() == {"status": "ok", "speed": 1.5, "threads": 0}

def test_the_speed_is_back(capy_emulator):
    assert capy_emulator.health()["speed"] == 20

def test_without():
    assert "AIRFLOW_CONN_CAPY_DEFAULT" not in os.environ
"""
    )
    options = ["-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_forgetting_about_the_emulator_leaks_nothing(recwarn):
    with EmulatorServer() as server:
        server.control.health()
    assert [str(warning.message) for warning in recwarn] == []
