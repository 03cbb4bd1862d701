"""The pure decisions behind one shared poll."""

from __future__ import annotations

import pytest

from airflow_provider_capy.api.retry import RetryLimits
from airflow_provider_capy.exceptions import (
    CapyConnectError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyResponseError,
    CapyServerError,
)
from airflow_provider_capy.triggers.sweep import (
    Bank,
    CoolDown,
    Lane,
    Walk,
    is_everybodys,
    latest,
    pause_between_pages,
    slots,
)

LIMITS = RetryLimits(attempts=4, base=0.5, cap=8.0)


def middle() -> float:
    return 0.5


def test_a_look_comes_late_and_never_early() -> None:
    assert [latest(100.0, 30.0, draw) for draw in (lambda: 0.0, middle, lambda: 1.0)] == [100.0, 100.75, 101.5]


@pytest.mark.parametrize(
    ("backlog", "seconds", "interval", "expected"),
    [(1, 0.01, 30.0, 1), (0, 0.0, 30.0, 1), (1000, 0.01, 30.0, 4), (1000, 1.0, 30.0, 7), (10, 0.01, 0.0, 7)],
)
def test_connections_are_few_until_a_backlog_would_last(
    backlog: int, seconds: float, interval: float, expected: int
) -> None:
    assert slots(backlog, seconds, interval) == expected


def test_pages_are_spread_over_a_share_of_the_interval() -> None:
    assert (pause_between_pages(30.0, 100), pause_between_pages(30.0, 1)) == (pytest.approx(0.015), 0.25)


@pytest.mark.parametrize(("wanted", "expected"), [(0, False), (1, False), (2, False), (3, True)])
def test_one_or_two_threads_are_asked_for_singly(wanted: int, expected: bool) -> None:
    assert Lane().is_open(wanted, now=0.0) is expected


def test_a_list_that_did_not_pay_rests_longer_each_time() -> None:
    fruitless = Walk(wanted=50, due=50).took(0, 0, has_more=True)
    once = Lane().after(fruitless, members=50, interval=10.0, now=100.0)
    twice = once.after(fruitless, members=50, interval=10.0, now=200.0)
    assert (once.rests_until, twice.rests_until) == (120.0, 240.0)
    assert [once.is_open(50, 119.0), once.is_open(50, 120.0)] == [False, True]


def test_a_list_that_did_not_pay_for_some_rests_for_one_interval() -> None:
    fruitless = Walk(wanted=50, due=50).took(0, 0, has_more=True)
    assert Lane().after(fruitless, members=1000, interval=10.0, now=100.0) == Lane(0, 110.0, 50)


def test_many_more_threads_wake_a_resting_list() -> None:
    rests = Lane(fruitless=1, rests_until=1000.0, hoped=50)
    assert (rests.is_open(99, 0.0), rests.is_open(100, 0.0)) == (False, True)


def test_a_list_that_pays_is_walked_again_at_once() -> None:
    paid = Walk(wanted=50, due=50).took(50, 50, has_more=False)
    assert Lane(fruitless=3, rests_until=1e9, hoped=50).after(paid, 50, 10.0, 0.0) == Lane()


def test_a_walk_ends_when_everything_was_seen() -> None:
    assert not Walk(wanted=100, due=100).took(100, 100, has_more=True).goes_on([])


def test_a_walk_does_not_go_on_for_one_thread() -> None:
    assert not Walk(wanted=100, due=100).took(99, 99, has_more=True).goes_on([1])


def test_a_walk_ends_with_the_list() -> None:
    assert not Walk(wanted=200, due=200).took(100, 100, has_more=False).goes_on([])


def test_a_walk_goes_on_while_pages_show_what_is_wanted() -> None:
    assert Walk(wanted=200, due=200).took(100, 100, has_more=True).goes_on([])


def test_a_first_page_that_shows_nothing_ends_a_small_walk() -> None:
    assert not Walk(wanted=50, due=50).took(0, 0, has_more=True).goes_on([])


def test_nobody_due_cannot_pay_for_a_page() -> None:
    assert not Walk(wanted=50, due=0).goes_on([])


def test_saved_requests_pay_for_a_page() -> None:
    assert Walk(wanted=50, due=0, bank=1.0).goes_on([])


def test_a_walk_goes_on_through_a_gap_to_where_many_were_seen_last() -> None:
    walk = Walk(wanted=150, due=150).took(100, 100, has_more=True).took(0, 0, has_more=True)
    assert not walk.goes_on([50] * 10)
    assert walk.goes_on([4] * 10)


def test_pages_without_a_payer_are_a_deficit() -> None:
    walk = Walk(wanted=300, due=300, bank=0.5).took(0, 0, has_more=True).took(1, 0, has_more=True)
    assert walk.deficit == 2


def test_savings_are_bounded() -> None:
    bank = Bank()
    for _ in range(1000):
        bank = bank.saved(1.0, members=100)
    assert bank.balance == 10.0


def test_a_request_that_nobody_paid_for_is_drawn_from_the_savings() -> None:
    assert Bank(2.0).saved(-1.0, members=100).balance == 1.0


def test_a_cool_down_doubles_and_keeps_its_beginning() -> None:
    first = CoolDown().worse(CapyServerError("x"), LIMITS, 100.0, middle)
    second = first.worse(CapyServerError("x"), LIMITS, 101.0, middle)
    assert (first.until, second.until, second.since, second.failures) == (100.375, 101.75, 100.0, 2)


def test_a_cool_down_has_an_upper_bound() -> None:
    assert CoolDown(failures=10_000).worse(CapyServerError("x"), LIMITS, 0.0, lambda: 1.0).until == 8.0


def test_a_cool_down_lasts_at_least_as_long_as_capy_asks() -> None:
    error = CapyRateLimitError("x", status_code=429, retry_after=20.0)
    assert CoolDown().worse(error, LIMITS, 0.0, middle).until >= 20.0


@pytest.mark.parametrize(
    ("error", "streak", "expected"),
    [
        (CapyRateLimitError("429"), 1, True),
        (CapyConnectError("refused"), 1, True),
        (CapyServerError("503"), 2, False),
        (CapyServerError("503"), 3, True),
        (CapyNotFoundError("404"), 9, False),
        (CapyResponseError("no JSON"), 2, False),
        (CapyResponseError("no JSON"), 3, True),
    ],
)
def test_one_threads_failure_is_not_everybodys(error: Exception, streak: int, expected: bool) -> None:
    assert is_everybodys(error, streak) is expected
