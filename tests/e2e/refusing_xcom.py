"""An XCom backend that refuses one key of one task, as a backend does that cannot reach its bucket."""

from __future__ import annotations

from typing import Any

from airflow.sdk.bases.xcom import BaseXCom

DAG = "strangers"


class RefusingXCom(BaseXCom):
    """Airflow's own, but for the tasks `refused_thread_id` and `refused_thread_url`, which lose that very key."""

    @staticmethod
    def serialize_value(value: Any, *, key: str | None = None, task_id: str | None = None, **about: Any) -> Any:
        if about.get("dag_id") == DAG and task_id == f"refused_{key}":
            raise ConnectionError("the bucket is away")
        return BaseXCom.serialize_value(value, key=key, task_id=task_id, **about)
