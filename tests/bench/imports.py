"""What importing the modules that a DAG names costs after ``airflow.sdk``, beside two peers: cold processes, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from itertools import product

OURS = "ours: operators, sensors, task groups, decorator, hook"
STATEMENTS = {
    OURS: "import airflow_provider_capy.operators.thread, airflow_provider_capy.sensors.thread, "
    "airflow_provider_capy.decorators.thread, airflow_provider_capy.task_groups, airflow_provider_capy.hooks.capy",
    "dbt Cloud: operators, sensors": "import airflow.providers.dbt.cloud.operators.dbt, airflow.providers.dbt.cloud.sensors.dbt",
    "HTTP: operators, sensors": "import airflow.providers.http.operators.http, airflow.providers.http.sensors.http",
}
CODE = """
import json, os, resource, sys
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
before = cpu()
import airflow.sdk
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator
sdk, modules = cpu(), set(sys.modules)
exec({statement!r})
print(json.dumps([sdk - before, cpu() - sdk, len(set(sys.modules) - modules)]))
"""


def measure(rounds: int) -> list[dict[str, object]]:
    """Return one line per statement, medians over the rounds; the first round only warms the disk up."""
    seen: dict[str, list[list[float]]] = {name: [] for name in STATEMENTS}
    for turn, (name, statement) in product(range(rounds + 1), STATEMENTS.items()):
        run = subprocess.run(
            [sys.executable, "-c", CODE.format(statement=statement)], capture_output=True, text=True, check=True,
            env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        )  # fmt: skip
        if turn:
            seen[name].append(json.loads(run.stdout.splitlines()[-1]))
    lines = []
    for name, samples in seen.items():
        sdk, own = (statistics.median(sample[place] for sample in samples) for place in (0, 1))
        share = statistics.median(sample[1] / sample[0] for sample in samples)
        lines.append(
            {"import": name, "sdk_ms": sdk * 1000, "ms": own * 1000, "share": share, "modules": int(samples[0][2])}
        )
    return lines


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
