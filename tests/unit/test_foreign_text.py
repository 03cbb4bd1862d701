"""What comes from outside is taken by every database, message and log behind the gate."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy.foreign_text import DEEPEST, LARGEST_NUMBER, MOST_ITEMS, MOST_VALUES, clean_json, clean_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Fix \0 byte", "Fix \ufffd byte"),
        ("half \ud83d of one", "half \ufffd of one"),
        ("two \ud83d\ude00 halves", "two 😀 halves"),
        ("\x1b[31mred\x9b", "\ufffd[31mred\ufffd"),
        ("a line\nand\ta tab\r\n", "a line\nand\ta tab\r\n"),
        ("Ünïcödé 漢字", "Ünïcödé 漢字"),
    ],
)
def test_refused_characters_are_replaced(text, clean):
    assert clean_text(text) == clean


def test_a_long_text_is_cut():
    assert clean_text("x" * 3_000_000, 10) == "x" * 9 + "…"
    assert clean_text("x" * 10, 10) == "x" * 10


def test_numbers_that_not_every_reader_takes_are_left_out():
    odd = [2**64, -(2**64), 10**400, float("nan"), float("inf"), 1e300, LARGEST_NUMBER, 1.5, True]
    assert clean_json(odd) == [None, None, None, None, None, None, LARGEST_NUMBER, 1.5, True]


def test_too_much_is_left_out():
    deep = None
    for _ in range(5000):
        deep = [deep]
    assert len(clean_json(list(range(2000)))) == MOST_ITEMS
    assert json.dumps(clean_json(deep)).count("[") == DEEPEST
    assert json.dumps(clean_json([[[1] * 100] * 100] * 100)).count("1") < MOST_VALUES


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=[])), inner),
)


@given(ANY)
def test_whatever_it_is_strict_json_and_utf_8_take_it(value):
    text = json.dumps(clean_json(value), allow_nan=False, ensure_ascii=False)
    assert "\0" not in text.encode().decode()
    assert "\\u0000" not in text
