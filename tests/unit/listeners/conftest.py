"""An emulated Capy, and what the listener's parts take for Airflow's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_capy.emulator.control import EmulatorControl
    from tests.unit.listeners.memory import Store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    from airflow_provider_capy import lifecycle, stopping
    from airflow_provider_capy.listeners import ends, stopper
    from tests.unit.listeners.memory import Store

    store = Store()
    monkeypatch.setattr(ends, "store", store)
    monkeypatch.setattr(stopper, "store", store)
    for module, name, seconds in [
        (stopping, "LOOK_EVERY", 0.05),
        (lifecycle, "STANDS_AFTER", 0.3),
        (lifecycle, "SOONEST_AGAIN", 0.1),
        (stopping, "_SLOWEST_LOOK", 0.1),
        (stopper, "LOOK_EVERY", 0.05),
        (stopper, "FOUND_WITHIN", 0.3),
        (ends, "SEEN_WITHIN", 0.5),
    ]:
        monkeypatch.setattr(module, name, seconds)
    return store


@pytest.fixture
def capy(capy_emulator: EmulatorControl, store: Store) -> EmulatorControl:
    return capy_emulator
