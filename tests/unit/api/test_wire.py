"""Where requests go: past the environment's proxies on this machine, through them elsewhere, nowhere in clear text."""

import ssl

import httpx
import pytest
from pydantic import SecretStr

from airflow_provider_capy.api import AsyncCapyClient, CapyClient, ClientSettings, RetryLimits, wire
from airflow_provider_capy.exceptions import CapyConnectError, CapyInputError, CapyNoAnswerError

from .conftest import PROMPT, TOKEN
from .servers import THREAD, RawServer, resetting, saying, sending

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy")
PATIENT = RetryLimits(attempts=1)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_a_request_to_this_machine_never_goes_through_a_proxy(client_of, monkeypatch, name):
    with RawServer(saying(502)) as proxy, RawServer(saying(200, THREAD)) as server:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"
    assert proxy.requests == []


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_carries_https_without_seeing_the_token(client_of, monkeypatch, refused, name):
    with RawServer(saying(403)) as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with refused(CapyConnectError) as caught:
            client_of("https://capy.invalid/api", retry=PATIENT).create_thread("prj_1", PROMPT)
    assert "ProxyError" in str(caught.value)
    (request,) = proxy.requests
    assert request.startswith(b"CONNECT capy.invalid:443 HTTP/1.1")
    assert TOKEN.encode() not in request


@pytest.mark.parametrize("proxy", ["socks5://user:geheim@127.0.0.1:1", "gopher://user:geheim@127.0.0.1:1"])
@pytest.mark.parametrize("kind", [CapyClient, AsyncCapyClient])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch, refused, proxy, kind):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with refused(CapyInputError) as caught:
        kind(ClientSettings(SecretStr(TOKEN)))
    assert str(caught.value).startswith("proxy: HTTPS_PROXY")
    assert "geheim" not in str(caught.value)


def test_https_speaks_tls_before_it_says_anything(client_of, refused):
    with RawServer(sending(), greeting=b"HTTP/1.1 400 X\r\n\r\n") as server, refused(CapyConnectError) as caught:
        client_of(f"https://127.0.0.1:{server.port}/api", retry=PATIENT).create_thread("prj_1", PROMPT)
    assert "SSL" in str(caught.value)
    assert server.requests == []


def test_certificates_are_checked():
    context = wire.ssl_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("url", ["http://capy.ai/api", "http://10.0.0.1", "http://127.0.0.1.evil.com/api"])
def test_no_client_is_made_that_would_show_the_token_to_the_network(client_of, refused, url):
    with refused(CapyInputError) as caught:
        client_of(url)
    assert "would send the token unencrypted; use https://" in str(caught.value)


def test_no_client_is_made_with_a_token_that_forges_headers(client_of, refused):
    for token in ("a\r\nX-Admin: 1", "a\nb", "a b", "t\u00f6ken", "\x7f", ""):
        with refused(CapyInputError) as caught:
            client_of("https://capy.ai/api", token)
        assert str(caught.value).startswith("token: ")
        assert not token or token not in str(caught.value)


def test_a_name_that_does_not_exist_was_never_reached(client_of, refused):
    with refused(CapyConnectError):
        client_of("https://no-such-host.invalid/api", retry=PATIENT).create_thread("prj_1", PROMPT)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (resetting(), "ReadError"),
        (sending(), "RemoteProtocolError"),
        (sending(b"\x16\x03\x01 no http at all\r\n\r\n"), "RemoteProtocolError"),
        (sending(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000), "RemoteProtocolError"),
        (sending(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"), "RemoteProtocolError"),
        (saying(200, THREAD, content_length="5000"), "RemoteProtocolError"),
    ],
)
def test_an_answer_that_is_no_http_may_have_been_processed(client_of, refused, script, reason):
    with RawServer(script) as server, refused(CapyNoAnswerError) as caught:
        client_of(server.url).create_thread("prj_1", PROMPT)
    assert f"POST /v1/threads was sent and got no complete answer: {reason}" in str(caught.value)
    assert str(caught.value).endswith("it may have been processed")
    assert isinstance(caught.value.__cause__, httpx.TransportError)
    assert len(server.requests) == 1


def test_nothing_that_the_libraries_log_tells_the_token_or_the_prompt(capy, capy_emulator, caplog):
    caplog.set_level("DEBUG")
    capy.create_thread("prj_1", PROMPT)
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("http", "airflow")))
    assert "POST" in said
    assert capy_emulator.token not in said
    assert "confidential" not in said


def test_a_full_pool_is_a_request_that_was_never_sent(client_of, capy_emulator, refused):
    import asyncio

    capy_emulator.fault("slow", seconds=3, times=1)
    settings = ClientSettings(SecretStr(capy_emulator.token), capy_emulator.api_url, read_timeout=0.3, retry=PATIENT)

    async def use():
        limits = httpx.Limits(max_connections=1)
        async with AsyncCapyClient(settings, limits=limits) as client:
            return await asyncio.gather(*(client.get_thread("jam_1") for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(use())
    assert {type(first), type(second)} <= {CapyNoAnswerError, CapyConnectError}
    assert CapyConnectError in {type(first), type(second)}
    assert len(capy_emulator.requests("getThread")) == 1
