"""Clicks in Airflow's own UI, in a headless Chromium: what a user does, and when."""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.harness.services import program

if TYPE_CHECKING:
    from tests.cancel.trial import Trial

# Chromium as root, and without its own calls to the network.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 180_000.0
_mine = threading.local()


def _page() -> Any:
    # One for each thread that clicks: Playwright's objects cannot be shared between threads.
    page = getattr(_mine, "page", None)
    if page is None:
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright().start()
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=list(FLAGS))
        _mine.page = page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        atexit.register(_close, browser)
    return page


def _close(browser: Any) -> None:
    # The thread that started it is gone by now; its processes end with their pipe.
    with suppress(Exception):
        browser.close()


def mark_run_failed(trial: Trial) -> None:
    """Open the run's page, choose "Mark run as failed" and confirm; the clock begins with the last click."""
    page = _page()
    page.goto(f"{trial.airflow.url}/dags/{trial.dag_id}/runs/{quote(trial.run_id)}")
    page.get_by_test_id("mark-run-as-button").click()
    page.get_by_test_id("mark-run-as-failed").click()
    confirm = page.get_by_test_id("mark-run-as-confirm")
    confirm.wait_for()
    trial.begin()
    confirm.click()
    page.wait_for_timeout(500)
