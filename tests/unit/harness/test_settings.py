"""Two Airflows of ours must not get in each other's way, nor one in the way of the next."""

from __future__ import annotations

import socket

from tests.harness.settings import Ports


def _served_port() -> int:
    """Serve one connection and end it from the server's side, which leaves its port winding down."""
    with socket.socket() as server:
        # As every server does.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    return port


def test_the_wanted_port_is_taken_again_right_after_its_last_use() -> None:
    port = _served_port()
    assert Ports.free(api=port).api == port


def test_another_port_is_taken_when_the_wanted_one_is_in_use() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert Ports.free(api=port).api != port
