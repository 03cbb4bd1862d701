"""The options of the matrix, and its Airflows: one of each kind for all the trials that it can take."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.cancel import ledger
from tests.cancel.campaign import Campaign
from tests.cancel.lab import PLANS, lab
from tests.cancel.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cancel.outcome import Result
    from tests.cancel.rows import Row


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repetitions", type=int, default=1, help="how often each racy row is tried")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "selection: part of what a change has to pass, at most six minutes in all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    repetitions = metafunc.config.getoption("--repetitions")
    cells = [
        pytest.param(
            row,
            way,
            repetition,
            id=f"{row.lab}-{row.key}-{way}-{repetition}",
            marks=[pytest.mark.selection] if way in row.selection else [],
        )
        for row in sorted(ROWS, key=lambda row: (list(PLANS).index(row.lab), row.together))
        for repetition in range(1, (min(repetitions, row.at_most) if row.racy else 1) + 1)
        for way in row.promises
    ]
    metafunc.parametrize(("row", "way", "repetition"), cells)


class Campaigns:
    """One campaign at a time: two Airflows would only slow each other down."""

    def __init__(self, items: list[pytest.Item], homes: Callable[[str], Any]) -> None:
        self._homes = homes
        self._cells: dict[str, list[tuple[Row, str, int]]] = {}
        self._now: tuple[str, Campaign] | None = None
        self.results: list[Result] = []
        self._stack = ExitStack()
        for item in items:
            params = getattr(getattr(item, "callspec", None), "params", {})
            if "row" in params:
                cells = self._cells.setdefault(params["row"].lab, [])
                cells.append((params["row"], params["way"], params["repetition"]))

    def result(self, row: Row, way: str, repetition: int, timeout: float) -> Result:
        """Return what became of a trial; its lab's first one starts the lab."""
        if self._now is None or self._now[0] != row.lab:
            self.close()
            cells = self._cells[row.lab]
            dag_ids = {row.dag(way) for row, way, _ in cells}
            own_lab = self._stack.enter_context(lab(row.lab, self._homes(row.lab), dag_ids))
            campaign = Campaign(own_lab, cells, self._record)
            campaign.start()
            self._stack.callback(campaign.stop)
            self._now = (row.lab, campaign)
        return self._now[1].result(row, way, repetition, timeout)

    def _record(self, result: Result) -> None:
        self.results.append(result)
        ledger.record(result)

    def close(self) -> None:
        """End the lab that runs."""
        self._stack.close()
        self._now = None


@pytest.fixture(scope="session")
def campaigns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaigns]:
    found = Campaigns(request.session.items, tmp_path_factory.mktemp)
    yield found
    found.close()
