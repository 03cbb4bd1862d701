"""What the trials came to, kept line by line, and the table that is made of it."""

from __future__ import annotations

import json
import os
import statistics
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cancel import acts
from tests.cancel.lab import WAYS
from tests.cancel.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.cancel.trial import Result

RESULTS = Path(os.environ.get("CANCEL_RESULTS", Path(__file__).parents[2] / ".airflow" / "cancel" / "results.jsonl"))
HEADS = {
    "op_worker": "operator, worker",
    "op_deferred": "operator, deferred",
    "sensor_poke": "sensor, poke",
    "sensor_reschedule": "sensor, reschedule",
    "sensor_deferred": "sensor, deferred",
    "group_poke": "capy_thread, worker",
    "group_deferred": "capy_thread, deferred",
}
COUNTS = {
    "orphan": "orphaned threads",
    "false_stop": "false stops",
    "green": "cancelled runs that ended green",
    "false_success": "false successes",
}


def record(result: Result) -> None:
    """Keep one result."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**asdict(result), "as_promised": result.as_promised}) + "\n")


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all that was kept."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the matrix as Markdown: a row that was not run says so."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        cells[result["row"], result["way"]].append(result)
    lines = [
        "| row | what happens | " + " | ".join(HEADS[way] for way in WAYS) + " |",
        "|" + "---|" * (len(WAYS) + 2),
    ]
    for row in ROWS:
        shown = [_cell(cells[row.key, way], way in row.promises) for way in WAYS]
        lines.append(f"| {row.key} | {row.title} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(results: Sequence[dict[str, Any]], applies: bool) -> str:
    if not applies:
        return "-"
    if not results:
        return "not run"
    kept = sum(result["as_promised"] for result in results)
    ends: dict[str, int] = defaultdict(int)
    for result in results:
        run = "" if result["promised"]["run"] == "*" else f", {result['run']}"
        ends["error" if result["error"] and result["fate"] == "?" else f"{result['fate']}{run}"] += 1
    words = "; ".join(end if len(ends) == 1 else f"{end} ({count})" for end, count in ends.items())
    if any(result["orphan"] for result in results):
        words += " (orphan)"
    return words + (f" {kept}/{len(results)}" if len(results) > 1 or kept < len(results) else "")


def counts(results: Sequence[dict[str, Any]]) -> str:
    """Return the four counts that have to be zero, for each kind of waiting."""
    kinds = {"lone operator": "op_", "lone sensor": "sensor_", "capy_thread()": "group_"}
    lines = [
        "| | trials | as promised | " + " | ".join(COUNTS.values()) + " |",
        "|" + "---|" * (len(COUNTS) + 3),
    ]
    for name, prefix in kinds.items():
        own = [result for result in results if result["way"].startswith(prefix)]
        numbers = [len(own), sum(result["as_promised"] for result in own)]
        numbers += [sum(bool(result[count]) for result in own) for count in COUNTS]
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def delays(results: Iterable[dict[str, Any]]) -> str:
    """Return how long it took from the act to the stop request, for each row and way that stopped."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    # Where time itself ends the wait, the delay would be that time.
    clicked = {row.key for row in ROWS if row.act is not acts.nothing}
    for result in results:
        if result["row"] in clicked and result["stop_after"] is not None and result["fate"] in {"stopped", "replaced"}:
            found[result["row"], result["way"]].append(result["stop_after"])
    lines = ["| row | way | stops | median | longest |", "|---|---|---|---|---|"]
    for (row, way), seconds in found.items():
        lines.append(
            f"| {row} | {HEADS[way]} | {len(seconds)} | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s |"
        )
    return "\n".join(lines)
