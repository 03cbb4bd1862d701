"""A scripted Capy that the connection ``capy_default`` leads to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capy.polling.registry import _REGISTRIES, Registry
from tests.unit.api.servers import Authority
from tests.unit.polling.scripted import ScriptedCapy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def capy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedCapy]:
    """One that speaks plain HTTP."""
    async with ScriptedCapy() as capy:
        monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy.connection())
        yield capy


@pytest.fixture
async def tls_capy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ScriptedCapy]:
    """One that speaks TLS."""
    authority = Authority(tmp_path)
    async with ScriptedCapy(authority.tls) as capy:
        monkeypatch.setenv("AIRFLOW_CONN_CAPY_DEFAULT", capy.connection(ca_file=authority.file))
        yield capy


@pytest.fixture
async def in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits look at the same time, so that pages show also the few."""
    monkeypatch.setitem(_REGISTRIES, asyncio.get_running_loop(), Registry(draw=lambda: 0.5))
