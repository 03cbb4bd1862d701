"""Which base URLs, tokens and templates are taken."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from airflow_provider_capy.api.settings import (
    DEFAULT_BASE_URL,
    DEFAULT_WEB_URL_TEMPLATE,
    ClientSettings,
    checked_base_url,
    checked_token,
    checked_web_url_template,
    stays_on_this_machine,
    web_url,
)
from airflow_provider_capy.exceptions import CapyInputError


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", DEFAULT_BASE_URL),
        (" ", DEFAULT_BASE_URL),
        ("/", DEFAULT_BASE_URL),
        ("https://capy.ai/api", "https://capy.ai/api"),
        (" https://capy.ai/api// ", "https://capy.ai/api"),
        ("capy.ai/api", "https://capy.ai/api"),
        ("capy.ai:8443/api", "https://capy.ai:8443/api"),
        ("CAPY.ai", "https://CAPY.ai/api"),
        ("https://capy.ai/", "https://capy.ai/api"),
        ("capy.ai:443", "https://capy.ai:443/api"),
        ("localhost:8010/api", "http://localhost:8010/api"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:1", "http://LOCALHOST:1"),
        ("http://localhost.:1", "http://localhost.:1"),
        ("http://capy.localhost/api", "http://capy.localhost/api"),
        ("127.0.0.1:8010", "http://127.0.0.1:8010"),
        ("http://127.8.9.1/api", "http://127.8.9.1/api"),
        ("[::1]:8010/api", "http://[::1]:8010/api"),
        ("https://b\u00fccher.example/api", "https://b\u00fccher.example/api"),
        ("https://localhost/api", "https://localhost/api"),
        ("https://10.0.0.1/api", "https://10.0.0.1/api"),
    ],
)
def test_a_base_url_is_completed(text, url):
    assert checked_base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://capy.ai/api",
        "HTTP://capy.ai/api",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "http://evil.com/127.0.0.1",
        "http://2130706433",
        "http://0.0.0.0:80",
        "http://128.0.0.1",
        "http://[::2]/api",
    ],
)
def test_http_reaches_this_machine_only_unless_it_is_allowed(text):
    with pytest.raises(CapyInputError, match="would send the token unencrypted; use https://, or set allow_http"):
        checked_base_url(text, field="host")
    assert checked_base_url(text, allow_http=True) == text


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://capy.ai", "file:///etc/passwd", "https://", "://", "https:///api", "javascript:alert(1)//://"),
        *("https://exa mple.com", "https://a\nb.com", "https://capy.ai/a\tb", "https://capy.ai\\@evil.com", "a\x00b"),
        *("https://xn--/api", "https://[::1", "https://capy..ai", f"https://{'a' * 64}.com", "https://.capy.ai"),
        *(
            "https://capy.ai:port",
            "https://capy.ai:99999",
            "::1",
            "https://ca\u200bpy.ai:x",
            "https://" + "a." * 40_000,
        ),
    ],
)
def test_what_is_no_url_is_refused_with_an_example(text):
    with pytest.raises(CapyInputError) as caught:
        checked_base_url(text, field="host")
    assert type(caught.value) is CapyInputError
    assert str(caught.value).startswith("host: ")
    assert str(caught.value).endswith("give e.g. https://capy.ai/api")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        *("https://user:geheim@capy.ai/api", "https://:geheim@capy.ai", "https://geheim@capy.ai", "geheim@capy.ai"),
        *("https://capy.ai/api?token=geheim", "https://capy.ai/api?", "https://capy.ai/api#", "capy.ai/api#geheim"),
        *("https://user:geheim@capy.ai:99999/", "http://user:geheim@[::1", "ftp://geheim@capy.ai?geheim"),
    ],
)
def test_a_token_in_the_wrong_place_is_refused_and_not_shown(text):
    with pytest.raises(CapyInputError) as caught:
        checked_base_url(text)
    assert "geheim" not in str(caught.value).replace("api#geheim", "")


@given(
    st.text(max_size=40) | st.text(max_size=30).map("http://{}".format) | st.text(max_size=30).map("https://{}".format)
)
def test_no_text_breaks_the_check_and_none_that_passes_leads_elsewhere_in_clear(text):
    try:
        url = checked_base_url(text)
    except CapyInputError:
        return
    assert url.lower().startswith("https://") or stays_on_this_machine(url)
    ClientSettings(SecretStr("t"), url)


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "a\nb", "a\r\nX: y", "\x00", "\x7f", "\u00e9", "\U0001f9ab", "a\u2028"]
)
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(CapyInputError, match=r"^password: "):
        checked_token(token, field="password")


def test_settings_show_no_token():
    settings = ClientSettings(SecretStr("capy_geheim"))
    assert "geheim" not in repr(settings) + str(settings)


def test_settings_are_checked_whenever_they_are_made():
    settings = ClientSettings(SecretStr("capy_t"), "capy.ai/api/")
    assert settings.base_url == "https://capy.ai/api"
    with pytest.raises(CapyInputError, match=r"^base_url: 'http://capy.ai' would send"):
        replace(settings, base_url="http://capy.ai")
    assert replace(settings, base_url="http://capy.ai", allow_http=True).base_url == "http://capy.ai/api"
    with pytest.raises(CapyInputError, match=r"^token: "):
        replace(settings, token=SecretStr("a\nb"))
    with pytest.raises(FrozenInstanceError):
        settings.base_url = "http://capy.ai"


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("", "https://capy.ai/project/prj%2F1/captain/jam%3F1"),
        ("https://x.y/thread/{thread_id}", "https://x.y/thread/jam%3F1"),
        (" http://127.0.0.1/{project_id}#{thread_id} ", "http://127.0.0.1/prj%2F1#jam%3F1"),
    ],
)
def test_a_threads_web_address_is_made_from_its_template(template, url):
    assert web_url(checked_web_url_template(template), project_id="prj/1", thread_id="jam?1") == url


@pytest.mark.parametrize(
    "template",
    [
        *(
            "https://x.y/",
            "https://x.y/{project_id}",
            "{thread_id}",
            "javascript:{thread_id}",
            "https://x.y/{thread_id",
        ),
        *("https://x.y/{0}{thread_id}", "https://x.y/{other}/{thread_id}", "https://x.y/{thread_id}{thread_id.no}"),
        *("https://x.y/{thread_id}{thread_id[a]}", "https://x.y/{thread_id}{thread_id!x}", "//x.y/{thread_id}"),
    ],
)
def test_a_template_that_is_none_is_refused_with_an_example(template):
    with pytest.raises(CapyInputError) as caught:
        checked_web_url_template(template)
    assert str(caught.value).startswith("web_url_template: ")
    assert str(caught.value).endswith(f"give e.g. {DEFAULT_WEB_URL_TEMPLATE}")
