"""Steps as arithmetic, against pandas' own offsets."""

import numpy as np
import pandas as pd
import pytest

from forecast.errors import UsageError
from forecast.tables.frequency import Frequency, future_times, infer, past_times

ALIASES = [
    *["us", "100ms", "s", "min", "15min", "h", "6h", "D", "3D", "W-WED", "2W-SUN"],
    *["MS", "2MS", "QS-JAN", "QS-FEB", "QS-MAR", "2QS-JAN", "YS-JAN", "YS-JUL", "2YS-APR"],
    *["ME", "QE-DEC", "QE-JAN", "QE-FEB", "YE-DEC", "YE-JUN", "BMS", "BME", "B", "2B"],
]


@pytest.mark.parametrize("alias", ALIASES)
def test_future_times_are_those_of_pandas(alias):
    expected = pd.date_range("2019-11-20", periods=40, freq=alias, unit="us").to_numpy()
    found = future_times(expected[0], alias, 39)
    assert found.dtype == np.dtype("datetime64[us]")
    assert np.array_equal(found, expected[1:])
    assert np.array_equal(past_times(expected[-1], alias, 39), expected[:-1])


@pytest.mark.parametrize("alias", ALIASES)
def test_a_series_shows_its_own_frequency(alias):
    times = pd.date_range("1968-02-20", periods=50, freq=alias, unit="us").to_numpy()
    steps = np.diff(times).astype(np.int64)
    found = infer(times, steps)
    # Every second business day shows no day of the week that is never met.
    expected = {"2B": "2D"}.get(alias, alias)
    assert found == Frequency.parse(expected)
    if alias == expected:
        assert found.alias(times[0]) == alias
        assert pd.tseries.frequencies.to_offset(alias) is not None


def test_a_phase_is_kept():
    # Monthly on the 15th, every Wednesday though the alias says Sunday, hourly at seven past.
    month = future_times(np.datetime64("2020-01-15T06:00", "us"), "MS", 2)
    assert month.tolist() == [pd.Timestamp(f"2020-0{month}-15 06:00") for month in (2, 3)]
    week = future_times(np.datetime64("2020-01-01", "us"), "W-SUN", 1)
    assert week.tolist() == [pd.Timestamp("2020-01-08")]
    hour = future_times(np.datetime64("2020-01-01T00:07", "us"), "h", 1)
    assert hour.tolist() == [pd.Timestamp("2020-01-01 01:07")]


def test_days_are_those_of_the_local_clock():
    # Midnight in Berlin is 23:00 UTC in winter and 22:00 in summer; an hour is always an hour.
    last = np.datetime64("2020-03-27T23:00", "us")
    days = future_times(last, "D", 2, timezone="Europe/Berlin")
    assert days.tolist() == [pd.Timestamp("2020-03-28 23:00"), pd.Timestamp("2020-03-29 22:00")]
    hours = future_times(last, "h", 48, timezone="Europe/Berlin")
    assert hours[-1] == last + np.timedelta64(48, "h")
    # In 2018 midnight was skipped in Sao Paulo on 4 November; the day after begins as ever.
    last = np.datetime64("2018-11-03T03:00", "us")
    days = future_times(last, "D", 2, timezone="America/Sao_Paulo")
    assert days.tolist() == [pd.Timestamp("2018-11-04 03:00"), pd.Timestamp("2018-11-05 02:00")]


@pytest.mark.parametrize(("former", "now"), [("H", "h"), ("T", "min"), ("M", "ME"), ("60min", "h")])
def test_other_names_of_the_same_step(former, now):
    assert Frequency.parse(former) == Frequency.parse(now)


@pytest.mark.parametrize("alias", ["", "fortnight", "0h", "-1h", "W-FOO", "h-SUN", "999999999W"])
def test_what_is_no_frequency_is_refused(alias):
    with pytest.raises(UsageError, match="unknown"):
        Frequency.parse(alias)
