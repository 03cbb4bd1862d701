"""The control interface scripts, tells the truth, and never repeats a secret."""

import json
import time

import httpx
import pytest

from airflow_provider_capy.emulator.control import EmulatorControl, EmulatorControlError
from airflow_provider_capy.emulator.journal import Journal
from airflow_provider_capy.emulator.messages import Request


def test_the_latest_script_that_matches_counts(capy_emulator, create):
    capy_emulator.script(life="forever")
    capy_emulator.script(match="nightly", life="blocked")
    capy_emulator.script(match="nightly docs", life="archived")
    lives = [capy_emulator.thread(create(prompt))["life"] for prompt in ("any", "the nightly run", "nightly docs")]
    assert lives == ["forever", "blocked", "archived"]


def test_a_life_can_be_written_phase_by_phase(capy_emulator, api, create):
    phases = [{"at": 0, "run_state": "running"}, {"at": 1, "run_state": "blocked", "blocked_on": ["auth"]}]
    capy_emulator.script(phases=phases, seconds=0)
    thread = api.get(f"/v1/threads/{create()}").json()
    assert (thread["runState"], thread["blockedOn"]) == ("blocked", ["auth"])


def test_a_length_is_in_real_seconds_at_any_speed(capy_emulator, create):
    capy_emulator.script(life="default", seconds=0.4)
    thread_id = create()
    while not (truth := capy_emulator.thread(thread_id))["over"]:
        time.sleep(0.01)
    assert truth["since"] - truth["created"] == pytest.approx(0.4, abs=0.001)


def test_a_blocked_thread_is_unblocked_and_goes_on(capy_emulator, api, create):
    capy_emulator.script(life="blocked", seconds=0, blocked_on=["auth"])
    thread_id = create()
    assert api.get(f"/v1/threads/{thread_id}").json()["blockedOn"] == ["auth"]
    assert capy_emulator.unblock(thread_id)["blocked_on"] == []
    assert capy_emulator.thread(thread_id)["run_state"] == "ready"


def test_a_thread_that_is_not_blocked_cannot_be_unblocked(capy_emulator, create):
    thread_id = create()
    with pytest.raises(EmulatorControlError, match="not blocked"):
        capy_emulator.unblock(thread_id)


@pytest.mark.parametrize(("stale", "run_state"), [(False, "archived"), (True, "running")])
def test_a_thread_is_archived_cleanly_or_with_a_stale_state(capy_emulator, api, create, stale, run_state):
    capy_emulator.script(life="forever", seconds=0)
    thread_id = create()
    capy_emulator.archive(thread_id, stale=stale)
    thread = api.get(f"/v1/threads/{thread_id}").json()
    assert (thread["status"], thread["runState"]) == ("archived", run_state)


def test_an_existing_thread_can_begin_another_life(capy_emulator, api, create):
    capy_emulator.script(life="forever", seconds=0)
    thread_id = create()
    api.post(f"/v1/threads/{thread_id}/stop")
    truth = capy_emulator.set_life(thread_id, "blocked", seconds=0)
    assert (truth["run_state"], truth["stopped"], len(truth["stops"])) == ("blocked", None, 1)
    capy_emulator.set_life(thread_id, "forever", seconds=0, stop_seconds=30)
    api.post(f"/v1/threads/{thread_id}/stop")
    assert capy_emulator.thread(thread_id)["run_state"] == "running"


def test_threads_are_started_elsewhere_in_numbers(capy_emulator):
    made = capy_emulator.create("Load", project_id="prj_load", life="forever", copies=50, age=10, tags=["bug"])
    threads = capy_emulator.threads()
    assert [thread["id"] for thread in threads] == made
    assert {(thread["origin"], thread["project_id"], thread["life"]) for thread in threads} == {
        ("web", "prj_load", "forever")
    }


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda control: control.script(life="sleepy"), "there is no life 'sleepy'"),
        (lambda control: control.script(lief="default"), "lief"),
        (lambda control: control.script(seconds=-1), "seconds"),
        (lambda control: control.script(phases=[{"at": 1, "run_state": "ready"}]), "begin at 0"),
        (lambda control: control.fault("quake"), "quake"),
        (lambda control: control.fault("slow"), "seconds"),
        (lambda control: control.fault("lost", "deleteThread"), "deleteThread|createAndStartThread"),
        (lambda control: control.fault("lost", seconds=3), "seconds"),
        (lambda control: control.fault("status", retry_after="1\r\nX: y"), "retry_after"),
        (lambda control: control.fault("status", retry_after_date=1e300), "retry_after_date"),
        (lambda control: control.create(age=1e12), "age"),
        (lambda control: control.reset(speed=0), "speed"),
        (lambda control: control.thread("jam_nowhere"), "no such thread"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(capy_emulator, call, told):
    with pytest.raises(EmulatorControlError, match=told):
        call(capy_emulator)


def test_the_log_tells_each_request(capy_emulator, api, create):
    before = time.time()
    thread_id = create("hello")
    api.get("/v1/threads", params={"projectId": "prj_demo", "limit": 5})
    made, listed = capy_emulator.requests()
    assert (made["operation"], made["status"], made["thread_id"]) == ("createAndStartThread", 200, thread_id)
    assert made["body"] == {"projectId": "prj_demo", "prompt": "hello"}
    assert before <= made["time"] <= listed["time"] <= time.time()
    assert (listed["method"], listed["path"], listed["query"]) == (
        "GET",
        "/api/v1/threads",
        {"projectId": "prj_demo", "limit": "5"},
    )
    assert made["user_agent"] == f"python-httpx/{httpx.__version__}"
    assert made["client_port"] == listed["client_port"]


def test_the_log_can_be_narrowed(capy_emulator, api, create):
    one, _two = create(), create()
    api.get(f"/v1/threads/{one}")
    assert [entry["operation"] for entry in capy_emulator.requests(thread_id=one)] == [
        "createAndStartThread",
        "getThread",
    ]
    assert len(capy_emulator.requests("createAndStartThread")) == 2
    assert [entry["number"] for entry in capy_emulator.requests(after=2)] == [3]


def test_the_log_never_holds_the_token(capy_emulator, create):
    token = capy_emulator.token
    create(f"Use Bearer capy_secret123 or {token}")
    httpx.get(
        f"{capy_emulator.api_url}/v1/threads/{token}?q={token}",
        headers={"Authorization": f"Bearer {token}", "User-Agent": token},
    )
    log = json.dumps(capy_emulator.requests())
    assert token not in log
    assert "capy_secret123" not in log
    assert "***" in log


def test_the_log_is_bounded():
    journal = Journal("secret", longest=3)
    request = Request("GET", "/", (), "", (), b"", None)
    for _ in range(5):
        journal.begin(request, 0.0)
    assert [entry["number"] for entry in journal.entries()] == [3, 4, 5]


def test_a_reset_forgets_everything(capy_emulator, create):
    create()
    capy_emulator.fault("status")
    capy_emulator.script(life="forever")
    capy_emulator.organisation(projects=[], tags=[])
    capy_emulator.reset(speed=7)
    assert (capy_emulator.threads(), capy_emulator.faults(), capy_emulator.requests()) == ([], [], [])
    assert capy_emulator.thread(create(tags=["nightly"]))["life"] == "default"
    assert capy_emulator.health() == {"status": "ok", "speed": 7.0, "threads": 1}


def test_unknown_control_paths_and_methods_are_refused(capy_emulator):
    base = f"{capy_emulator.page_url}_emulator"
    assert httpx.get(f"{base}/nothing").status_code == 404
    assert httpx.delete(f"{base}/threads").headers["allow"] == "GET, POST"
    assert httpx.post(f"{base}/faults", content=b"{").status_code == 422
    assert httpx.get(f"{base}/requests?after=x").status_code == 422


def test_the_control_interface_takes_any_form_of_its_address(capy_emulator):
    origin = capy_emulator.page_url.rstrip("/")
    for base in (origin, f"{origin}/", f"{origin}/api"):
        with EmulatorControl(base) as control:
            assert control.health()["status"] == "ok"
            assert control.api_url == f"{origin}/api"


def test_the_connection_is_what_airflow_reads(capy_emulator):
    connection = json.loads(capy_emulator.connection_json(timeout=3))
    assert connection["conn_type"] == "capy"
    assert (connection["host"], connection["password"]) == (capy_emulator.api_url, capy_emulator.token)
    assert connection["extra"] == {
        "project_id": "prj_demo",
        "web_url_template": f"{capy_emulator.page_url}project/{{project_id}}/captain/{{thread_id}}",
        "timeout": 3,
    }
