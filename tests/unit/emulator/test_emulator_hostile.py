"""Faults that a well-meant service never shows: answers of strangers, hostile texts, wrong clocks, heads that drip."""

import email.utils
import json
import time
from datetime import datetime

import httpx
import pytest

from airflow_provider_capy.emulator.control import EmulatorControlError


def get(api, thread_id):
    return api.get(f"/v1/threads/{thread_id}")


@pytest.mark.parametrize("status", [300, 301, 308, 400, 404, 418, 499, 500, 503, 511, 599])
def test_every_status_comes_in_every_shape(capy_emulator, api, create, status):
    thread_id = create()
    found = {}
    for body in ("json", "html", "empty", "half"):
        capy_emulator.clear_faults()
        capy_emulator.fault("status", "getThread", status=status, body=body)
        response = get(api, thread_id)
        assert response.status_code == status
        found[body] = response.content
    assert set(json.loads(found["json"])["error"]) == {"code", "message"}
    assert found["html"].startswith(b"<!doctype html>")
    assert found["empty"] == b""
    assert found["json"].startswith(found["half"])
    with pytest.raises(ValueError):
        json.loads(found["half"])


def test_not_modified_has_no_body_so_that_the_connection_stays_usable(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status", "getThread", status=304, times=1)
    assert get(api, thread_id).content == b""
    assert get(api, thread_id).status_code == 200


@pytest.mark.parametrize("status", [299, 600])
def test_other_statuses_are_no_faults(capy_emulator, status):
    with pytest.raises(EmulatorControlError, match="status"):
        capy_emulator.fault("status", status=status)


def test_a_black_hole_takes_a_call_in_and_never_answers(capy_emulator, api):
    capy_emulator.fault("black_hole", "createAndStartThread")
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"}, timeout=0.3)
    assert capy_emulator.threads() == []
    assert [entry["status"] for entry in capy_emulator.requests("createAndStartThread")] in ([None], ["dropped"])


def test_a_patch_puts_into_an_answer_what_no_good_one_has(capy_emulator, api, create):
    thread_id = create()
    patch = r'{"title": "Fix \u0000 \ud800", "pullRequests": [{"number": 18446744073709551616, "weight": NaN}]}'
    capy_emulator.fault("distort", "getThread", patch=patch)
    response = get(api, thread_id)
    assert rb'"title":"Fix \u0000 \ud800"' in response.content
    assert b'"number":18446744073709551616,"weight":NaN' in response.content
    assert response.json()["id"] == thread_id


def test_a_patch_changes_each_thread_of_a_list_and_leaves_errors_alone(capy_emulator, api, create):
    create()
    create()
    capy_emulator.fault("distort", patch=json.dumps({"tasks": [{"status": "queued"}] * 2000, "projectId": None}))
    items = api.get("/v1/threads", params={"projectId": "prj_demo"}).json()["items"]
    assert [(len(item["tasks"]), "projectId" in item) for item in items] == [(2000, False)] * 2
    assert set(get(api, "jam_none").json()) == {"error"}


def test_a_patch_can_change_the_list_itself(capy_emulator, api, create):
    create()
    capy_emulator.fault("distort", "listThreads", patch='{"items": {"no": "list"}}')
    assert api.get("/v1/threads", params={"projectId": "prj_demo"}).json()["items"] == {"no": "list"}


@pytest.mark.parametrize("patch", ["", "[]", "{", '"text"', "[" * 100_000])
def test_a_patch_is_the_text_of_an_object(capy_emulator, patch):
    with pytest.raises(EmulatorControlError, match="patch"):
        capy_emulator.fault("distort", patch=patch)


@pytest.mark.parametrize("seconds", [-600, -15.5, 90])
def test_a_clock_of_its_own_shows_in_the_date_and_every_time(capy_emulator, api, create, seconds):
    thread_id = create()
    before = get(api, thread_id)
    capy_emulator.fault("clock", seconds=seconds)
    after = get(api, thread_id)
    assert email.utils.parsedate_to_datetime(after.headers["date"]).timestamp() - time.time() == pytest.approx(
        seconds, abs=2
    )

    def epoch(text):
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()

    # Between the two looks the thread goes on.
    for name, exactly in (("createdAt", 0.01), ("updatedAt", 5.0)):
        assert epoch(after.json()[name]) - epoch(before.json()[name]) == pytest.approx(seconds, abs=exactly)
    assert after.json()["title"] == before.json()["title"]


def test_a_right_clock_is_told_too(capy_emulator, api, create):
    date = get(api, create()).headers["date"]
    assert email.utils.parsedate_to_datetime(date).timestamp() - time.time() == pytest.approx(0, abs=2)


@pytest.mark.parametrize("interim", [False, True])
def test_a_head_drips_for_as_long_as_asked_and_then_the_answer_is_right(capy_emulator, api, create, interim):
    thread_id = create()
    capy_emulator.fault("slow_head", "getThread", seconds=0.6, every=0.05, interim=interim, times=1)
    before = time.monotonic()
    # Each drop is well within the read timeout.
    response = api.get(f"/v1/threads/{thread_id}", timeout=0.3)
    assert time.monotonic() - before > 0.5
    assert response.json()["id"] == thread_id
    assert ("x-drop" in response.headers) is not interim
    assert get(api, thread_id).status_code == 200
