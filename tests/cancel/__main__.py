"""`python -m tests.cancel`: run the matrix, print its table and counts, and keep them in RELIABILITY.md if asked to."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.cancel import ledger

MATRIX = Path(__file__).with_name("matrix.py")
REPORT = Path(__file__).parents[2] / "RELIABILITY.md"
BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.cancel", description=__doc__)
    parser.add_argument("--selection", action="store_true", help="what a change has to pass: at most six minutes")
    parser.add_argument("--repetitions", type=int, default=20, help="how often each racy row is tried (20)")
    parser.add_argument("--only", default="", help="a pytest -k expression, e.g. '5c or 11a'")
    parser.add_argument(
        "--keep", action="store_true", help="add to the results of earlier runs instead of replacing them"
    )
    parser.add_argument("--show", action="store_true", help="run nothing, print what earlier runs came to")
    parser.add_argument("--write", action="store_true", help=f"put the result into {REPORT.name}")
    options = parser.parse_args()
    code = 0
    if not options.show:
        if not options.keep:
            ledger.RESULTS.unlink(missing_ok=True)
        repetitions = 1 if options.selection else options.repetitions
        # A process of its own: pytest warns of modules that were imported before it could rewrite them.
        arguments = [
            sys.executable,
            "-m",
            "pytest",
            str(MATRIX),
            "-p",
            "no:cacheprovider",
            "--tb=short",
            f"--repetitions={repetitions}",
        ]
        arguments += ["-m", "selection"] if options.selection else []
        arguments += ["-k", options.only] if options.only else []
        began = time.monotonic()
        code = subprocess.run(arguments, cwd=REPORT.parent, check=False).returncode
        print(f"\n{(time.monotonic() - began) / 60:.1f} minutes\n")
    results = ledger.read()
    text = "\n\n".join([ledger.counts(results), ledger.table(results), ledger.delays(results)])
    print(text)
    if options.write:
        before, rest = REPORT.read_text().split(BEGIN)
        _, after = rest.split(END)
        REPORT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return code


if __name__ == "__main__":
    sys.exit(main())
