"""The command ``python -m tests.bench``: makes its environment, measures row by row, prints one table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-bench"
RESULTS = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PEERS = [
    "apache-airflow==3.3.2", "apache-airflow-providers-dbt-cloud==4.11.1", "apache-airflow-providers-databricks==7.23.0",
    "apache-airflow-providers-http==6.3.0", "uvloop", "psutil",
]  # fmt: skip
BURST = 1000
ROWS = ("capy", "capy_buried", "floor", "databricks", "dbt_cloud", "http_sensor")
# Seconds between polls; with a thousand waits most peers cannot keep up with one.
INTERVAL = {1000: 5.0, 5000: 5.0}
QUICK_SIZES, SIZES = (20, 200), (1, 20, 100, 1000, 5000)
# Peers need minutes to start so many, and tell nothing new.
TOO_MANY = {"dbt_cloud": 1000, "http_sensor": 1000, "databricks": 1000}


def python() -> str:
    """Return the benchmark's own interpreter, made when it is missing: no peer belongs into the project's environment."""
    made = VENV / ".installed"
    interpreter = VENV / "bin" / "python"
    if not made.exists():
        print(f"making {VENV.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", interpreter, "--editable", ROOT, *PEERS], check=True
        )
        made.touch()
    return str(interpreter)


@contextmanager
def stub(home: Path, interpreter: str, environment: dict[str, str]) -> Iterator[int]:
    """Run the HTTPS stub and give its port."""
    command = [interpreter, "-m", "tests.bench.stub", home / "cert.pem", home / "key.pem"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def certificate(home: Path) -> None:
    """Make a certificate for localhost."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
         home / "key.pem", "-out", home / "cert.pem", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


def measure(
    interpreter: str, environment: dict[str, str], port: int, row: str, n: int, options: Any
) -> dict[str, Any] | None:
    """Run one row in a process of its own."""
    interval = options.interval or INTERVAL.get(n, 1.0)
    arguments = [row, n, interval, options.intervals, options.over or max(10.0, interval), port]
    command = [interpreter, "-m", "tests.bench.worker", *map(str, arguments)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=options.patience
        )
    except subprocess.TimeoutExpired:
        return None
    if run.returncode:
        print(run.stderr[-2000:], file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


COLUMNS = {
    "waits": "{n}", "row": "{row}", "interval s": "{interval:g}", "requests": "{requests:.4f}", "TCP": "{connections_all}",
    "CPU ms": "{net_cpu_ms:.4f}", "core": "{core:.3f}", "RSS MB/1000": "{rss_mb_per_1000:.1f}", "started in s": "{start_s:.2f}",
    "lag p50": "{lag_p50:.1f}", "lag p99": "{lag_p99:.1f}", "lag max": "{lag_max:.0f}", "spread": "{spread:.1f}",
    "late p50": "{late_p50:.2f}", "late p99": "{late_p99:.2f}", "settled": "{settled:.3f}",
    "settle: CPU ms": "{settle_cpu_ms:.2f}", "settle: requests": "{settle_requests:.2f}",
}  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Return the one table, in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    blank = {"late_p50": float("nan"), "late_p99": float("nan"), "settled": float("nan"), "settle_cpu_ms": float("nan"),
             "settle_requests": float("nan"), "connections_all": 0}  # fmt: skip
    idle = {result["n"]: result["cpu_ms"] for result in results if result["row"] == "idle"}
    for result in results:
        shown = {
            **blank,
            **result,
            "net_cpu_ms": result["cpu_ms"] - idle.get(result["n"], 0.0) * (result["row"] != "idle"),
        }
        lines.append("| " + " | ".join(form.format(**shown) for form in COLUMNS.values()) + " |")
    return "\n".join(lines)


def burst_line(result: dict[str, Any]) -> str:
    """Return a list item about a burst."""
    return (
        "* {row}: {settle_cpu_ms:.2f} ms CPU and {settle_requests:.2f} requests a thread, all told after {drain_s:.1f} s, "
        "{connections_all} TCP connections in all".format(**result)
    )


EXPLAINED = """\
Requests and CPU (user + system, of the triggerer process only, less what idle triggers and the measuring cost) are per wait and interval;
TCP is connections in all; lag is how late the event loop is, in ms, from the start to the end of the steady phase; late is the time from the
moment the server's state turned to the event, in intervals; spread is the busiest twentieth of an interval against the mean (1 is even).
"settle" is what a wait costs while all end, evenly over ten seconds. capy_buried: 100,000 threads of others stand before ours in every list.
"""


def machine() -> str:
    """Return a description of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def main() -> int:
    """Measure."""
    options = _options()
    interpreter = python()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        certificate(home)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COVERAGE"))
        }
        environment |= {"AIRFLOW_HOME": str(home), "SSL_CERT_FILE": str(home / "cert.pem"), "NO_PROXY": "localhost",
                        "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}  # fmt: skip
        report = [f"Measured {time.strftime('%Y-%m-%d')} on {machine()}, load {os.getloadavg()[0]:.1f} before.", ""]
        if not options.no_imports:
            lines = subprocess.run(
                [interpreter, "-m", "tests.bench.imports", str(options.rounds)], capture_output=True, text=True, cwd=ROOT,
                env=environment, check=True,
            ).stdout  # fmt: skip
            report += ["| import after airflow.sdk | modules | CPU ms | of the SDK's own |", "|---|---|---|---|"]
            report += [
                f"| {line['import']} | {line['modules']} | {line['ms']:.1f} | {line['share']:.2%} |"
                for line in json.loads(lines.splitlines()[-1])
            ]
            report.append("")
        results: list[dict[str, Any]] = []
        bursts: list[dict[str, Any]] = []
        with stub(home, interpreter, environment) as port:
            for n in options.sizes:
                for row in ("idle", *options.rows):
                    if n > TOO_MANY.get(row, n) and not options.everything:
                        continue
                    print(f"{row} x {n} ...", file=sys.stderr, flush=True)
                    result = measure(interpreter, environment, port, row, n, options)
                    if result is not None and n == BURST and row != "idle" and options.over is None:
                        burst = argparse.Namespace(**{**vars(options), "over": 1.0, "intervals": 1.0})
                        if (crowd := measure(interpreter, environment, port, row, n, burst)) is not None:
                            bursts.append(crowd)
                    if result is None:
                        report.append(f"{row} x {n}: not finished within {options.patience:.0f} s")
                    else:
                        results.append(result)
                        print(json.dumps(result), file=sys.stderr, flush=True)
        report += [EXPLAINED, table(results), ""]
        if bursts:
            report += [f"When all {BURST} settle within one second:", "", *map(burst_line, bursts), ""]
    print("\n".join(report))
    if options.write:
        before, rest = RESULTS.read_text().split(BEGIN)
        _, after = rest.split(END)
        RESULTS.write_text(f"{before}{BEGIN}\n" + "\n".join(report) + f"{END}{after}")
    return 0


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute or two instead of a quarter of an hour")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"numbers of waits (default {SIZES})")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--interval", type=float, help="seconds between polls (default 1, from 1000 waits on 5)")
    parser.add_argument("--intervals", type=float, default=0.0, help="how many intervals are measured (default 10)")
    parser.add_argument("--over", type=float, help="seconds within which all settle (default ten)")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds for one row")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of imports (default 5)")
    parser.add_argument("--no-imports", action="store_true")
    parser.add_argument("--everything", action="store_true", help="also the peers with more waits than they can take")
    parser.add_argument("--write", action="store_true", help="keep the results in tests/bench/RESULTS.md")
    options = parser.parse_args()
    if shutil.which("openssl") is None:
        parser.error("openssl is needed for the stub's certificate")
    options.sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    options.intervals = options.intervals or (3.0 if options.quick else 10.0)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


if __name__ == "__main__":
    sys.exit(main())
