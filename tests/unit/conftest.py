"""What many unit tests share."""

from __future__ import annotations

import pytest

from airflow_provider_capy import stopping, waiting


@pytest.fixture
def quick_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A no of Capy's own is believed after a second, for tests in real time."""
    for module in (waiting, stopping):
        monkeypatch.setattr(module, "STANDS_AFTER", 1.0)
