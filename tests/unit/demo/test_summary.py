"""The demo's exit code hangs on these few lines."""

from __future__ import annotations

from io import StringIO

from tests.demo.console import Console
from tests.demo.summary import Report, tell


def test_a_report_is_complete_when_all_of_it_was_seen() -> None:
    report = Report()
    report.expect("one", seen=True)
    report.expect("two", seen=True)
    assert report.complete is True


def test_one_thing_that_was_not_seen_spoils_it() -> None:
    report = Report()
    report.expect("one", seen=True)
    report.expect("two", seen=False)
    assert report.complete is False


def test_a_report_of_nothing_is_not_complete() -> None:
    assert Report().complete is False


def test_scenes_add_up() -> None:
    total, scene = Report(started=1, finished=1), Report(started=2, stopped=1)
    scene.expect("stopped", seen=False)
    total.add(scene)
    assert (total.started, total.finished, total.stopped, total.complete) == (3, 1, 1, False)


def test_the_summary_says_what_did_not_happen() -> None:
    report = Report(started=5, finished=4)
    report.expect("the deploy waited", seen=True)
    report.expect("the thread stopped", seen=False)
    stream = StringIO()
    tell(report, Console(stream))
    assert stream.getvalue() == (
        "\nWhat was seen\n"
        "   seen   the deploy waited\n"
        "NOT SEEN  the thread stopped\n"
        "\nThreads: 5 started, 4 finished, 0 stopped.\n"
        "1 of 2 did not happen.\n"
    )
