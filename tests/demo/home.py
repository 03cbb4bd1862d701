"""Finds the demo an Airflow home inside the project folder that no other demo is using."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Path(__file__).parents[2] / ".airflow"


@contextmanager
def own_home(place: Path = PLACE) -> Iterator[Path]:
    """Give an empty home: `demo`, or `demo-2`, `demo-3`, ... while others are in use.

    A run that the scheduler has made once is not made again, so every demo begins with an empty database. What the
    last one has logged stays until the next one begins.
    """
    place.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        home = place / ("demo" if number == 1 else f"demo-{number}")
        with home.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            yield home
            return
