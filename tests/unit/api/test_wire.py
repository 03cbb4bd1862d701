"""Where requests go: past the environment's proxies on this machine, through them elsewhere, nowhere in clear text."""

import ssl
import subprocess
import time

import certifi
import httpx
import pytest
from pydantic import SecretStr

from airflow_provider_capy.api import AsyncCapyClient, CapyClient, ClientSettings, RetryLimits, calls, wire
from airflow_provider_capy.exceptions import CapyCertificateError, CapyConnectError, CapyInputError, CapyNoAnswerError

from .conftest import PROMPT, TOKEN
from .servers import THREAD, Authority, RawServer, resetting, saying, sending, undecryptable

NAMED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy")
PATIENT = RetryLimits(attempts=1)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in (*PROXIES, *NAMED):
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
    assert str(caught.value).startswith("proxy: HTTPS_PROXY of the environment is no proxy")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("kind", [CapyClient, AsyncCapyClient])
def test_the_variable_that_cannot_be_read_is_the_one_that_is_named(monkeypatch, refused, name, kind):
    for other in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(other, "http://user:geheim@127.0.0.1:1")
    wrong = "localhost,fe80::/10" if name.upper() == "NO_PROXY" else "gopher://user:geheim@127.0.0.1:1"
    monkeypatch.setenv(name, wrong)
    with refused(CapyInputError) as caught:
        kind(ClientSettings(SecretStr(TOKEN)))
    assert str(caught.value).startswith(f"proxy: {name.upper()} of the environment")
    assert "geheim" not in str(caught.value)
    if name.upper() == "NO_PROXY":
        assert "'localhost,fe80::/10', has an entry that cannot be read" in str(caught.value)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_a_host_of_no_proxy_is_reached_directly(client_of, monkeypatch, refused, name):
    with RawServer(saying(403)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv(name, "localhost, capy.invalid, 10.0.0.0/8, ::1")
        with refused(CapyConnectError):
            client_of("https://capy.invalid/api", retry=PATIENT).get_thread("jam_1")
    assert proxy.connections == 0


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
    with refused(CapyConnectError) as caught:
        client_of("https://no-such-host.invalid/api", retry=PATIENT).create_thread("prj_1", PROMPT)
    assert str(caught.value).startswith("POST /v1/threads never reached Capy at no-such-host.invalid:443: ConnectError")


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def test_a_ca_of_ones_own_is_named_in_the_settings(client_of, authority):
    with RawServer(saying(200, THREAD), tls=authority.tls) as server:
        assert client_of(server.url, ca_file=str(authority.file)).get_thread("jam_1").id == "jam_1"


@pytest.mark.parametrize("name", NAMED)
def test_a_ca_of_ones_own_is_named_in_the_environment(client_of, monkeypatch, authority, name):
    path = authority.file
    if name == "SSL_CERT_DIR":
        path = authority.file.parent / "hashed"
        path.mkdir(exist_ok=True)
        # Every name that OpenSSL may look for: the hash of the subject is not in Python.
        hashed = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", authority.file], capture_output=True, text=True, check=True
        )
        (path / f"{hashed.stdout.strip()}.0").write_bytes(authority.file.read_bytes())
    monkeypatch.setenv(name, str(path))
    with RawServer(saying(200, THREAD), tls=authority.tls) as server:
        assert client_of(server.url).get_thread("jam_1").id == "jam_1"


def test_a_ca_file_is_believed_beside_those_that_the_environment_names_and_beside_the_public_ones(
    monkeypatch, authority
):
    public = len(wire.ssl_context().get_ca_certs())
    assert public > 50
    assert len(wire.ssl_context(str(authority.file)).get_ca_certs()) == public + 1
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    assert len(wire.ssl_context().get_ca_certs()) == 1
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert len(wire.ssl_context().get_ca_certs()) == public
    assert len(wire.ssl_context(str(authority.file)).get_ca_certs()) == public + 1
    assert wire.ssl_context(str(authority.file)) is wire.ssl_context(str(authority.file))


@pytest.mark.parametrize("operation", ["get", "create"])
def test_a_certificate_that_nobody_vouches_for_is_refused_once_with_the_way_out(
    client_of, authority, refused, operation
):
    with RawServer(saying(200, THREAD), tls=authority.tls) as server, refused(CapyCertificateError) as caught:
        client = client_of(server.url)
        client.get_thread("jam_1") if operation == "get" else client.create_thread("prj_1", PROMPT)
    assert f" never reached Capy at 127.0.0.1:{server.port}: its certificate cannot be verified (" in str(caught.value)
    assert "ca_file in the connection's extra, or REQUESTS_CA_BUNDLE or SSL_CERT_FILE" in str(caught.value)
    assert str(caught.value).endswith("nothing was processed")
    assert (server.connections, server.requests) == (1, [])


def test_a_certificate_for_another_host_is_refused_with_its_reason(client_of, authority, refused):
    with RawServer(saying(200, THREAD), tls=authority.tls) as server, refused(CapyCertificateError) as caught:
        client_of(server.url.replace("127.0.0.1", "localhost"), ca_file=str(authority.file)).get_thread("jam_1")
    assert "certificate is not valid for 'localhost'" in str(caught.value)


BROKEN = {
    "missing": lambda folder: folder / "no-such.pem",
    "empty": lambda folder: folder / "empty.pem",
    "no certificate": lambda folder: folder / "words.pem",
    "half a certificate": lambda folder: folder / "half.pem",
    "unreadable": lambda folder: folder / "loop.pem",
    "no path": lambda _folder: "\x00",
}


@pytest.mark.parametrize("kind", [CapyClient, AsyncCapyClient])
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", [*NAMED, "ca_file"])
def test_a_ca_file_that_cannot_be_read_is_named(monkeypatch, tmp_path, refused, authority, name, broken, kind):
    (tmp_path / "empty.pem").touch()
    (tmp_path / "words.pem").write_text("no certificate")
    (tmp_path / "half.pem").write_bytes(authority.file.read_bytes()[:200])
    (tmp_path / "loop.pem").symlink_to(tmp_path / "loop.pem")
    path = str(BROKEN[broken](tmp_path))
    settings = {"ca_file": path} if name == "ca_file" else {}
    if name != "ca_file":
        if path == "\x00":
            path = str(tmp_path / ("x" * 5000))
        monkeypatch.setenv(name, path)
    with refused(CapyInputError) as caught:
        kind(ClientSettings(SecretStr(TOKEN), **settings))
    assert str(caught.value).startswith(f"{name}: {path[:500]!r} cannot be read as CA certificates (")
    assert "; name a PEM file" in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_ca_file_that_was_mended_is_read(tmp_path, authority):
    path = tmp_path / "late.pem"
    with pytest.raises(CapyInputError):
        wire.ssl_context(str(path))
    path.write_bytes(authority.file.read_bytes())
    assert wire.ssl_context(str(path)).verify_mode == ssl.CERT_REQUIRED


def test_a_record_that_cannot_be_decrypted_may_have_been_processed(client_of, authority, refused):
    with RawServer(undecryptable, tls=authority.tls) as server, refused(CapyNoAnswerError) as caught:
        client_of(server.url, ca_file=str(authority.file)).create_thread("prj_1", PROMPT)
    assert str(caught.value).endswith("it may have been processed")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.InvalidURL("x"), CapyConnectError),
        (httpx.UnsupportedProtocol("x"), CapyConnectError),
        ("\xff".encode, CapyConnectError),
        (ssl.SSLError("x"), CapyNoAnswerError),
        (OSError("x"), CapyNoAnswerError),
        (httpx.DecodingError("x"), CapyNoAnswerError),
        (httpx.TooManyRedirects("x"), CapyNoAnswerError),
        (httpx.StreamClosed(), CapyNoAnswerError),
    ],
)
def test_whatever_the_library_raises_is_an_error_of_ours(error, kind):
    def fail():
        if callable(error):
            error("ascii")
        raise error

    with pytest.raises(kind), wire.translated(calls.get_thread("jam_1"), ClientSettings(SecretStr(TOKEN))):
        fail()


def test_a_bound_reaches_through_tls_and_a_proxy(client_of, monkeypatch, authority, refused):
    def tunnel(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with authority.tls.wrap_socket(connection, server_side=True) as inside:
            for _ in range(200):
                inside.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
                time.sleep(0.05)

    with RawServer(tunnel) as proxy, refused(CapyNoAnswerError):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        # By this name it is not this machine, which is asked without a proxy.
        monkeypatch.setattr(wire, "stays_on_this_machine", lambda _url: False)
        began = time.monotonic()
        client_of(
            "https://127.0.0.1/api", ca_file=str(authority.file), read_timeout=0.2, connect_timeout=0.2
        ).create_thread("prj_1", PROMPT)
    assert time.monotonic() - began < 5
