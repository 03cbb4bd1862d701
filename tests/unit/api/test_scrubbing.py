"""What must not be shown is taken out of what came from outside, in every spelling of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capy.api.scrubbing import scrubbed

SECRET = 'Rewrite the "billing" module\nand tell nobody'


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (SECRET, "***"),
        (f"a {SECRET} b {SECRET}", "a *** b ***"),
        (f"{SECRET[:30]}...", "***..."),
        (f"  {SECRET}\n", "  ***\n"),
        (json.dumps(SECRET), '"***"'),
        ("Rewrite the", "Rewrite the"),
        ("", ""),
        (5, 5),
        (None, None),
        ([{SECRET: (SECRET, 1.5, True)}], [{"***": ("***", 1.5, True)}]),
    ],
)
def test_echoes_are_hidden_wherever_they_stand(text, clean):
    assert scrubbed(text, (f"{SECRET}\n",)) == clean


def test_a_short_secret_is_hidden_where_it_stands_alone():
    assert scrubbed(["x", " x ", "xylophone", {"x": "y"}], ("x",)) == ["***", " *** ", "xylophone", {"***": "y"}]


def test_nothing_is_hidden_where_nothing_is_secret():
    assert scrubbed("some text", ("", "  ")) == "some text"


@given(st.text(min_size=8), st.text(), st.text())
def test_no_whole_echo_of_a_longer_secret_remains(secret, before, after):
    if len(secret.strip()) >= 8:
        assert secret not in scrubbed(f"{before}{secret}{after}", (secret,)).replace("***", "")
