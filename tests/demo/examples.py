"""Where the examples are, and how an Airflow of ours runs them quickly."""

from __future__ import annotations

import os
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "example_dags"
POOL = "capy_threads"

_CONFIG = Path(__file__).parent / "config"


def quick_examples() -> dict[str, str]:
    """Return the environment in which Airflow finds the cluster policy that makes the examples quick."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(_CONFIG), os.environ.get("PYTHONPATH")]))}
