"""The operations answer as the contract says, and refuse what it forbids."""

import time

import httpx
import pytest


def until(check, seconds=30.0):
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_a_created_thread_is_queued_and_has_no_title_yet(api):
    answer = api.post("/v1/threads", json={"projectId": "prj_demo", "prompt": "Repair the build\nnow"}).json()
    assert (answer["runState"], answer["status"], answer["title"]) == ("queued", "active", None)
    assert {"tasks", "pullRequests", "updatedAt"}.isdisjoint(answer)


def test_a_finished_thread_has_a_title_a_completed_task_and_a_pull_request(capy_emulator, api, create):
    thread_id = create("Repair the build\nnow", repos=[{"repoFullName": "acme/shop", "branch": "next"}])
    until(lambda: capy_emulator.thread(thread_id)["over"])
    thread = api.get(f"/v1/threads/{thread_id}").json()
    assert thread["title"] == "Repair the build"
    assert [task["status"] for task in thread["tasks"]] == ["completed"]
    (pull,) = thread["pullRequests"]
    assert (pull["state"], pull["draft"], pull["repoFullName"], pull["baseRef"]) == ("open", False, "acme/shop", "next")
    assert pull["url"].startswith(capy_emulator.page_url)


def test_the_time_of_change_moves_on_with_the_state(capy_emulator, api, create):
    capy_emulator.script(seconds=1)
    thread_id = create()
    first = api.get(f"/v1/threads/{thread_id}").json()
    until(lambda: capy_emulator.thread(thread_id)["over"])
    last = api.get(f"/v1/threads/{thread_id}").json()
    assert first["createdAt"] == last["createdAt"]
    assert first["updatedAt"] < last["updatedAt"]


def test_an_impersonated_user_is_the_author(api, create):
    thread_id = create(impersonateUserEmail="ada@capy.example")
    (participant,) = api.get(f"/v1/threads/{thread_id}").json()["participants"]
    assert participant["userType"] == "human"


def test_a_slack_channel_becomes_a_slack_thread(api):
    answer = api.post("/v1/threads", json={"projectId": "p", "prompt": "x", "slack": {"channel": "C0123456789"}}).json()
    assert answer["slack"]["channelId"] == "C0123456789"
    assert api.get(f"/v1/threads/{answer['id']}").json()["slackThreads"] == [answer["slack"]]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"projectId": 7}, "projectId"),
        ({"model": "gpt-2"}, "model"),
        ({"repos": [{"repoFullName": "acme/shop"}]}, "repos.0"),
        ({"reasoning": {"mode": "wild"}}, "reasoning.mode"),
        ({"tags": ["Not A Tag"]}, "tags.0"),
        ({"tags": ["tag\n"]}, "tags.0"),
        ({"attachmentUrls": ["no uri"]}, "attachmentUrls.0"),
        ({"impersonateUserEmail": "nobody"}, "impersonateUserEmail"),
        ({"unknown": 1}, ""),
    ],
)
def test_a_body_that_breaks_the_contract_is_refused_with_the_place(api, change, path):
    response = api.post("/v1/threads", json={"projectId": "p", "prompt": "x", **change})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "validation_error"
    assert path in {detail["path"] for detail in error["details"]}


def test_a_body_that_breaks_the_contract_starts_nothing(capy_emulator, api):
    api.post("/v1/threads", json={"projectId": "p", "prompt": "x", "unknown": 1})
    assert capy_emulator.threads() == []


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"projectId": "p", "prompt": NaN}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"9" * 10_000, "application/json"),
        (b'{"projectId": "p", "prompt": "x"}', "text/plain"),
        (b"projectId=p&prompt=x", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_not_json_is_refused(api, content, media_type):
    response = api.post("/v1/threads", content=content, headers={"content-type": media_type})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "validation_error"


def test_a_body_that_is_too_long_is_refused(api):
    response = api.post("/v1/threads", json={"projectId": "p", "prompt": "x" * 9_000_000})
    assert response.status_code == 422
    assert "longer than" in response.json()["error"]["message"]


def test_an_unknown_tag_is_refused_as_the_service_does(api):
    response = api.post("/v1/threads", json={"projectId": "p", "prompt": "x", "tags": ["nightly", "of-my-own"]})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "Tag does not exist"


def test_tags_and_projects_of_the_organisation_can_be_chosen(capy_emulator, api):
    capy_emulator.organisation(projects=["prj_one"], tags=["of-my-own"])
    known = {"projectId": "prj_one", "prompt": "x", "tags": ["of-my-own"]}
    assert api.post("/v1/threads", json=known).json()["tags"][0]["name"] == "of-my-own"
    assert api.post("/v1/threads", json={**known, "projectId": "prj_two"}).json()["error"]["code"] == "not_found"
    assert api.post("/v1/threads", json={**known, "tags": ["nightly"]}).status_code == 422


def test_what_is_not_said_of_the_organisation_stays_as_it_is(capy_emulator, api):
    capy_emulator.organisation(projects=["prj_one"])
    known = {"projectId": "prj_one", "prompt": "x"}
    assert api.post("/v1/threads", json={**known, "tags": ["of-my-own"]}).status_code == 422
    capy_emulator.organisation(tags=None)
    assert api.post("/v1/threads", json={**known, "tags": ["of-my-own"]}).status_code == 200
    assert api.post("/v1/threads", json={**known, "projectId": "prj_two"}).json()["error"]["code"] == "not_found"


def test_an_unknown_thread_is_not_found(api):
    for response in (api.get("/v1/threads/jam_nowhere"), api.post("/v1/threads/jam_nowhere/stop")):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_a_wrong_path_and_a_wrong_method_are_refused_in_the_error_shape(api):
    assert api.get("/v1/thread").json()["error"]["code"] == "not_found"
    response = api.put("/v1/threads", json={})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_the_scheme_of_the_token_is_not_case_sensitive(capy_emulator):
    headers = {"Authorization": f"bearer {capy_emulator.token}"}
    assert httpx.get(f"{capy_emulator.api_url}/v1/threads?projectId=p", headers=headers).status_code == 200


def test_a_token_that_was_rotated_takes_the_place_of_the_old_one(capy_emulator):
    def status(token):
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{capy_emulator.api_url}/v1/threads?projectId=p", headers=headers).status_code

    capy_emulator.organisation(token="capy_rotated")
    assert (status(capy_emulator.token), status("capy_rotated")) == (401, 200)
    capy_emulator.organisation(token=None)
    assert (status(capy_emulator.token), status("capy_rotated")) == (200, 401)


def test_two_tokens_are_no_token(capy_emulator):
    headers = [("Authorization", f"Bearer {capy_emulator.token}")] * 2
    assert httpx.get(f"{capy_emulator.api_url}/v1/threads?projectId=p", headers=headers).status_code == 401


def test_text_that_cannot_be_encoded_survives_in_answers(api):
    body = b'{"projectId": "p", "prompt": "\\ud800 \\u0000", "repos": [{"repoFullName": "\\udfff", "branch": "b"}]}'
    created = api.post("/v1/threads", content=body, headers={"content-type": "application/json"}).json()
    assert api.get(f"/v1/threads/{created['id']}").status_code == 200
