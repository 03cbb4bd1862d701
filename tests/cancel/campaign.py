"""Drives the trials of one Airflow: side by side where they do not disturb each other, all at once where they must."""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.cancel.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cancel.lab import Lab
    from tests.cancel.outcome import Result
    from tests.cancel.rows import Row


class Campaign:
    """All trials of one lab; `result` waits for one of them."""

    def __init__(self, lab: Lab, cells: Sequence[tuple[Row, str, int]], record: Callable[[Result], None]) -> None:
        self._lab = lab
        self._record = record
        self._cells = list(cells)
        self._futures: dict[tuple[str, str, int], Future[Result]] = {
            (row.key, way, repetition): Future() for row, way, repetition in cells
        }
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="campaign", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def result(self, row: Row, way: str, repetition: int, timeout: float) -> Result:
        """Return what became of a trial."""
        return self._futures[row.key, way, repetition].result(timeout)

    def stop(self) -> None:
        """Begin no further trial, and wait for those under way."""
        self._stopping = True
        self._thread.join(300)

    def _run(self) -> None:
        try:
            alone = [cell for cell in self._cells if not cell[0].together]
            with ThreadPoolExecutor(self._lab.side_by_side) as pool:
                list(pool.map(self._one, alone))
            together: dict[tuple[str, int], list[tuple[Row, str, int]]] = {}
            for cell in self._cells:
                row, _, repetition = cell
                if row.together:
                    together.setdefault((row.key, (repetition - 1) // row.at_once), []).append(cell)
            for cells in together.values():
                self._all(cells)
        finally:
            for future in self._futures.values():
                if not future.done():
                    future.set_exception(RuntimeError("the campaign was ended before this trial"))

    def _one(self, cell: tuple[Row, str, int]) -> None:
        if self._stopping:
            return
        trial = Trial(self._lab, *cell)
        if self._attempt([trial], trial.prepare) and self._attempt([trial], trial.act):
            self._attempt([trial], trial.observe)
        self._finish(trial)

    def _all(self, cells: Sequence[tuple[Row, str, int]]) -> None:
        if self._stopping:
            return
        row = cells[0][0]
        trials = [Trial(self._lab, *cell) for cell in cells]
        with ThreadPoolExecutor(len(trials)) as pool:
            list(pool.map(lambda trial: self._attempt([trial], trial.prepare), trials))
            ready = [trial for trial in trials if not trial.result.error]
            for trial in ready:
                trial.begin()
            if ready:
                self._attempt(ready, lambda: row.act(ready))
            list(pool.map(lambda trial: trial.result.error or self._attempt([trial], trial.observe), ready))
            for trial in trials:
                self._finish(trial)

    @staticmethod
    def _attempt(trials: Sequence[Trial], step: Callable[[], Any]) -> bool:
        try:
            step()
        except Exception:  # noqa: BLE001 - whatever it was, it is what became of the trial
            for trial in trials:
                trial.result.error = traceback.format_exc(limit=-4)
            return False
        return True

    def _finish(self, trial: Trial) -> None:
        trial.clean_up()
        self._record(trial.result)
        self._futures[trial.row.key, trial.way, trial.result.repetition].set_result(trial.result)
