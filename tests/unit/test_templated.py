"""A duration is read in every spelling that users template, and no other."""

from datetime import timedelta

import pytest

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.templated import as_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("5", 5.0), (" 2.5 ", 2.5), (timedelta(minutes=1), 60.0), (timedelta.max, 86399999999999.999999)],
)  # fmt: skip
def test_a_duration_is_read(value, seconds):
    assert as_seconds("timeout", value, least=0.5) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *(0.4, -1, "0.4", "soon", "", "nan", "inf", float("nan"), float("inf"), True, None, [5], {"seconds": 5}),
        *(10**400, timedelta(seconds=-1), timedelta(0), b"soon"),
    ],
)
def test_what_is_none_is_refused_by_name_and_value(value):
    with pytest.raises(CapyInputError) as caught:
        as_seconds("poke_interval", value, least=0.5)
    assert str(caught.value) == f"poke_interval: {value!r} is not a number of seconds of at least 0.5, nor a timedelta"
