"""One seed for all of a run, told at its beginning when these tests are what is asked for."""

from __future__ import annotations

import os
import random


def pytest_configure() -> None:
    """Draw it, unless it is given."""
    os.environ.setdefault("CAPY_SEED", str(random.SystemRandom().randrange(10**9)))


def pytest_report_header() -> str:
    """Tell how the same run is had again."""
    return f"the same again: CAPY_SEED={os.environ['CAPY_SEED']}"
