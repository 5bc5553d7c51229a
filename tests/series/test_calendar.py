"""Calendar features and seasons, against dates whose place in the year is known."""

import datetime as dt

import numpy as np
import pytest

from forecast.series.calendar import calendar_features, calendar_width, season_length

HOURLY = ["hour", "weekday", "day", "day_of_year"]


def features(time, frequency, **options):
    return calendar_features(np.array([time], "datetime64[us]"), frequency, **options)[0].tolist()


def test_a_leap_day_by_hand():
    # 2020-02-29 is a Saturday (5 of 0..6), the 29th (28 of 0..30), day 60 (59 of 0..365).
    hour, weekday, day, day_of_year = 13 / 23 - 0.5, 5 / 6 - 0.5, 28 / 30 - 0.5, 59 / 365 - 0.5
    time = "2020-02-29T13:45:30"
    assert features(time, "h") == pytest.approx([hour, weekday, day, day_of_year])
    assert features(time, "15min") == pytest.approx(
        [45 / 59 - 0.5, hour, weekday, day, day_of_year]
    )
    assert features(time, "s")[:2] == pytest.approx([30 / 59 - 0.5, 45 / 59 - 0.5])
    assert features(time, "D") == pytest.approx([weekday, day, day_of_year])
    # The Saturday lies in ISO week 9.
    assert features(time, "W") == pytest.approx([day, 8 / 52 - 0.5])
    assert features(time, "MS") == pytest.approx([1 / 11 - 0.5])
    assert features(time, "YS") == []
    # The public ETTm scripts take hourly marks for 15 minute rows.
    assert features(time, "15min", marks="hourly") == features(time, "h")
    assert features(time, "h", marks="daily") == features(time, "D")
    assert features(time, "h", marks="none") == []


def test_every_day_of_fifty_years_agrees_with_the_standard_library():
    days = np.arange("1968-12-20", "2019-01-10", dtype="datetime64[D]")
    found = calendar_features(days.astype("datetime64[us]"), "D")
    weeks = calendar_features(days.astype("datetime64[us]"), "W")[:, 1]
    for row, week, day in zip(found, weeks, days.astype(dt.date), strict=True):
        weekday, month_day, year_day = day.weekday(), day.day - 1, day.timetuple().tm_yday - 1
        assert row == pytest.approx(
            [weekday / 6 - 0.5, month_day / 30 - 0.5, year_day / 365 - 0.5], abs=1e-6
        )
        assert week == pytest.approx((day.isocalendar().week - 1) / 52 - 0.5, abs=1e-6)
    assert np.abs(found).max() == 0.5


def test_the_local_clock_counts():
    utc = np.array(["2020-03-29T00:30", "2020-03-29T01:30"], "datetime64[us]")
    # In Berlin the hour after half past one that night was half past three.
    local = np.array(["2020-03-29T01:30", "2020-03-29T03:30"], "datetime64[us]")
    there = calendar_features(utc, "h", timezone="Europe/Berlin")
    assert np.array_equal(there, calendar_features(local, "h"))
    assert there.dtype == np.float32
    shifted = calendar_features(utc, "h", timezone="-05:30")
    assert np.array_equal(shifted, calendar_features(utc - np.timedelta64(330, "m"), "h"))


@pytest.mark.parametrize(
    ("frequency", "width", "season"),
    [
        ("h", 4, 24),
        ("15min", 5, 96),
        ("30min", 5, 48),
        ("5min", 5, 288),
        ("min", 5, 1440),
        ("s", 6, 3600),
        ("6h", 4, 4),
        ("D", 3, 7),
        ("B", 3, 5),
        ("W-SUN", 2, 52),
        ("2W", 2, 26),
        ("MS", 1, 12),
        ("ME", 1, 12),
        ("QS", 1, 4),
        ("QE-DEC", 1, 4),
        ("YS", 0, 1),
    ],
)
def test_width_and_season_of_each_frequency(frequency, width, season):
    assert calendar_width(frequency) == width == len(features("2020-01-01", frequency))
    assert season_length(frequency) == season
