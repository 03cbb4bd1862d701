"""The pages load on their own and let no text become markup."""

import re

import httpx
import pytest


@pytest.fixture
def web(capy_emulator):
    with httpx.Client(base_url=capy_emulator.page_url) as client:
        yield client


def test_the_first_page_needs_nothing_from_elsewhere(web):
    response = web.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    parts = re.findall(r'(?:href|src)="([^"]+)"', response.text)
    assert parts
    for part in parts:
        assert part == "data:," or web.get(part).status_code == 200


def test_every_script_imports_only_what_is_there(web):
    for script in ("threads.js", "thread.js"):
        (imported,) = re.findall(r'from "\./([^"]+)"', web.get(f"/assets/{script}").text)
        response = web.get(f"/assets/{imported}")
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "innerHTML" not in response.text


def test_the_web_address_of_a_thread_leads_to_its_page(web, create):
    thread_id = create()
    response = web.get(f"/project/prj_demo/captain/{thread_id}")
    assert response.status_code == 200
    assert f'data-thread="{thread_id}"' in response.text


def test_the_link_of_a_pull_request_leads_to_its_page(capy_emulator, web, api, create):
    capy_emulator.script(life="several_prs", seconds=0)
    thread_id = create(repos=[{"repoFullName": "acme/a b?#%", "branch": "main"}])
    pulls = api.get(f"/v1/threads/{thread_id}").json()["pullRequests"]
    for pull in pulls:
        response = web.get(pull["url"])
        assert response.status_code == 200
        assert f'data-thread="{thread_id}" data-pull="{pull["number"]}"' in response.text


def test_pages_of_what_is_not_there_say_so(web):
    for path in ("/project/p/captain/jam_nowhere", "/pull/acme/shop/990", "/assets/secret.txt", "/robots.txt"):
        assert web.get(path).status_code == 404


def test_pages_cannot_be_posted_to(web):
    assert web.post("/").status_code == 405


def test_the_list_behind_the_page_is_cut_to_the_newest(capy_emulator, web):
    made = capy_emulator.create(copies=5)
    answer = web.get("/_emulator/threads?limit=2").json()
    assert answer["total"] == 5
    assert [item["id"] for item in answer["items"]] == made[:-3:-1]
