"""Hooks whose connection is there without asking anybody: nothing answers at its address but a test's own transport."""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk import Connection

from airflow_provider_capy.hooks.capy import CapyHook
from tests.property.sky import PROJECT


class KnownHook(CapyHook):
    """A hook whose connection is there without asking anybody."""

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        extra = json.dumps({"project_id": PROJECT})
        return Connection(
            conn_id=conn_id, conn_type="capy", host="http://127.0.0.1:9/api", password="capy_token", extra=extra
        )

    @classmethod
    async def aget_connection(cls, conn_id: str) -> Any:
        return cls.get_connection(conn_id)


def new_hook() -> CapyHook:
    return KnownHook("capy_default")
