"""Holidays by region, by the local clock."""

from __future__ import annotations

import numpy as np
import pytest

from forecast.errors import UsageError
from forecast.series.holidays import check_region, holiday_indicator


def days(first, count):
    return np.datetime64(first) + np.arange(count) * np.timedelta64(1, "D")


def test_a_subdivision_has_holidays_that_its_country_has_not():
    # 1 January everywhere, 6 January (Epiphany) in Bavaria alone
    times = days("2023-01-01", 8)
    assert np.flatnonzero(holiday_indicator(times, "DE")).tolist() == [0]
    assert np.flatnonzero(holiday_indicator(times, "DE-BY")).tolist() == [0, 5]
    assert holiday_indicator(times, "DE").dtype == np.float32


def test_a_holiday_begins_at_the_local_midnight():
    # 1 May 2024 in Berlin lasts from 22:00 UTC the day before to 22:00 UTC
    hours = np.datetime64("2024-04-30T20") + np.arange(28) * np.timedelta64(1, "h")
    found = np.flatnonzero(holiday_indicator(hours, "DE", "Europe/Berlin"))
    assert (found[0], found[-1], len(found)) == (2, 25, 24)
    assert np.flatnonzero(holiday_indicator(hours, "DE"))[0] == 4


def test_years_are_taken_as_far_as_the_rows_go():
    times = np.array(["1999-12-25", "2031-12-25"], "datetime64[D]")
    assert holiday_indicator(times, "US").tolist() == [1, 1]
    assert len(holiday_indicator(times[:0], "US")) == 0


@pytest.mark.parametrize("text", ["DE", "DEU", "Germany", "germany"])
def test_a_country_goes_by_its_name_and_its_codes(text):
    assert check_region(text) == ("DE", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Germny", r"no country 'Germny'.*Did you mean 'Germany'"),
        ("DE-BX", r"DE has no subdivision 'BX'.*Did you mean"),
        ("", r"no country ''"),
    ],
)
def test_an_unknown_region_is_refused_with_the_nearest(text, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        check_region(text)
