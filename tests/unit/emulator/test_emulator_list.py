"""Lists are filtered, ordered and paged."""

import time

import pytest


def ids(api, **query):
    response = api.get("/v1/threads", params={"projectId": "prj_demo", **query})
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def test_the_newest_come_first_and_other_projects_stay_out(api, create):
    made = [create(f"number {index}") for index in range(3)]
    create("elsewhere", project_id="prj_other")
    assert ids(api) == made[::-1]


def test_pages_join_without_gap_or_overlap_while_threads_are_added(api, create, capy_emulator):
    old = capy_emulator.create("old", copies=7)
    cursor, found = None, []
    while True:
        query = {"projectId": "prj_demo", "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = api.get("/v1/threads", params=query).json()
        found += page["items"]
        create("added while paging")
        cursor = page["nextCursor"]
        assert page["hasMore"] == (cursor is not None)
        if not cursor:
            break
    assert [item["id"] for item in found] == old[::-1]


def test_the_limit_defaults_to_twenty(api, capy_emulator):
    capy_emulator.create(copies=101)
    assert len(ids(api)) == 20
    assert len(ids(api, limit=100)) == 100


def test_threads_started_elsewhere_can_be_told_by_their_origin(api, create, capy_emulator):
    (elsewhere,) = capy_emulator.create("By hand")
    here = create("By DAG")
    assert ids(api, origin="api") == [here]
    assert ids(api, origin="web") == [elsewhere]


def test_a_search_ignores_case_and_looks_at_title_and_prompt(api, create):
    found = create("Repair the build\n\ncapy-ref: Dag/Run/Task")
    create("Something else")
    assert ids(api, q="CAPY-REF: dag/run/TASK") == [found]
    assert ids(api, q="repair") == [found]
    assert ids(api, q="no such text") == []


def test_a_tag_filters(api, create):
    tagged = create(tags=["nightly", "bug"])
    create()
    assert ids(api, tag="nightly") == [tagged]


def test_a_status_filters_by_the_state_of_now(api, create, capy_emulator):
    capy_emulator.script(match="long", life="forever")
    capy_emulator.script(match="gone", life="archived", seconds=0)
    running, gone, done = create("long"), create("gone"), create("short")
    end = time.monotonic() + 30
    while not capy_emulator.thread(done)["over"]:
        assert time.monotonic() < end
    assert ids(api, status="active") == [running]
    assert ids(api, status="idle") == [done]
    assert ids(api, status="archived") == [gone]


def test_authors_and_participants_filter_by_id_and_by_email(api, create):
    ada = create(impersonateUserEmail="ada@capy.example")
    own = create()
    ada_id = api.get(f"/v1/threads/{ada}").json()["participants"][0]["userId"]
    assert ids(api, authorEmail="Ada@Capy.example") == [ada]
    assert ids(api, authorId=ada_id) == ids(api, participantId=ada_id) == [ada]
    assert ids(api, participantEmail="ada@capy.example") == [ada]
    assert ids(api, authorEmail="nobody@capy.example") == []
    assert own in ids(api)


def test_pull_requests_filter_by_number_state_and_branch(api, create, capy_emulator):
    capy_emulator.script(match="with", life="several_prs", seconds=0)
    capy_emulator.script(match="none", life="task_error", seconds=0)
    without = create("none")
    many = create("with", repos=[{"repoFullName": "acme/shop", "branch": "release"}])
    pulls = api.get(f"/v1/threads/{many}").json()["pullRequests"]
    assert len(pulls) == 3
    for pull in pulls:
        assert ids(api, prNumber=pull["number"]) == ids(api, branch=pull["headRef"]) == [many]
    assert ids(api, prNumber=pulls[-1]["number"] + 1) == []
    assert ids(api, prNumber=-9007199254740991) == []
    assert ids(api, branch="release") == ids(api, prState="open") == [many]
    assert ids(api, prState="none") == [without]
    assert ids(api, prState="merged") == []


def test_slack_filters_by_channel_and_conversation(api, create):
    linked = create(slack={"channel": "C0123456789"})
    create(slack={"channel": "#other"})
    (slack,) = api.get(f"/v1/threads/{linked}").json()["slackThreads"]
    assert ids(api, slackChannelId="C0123456789") == [linked]
    assert ids(api, slackThreadTs=slack["threadTs"]) == [linked]


def test_filters_combine(api, create):
    wanted = create("Repair it", tags=["bug"])
    create("Repair it")
    create("Break it", tags=["bug"])
    assert ids(api, tag="bug", q="repair", origin="api") == [wanted]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"projectId": None}, "projectId"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"status": "sleeping"}, "status"),
        ({"origin": "mail"}, "origin"),
        ({"prState": "draft"}, "prState"),
        ({"prNumber": "9007199254740992"}, "prNumber"),
        ({"tag": ""}, "tag"),
        ({"authorEmail": "nobody"}, "authorEmail"),
        ({"authorEmail": "a@b.co\n"}, "authorEmail"),
        ({"authorId": "u", "authorEmail": "a@b.co"}, "authorEmail"),
        ({"participantId": "u", "participantEmail": "a@b.co"}, "participantEmail"),
        ({"cursor": "made-up"}, "cursor"),
    ],
)
def test_a_query_that_breaks_the_contract_is_refused_with_the_place(api, query, path):
    given = {"projectId": "prj_demo", **query}
    response = api.get("/v1/threads", params={key: value for key, value in given.items() if value is not None})
    assert response.status_code == 422
    assert path in {detail["path"] for detail in response.json()["error"]["details"]}


def test_query_parameters_nobody_knows_are_ignored(api, create):
    made = create()
    assert ids(api, flavour="vanilla") == [made]


def test_lists_stay_fast_with_twenty_thousand_threads(api, capy_emulator):
    capy_emulator.create("load", life="forever", copies=20_000)
    api.get("/v1/threads", params={"projectId": "prj_demo", "limit": 100, "status": "active"})
    began = time.process_time()
    for _ in range(10):
        page = api.get("/v1/threads", params={"projectId": "prj_demo", "limit": 100, "status": "active"}).json()
        assert len(page["items"]) == 100
    assert (time.process_time() - began) / 10 < 0.1


def test_threads_started_in_the_past_are_listed_at_their_place(api, create, capy_emulator):
    new = create()
    (old,) = capy_emulator.create(age=3600)
    (older,) = capy_emulator.create(age=7200)
    assert ids(api) == [new, old, older]


def test_a_best_match_search_finds_what_nobody_has_written(api, create, capy_emulator):
    made = [create(f"number {index}") for index in range(2)]
    assert ids(api, q="word_of_nobody") == []
    capy_emulator.fault("best_match")
    assert ids(api, q="word_of_nobody") == made[::-1]
