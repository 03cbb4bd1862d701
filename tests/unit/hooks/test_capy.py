"""The hook on real connections of the environment, talking to the emulator."""

import asyncio
import http.server
import json
import logging
import threading
from urllib.parse import quote, urlencode

import pytest
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSecretsBackendAccessDenied

from airflow_provider_capy.api import AsyncCapyClient, CapyClient
from airflow_provider_capy.exceptions import CapyInputError, CapyLookUpError, CapyUnauthorizedError
from airflow_provider_capy.hooks.capy import CapyHook

TOKEN = "capy_t+k/n:@ ?%&#"
PLAIN = "capy_t+k/n:@?%&#"


def environment(monkeypatch, value, conn_id="capy_test"):
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)
    return CapyHook(conn_id)


API = "https://capy.ai/api"
FORMS = [
    ("capy://:{t}@capy.ai/api?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@capy.ai/api/?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@capy.ai:443/api?project_id=prj_1", "https://capy.ai:443/api", "prj_1"),
    ("capy://:{t}@capy.ai%2Fapi?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@https%3A%2F%2Fcapy.ai%2Fapi?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@https%3A%2F%2Fcapy.ai%2Fapi/?project_id=prj_1", API, "prj_1"),
    ("capy://https://:{t}@capy.ai%2Fapi/?project_id=prj_1", API, "prj_1"),
    ("capy://https://:{t}@capy.ai/api?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@/?project_id=prj_1", API, "prj_1"),
    ("capy://:{t}@", API, None),
    ("capy://:{t}@capy.ai", API, None),
    ("capy://:{t}@http%3A%2F%2F127.0.0.1%3A8010%2Fapi", "http://127.0.0.1:8010/api", None),
    ("capy://http://:{t}@127.0.0.1:8010/api", "http://127.0.0.1:8010/api", None),
    ("capy://:{t}@127.0.0.1:8010/api", "http://127.0.0.1:8010/api", None),
    ("capy://:{t}@localhost:8010/api", "http://localhost:8010/api", None),
    ("capy://:{t}@[::1]:8010/api", "http://[::1]:8010/api", None),
    ("capy://login:{t}@capy.ai/api?" + urlencode({"__extra__": '{"project_id": "prj_1"}'}), API, "prj_1"),
]


@pytest.mark.parametrize(("uri", "url", "project"), FORMS)
def test_a_connection_may_be_a_uri(monkeypatch, uri, url, project):
    settings = environment(monkeypatch, uri.format(t=quote(PLAIN, safe=""))).settings
    assert (settings.client.base_url, settings.project_id) == (url, project)
    assert settings.client.token.get_secret_value() == PLAIN


JSON_FORMS = [
    ({"host": API}, API),
    ({"host": f"{API}/"}, API),
    ({"host": "capy.ai/api"}, API),
    ({}, API),
    ({"host": "capy.ai", "schema": "https", "port": 8443}, "https://capy.ai:8443/api"),
    ({"host": "capy.ai", "schema": "api", "port": "8443"}, "https://capy.ai:8443/api"),
    ({"host": "http://[::1]:8010/api"}, "http://[::1]:8010/api"),
    ({"host": "http://127.0.0.1:8010"}, "http://127.0.0.1:8010"),
]
EXTRA = {
    "project_id": "prj_1",
    "timeout": 12.5,
    "allow_http": False,
    "web_url_template": "https://x.y/{thread_id}?a=b&c",
}


@pytest.mark.parametrize(("fields", "url"), JSON_FORMS)
@pytest.mark.parametrize("extra", [EXTRA, json.dumps(EXTRA)], ids=["object", "text"])
def test_a_connection_may_be_json(monkeypatch, fields, url, extra):
    value = json.dumps({"conn_type": "capy", "password": PLAIN, "extra": extra, **fields})
    settings = environment(monkeypatch, value).settings
    assert (settings.client.base_url, settings.client.read_timeout) == (url, 12.5)
    assert (settings.project_id, settings.web_url_template) == ("prj_1", EXTRA["web_url_template"])
    assert settings.client.token.get_secret_value() == PLAIN


@pytest.mark.parametrize(("fields", "url"), JSON_FORMS)
def test_a_connection_survives_its_way_through_a_uri(monkeypatch, fields, url):
    value = json.dumps({"conn_type": "capy", "password": PLAIN, "extra": EXTRA, **fields})
    direct = environment(monkeypatch, value)
    uri = Connection.from_json(value, conn_id="capy_other").get_uri()
    assert environment(monkeypatch, uri, "capy_other").settings.client == direct.settings.client
    assert direct.settings.client.base_url == url


def test_a_connection_that_does_not_exist_is_named():
    with pytest.raises(CapyLookUpError, match="connection 'capy_nowhere' could not be looked up"):
        _ = CapyHook("capy_nowhere").settings


@pytest.mark.parametrize(
    "error",
    [
        AirflowNotFoundException("isn't defined"),
        AirflowSecretsBackendAccessDenied("access denied"),
        RuntimeError("vault is sealed"),
    ],
    ids=repr,
)
def test_whatever_keeps_a_connection_away_is_one_kind_of_error(monkeypatch, error):
    async def refused(*_):
        raise error

    monkeypatch.setattr(CapyHook, "get_connection", lambda *_: asyncio.run(refused()))
    monkeypatch.setattr(CapyHook, "aget_connection", refused)
    with pytest.raises(CapyLookUpError, match=type(error).__name__) as caught:
        _ = CapyHook().settings
    with pytest.raises(CapyLookUpError, match=type(error).__name__):
        asyncio.run(CapyHook().asettings())
    assert caught.value.__cause__ is error
    assert CapyHook().test_connection() == (False, str(caught.value))


def test_a_token_that_could_not_be_masked_is_not_kept(monkeypatch):
    def refused(_):
        raise ConnectionError("the supervisor is away")

    hook = environment(monkeypatch, "capy://:t0ken@capy.ai/api")
    with monkeypatch.context() as patched:
        patched.setattr("airflow.sdk.log.mask_secret", refused)
        with pytest.raises(CapyLookUpError, match="the supervisor is away"):
            _ = hook.settings
    assert not hook.is_looked_up
    assert hook.settings.client.base_url == API


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("capy://capy.ai/api", "password"),
        (f"capy://:{quote(TOKEN, safe='')}@capy.ai", "password"),
        (f"capy://http://:{quote(PLAIN, safe='')}@capy.ai", "host"),
        (f"capy://:{quote(PLAIN, safe='')}@capy.ai/api?timeout=soon", "extra: timeout"),
        (json.dumps({"conn_type": "capy", "password": PLAIN, "extra": "{no json"}), "extra: is not JSON"),
    ],
)
def test_a_connection_with_a_wrong_field_is_named_with_it(monkeypatch, value, field, caplog):
    hook = environment(monkeypatch, value)
    with pytest.raises(CapyInputError) as caught:
        _ = hook.settings
    assert str(caught.value).startswith(f"connection 'capy_test', {field}")
    for token in (TOKEN, PLAIN):
        assert token not in str(caught.value) + caplog.text
    assert hook.test_connection() == (False, str(caught.value))


def test_nothing_is_looked_up_before_it_is_needed(monkeypatch):
    hook = CapyHook("capy_late")
    hook.close()
    environment(monkeypatch, "capy://:t0ken@capy.ai/api", "capy_late")
    assert hook.settings.client.base_url == API


def test_a_connection_is_looked_up_once(monkeypatch):
    hook = environment(monkeypatch, "capy://:t0ken@capy.ai/api")
    first = hook.settings
    monkeypatch.delenv("AIRFLOW_CONN_CAPY_TEST")
    assert hook.settings is first
    assert asyncio.run(hook.asettings()) is first


@pytest.fixture
def hook(capy_emulator):
    hook = CapyHook()
    yield hook
    hook.close()


def test_the_hook_does_all_four_operations(hook, capy_emulator):
    created = hook.create_thread("Do it", model="gpt-5.5")
    (sent,) = capy_emulator.requests("createAndStartThread")
    assert sent["body"] == {"projectId": "prj_demo", "prompt": "Do it", "model": "gpt-5.5"}
    assert hook.get_thread(created.id).id == created.id
    assert [thread.id for thread in hook.list_threads(q="Do it")] == [created.id]
    assert hook.stop_thread(created.id).id == created.id
    assert len(capy_emulator.stops(created.id)) == 1


def test_another_project_may_be_given(hook, capy_emulator):
    hook.create_thread("Do it", "prj_other")
    assert [thread.project_id for thread in hook.list_threads("prj_other")] == ["prj_other"]
    assert list(hook.list_threads()) == []


def test_a_list_goes_through_all_pages(hook, capy_emulator):
    ids = capy_emulator.create(copies=130)
    assert sorted(thread.id for thread in hook.list_threads()) == sorted(ids)
    assert len(capy_emulator.requests("listThreads")) == 2


def test_without_a_project_nothing_is_sent(monkeypatch, capy_emulator):
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy_emulator.connection_json(project_id=None))
    with pytest.raises(CapyInputError, match="project_id: none was given"):
        CapyHook().create_thread("Do it")
    with pytest.raises(CapyInputError, match="project_id: none was given"):
        CapyHook().list_threads()
    assert capy_emulator.requests() == []


def test_a_threads_address_comes_from_the_connection(hook, capy_emulator):
    origin = capy_emulator.addresses.origin
    assert hook.thread_url("jam_1") == f"{origin}/project/prj_demo/captain/jam_1"
    assert hook.thread_url(f"{origin}/project/prj_2/captain/jam_1") == hook.thread_url("jam_1")
    assert hook.thread_url("jam_1", "prj_2") == f"{origin}/project/prj_2/captain/jam_1"


def test_the_client_is_kept_until_the_hook_is_closed(hook):
    client = hook.client
    assert isinstance(client, CapyClient)
    assert hook.get_conn() is client
    hook.close()
    assert client._http.is_closed
    assert hook.client is not client


def test_an_event_loop_gets_a_client_of_its_own(capy_emulator):
    (thread_id,) = capy_emulator.create()
    hook = CapyHook()

    async def use():
        settings = await hook.asettings()
        assert await hook.asettings() is settings
        async with await hook.aclient() as client, await hook.aclient() as other:
            assert isinstance(client, AsyncCapyClient)
            assert client is not other
            return settings, (await client.get_thread(thread_id)).id

    settings, found = asyncio.run(use())
    assert found == thread_id
    assert hook.settings is settings


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_token_is_masked_in_logs(monkeypatch, capy_emulator, way):
    token = f"capy_masked-{way}-token"
    # Airflow masks the password as it stands there; what is sent and could be logged is the token inside of it.
    value = json.loads(capy_emulator.connection_json()) | {"password": f" {token}\n"}
    hook = environment(monkeypatch, json.dumps(value))
    if way == "sync":
        with pytest.raises(CapyUnauthorizedError):
            hook.get_thread("jam_1")
        hook.close()
    else:

        async def use():
            await (await hook.aclient()).close()

        asyncio.run(use())
    assert redact(f"Authorization: Bearer {token}") == "Authorization: Bearer ***"


def test_the_hooks_own_logs_are_silent(hook, caplog):
    caplog.set_level(logging.DEBUG)
    hook.create_thread("Do something confidential")
    assert "confidential" not in caplog.text


def test_a_good_connection_is_said_to_be_one(hook, capy_emulator):
    assert hook.test_connection() == (
        True,
        f"{capy_emulator.api_url} accepts the token, and project 'prj_demo' can be listed.",
    )
    (sent,) = capy_emulator.requests()
    assert (sent["method"], sent["operation"], sent["query"]) == (
        *("GET", "listThreads"),
        {"projectId": "prj_demo", "limit": "1"},
    )
    assert "client" not in hook.__dict__


def test_a_good_connection_without_a_project_says_what_was_not_checked(monkeypatch, capy_emulator):
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy_emulator.connection_json(project_id=""))
    assert CapyHook().test_connection() == (
        True,
        f"{capy_emulator.api_url} accepts the token. No default project is set, so none was checked.",
    )
    sent = [(request["method"], request["operation"], request["status"]) for request in capy_emulator.requests()]
    assert sent == [("GET", "getThread", 404), ("GET", "getThread", 401)]
    assert capy_emulator.threads() == []


def test_a_place_that_answers_to_any_token_is_not_taken_for_capy(monkeypatch, capy_emulator):
    beside = capy_emulator.api_url.removesuffix("/api")
    value = json.loads(capy_emulator.connection_json(project_id="")) | {"host": beside, "password": "capy_wrong"}
    works, words = environment(monkeypatch, json.dumps(value)).test_connection()
    assert (works, words) == (False, f"{beside} answers to any token: is it Capy's base URL, e.g. https://capy.ai/api?")


def test_an_id_that_capy_calls_invalid_shows_a_good_token_too(monkeypatch, capy_emulator):
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy_emulator.connection_json(project_id=""))
    capy_emulator.fault("status", status=422, times=1)
    assert CapyHook().test_connection()[0] is True


@pytest.mark.parametrize("project", ["prj_demo", ""])
def test_a_bad_token_is_said_to_be_one(monkeypatch, capy_emulator, project):
    value = json.loads(capy_emulator.connection_json(project_id=project)) | {"password": PLAIN}
    works, words = environment(monkeypatch, json.dumps(value)).test_connection()
    assert works is False
    assert "Capy answered 401 unauthorized" in words
    assert "check the token in the connection's password" in words
    assert PLAIN not in words


def test_a_project_of_somebody_else_is_said_to_be_one(hook, capy_emulator):
    capy_emulator.fault("status", status=404)
    works, words = hook.test_connection()
    assert works is False
    assert "Capy answered 404 not_found" in words


@pytest.mark.parametrize("status", [403, 429, 500, 503])
@pytest.mark.parametrize("project", ["prj_demo", ""])
def test_a_capy_that_refuses_is_no_good_connection_and_is_asked_once(monkeypatch, capy_emulator, project, status):
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy_emulator.connection_json(project_id=project))
    capy_emulator.fault("status", status=status)
    works, words = CapyHook().test_connection()
    assert works is False
    assert f"Capy answered {status}" in words
    assert len(capy_emulator.requests()) == 1


def test_an_unreachable_host_is_said_to_be_one(monkeypatch):
    works, words = environment(monkeypatch, "capy://:t0ken@127.0.0.1:9/api?project_id=prj_1").test_connection()
    assert works is False
    assert "never reached Capy at 127.0.0.1:9: ConnectError" in words


def test_a_connection_that_does_not_exist_is_said_not_to(monkeypatch):
    works, words = CapyHook("capy_nowhere").test_connection()
    assert works is False
    assert "capy_nowhere" in words


class NotFound(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"<h1>Not found</h1>")

    def log_message(self, *_):
        pass


def test_a_web_server_that_is_not_capy_is_no_good_connection(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        works, words = environment(monkeypatch, f"capy://:t0ken@127.0.0.1:{server.server_port}").test_connection()
        server.shutdown()
        serving.join()
    assert works is False
    assert "answered 404 without Capy's error body: a proxy or load balancer" in words


def test_airflow_tests_a_connection_through_the_hook(capy_emulator):
    connection = Connection.from_json(capy_emulator.connection_json(), conn_id="capy_in_the_form")
    works, words = connection.test_connection()
    assert (works, words.endswith("project 'prj_demo' can be listed.")) == (True, True)
    assert isinstance(connection.get_hook(), CapyHook)
    assert connection.get_hook().capy_conn_id == "capy_in_the_form"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_key_that_nobody_knows_is_said_once_in_the_log(monkeypatch, capy_emulator, capsys, way):
    value = json.loads(capy_emulator.connection_json()) | {"extra": {"projectid": "prj_1"}}
    hook = environment(monkeypatch, json.dumps(value))
    for _ in range(2):
        settings = hook.settings if way == "sync" else asyncio.run(hook.asettings())
    assert settings.project_id is None
    said = capsys.readouterr().out
    assert said.count(settings.warning) == 1
    assert "'projectid' (is 'project_id' meant?)" in said


@pytest.mark.parametrize("project", ["prj_demo", ""])
def test_a_key_that_nobody_knows_is_said_by_the_test_of_a_connection(monkeypatch, capy_emulator, project):
    value = json.loads(capy_emulator.connection_json(project_id=project))
    extra = value["extra"] if isinstance(value["extra"], dict) else json.loads(value["extra"])
    value["extra"] = extra | {"conect_timeout": 5}
    works, words = environment(monkeypatch, json.dumps(value)).test_connection()
    assert works is True
    assert "accepts the token" in words
    assert "extra: 'conect_timeout' (is 'connect_timeout' meant?) is not known and has no effect" in words


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ca_file"])
def test_a_ca_file_that_is_missing_is_said_by_the_test_of_a_connection(monkeypatch, name):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    extra = {"ca_file": "/no/such.pem"} if name == "ca_file" else {}
    if not extra:
        monkeypatch.setenv(name, "/no/such.pem")
    value = json.dumps({"conn_type": "capy", "password": PLAIN, "extra": extra})
    works, words = environment(monkeypatch, value).test_connection()
    assert works is False
    assert words.startswith(
        f"{name}: '/no/such.pem' cannot be read as CA certificates (No such file or directory); name a"
    )


def test_a_proxy_list_that_cannot_be_read_is_said_by_the_test_of_a_connection(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost,fe80::/10")
    works, words = environment(monkeypatch, f"capy://:{quote(PLAIN, safe='')}@capy.ai").test_connection()
    assert (works, words.partition(" of the")[0]) == (False, "proxy: NO_PROXY")
