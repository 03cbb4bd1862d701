"""The triggers that are compared, each as its users would make it, and the floor: a bare loop that lists and decodes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def environment(port: int) -> dict[str, str]:
    """The connections, as environment variables."""
    host = f"localhost:{port}"
    made = {
        "CAPY_DEFAULT": {"conn_type": "capy", "host": f"https://{host}/api", "password": "t"},
        "DBT": {"conn_type": "dbt_cloud", "host": host, "login": "1", "password": "t"},
        "DATABRICKS": {"conn_type": "databricks", "host": "localhost", "port": port, "login": "token", "password": "t"},
        "HTTP": {"conn_type": "http", "host": f"https://{host}", "schema": "https"},
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in made.items()}


def capy(interval: float) -> Callable[[int], Any]:
    from airflow_provider_capy.triggers.thread import CapyThreadTrigger

    return lambda n: CapyThreadTrigger(thread_id=f"jam_{n}", project_id="prj_bench", poll_interval=interval)


# How many threads of others stand before ours in every list: the worst that can happen to whoever reads pages.
OTHERS = {"capy_buried": 100_000}


def dbt_cloud(interval: float) -> Callable[[int], Any]:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    return lambda n: DbtCloudRunJobTrigger("dbt", n, time.time() + 86400, interval, 1)


def databricks(interval: float) -> Callable[[int], Any]:
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    return lambda n: DatabricksExecutionTrigger(n, "databricks", polling_period_seconds=interval)  # type: ignore[arg-type]


def http_sensor(interval: float) -> Callable[[int], Any]:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    return lambda n: HttpSensorTrigger(endpoint=f"/jobs-of-mine/{n}", http_conn_id="http", poke_interval=interval)


def idle(interval: float) -> Callable[[int], Any]:
    """What the runner itself costs: triggers that only sleep."""
    return lambda _: _sleeper()(interval)


def floor(interval: float) -> Callable[[int], Any]:
    """A bare loop that lists and decodes, for triggers that wait for one future each."""
    return lambda n: _listed()(n, interval)


def _sleeper() -> Any:
    from airflow.triggers.base import BaseTrigger

    class Sleeper(BaseTrigger):
        def __init__(self, interval: float) -> None:
            super().__init__()
            self.interval = interval

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "tests.bench.rows.Sleeper", {}

        async def run(self) -> AsyncIterator[Any]:
            while not STOP.is_set():  # noqa: ASYNC110 - this is what it is for: sleeping
                await asyncio.sleep(self.interval)
            if False:
                yield

    return Sleeper


STOP = asyncio.Event()
_waiting: dict[str, asyncio.Future[None]] = {}
_loops: list[asyncio.Task[None]] = []


def _listed() -> Any:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    class Listed(BaseTrigger):
        def __init__(self, number: int, interval: float) -> None:
            super().__init__()
            self.number, self.interval = number, interval

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "tests.bench.rows.Listed", {}

        async def run(self) -> AsyncIterator[Any]:
            if not _loops:
                _loops.append(asyncio.ensure_future(_list(self.interval)))
            _waiting[f"jam_{self.number}"] = future = asyncio.get_running_loop().create_future()
            await future
            yield TriggerEvent({"outcome": "ready"})

    return Listed


async def _list(interval: float) -> None:
    import os

    import httpx
    from pydantic import TypeAdapter

    from airflow_provider_capy.api.glances import GlancePage

    adapter = TypeAdapter(GlancePage)
    base = json.loads(os.environ["AIRFLOW_CONN_CAPY_DEFAULT"])["host"]
    async with httpx.AsyncClient(base_url=base, limits=httpx.Limits(keepalive_expiry=600)) as client:
        while True:
            began = time.monotonic()
            cursor = ""
            while True:
                params = {"projectId": "prj_bench", "limit": 100} | ({"cursor": cursor} if cursor else {})
                page = adapter.validate_json((await client.get("/v1/threads", params=params)).content)
                for item in page["items"]:
                    settled = item is not None and item["runState"] == "ready"
                    if settled and (future := _waiting.pop(item["id"], None)) is not None:
                        future.set_result(None)
                cursor = page.get("nextCursor") or ""
                if not page.get("hasMore"):
                    break
            await asyncio.sleep(max(began + interval - time.monotonic(), 0.0))


ROWS = {
    "capy": capy,
    "capy_buried": capy,
    "dbt_cloud": dbt_cloud,
    "databricks": databricks,
    "http_sensor": http_sensor,
    "floor": floor,
    "idle": idle,
}
