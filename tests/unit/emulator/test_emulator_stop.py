"""Stopping is asynchronous, idempotent, and looks like an ordinary end."""

import time

import pytest


def wait_for_rest(capy_emulator, thread_id):
    end = time.monotonic() + 30
    while not (truth := capy_emulator.thread(thread_id))["over"]:
        assert time.monotonic() < end
        time.sleep(0.005)
    return truth


@pytest.fixture
def running(capy_emulator, create):
    capy_emulator.script(life="forever", seconds=0, stop_seconds=1)
    return create()


def test_a_stop_answers_before_the_thread_has_stopped(api, running):
    answer = api.post(f"/v1/threads/{running}/stop")
    assert (answer.status_code, answer.json()) == (200, {"id": running, "status": "active"})
    assert api.get(f"/v1/threads/{running}").json()["runState"] == "running"


def test_a_stopped_thread_settles_as_ready_and_idle(capy_emulator, api, running):
    api.post(f"/v1/threads/{running}/stop")
    truth = wait_for_rest(capy_emulator, running)
    assert truth["since"] - truth["stopped"] == pytest.approx(1, abs=0.001)
    thread = api.get(f"/v1/threads/{running}").json()
    assert (thread["runState"], thread["status"]) == ("ready", "idle")


def test_the_time_to_settle_follows_the_speed_unless_it_is_named(capy_emulator, api, create):
    capy_emulator.script(life="forever")
    thread_id = create()
    api.post(f"/v1/threads/{thread_id}/stop")
    truth = wait_for_rest(capy_emulator, thread_id)
    assert truth["since"] - truth["stopped"] == pytest.approx(0.5 / 20, abs=0.001)


def test_repeated_stops_are_harmless_and_all_are_recorded(capy_emulator, api, running):
    for _ in range(3):
        assert api.post(f"/v1/threads/{running}/stop").status_code == 200
    truth = wait_for_rest(capy_emulator, running)
    assert api.post(f"/v1/threads/{running}/stop").json() == {"id": running, "status": "idle"}
    assert len(capy_emulator.stops(running)) == 4
    assert truth["stopped"] == capy_emulator.stops(running)[0]


@pytest.mark.parametrize("life", ["default", "blocked", "archived", "archived_clean", "task_error"])
def test_a_stop_leaves_a_thread_that_is_not_running_as_it_is(capy_emulator, api, create, life):
    capy_emulator.script(life=life, seconds=0)
    thread_id = create()
    before = api.get(f"/v1/threads/{thread_id}").json()
    assert api.post(f"/v1/threads/{thread_id}/stop").status_code == 200
    after = api.get(f"/v1/threads/{thread_id}").json()
    changing = {"updatedAt", "participants"}
    assert {key: after[key] for key in after.keys() - changing} == {
        key: before[key] for key in before.keys() - changing
    }
    assert capy_emulator.thread(thread_id)["stopped"] is None


@pytest.mark.parametrize("life", ["start_race", "pending_wakeups", "waiting_ready"])
def test_a_thread_that_is_ready_but_not_done_can_be_stopped_for_good(capy_emulator, api, create, life):
    capy_emulator.script(life=life, seconds=3)
    thread_id = create()
    end = time.monotonic() + 30
    while api.get(f"/v1/threads/{thread_id}").json()["runState"] != "ready":
        assert time.monotonic() < end
    api.post(f"/v1/threads/{thread_id}/stop")
    assert wait_for_rest(capy_emulator, thread_id)["stopped"]


def test_a_stop_conflict_can_be_asked_for_and_spares_running_threads(capy_emulator, api, running, create):
    capy_emulator.fault("stop_conflict")
    assert api.post(f"/v1/threads/{running}/stop").status_code == 200
    wait_for_rest(capy_emulator, running)
    response = api.post(f"/v1/threads/{running}/stop")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "conflict")
