"""Two demos at the same time must not wipe each other's Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.demo.home import own_home

if TYPE_CHECKING:
    from pathlib import Path


def test_demos_at_the_same_time_have_homes_of_their_own(tmp_path: Path) -> None:
    with own_home(tmp_path) as first, own_home(tmp_path) as second:
        assert (first.name, second.name) == ("demo", "demo-2")


def test_a_home_is_empty_again_for_the_next_demo(tmp_path: Path) -> None:
    with own_home(tmp_path) as home:
        (home / "airflow.db").touch()
    with own_home(tmp_path) as again:
        assert (again, list(again.iterdir())) == (home, [])
