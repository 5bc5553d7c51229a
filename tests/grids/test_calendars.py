"""Calendars of climate models: no gap at the end of February, months that follow, dates kept."""

from __future__ import annotations

from datetime import timedelta

import cftime
import numpy as np
import polars as pl
import pytest
import torch
import xarray as xr

import forecast
from forecast import artefact, recipe
from forecast.errors import DataError, UsageError
from forecast.grids import predict
from forecast.grids.calendars import STANDARD, from_cftime, instant_of, text_of
from forecast.grids.context import read_context
from forecast.grids.data import load
from forecast.grids.section import GridSection
from forecast.runs import run


def write(path, calendar, *, days=900, start="2019-12-01", freq="D"):
    times = xr.date_range(start, periods=days, freq=freq, calendar=calendar, use_cftime=True)
    number = np.arange(days, dtype=np.float32)
    values = np.broadcast_to(number[:, None, None], (days, 3, 4)).copy()
    xr.Dataset(
        {"tas": (("time", "lat", "lon"), values, {"units": "K"})},
        {"time": times, "lat": [0.0, 1, 2], "lon": [0.0, 1, 2, 3]},
    ).to_netcdf(path, engine="h5netcdf")
    return path, times


@pytest.mark.parametrize(
    ("calendar", "length"), [("noleap", 365), ("360_day", 360), ("all_leap", 366)]
)
def test_days_of_another_calendar_have_no_gap_and_years_have_their_length(
    tmp_path, calendar, length
):
    path, times = write(tmp_path / "a.nc", calendar)
    section = GridSection(source=str(path), split=("2021", "2021-07"), references=("day-of-year",))
    data = load(section, lookback=4, horizon=4)
    assert data.grid.clock.frequency == "D"
    assert len(np.unique(data.grid.runs)) == 1
    # validation begins with the year: December and a year of the calendar's length come before it
    december = 31 if calendar != "360_day" else 30
    assert data.borders[0] == december + length
    assert str(times[data.borders[0]])[:10] == "2021-01-01"
    # no weekday: sine and cosine of the year alone
    assert data.spec.calendar == 2
    batch = data.windows("train").batch(torch.tensor([60]))
    # a day has one slot in each year
    origin = int(data.windows("train").origins[60])
    slots = data.frames.references[0].slots
    assert int(slots[origin]) == times[origin].dayofyr - 1
    assert batch.references.isfinite().all()


def test_months_of_a_year_without_leap_days_follow_each_other(tmp_path):
    path, times = write(tmp_path / "a.nc", "noleap", days=60, freq="MS")
    data = load(GridSection(source=str(path)), lookback=12, horizon=1)
    assert data.grid.clock.frequency == "MS"
    assert data.spec.references == ("year", "month-of-year")
    after = data.grid.clock.after(data.grid.times[-1], 3)
    found = [text_of(one, "noleap")[:10] for one in after]
    assert found == ["2024-12-01", "2025-01-01", "2025-02-01"]
    assert str(times[-1])[:10] == "2024-11-01"


def test_a_forecast_is_in_the_calendar_of_the_file_and_is_read_again(tmp_path):
    path, times = write(tmp_path / "a.nc", "360_day", days=120, start="2020-10-29")
    resolved = recipe.load(path, model="grid-rule", lookback=4, horizon=3)
    trained = run.train(resolved)
    made = forecast.predict(trained.artefact, path)
    assert made.time.values[0] == times[-1] + timedelta(days=1)
    # 120 days of months of 30 days: four months on, and then the last of February
    assert [str(one)[:10] for one in made.time.values] == ["2021-02-29", "2021-02-30", "2021-03-01"]
    assert made.lead_time.values.tolist() == [24, 48, 72]
    target = tmp_path / "f.nc"
    predicted = predict.predict(artefact.load(trained.artefact), path)
    predicted.write(target)
    with xr.open_dataset(target, decode_cf=False) as raw:
        assert raw.time.attrs["calendar"] == "360_day"
        assert raw.time.attrs["units"]
    with xr.open_dataset(target) as again:
        assert [str(one)[:10] for one in again.time.values][1] == "2021-02-30"
    forecaster = artefact.load(trained.artefact)
    assert forecaster.grid.calendar == "360_day"
    # the served table writes dates as text
    with xr.open_dataset(path) as held:
        cells = held.isel(time=slice(-6, None)).tas.to_dataframe().reset_index()
    cells["time"] = [one.isoformat(" ") for one in cells["time"]]
    answer = predict.predict_frame(forecaster, pl.from_pandas(cells))
    assert answer["time"].unique().sort().to_list()[1] == "2021-02-30 00:00:00"
    other, _ = write(tmp_path / "b.nc", "noleap", days=60)
    with pytest.raises(DataError, match="calendar is noleap, and that of the training"):
        read_context(forecaster.grid, forecaster.statistics, forecaster.spec, other)


def test_dates_of_a_calendar_are_read_as_a_whole_and_refused_when_there_are_none():
    day = instant_of("2021-02-30", "360_day")
    assert text_of(day, "360_day") == "2021-02-30T00:00:00"
    for text, after in (("2021", "2022-01-01"), ("2021-02", "2021-03-01"),
                        ("2021-02-30", "2021-03-01"), ("2021-02-30T23", "2021-03-01")):  # fmt: skip
        assert instant_of(text, "360_day", end=True) == instant_of(after, "360_day")
    for text in ("2021-02-31", "2021-13", "soon", ""):
        with pytest.raises(UsageError, match="is no time of the calendar 360_day"):
            instant_of(text, "360_day")
    # what cftime holds of the standard calendar, as before 1678, is a plain date
    old = np.array([cftime.datetime(1600, 2, 29, 6, calendar="standard")])
    assert from_cftime(old) == (np.array(["1600-02-29T06"], "M8[us]"), STANDARD)
