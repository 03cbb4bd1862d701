"""PostgreSQL and Redis for the tests that need them: Debian's packages, started by hand on ports and folders of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
PACKAGES = {"postgresql": "initdb", "redis-server": "redis-server", "chromium": "chromium"}
POSTGRES_USER = "airflow"


class MissingError(Exception):
    """A program that a test needs is not on this machine; the message says how to get it."""


def program(name: str) -> str:
    """Return the path of a program, also of those that Debian keeps out of PATH.

    Raises:
        MissingError: it is not installed. Tests fail then; they are never skipped.
    """
    # Newest first: several versions of PostgreSQL can be installed beside each other.
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    if found is None:
        raise MissingError(f"{name} is not installed: run `python -m tests.harness.services` as root, on Debian")
    return found


def install(packages: Sequence[str] = tuple(PACKAGES)) -> None:
    """Install what is missing with apt; Debian's own start of the services is not used."""
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=env)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, env=env)


def _is_installed(package: str) -> bool:
    with suppress(MissingError):
        return bool(program(PACKAGES[package]))
    return False


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Service:
    """A server of its own for one `with` block: fresh data, gone afterwards."""

    name: str

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._process = self._start()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and throw its data away."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*_as_service_user(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                log = self.folder / "log"
                raise RuntimeError(f"{self.name} did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def _start(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError


class Postgres(_Service):
    """A PostgreSQL without a password, reachable from this machine only."""

    name = "postgres"

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a new, empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", POSTGRES_USER, database)
        return f"postgresql+psycopg2://{POSTGRES_USER}@127.0.0.1:{self.port}/{database}"

    def _start(self) -> subprocess.Popen[bytes]:
        if os.geteuid() == 0:
            # The server refuses to run as root.
            shutil.chown(self.folder, "postgres", "postgres")
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", POSTGRES_USER, "-A", "trust", "--no-sync", "-E", "UTF8")
        # Nothing of it has to survive a power cut.
        settings = ["fsync=off", "synchronous_commit=off", "max_connections=300", f"unix_socket_directories={data}"]
        options = [part for setting in settings for part in ("-c", setting)]
        return self._spawn([program("postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(self.port), *options])

    def _run(self, name: str, *arguments: str) -> None:
        command = [*_as_service_user(), program(name), *arguments]
        subprocess.run(command, cwd="/", check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _is_ready(self) -> bool:
        command = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


class Redis(_Service):
    """A Redis that keeps nothing."""

    name = "redis"

    @property
    def url(self) -> str:
        """Its address, as Celery's broker."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _start(self) -> subprocess.Popen[bytes]:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        return self._spawn([program("redis-server"), *options, "--save", "", "--appendonly", "no"])

    def _is_ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


def _as_service_user() -> list[str]:
    """Drop root with the one account that both packages' servers can run under."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


if __name__ == "__main__":
    install()
