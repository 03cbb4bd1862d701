"""A kill that comes into a create stops its thread all the same, if Capy can show it in time."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_capy.exceptions import CapyError
from airflow_provider_capy.hunting import Hunt
from airflow_provider_capy.identity import Record, with_reference
from tests.unit.starts import LOG, PROJECT, QUICK, settings_for

if TYPE_CHECKING:
    import pytest

    from airflow_provider_capy.emulator.control import EmulatorControl

INTENT = Record(reference="af0123", nonce="n", project_id=PROJECT, intended_at=1.0)


def hunt(capy: EmulatorControl, budget: float, settings: Any = None) -> Hunt:
    started = Hunt(settings or (lambda: settings_for(capy)), INTENT, budget=budget, log=LOG, patience=QUICK)
    started.start()
    return started


def test_the_thread_is_found_and_stopped(capy_emulator: EmulatorControl) -> None:
    [thread_id] = capy_emulator.create(with_reference("Fix it", "af0123"), origin="api", life="forever")
    assert hunt(capy_emulator, 10.0).outcome(10.0) == f"Thread {thread_id}: it was asked to stop"
    assert len(capy_emulator.stops(thread_id)) == 1


def test_a_thread_that_appears_meanwhile_is_stopped(capy_emulator: EmulatorControl) -> None:
    started = hunt(capy_emulator, 30.0)
    assert started.outcome(0.1) == "A thread with the reference af0123 may be at work; it is looked for"
    [thread_id] = capy_emulator.create(with_reference("Fix it", "af0123"), origin="api", life="forever")
    assert started.outcome(30.0) == f"Thread {thread_id}: it was asked to stop"


def test_what_is_not_found_is_named(capy_emulator: EmulatorControl) -> None:
    assert (
        hunt(capy_emulator, 0.2).outcome(10.0) == "A thread with the reference af0123 may be at work; it was not found"
    )


def test_nothing_is_looked_up_by_the_caller(capy_emulator: EmulatorControl) -> None:
    def slow() -> Any:
        time.sleep(1.0)
        return settings_for(capy_emulator)

    began = time.monotonic()
    started = hunt(capy_emulator, 0.2, slow)
    assert time.monotonic() - began < 1.0
    assert "was not found" in started.outcome(10.0)


def test_a_hunt_that_fails_says_how(capy_emulator: EmulatorControl, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise CapyError("no connection")

    with caplog.at_level(logging.WARNING, LOG.name):
        words = hunt(capy_emulator, 0.2, broken).outcome(10.0)
    expected = "A thread with the reference af0123 may be at work; it was not found (its stop FAILED: CapyError: no connection)"
    assert words == expected
    assert expected in caplog.messages
