"""What is pleasant in a terminal must not litter the log of a CI."""

from __future__ import annotations

import re
from io import StringIO

import pytest

from tests.demo.console import Console


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def _written(stream: StringIO) -> str:
    Console(stream).line("task", "deploy is success", "good")
    return stream.getvalue()


def test_a_log_gets_plain_lines() -> None:
    assert re.fullmatch(r"   0\.0 s  task     deploy is success\n", _written(StringIO()))


def test_a_terminal_gets_colours() -> None:
    assert "\033[32mdeploy is success\033[0m" in _written(Terminal())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_none_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert "\033" not in _written(Terminal())
