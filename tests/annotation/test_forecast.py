"""The forecast of the work: its date, its range, and when there is none."""

import random
import statistics
from datetime import date, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.forecast import FARTHEST_DAYS, forecast

TODAY = date(2026, 11, 25)


def days(*judgments: int, end: date = TODAY - timedelta(days=1)) -> dict[date, int]:
    """One figure a day, the last of them on `end`."""
    return {end - timedelta(days=back): number for back, number in enumerate(reversed(judgments))}


def test_what_remains_is_divided_by_the_mean_of_the_last_seven_days():
    found = forecast(remaining=100, per_day=days(900, 10, 30, 20, 20, 20, 20, 20), today=TODAY)
    assert (found.per_day, found.days) == (20.0, 7)
    assert found.on == TODAY + timedelta(days=5)
    assert found.earliest <= found.on <= found.latest
    assert found.why_not == ""


def test_today_is_not_over_and_does_not_count():
    per_day = days(20, 20, 20) | {TODAY: 1}
    assert forecast(remaining=100, per_day=per_day, today=TODAY).per_day == 20.0


def test_days_off_are_expected_again():
    """Three days of work in six: 60 judgments at 20 a day are three days of work, and six days on the calendar."""
    worked = forecast(remaining=60, per_day=days(20, 0, 20, 0, 20, 0), today=TODAY)
    assert (worked.per_day, worked.days) == (20.0, 3)
    assert worked.on == TODAY + timedelta(days=6)


def test_an_even_pace_leaves_no_range_and_an_uneven_one_a_wide_one():
    even = forecast(remaining=700, per_day=days(*[10] * 7), today=TODAY)
    assert even.earliest == even.on == even.latest == TODAY + timedelta(days=70)
    uneven = forecast(remaining=700, per_day=days(1, 1, 1, 1, 1, 1, 64), today=TODAY)
    assert uneven.on == even.on
    assert (uneven.latest - uneven.earliest).days > 100


def test_the_range_is_that_of_a_slow_plain_twin():
    judgments = [12, 30, 25, 8, 40, 22, 17]
    rng = random.Random(3)
    means = [statistics.mean(rng.choice(judgments) for _ in judgments) for _ in range(4000)]
    cuts = statistics.quantiles(means, n=20, method="inclusive")
    found = forecast(remaining=2200, per_day=days(*judgments), today=TODAY, resamples=4000)
    assert abs((found.earliest - TODAY).days - ceil(2200 / cuts[-1])) <= 2
    assert abs((found.latest - TODAY).days - ceil(2200 / cuts[0])) <= 4


@pytest.mark.parametrize("judgments", [(), (5,), (5, 0, 5)])
def test_too_few_days_give_no_forecast_and_say_so(judgments):
    found = forecast(remaining=10, per_day=days(*judgments), today=TODAY)
    assert (found.on, found.earliest, found.latest, found.per_day) == (None, None, None, None)
    assert found.why_not.startswith("No forecast yet: it takes 3 full days with judgments")


def test_nothing_left_needs_no_forecast():
    found = forecast(remaining=0, per_day=days(5, 5, 5), today=TODAY)
    assert (found.on, found.why_not) == (None, "Nothing is left to judge.")


def test_a_date_too_far_away_is_not_told():
    found = forecast(remaining=10**9, per_day=days(1, 1, 1), today=TODAY)
    assert found.on is None
    assert "more than ten years" in found.why_not


@given(
    st.integers(1, 10**7),
    st.dictionaries(st.integers(1, 400), st.integers(0, 5000), max_size=30),
)
def test_a_forecast_is_a_date_within_its_range_or_says_why_not(remaining, per_day):
    found = forecast(
        remaining=remaining,
        per_day={TODAY - timedelta(days=back): number for back, number in per_day.items()},
        today=TODAY,
        resamples=200,
    )
    assert (found.on is None) == bool(found.why_not)
    if found.on is not None:
        assert TODAY < found.earliest <= found.latest <= TODAY + timedelta(days=FARTHEST_DAYS)
        assert TODAY < found.on <= TODAY + timedelta(days=FARTHEST_DAYS)
