"""Where an emulator is reached, and the Airflow connection that leads there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TOKEN = "capy_emulator"  # noqa: S105  # opens nothing but the emulator
"""The token the emulator takes until it is told another."""

PROJECT = "prj_demo"
"""The project of the connection the emulator offers; every other project works too."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared with, not bound to


@dataclass(frozen=True)
class Addresses:
    """The addresses of one emulator.

    Attributes:
        origin: Scheme, host and port, such as ``http://127.0.0.1:8010``.
        token: The token its API takes.
    """

    origin: str
    token: str = TOKEN

    @property
    def api_url(self) -> str:
        """The base URL of the API."""
        return f"{self.origin}/api"

    @property
    def page_url(self) -> str:
        """The page that shows the threads."""
        return f"{self.origin}/"

    def connection_json(self, **extra: Any) -> str:
        """Write the Airflow connection that leads here, as JSON.

        Args:
            **extra: Fields to set in the connection's extra, or to set differently.

        Returns:
            The value for ``AIRFLOW_CONN_CAPY_DEFAULT``.
        """
        template = f"{self.origin}/project/{{project_id}}/captain/{{thread_id}}"
        return json.dumps(
            {
                "conn_type": "capy",
                "host": self.api_url,
                "password": self.token,
                "extra": {"project_id": PROJECT, "web_url_template": template, **extra},
            }
        )


def origin_of(host: str, port: int) -> str:
    """Write the origin under which a bound host and port are reached from this machine."""
    reachable = _EVERYWHERE.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
