"""The emulator keeps the contract: whatever is sent to it, and at every moment of every life."""

import os
import re
import subprocess
import sysconfig
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from airflow_provider_capy.emulator.contract import contract
from airflow_provider_capy.emulator.lives import NAMES

CONTRACT = files("airflow_provider_capy.emulator") / "contract.yaml"
SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
EXAMPLES = 60


@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(capy_emulator, tmp_path):
    capy_emulator.organisation(tags=None)
    run = subprocess.run(
        [
            *(SCHEMATHESIS, "run", str(CONTRACT), "--url", capy_emulator.api_url, "--no-color"),
            *("-H", f"Authorization: Bearer {capy_emulator.token}"),
            *("--checks", "all", "--mode", "all", "--max-examples", str(EXAMPLES), "--generation-deterministic"),
            *("--continue-on-failure", "--warnings", "off"),
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "prose", "PYTHONPATH": str(Path(__file__).parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert generated, run.stdout[-2000:]
    assert int(generated[1]) == int(generated[2]) > 500


@pytest.fixture
def api(capy_emulator):
    headers = {"Authorization": f"Bearer {capy_emulator.token}"}
    with httpx.Client(base_url=capy_emulator.api_url, headers=headers) as client:
        yield client


def problems(operation_id, response):
    operation = next(item for item in contract().operations if item.id == operation_id)
    return contract().answer_problems(operation, response.status_code, response.json())


def everything_said(capy_emulator, api, body):
    """Yield what is wrong with every answer about a thread, until it has come to rest."""
    created = api.post("/v1/threads", json=body)
    yield from problems("createAndStartThread", created)
    thread_id = created.json()["id"]
    while True:
        over = capy_emulator.thread(thread_id)["over"]
        yield from problems("getThread", api.get(f"/v1/threads/{thread_id}"))
        yield from problems("listThreads", api.get("/v1/threads", params={"projectId": body["projectId"]}))
        if over:
            break
    yield from problems("stopThread", api.post(f"/v1/threads/{thread_id}/stop"))


FULL_BODY = {
    "projectId": "prj_demo",
    "prompt": "Repair the build\n\nIt is red since this morning.",
    "impersonateUserEmail": "someone@capy.example",
    "model": "claude-fable-5",
    "speed": "fast",
    "reasoning": {"mode": "off"},
    "repos": [{"repoFullName": "acme/shop", "branch": "main"}, {"repoFullName": "acme/api", "branch": "next"}],
    "attachmentUrls": ["https://example.com/log.txt"],
    "tags": ["bug", "urgent", "bug"],
    "slack": {"channel": "#builds"},
}


@pytest.mark.parametrize("life", sorted(set(NAMES) - {"unknown_state", "forever"}))
def test_every_answer_keeps_the_contract_through_a_life(capy_emulator, api, life):
    capy_emulator.script(life=life)
    assert list(everything_said(capy_emulator, api, FULL_BODY)) == []


def test_every_answer_keeps_the_contract_through_a_stop(capy_emulator, api):
    capy_emulator.script(life="forever", stop_seconds=0.1)
    thread_id = api.post("/v1/threads", json=FULL_BODY).json()["id"]
    assert problems("getThread", api.get(f"/v1/threads/{thread_id}")) == []
    while not capy_emulator.thread(thread_id)["over"]:
        assert problems("stopThread", api.post(f"/v1/threads/{thread_id}/stop")) == []
        assert problems("getThread", api.get(f"/v1/threads/{thread_id}")) == []


def test_only_the_run_state_of_the_life_unknown_state_is_outside_the_contract(capy_emulator, api):
    capy_emulator.script(life="unknown_state")
    wrong = {problem.path.rpartition(".")[2] for problem in everything_said(capy_emulator, api, FULL_BODY)}
    assert wrong == {"runState"}


@pytest.mark.parametrize(
    ("operation", "method", "path"),
    [
        ("getThread", "GET", "/v1/threads/jam_1"),
        ("stopThread", "POST", "/v1/threads/jam_1/stop"),
        ("listThreads", "GET", "/v1/threads"),
        ("createAndStartThread", "POST", "/v1/threads"),
    ],
)
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic capy_emulator", "capy_emulator"])
def test_every_operation_refuses_a_wrong_token_in_the_contracts_shape(
    capy_emulator, operation, method, path, authorization
):
    response = httpx.request(method, capy_emulator.api_url + path, headers={"Authorization": authorization})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"
    assert problems(operation, response) == []
