"""Which Capy the demo talks to: the emulator, unless the environment leads to a real one and its owner agrees."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from airflow_provider_capy.api import CapyClient, ClientSettings
from airflow_provider_capy.api.settings import stays_on_this_machine
from airflow_provider_capy.emulator.addresses import PROJECT
from airflow_provider_capy.emulator.server import EmulatorServer
from airflow_provider_capy.hooks.settings import connection_settings
from tests.demo.examples import quick_examples
from tests.harness.settings import without_airflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.hooks.settings import ConnectionSettings

VARIABLE = "AIRFLOW_CONN_CAPY_DEFAULT"
REPO = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(@(?P<branch>\S+))?")

CONSENT = """\
{variable} leads to a real Capy: {base_url}, project {project}.

The demo would start five threads there, and every one of them costs money:
  dispatch_on_schedule  three threads, up to two hours each; they may open pull requests
  gate_a_deploy         one thread, up to an hour, on {repo}
  cancel_with_the_run   one thread on {repo}, cancelled as soon as it is at work
What a thread costs depends on your plan and on how long it works: nobody can tell beforehand.

To go on:               make demo ARGS="--yes-real --repo owner/name@branch"
To see it at no cost:   unset {variable}, and an emulated Capy on this machine is used
"""


@dataclass(frozen=True)
class Capy:
    """The Capy of one demo.

    Attributes:
        connection: the value of the connection's environment variable.
        client: talks to it.
        project_id: the connection's default project.
        conf: what runs are given, so that their threads work on a repository that exists.
        control: the emulator's handle; ``None`` for a real Capy.
    """

    connection: str
    client: CapyClient
    project_id: str
    conf: dict[str, str]
    control: EmulatorControl | None = None

    @property
    def costs(self) -> bool:
        """Whether threads cost money."""
        return self.control is None

    @property
    def environment(self) -> dict[str, str]:
        """What Airflow needs to find it; a real Capy is looked at no more often than the examples ask for."""
        return {VARIABLE: self.connection, **({} if self.costs else quick_examples())}

    @property
    def patience(self) -> float:
        """How many seconds a scene may take."""
        return 3 * 60 * 60.0 if self.costs else 300.0

    @property
    def interval(self) -> float:
        """How many seconds lie between two looks of the demo's own."""
        return 5.0 if self.costs else 0.5


class NoConsentError(Exception):
    """A real Capy was given, and nobody has agreed to pay; the message is for the reader."""


@contextmanager
def chosen_capy(home: Path, *, agreed: bool, repo: str | None) -> Iterator[Capy]:
    """Give the Capy that the environment leads to, or an emulated one.

    The emulator runs in a thread: a Ctrl-C cannot end it before Airflow, and nothing is left of it afterwards.

    Args:
        home: an Airflow home, in case Airflow is needed to read the connection.
        agreed: whether the user agrees to pay for threads.
        repo: ``owner/name`` or ``owner/name@branch`` that a real Capy's threads work on.

    Raises:
        NoConsentError: a real Capy is given, and ``agreed`` or ``repo`` is missing.
        CapyError: it cannot be reached, or refuses the token or the project.
    """
    given = os.environ.get(VARIABLE)
    settings = _settings(given, home) if given else None
    # An emulator that somebody runs on this machine is no real Capy, unless its owner says that it is to be used.
    if given and settings is not None and (agreed or not stays_on_this_machine(settings.client.base_url)):
        with _real_capy(given, settings, agreed=agreed, repo=repo) as capy:
            yield capy
        return
    with EmulatorServer() as server:
        control = server.control
        # Two threads that have a part to play; the others do as threads do.
        control.script(match="Add type annotations", life="forever")
        control.script(match="Rotate the keys", life="blocked")
        with CapyClient(ClientSettings(token=SecretStr(control.token), base_url=control.api_url)) as client:
            yield Capy(control.connection_json(), client, PROJECT, {}, control)


@contextmanager
def _real_capy(given: str, settings: ConnectionSettings, *, agreed: bool, repo: str | None) -> Iterator[Capy]:
    project_id = settings.project(None)
    found = REPO.fullmatch(repo or "")
    if not (agreed and found):
        raise NoConsentError(
            CONSENT.format(
                variable=VARIABLE,
                base_url=settings.client.base_url,
                project=project_id,
                repo=repo if found else "the repository you name",
            )
        )
    with CapyClient(settings.client) as client:
        client.list_page(project_id, limit=1)
        yield Capy(given, client, project_id, {"repo": found["repo"], "branch": found["branch"] or "main"})


def _settings(connection: str, home: Path) -> ConnectionSettings:
    # Only Airflow knows every form a connection can have; it must find no other Airflow's settings while it reads it.
    for name in set(os.environ) - set(without_airflow(os.environ)):
        del os.environ[name]
    os.environ["AIRFLOW_HOME"] = str(home)
    from airflow.sdk import Connection

    conn_id = "capy_default"
    is_json = connection.lstrip().startswith("{")
    read = Connection.from_json(connection, conn_id) if is_json else Connection.from_uri(connection, conn_id)
    return connection_settings(
        conn_id=conn_id,
        host=read.host,
        schema=read.schema,
        port=read.port,
        password=read.password,
        extra=read.extra_dejson,
    )
