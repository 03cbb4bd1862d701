"""A client of the emulator's API, and the body every test begins with."""

import httpx
import pytest


@pytest.fixture
def api(capy_emulator):
    headers = {"Authorization": f"Bearer {capy_emulator.token}"}
    with httpx.Client(base_url=capy_emulator.api_url, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
def create(api):
    """Create a thread and give its id."""

    def do(prompt="Do it", project_id="prj_demo", **fields):
        response = api.post("/v1/threads", json={"projectId": project_id, "prompt": prompt, **fields})
        assert response.status_code == 200, response.text
        return response.json()["id"]

    return do
