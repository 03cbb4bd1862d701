"""The command behind `make demo` and `make airflow`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from airflow_provider_capy.exceptions import CapyError
from tests.demo.capy import NoConsentError, chosen_capy
from tests.demo.console import Console
from tests.demo.ending import end_what_is_left
from tests.demo.examples import EXAMPLES, POOL
from tests.demo.home import own_home
from tests.demo.scenes import Stage, play
from tests.demo.summary import tell
from tests.harness.airflow import LocalAirflow
from tests.harness.client import AirflowError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ALL_SEEN, NOT_ALL_SEEN, NO_CONSENT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo.

    Returns:
        0 when all that should be seen was seen, 1 when it was not, 2 when a real Capy was given without consent,
        130 after a Ctrl-C, 143 after a SIGTERM.
    """
    options = _parser().parse_args(arguments)
    console = Console()
    # A shell starts background jobs deaf to Ctrl-C, and SIGTERM would leave no time to clean up.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with own_home() as home, chosen_capy(home, agreed=options.yes_real, repo=options.repo) as capy:
            console.head(f"Airflow {version('apache-airflow')} and {'a real' if capy.costs else 'an emulated'} Capy")
            if capy.control is not None:
                console.line("capy", f"{capy.control.page_url} shows its threads; none of them costs anything", "good")
            else:
                console.line("capy", f"{capy.client.settings.base_url}, project {capy.project_id}: IT COSTS", "warn")
            console.line("airflow", f"starts on a fresh database in {home}")
            with LocalAirflow(home, EXAMPLES, env=capy.environment, ui=True) as airflow:
                console.line("airflow", f"{airflow.url} is up, without a login", "good")
                return _play(Stage(airflow, capy, console), home, stay=options.stay)
    except NoConsentError as refusal:
        console.write(str(refusal))
        return NO_CONSENT
    except (CapyError, AirflowError) as error:
        console.line("demo", str(error), "bad")
        return NOT_ALL_SEEN
    except KeyboardInterrupt:
        console.line("demo", "interrupted; nothing is left running", "warn")
        return INTERRUPTED


def _play(stage: Stage, home: Path, *, stay: bool) -> int:
    try:
        report = play(stage)
        tell(report, stage.console)
        if not report.complete:
            stage.console.write(f"The logs are in {home / 'logs'}.")
        if stay:
            _stay(stage)
        return ALL_SEEN if report.complete else NOT_ALL_SEEN
    finally:
        end_what_is_left(stage)


def _stay(stage: Stage) -> None:
    """Leave the UI to its user, until a Ctrl-C."""
    airflow, console = stage.airflow, stage.console
    airflow.request("POST", "/pools", json={"name": POOL, "slots": 2, "include_deferred": True})
    console.head("Airflow stays up until Ctrl-C")
    console.write(f"  {airflow.url}/dags  every example can be triggered, nobody has to log in")
    if stage.capy.control is not None:
        console.write(f"  {stage.capy.control.page_url}  the emulated Capy; a blocked thread is unblocked there")
    else:
        airflow.pause("dispatch_on_schedule")
        console.write(
            "  Every run that starts threads costs money. dispatch_on_schedule is paused: it starts none by itself."
        )
    try:
        while True:
            if dead := [name for name, component in airflow.components.items() if not component.running]:
                raise AirflowError(f"{', '.join(dead)} ended unexpectedly; the logs are in {airflow.home / 'logs'}")
            time.sleep(1)
    except KeyboardInterrupt:
        console.line("demo", "ends")


def _terminate(_signal: int, _frame: object) -> None:
    # Later ones would cut the cleaning up short.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make demo ARGS=",
        description="Show the provider at work: a real Airflow, an emulated Capy, three example DAGs.",
        allow_abbrev=False,
    )
    parser.add_argument("--stay", action="store_true", help="leave the UI up afterwards, until Ctrl-C")
    parser.add_argument(
        "--yes-real",
        action="store_true",
        help="agree to pay for threads in the real Capy that AIRFLOW_CONN_CAPY_DEFAULT leads to",
    )
    parser.add_argument(
        "--repo",
        metavar="OWNER/NAME[@BRANCH]",
        help="what a real Capy's threads work on; the branch is main by default",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
