"""Faults happen when they are asked for, as often as they are asked for, and on the wire where they say so."""

import email.utils
import time

import httpx
import pytest


def get(api, thread_id):
    return api.get(f"/v1/threads/{thread_id}")


def statuses(capy_emulator, operation):
    return [entry["status"] for entry in capy_emulator.requests(operation)]


def test_nothing_is_wrong_unless_it_is_asked_for(capy_emulator):
    assert capy_emulator.faults() == []


def test_a_status_is_answered_instead_of_processing(capy_emulator, api):
    capy_emulator.fault("status", "createAndStartThread", status=503)
    response = api.post("/v1/threads", json={"projectId": "p", "prompt": "x"})
    assert response.status_code == 503
    assert set(response.json()["error"]) == {"code", "message"}
    assert capy_emulator.threads() == []


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (409, "conflict"), (429, "too_many_requests")])
def test_a_status_comes_with_the_code_of_the_service(capy_emulator, api, create, status, code):
    thread_id = create()
    capy_emulator.fault("status", status=status)
    assert get(api, thread_id).json()["error"]["code"] == code


def test_a_status_can_come_as_a_page_of_a_proxy(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status", status=502, body="html")
    response = get(api, thread_id)
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<!doctype html>")


@pytest.mark.parametrize(("asked", "sent"), [(7, "7"), (3_000_000, "3000000"), (1.5, "1.5"), ("soon", "soon")])
def test_retry_after_is_sent_as_asked(capy_emulator, api, create, asked, sent):
    thread_id = create()
    capy_emulator.fault("status", status=429, retry_after=asked)
    assert get(api, thread_id).headers["retry-after"] == sent


def test_retry_after_can_be_a_date(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status", status=429, retry_after_date=60)
    date = email.utils.parsedate_to_datetime(get(api, thread_id).headers["retry-after"])
    assert date.timestamp() - time.time() == pytest.approx(60, abs=2)


def test_an_error_after_the_fact_leaves_a_thread_behind(capy_emulator, api):
    capy_emulator.fault("error_after", "createAndStartThread", status=502, times=1)
    assert api.post("/v1/threads", json={"projectId": "p", "prompt": "x"}).status_code == 502
    assert len(capy_emulator.threads()) == 1


def test_a_lost_answer_leaves_a_thread_behind_and_a_closed_connection(capy_emulator, api):
    capy_emulator.fault("lost", "createAndStartThread")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"})
    (entry,) = capy_emulator.requests("createAndStartThread")
    assert entry["status"] == "dropped"
    assert entry["thread_id"] == capy_emulator.threads()[0]["id"]


def test_a_reset_happens_on_the_wire_and_before_processing(capy_emulator, api):
    capy_emulator.fault("reset", "createAndStartThread")
    with pytest.raises(httpx.ReadError, match="reset by peer"):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"})
    assert capy_emulator.threads() == []
    assert statuses(capy_emulator, "createAndStartThread") == ["dropped"]


def test_a_truncated_answer_breaks_off_in_its_body(capy_emulator, api, create):
    thread_id = create()
    whole = len(get(api, thread_id).content)
    capy_emulator.fault("truncate", "getThread")
    got = []

    def read():
        with api.stream("GET", f"/v1/threads/{thread_id}") as response:
            assert response.status_code == 200
            for chunk in response.iter_raw():
                got.append(chunk)  # noqa: PERF402  # what came before the reset counts

    with pytest.raises(httpx.ReadError):
        read()
    assert 0 < sum(map(len, got)) < whole


def test_a_slow_answer_is_processed_at_once(capy_emulator, api):
    capy_emulator.fault("slow", "createAndStartThread", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"}, timeout=0.1)
    assert len(capy_emulator.threads()) == 1


def test_a_client_that_gives_up_on_a_slow_answer_is_logged_as_dropped(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("slow", "getThread", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        api.get(f"/v1/threads/{thread_id}", timeout=0.05)
    end = time.monotonic() + 30
    while statuses(capy_emulator, "getThread") != ["dropped"]:
        assert time.monotonic() < end


def test_a_late_call_is_processed_even_though_the_client_gave_up(capy_emulator, api):
    capy_emulator.fault("slow_before", "createAndStartThread", seconds=1)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"}, timeout=0.05)
    assert capy_emulator.threads() == []
    end = time.monotonic() + 30
    while not capy_emulator.threads():
        assert time.monotonic() < end


def test_a_call_that_waited_through_a_reset_is_forgotten(capy_emulator, api):
    capy_emulator.fault("slow_before", seconds=0.5)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/v1/threads", json={"projectId": "p", "prompt": "x"}, timeout=0.05)
    capy_emulator.reset()
    time.sleep(0.7)
    assert capy_emulator.threads() == []


def test_a_list_lag_hides_new_threads_from_lists_for_a_while(capy_emulator, api, create):
    old = create("old")
    capy_emulator.fault("list_lag", seconds=1, match="late")
    late = create("late")

    def listed():
        return [item["id"] for item in api.get("/v1/threads", params={"projectId": "prj_demo"}).json()["items"]]

    assert listed() == [old]
    assert get(api, late).status_code == 200
    end = time.monotonic() + 30
    while listed() != [late, old]:
        assert time.monotonic() < end


def test_drift_adds_what_nobody_knows_but_leaves_the_end_alone(capy_emulator, api, create):
    capy_emulator.script(life="forever", seconds=0)
    running = create()
    capy_emulator.script(life="default", seconds=0)
    done = create(tags=["bug"])
    capy_emulator.fault("drift")
    moving, ended = get(api, running).json(), get(api, done).json()
    assert moving["runState"] not in ("running", "ready")
    assert moving["status"] not in ("active", "idle")
    assert (ended["runState"], ended["status"]) == ("ready", "idle")
    assert not ended["createdAt"][0].isdigit()
    assert {"usage", "requestId"} <= ended.keys()
    assert ended["tags"][0]["color"] == "ultraviolet"
    assert "usage" in api.get("/v1/threads", params={"projectId": "prj_demo"}).json()["items"][0]
    assert api.post(f"/v1/threads/{running}/stop").json()["id"] == running


@pytest.mark.parametrize("processed", [True, False])
def test_a_page_instead_of_json_comes_with_status_200(capy_emulator, api, processed):
    capy_emulator.fault("not_json", processed=processed)
    response = api.post("/v1/threads", json={"projectId": "p", "prompt": "x"})
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert len(capy_emulator.threads()) == int(processed)


def test_a_huge_answer_is_as_big_as_asked(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("huge", megabytes=2)
    response = get(api, thread_id)
    assert len(response.content) == pytest.approx(2 * 1024 * 1024, rel=0.01)
    assert response.json()["id"] == thread_id


def test_times_and_skip_choose_the_calls(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status", "getThread", skip=2, times=2)
    assert [get(api, thread_id).status_code for _ in range(6)] == [200, 200, 503, 503, 200, 200]
    (fault,) = capy_emulator.faults()
    assert fault["fired"] == 2


def test_outcomes_happen_one_after_the_other_in_the_order_asked_for(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status", status=500, times=1)
    capy_emulator.fault("status", status=502, times=1)
    assert [get(api, thread_id).status_code for _ in range(3)] == [500, 502, 200]


def test_an_operation_and_a_match_choose_the_calls(capy_emulator, api, create):
    one, two = create("the one"), create("the other")
    capy_emulator.fault("status", "getThread", match="the one")
    capy_emulator.fault("status", "stopThread", match=two, status=500)
    assert (get(api, one).status_code, get(api, two).status_code) == (503, 200)
    assert api.post(f"/v1/threads/{one}/stop").status_code == 200
    assert api.post(f"/v1/threads/{two}/stop").status_code == 500


def test_a_match_looks_at_the_prompt_of_a_create_and_the_query_of_a_list(capy_emulator, api, create):
    capy_emulator.fault("status", match="doomed")
    create("fine")
    assert api.post("/v1/threads", json={"projectId": "p", "prompt": "doomed"}).status_code == 503
    assert api.get("/v1/threads", params={"projectId": "p", "q": "doomed"}).status_code == 503
    assert api.get("/v1/threads", params={"projectId": "p"}).status_code == 200


def test_a_seed_makes_chance_repeatable(capy_emulator, api, create):
    thread_id = create()

    def run():
        capy_emulator.clear_faults()
        capy_emulator.fault("status", probability=0.5, seed=3)
        return [get(api, thread_id).status_code for _ in range(40)]

    first = run()
    assert {200, 503} == set(first)
    assert run() == first


def test_faults_can_be_cleared(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("status")
    capy_emulator.clear_faults()
    assert get(api, thread_id).status_code == 200


def test_a_slow_call_can_also_fail(capy_emulator, api, create):
    thread_id = create()
    capy_emulator.fault("slow_before", seconds=0.1)
    capy_emulator.fault("status", status=502)
    response = get(api, thread_id)
    assert response.status_code == 502
    assert response.elapsed.total_seconds() >= 0.1
