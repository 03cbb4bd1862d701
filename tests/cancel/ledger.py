"""What the trials came to, kept line by line, and the tables that are made of it."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cancel import acts
from tests.cancel.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cancel.outcome import Result

RESULTS = Path(os.environ.get("CANCEL_RESULTS", Path(__file__).parents[2] / ".airflow" / "cancel" / "results.jsonl"))
# Where the ways of a kind differ, the cell says so; which one it was is in the results.
KINDS = {"lone operator": "op_", "lone sensor": "sensor_", "capy_thread()": "group_", "dispatching task": "dispatch"}
COUNTS = {
    "orphan": "orphaned threads",
    "false_stop": "false stops",
    "green": "cancelled runs that ended green",
    "false_success": "false successes",
    "false_failure": "false failures",
}


def record(result: Result) -> None:
    """Keep one result."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**asdict(result), "as_promised": result.as_promised}) + "\n")


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all that was kept."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def counts(results: Sequence[dict[str, Any]]) -> str:
    """Return the counts that have to be zero, for each kind of task."""
    lines = _head("", "trials", "as promised", *COUNTS.values())
    for name, prefix in KINDS.items():
        own = [result for result in results if result["way"].startswith(prefix)]
        numbers = [len(own), sum(result["as_promised"] for result in own)]
        lines.append(_line(name, *numbers, *(sum(bool(result[count]) for result in own) for count in COUNTS)))
    return "\n".join(lines)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the matrix as Markdown, one line a row: one that was not run says so."""
    own: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        own[result["row"]].append(result)
    lines = _head("row", "what happens", *KINDS, "asked to stop after: median, longest")
    for row in ROWS:
        cells = []
        for prefix in KINDS.values():
            applies = any(way.startswith(prefix) for way in row.promises)
            cells.append(_cell([result for result in own[row.key] if result["way"].startswith(prefix)], applies))
        # Where time itself ends the wait, the delay would be that time.
        times = _times(own[row.key]) if row.act is not acts.nothing else []
        delay = f"{statistics.median(times):.1f} s, {times[-1]:.1f} s" if times else "-"
        lines.append(_line(row.key, row.title, *cells, delay))
    return "\n".join(lines)


def _cell(results: Sequence[dict[str, Any]], applies: bool) -> str:
    if not results:
        return "not run" if applies else "-"
    ends = Counter(map(_end, results))
    words = "; ".join(end if len(ends) == 1 else f"{end} ({count})" for end, count in ends.most_common())
    kept = sum(result["as_promised"] for result in results)
    return f"{words} {kept}/{len(results)}"


def _end(result: dict[str, Any]) -> str:
    if result["error"] and result["fate"] == "?":
        return "error"
    run = "" if result["promised"]["run"] == "*" else f", {result['run']}"
    return f"{result['fate']}{run}{' (orphan)' if result['orphan'] else ''}"


def delays(results: Sequence[dict[str, Any]]) -> str:
    """Return how long it took from the click to the stop request, where that is what was timed."""
    lines = _head("row", "way", "stops", "shortest", "median", "95 %", "longest")
    for row in ROWS:
        for way in row.promises if row.median is not None else ():
            times = _times([result for result in results if (result["row"], result["way"]) == (row.key, way)])
            if times:
                most = times[min(len(times) - 1, int(0.95 * len(times)))]
                figures = (times[0], statistics.median(times), most, times[-1])
                lines.append(_line(row.key, way, len(times), *(f"{seconds:.2f} s" for seconds in figures)))
    return "\n".join(lines)


def _times(results: Sequence[dict[str, Any]]) -> list[float]:
    """Return the seconds from the act to the stop request, shortest first."""
    stops = [result for result in results if result["stop_after"] is not None]
    return sorted(result["stop_after"] for result in stops if result["fate"] in {"stopped", "replaced"})


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
