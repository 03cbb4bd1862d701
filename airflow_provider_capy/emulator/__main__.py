"""The command ``python -m airflow_provider_capy.emulator``: an emulator until it is told to end."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from typing import TYPE_CHECKING

from airflow_provider_capy.emulator.addresses import TOKEN, Addresses
from airflow_provider_capy.emulator.server import HOST, HttpServer

if TYPE_CHECKING:
    from collections.abc import Sequence

_PORTS = range(65536)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an emulator.

    Args:
        arguments: The command line; None is the one of this process.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        server = HttpServer(options.host, options.port, options.token, options.speed)
    except OSError as error:
        print(
            f"--host {options.host} --port {options.port}: cannot listen there ({error.strerror or error}); "
            "name another one, or --port 0 for any that is free",
            file=sys.stderr,
        )
        return 1

    def end(_signal: int, _frame: object) -> None:
        server.should_exit = True

    # The server passes a signal on when it has ended; without a handler that would look like a crash.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    addresses = Addresses(server.origin, options.token)
    print(
        f"Capy emulator: API {addresses.api_url} , page {addresses.page_url}\n"
        f"export AIRFLOW_CONN_CAPY_DEFAULT='{addresses.connection_json()}'",
        flush=True,
    )
    server.listen()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_capy.emulator",
        description="A Capy on your machine: its threads API with life cycles, faults on demand and a request log.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default=HOST, help="address to listen on (%(default)s: this machine only)")
    parser.add_argument(
        "--port", type=_port, default=8010, help="port to listen on, 0 for any that is free (%(default)s)"
    )
    parser.add_argument("--token", type=_token, default=TOKEN, help="token the API takes (%(default)s)")
    parser.add_argument("--speed", type=_speed, default=1.0, help="times faster than real time (%(default)s)")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) in _PORTS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 (any that is free) to 65535")
    return int(text)


def _token(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or set(text) & set(" '"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a token: give printable ASCII without spaces and quotes")
    return text


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed: give a number above 0, such as 1 or 0.5 or 20")
    return speed


if __name__ == "__main__":
    sys.exit(main())
