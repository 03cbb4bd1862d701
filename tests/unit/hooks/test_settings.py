"""What each field of a connection comes to, and how a wrong one is named."""

import pytest

from airflow_provider_capy import __version__
from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.hooks import settings as settings_module
from airflow_provider_capy.hooks.settings import connection_settings, user_agent

TOKEN = "capy_the-secret-token"


def read(**fields):
    given = {"host": None, "schema": None, "port": None, "password": TOKEN, "extra": None}
    return connection_settings(conn_id="capy_test", **{**given, **fields})


@pytest.mark.parametrize(
    ("host", "schema", "port", "url"),
    [
        (None, None, None, "https://capy.ai/api"),
        ("", "", None, "https://capy.ai/api"),
        (None, "api", 443, "https://capy.ai/api"),
        ("capy.ai", None, None, "https://capy.ai/api"),
        ("capy.ai", "api", None, "https://capy.ai/api"),
        ("capy.ai/", "/api/", None, "https://capy.ai/api"),
        ("capy.ai", "api/v9", 8443, "https://capy.ai:8443/api/v9"),
        ("capy.ai", "https", 8443, "https://capy.ai:8443/api"),
        ("CAPY.ai.", None, None, "https://CAPY.ai."),
        ("capy.internal", None, None, "https://capy.internal"),
        ("capy.ai/api", "HTTPS", None, "HTTPS://capy.ai/api"),
        ("capy.ai/api", None, 8443, "https://capy.ai:8443/api"),
        ("https://capy.ai/api", None, 8443, "https://capy.ai:8443/api"),
        ("https://capy.ai/api", "http", None, "https://capy.ai/api"),
        ("https://capy.ai:1/api", None, 2, "https://capy.ai:1/api"),
        ("http://localhost", "api", 8010, "http://localhost:8010/api"),
        ("localhost", "http", 8010, "http://localhost:8010"),
        ("127.0.0.1", None, 8010, "http://127.0.0.1:8010"),
        ("::1", "api", 8010, "http://[::1]:8010/api"),
        ("[::1]", "api", 8010, "http://[::1]:8010/api"),
        ("[::1]:9", "api", 8010, "http://[::1]:9/api"),
        ("http://::1", None, 8010, "http://[::1]:8010"),
        ("2001:db8::7", None, None, "https://[2001:db8::7]"),
    ],
)
def test_host_schema_and_port_make_one_base_url(host, schema, port, url):
    assert read(host=host, schema=schema, port=port).client.base_url == url


def test_what_is_not_given_has_a_default():
    settings = read()
    assert (settings.project_id, settings.conn_id) == (None, "capy_test")
    assert settings.web_url_template == "https://capy.ai/project/{project_id}/captain/{thread_id}"
    assert (settings.client.connect_timeout, settings.client.read_timeout) == (5.0, 30.0)
    assert settings.client.allow_http is False
    assert settings.client.token.get_secret_value() == TOKEN


@pytest.mark.parametrize(
    "extra",
    [
        {"project_id": " prj_1 ", "timeout": "45", "connect_timeout": "2.5", "allow_http": "true"},
        {"project_id": "prj_1", "timeout": 45, "connect_timeout": 2.5, "allow_http": True, "__other__": [1]},
        '{"project_id": "prj_1", "timeout": 45.0, "connect_timeout": "2.5", "allow_http": 1}',
    ],
)
def test_extras_may_be_text_or_typed(extra):
    settings = read(extra=extra)
    assert settings.project_id == "prj_1"
    assert (settings.client.read_timeout, settings.client.connect_timeout) == (45.0, 2.5)
    assert settings.client.allow_http is True


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_field_that_the_form_left_blank_is_not_given(blank):
    names = ("project_id", "web_url_template", "timeout", "connect_timeout", "ca_file", "allow_http")
    assert read(extra=dict.fromkeys(names, blank)) == read()


@pytest.mark.parametrize("extra", [None, "", "  ", {}, "{}"])
def test_there_may_be_no_extra(extra):
    assert read(extra=extra) == read()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": None}, "password: is empty; it holds the API token (made at capy.ai/settings/tokens)"),
        ({"password": "  "}, "password: is empty; it holds the API token (made at capy.ai/settings/tokens)"),
        ({"password": f"{TOKEN}\r\nX: y"}, "password: has characters that no API token has (blanks, line breaks, non-ASCII)"),
        ({"password": f"{TOKEN} {TOKEN}"}, "password: has characters that no API token has (blanks, line breaks, non-ASCII)"),
        ({"password": f"{TOKEN}\u2026"}, "password: has characters that no API token has (blanks, line breaks, non-ASCII)"),
        ({"host": "http://capy.ai/api"}, "host: 'http://capy.ai/api' would send the token unencrypted; use https://, or set allow_http to true (in the connection's extra) if that is meant"),
        ({"host": "capy.ai", "schema": "http"}, "host: 'http://capy.ai' would send the token unencrypted; use https://, or set allow_http to true (in the connection's extra) if that is meant"),
        ({"host": "ftp://capy.ai"}, "host: 'ftp://capy.ai' is not an http(s) URL; give e.g. https://capy.ai/api"),
        ({"host": f"https://:{TOKEN}@capy.ai"}, "host: the URL carries a user or a password; put the token into the password field"),
        ({"host": "capy.ai", "port": 99999}, "host: 'capy.ai:99999' is not an http(s) URL; give e.g. https://capy.ai/api"),
        ({"extra": "{no json"}, 'extra: is not JSON; give an object, e.g. {"project_id": "prj_123"}'),
        ({"extra": "[1]"}, 'extra: is not a JSON object; give e.g. {"project_id": "prj_123"}'),
        ({"extra": '"text"'}, 'extra: is not a JSON object; give e.g. {"project_id": "prj_123"}'),
        ({"extra": {"project_id": 5}}, "extra: project_id: 5 is not text"),
        ({"extra": {"timeout": "soon"}}, "extra: timeout: 'soon' is not a number"),
        ({"extra": {"timeout": 0}}, "extra: timeout: 0 is not above 0"),
        ({"extra": {"timeout": "nan"}}, "extra: timeout: 'nan' is not 600 or less, the most that is taken"),
        ({"extra": {"timeout": 601}}, "extra: timeout: 601 is not 600 or less, the most that is taken"),
        ({"extra": {"connect_timeout": -1, "allow_http": "perhaps"}}, "extra: connect_timeout: -1 is not above 0; allow_http: 'perhaps' is neither true nor false"),
        ({"extra": {"web_url_template": "nowhere"}}, "web_url_template: 'nowhere' is not an http(s) URL with {thread_id} and optionally {project_id}; give e.g. https://capy.ai/project/{project_id}/captain/{thread_id}"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_connection_and_without_the_token(fields, says):
    with pytest.raises(CapyInputError) as caught:
        read(**fields)
    assert str(caught.value) == f"connection 'capy_test', {says}"
    assert TOKEN not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_http_to_another_host_is_allowed_where_the_connection_says_so():
    settings = read(host="http://capy.internal/api", extra={"allow_http": "true"})
    assert settings.client.base_url == "http://capy.internal/api"


def test_settings_show_no_token():
    assert TOKEN not in repr(read()) + str(read())


@pytest.mark.parametrize(
    ("default", "given", "project"), [("prj_1", None, "prj_1"), ("prj_1", " prj_2 ", "prj_2"), (None, "prj_2", "prj_2")]
)
def test_a_project_is_the_given_one_or_the_connections(default, given, project):
    assert read(extra={"project_id": default}).project(given) == project


@pytest.mark.parametrize("given", [None, "", "  "])
def test_no_project_at_all_is_an_error_that_says_where_to_put_one(given):
    with pytest.raises(CapyInputError) as caught:
        read().project(given)
    assert str(caught.value) == (
        "project_id: none was given, and the connection 'capy_test' has no default; "
        "pass project_id= or put project_id into the connection's extra"
    )


@pytest.mark.parametrize(
    ("default", "given", "url"),
    [
        ("prj_1", None, "https://capy.ai/project/prj_1/captain/jam_1"),
        ("prj_1", "prj_2", "https://capy.ai/project/prj_2/captain/jam_1"),
        (None, None, "https://capy.ai/project/-/captain/jam_1"),
    ],
)
def test_a_threads_address_names_its_project(default, given, url):
    assert read(extra={"project_id": default}).thread_url("jam_1", given) == url


def test_capy_is_told_who_asks():
    name, airflow, python = user_agent().split(" ")
    assert name == f"airflow-provider-capy/{__version__}"
    assert airflow.startswith("airflow/3.")
    assert python.startswith("python/3.")


def test_capy_is_told_who_asks_where_airflow_is_not_installed(monkeypatch):
    def missing(_name):
        raise settings_module.PackageNotFoundError

    monkeypatch.setattr(settings_module, "version", missing)
    assert " airflow/unknown " in user_agent()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"projectid": "prj_1"}, "'projectid' (is 'project_id' meant?) is not known"),
        ('{"project-id": "prj_1"}', "'project-id' (is 'project_id' meant?) is not known"),
        ({"Timeout": 5, "caFile": "x"}, "'Timeout' (is 'timeout' meant?), 'caFile' (is 'ca_file' meant?) is not known"),
        ({"region": "eu"}, "'region' is not known and has no effect; known are project_id, "),
        ({"a\x00b": 1}, "'a\ufffdb' is not known"),
    ],
)
def test_a_key_that_nobody_knows_is_named_with_the_nearest_known_one(extra, words):
    settings = read(extra=extra)
    assert settings.warning.startswith(f"connection 'capy_test', extra: {words}")
    assert (settings.project_id, settings.client) == (None, read().client)


@pytest.mark.parametrize(
    "extra", [None, {}, {"project_id": "p"}, {"__extra__": "{}", "__other__": 1, "extra__capy__x": 1}]
)
def test_what_is_known_or_airflows_own_is_no_reason_for_a_warning(extra):
    assert read(extra=extra).warning == ""


def test_a_ca_file_is_handed_to_the_client():
    assert read(extra={"ca_file": " /etc/ssl/own.pem "}).client.ca_file == "/etc/ssl/own.pem"
