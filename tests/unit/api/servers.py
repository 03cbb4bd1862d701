"""Servers that do on a socket what no well-behaved server does."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import ssl
import struct
import threading
import time
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    Script = Callable[[socket.socket], None]

THREAD = {"id": "jam_1", "runState": "running", "status": "active"}


class RawServer:
    """Does with each connection what a script says, and remembers what was sent to it.

    Args:
        *scripts: one for each connection; the last one holds for all that follow.
        port: the port to bind; 0 takes any that is free.
        greeting: what is sent before anything was asked.
        tls: what it speaks TLS with; see :class:`Authority`.

    Attributes:
        requests: head and body of every request, as they came.
        connections: how often somebody connected.
    """

    def __init__(
        self, *scripts: Script, port: int = 0, greeting: bytes = b"", tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(30)
                outer.connections += 1
                if tls is not None:
                    try:
                        self.request = tls.wrap_socket(self.request, server_side=True)
                    except OSError:
                        return
                self.request.sendall(greeting)
                request = received(self.request)
                if not request:
                    return
                outer.requests.append(request)
                script = scripts[min(len(outer.requests), len(scripts)) - 1]
                try:
                    script(self.request)
                except OSError:
                    return

            def finish(self) -> None:
                # The socket that speaks TLS is not the one that the server knows.
                self.request.close()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def received(connection: socket.socket) -> bytes:
    """Read one whole request; empty when the other side left."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0]):
            body += connection.recv(65536)
    except OSError:
        return b""
    return head + b"\r\n\r\n" + body


def raw(status: int, body: bytes, **headers: str) -> bytes:
    """Write an HTTP answer; ``content_length`` and the like name headers."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def saying(status: int, body: Any = b"", **headers: str) -> Script:
    """Answer this; what is not bytes goes out as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection: connection.sendall(raw(status, data, **headers))


def sending(*parts: bytes, pause: float = 0.0) -> Script:
    """Send these parts, with a pause of so many seconds after each."""

    def script(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return script


def resetting(*parts: bytes) -> Script:
    """Send these parts and reset the connection."""

    def script(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return script


def undecryptable(connection: socket.socket) -> None:
    """Answer with a TLS record that nobody can decrypt."""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))


def silent(seconds: float) -> Script:
    """Answer nothing for so long, then close."""
    return lambda _connection: time.sleep(seconds)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Authority:
    """A CA of somebody's own, and a server's context with a certificate of it for 127.0.0.1.

    Args:
        folder: where its files go.

    Attributes:
        file: the CA's certificate, PEM.
        tls: what a :class:`RawServer` speaks TLS with.
    """

    def __init__(self, folder: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        def made(name: str, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey | None) -> tuple[Any, Any]:
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
            now = datetime.now(timezone.utc)
            usage = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            signer = signer or key
            builder = (
                x509.CertificateBuilder(issuer or subject, subject, key.public_key(), x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=1))
                .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
                .add_extension(
                    x509.KeyUsage(
                        digital_signature=True, key_cert_sign=issuer is None, crl_sign=issuer is None, **usage
                    ),
                    critical=True,
                )
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
                .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            )
            return builder.sign(signer, hashes.SHA256()), key

        root, root_key = made("Somebody's CA", None, None)
        leaf, leaf_key = made("127.0.0.1", root.subject, root_key)
        pem = serialization.Encoding.PEM
        self.file = folder / "ca.pem"
        self.file.write_bytes(root.public_bytes(pem))
        chain, private = folder / "server.pem", folder / "server.key"
        chain.write_bytes(leaf.public_bytes(pem))
        private.write_bytes(
            leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(chain, private)
