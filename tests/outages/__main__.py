"""The command ``python -m tests.outages``: the campaign, its table, and with ``--write`` its place in RELIABILITY.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.outages.campaign import KINDS, WAITS, Outcome, lab, try_kind

PAGE = Path(__file__).parents[2] / "RELIABILITY.md"
BEGIN, END = "<!-- outages -->", "<!-- /outages -->"


def main() -> int:
    """Run it; the exit code is how many kinds cost a wait, a thread or a try."""
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), help="which outages (all)")
    parser.add_argument("--minutes", nargs="*", type=float, default=[1.0, 5.0, 30.0], help="how long (1 5 30)")
    parser.add_argument("--speed", type=float, default=20.0, help="divides minutes, intervals, tolerance (%(default)s)")
    parser.add_argument("--waits", type=int, default=WAITS, help="deferred waits beside the other shapes (%(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the table in RELIABILITY.md")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="outages-") as home, lab(Path(home), options.speed) as place:
        for kind in options.kinds:
            found.append(try_kind(place, kind, options.minutes, options.waits))
            print("\n".join(rows(found[-1])), *found[-1].lost, sep="\n", flush=True)
    text = table(found, options.speed)
    print(f"\n{text}")
    if options.write:
        write(text)
    return sum(bool(outcome.lost) for outcome in found)


def table(found: list[Outcome], speed: float) -> str:
    """Return the result as Markdown."""
    return "\n".join(
        [
            (
                f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())} at speed {speed:g}: a minute lasted {60 / speed:g} s, "
                f"`poke_interval` and the connection's `timeout` were {30 / speed:g} s, and `tolerate_outage` {3600 / speed:g} s. "
                "The client's own retries and the growth of the pauses were those of real time."
            ),
            "",
            "| Capy | for | waits | requests in each third | log lines | went on and succeeded |",
            "|---|---|---|---|---|---|",
            *(row for outcome in found for row in rows(outcome)),
        ]
    )


def rows(outcome: Outcome) -> list[str]:
    """Return the lines of one kind."""
    kept = "all" if not outcome.lost else f"not: {'; '.join(outcome.lost[:3])}"
    return [
        f"| {outcome.kind} | {span.minutes:g} min | {outcome.waits} | {', '.join(map(str, span.requests))} "
        f"| {span.lines} | {kept} |"
        for span in outcome.spans
    ]


def write(text: str) -> None:
    """Put the table between its marks; they are added at the end of the page when there are none."""
    page = PAGE.read_text()
    if BEGIN not in page:
        page = f"{page.rstrip()}\n\n## Outages of Capy\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
