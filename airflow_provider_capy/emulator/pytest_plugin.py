"""Gives every pytest run the ``capy_emulator`` fixture; loaded by all of them, so it imports nothing until it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.emulator.control import EmulatorControl
    from airflow_provider_capy.emulator.server import EmulatorServer

SPEED = 20.0
"""How many times faster than real time threads live in tests that do not say: a default life takes a quarter of a second."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", f"capy_speed(factor): how many times faster than real time the emulator's threads live ({SPEED:g})"
    )


@pytest.fixture(scope="session")
def capy_emulator_server() -> Iterator[EmulatorServer]:
    """An emulator for the whole session; tests take ``capy_emulator`` instead."""
    from airflow_provider_capy.emulator.server import EmulatorServer

    with EmulatorServer(speed=SPEED) as server:
        yield server


@pytest.fixture
def capy_emulator(
    capy_emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> EmulatorControl:
    """An empty emulator, with ``AIRFLOW_CONN_CAPY_DEFAULT`` leading to it.

    Threads live twenty times faster than real time; ``@pytest.mark.capy_speed(1)`` on a test, class or module changes that.
    Lengths a test names itself (``seconds=``) are real seconds at any speed.
    """
    marker = request.node.get_closest_marker("capy_speed")
    control = capy_emulator_server.control
    control.reset(speed=float(marker.args[0]) if marker else SPEED)
    monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", control.connection_json())
    return control
