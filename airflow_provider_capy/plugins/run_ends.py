"""Brings the listener of run ends along: whoever installs the provider has nothing to set up for it."""

from __future__ import annotations

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin


def _listeners() -> list[object]:
    if not conf.getboolean("capy", "stop_at_run_end", fallback=True):
        return []
    from airflow_provider_capy.listeners import run_ends

    return [run_ends]


class CapyPlugin(AirflowPlugin):
    """Registers :mod:`airflow_provider_capy.listeners.run_ends`, unless ``[capy] stop_at_run_end`` is off."""

    name = "capy"
    listeners = _listeners()
