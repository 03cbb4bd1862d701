"""What many unit tests share."""

from __future__ import annotations

import pytest

from airflow_provider_capy import lifecycle


@pytest.fixture
def quick_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A no of Capy's own is believed after a second, for tests in real time."""
    monkeypatch.setattr(lifecycle, "STANDS_AFTER", 1.0)
    monkeypatch.setattr(lifecycle, "SOONEST_AGAIN", 0.2)
