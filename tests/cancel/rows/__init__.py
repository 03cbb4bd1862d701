"""The rows of the matrix: what happens to a run, and what the README promises of it for each way of waiting."""

from __future__ import annotations

from tests.cancel.rows import clicked, ended, outlived, people
from tests.cancel.rows.row import Row

__all__ = ["ROWS", "Row"]

ROWS: tuple[Row, ...] = (*people.ROWS, *ended.ROWS, *outlived.ROWS, *clicked.ROWS)
