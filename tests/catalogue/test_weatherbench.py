"""WeatherBench 1 and 2: files in exactly their layout, splits, the two names of a variable."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from forecast.catalogue import DATASETS
from forecast.catalogue.files import data_root, verify
from forecast.catalogue.weatherbench import LONG_NAMES, other_name
from forecast.errors import DataError, NotFoundError
from forecast.grids.data import load
from forecast.grids.files import GridOptions
from forecast.grids.reading import read
from forecast.grids.score import error_sums
from forecast.grids.section import GridSection

LATITUDE = np.linspace(-87.1875, 87.1875, 32)
LONGITUDE = np.arange(64) * 5.625


def weather(times, seed=0):
    """Draw a wave that runs round the globe, with noise."""
    phase = np.arange(len(times))[:, None, None] / 10 + np.deg2rad(LONGITUDE)
    noise = np.random.default_rng(seed).normal(size=(len(times), 32, 64))
    return (280 + 20 * np.sin(phase) + noise).astype(np.float32)


def write_weatherbench1(root, variable, short, years, freq="D"):
    """Write a folder for a variable and a file for each year, as WeatherBench 1 has them."""
    folder = root / "weatherbench" / "5.625deg" / variable
    folder.mkdir(parents=True, exist_ok=True)
    for year in years:
        times = pd.date_range(f"{year}-01-01", f"{year}-12-31 23:00", freq=freq)
        data = xr.Dataset(
            {short: (("time", "lat", "lon"), weather(times, year), {"units": "K"})},
            {"lat": LATITUDE, "lon": LONGITUDE, "time": times},
        )
        data.to_netcdf(folder / f"{variable}_{year}_5.625deg.nc", engine="h5netcdf")


def test_yearly_files_and_the_published_years(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    write_weatherbench1(tmp_path, "2m_temperature", "t2m", range(2009, 2019))
    known = DATASETS["weatherbench-t2m"]
    section = GridSection(source=known.name, **known.options)
    data = load(section, lookback=12, horizon=12)
    # 2010 to 2018, of which 2016 validates and 2017 and 2018 test; three years have a leap day less
    assert str(data.grid.times[0])[:10] == "2010-01-01"
    assert data.borders == (6 * 365 + 1, 7 * 365 + 2, 9 * 365 + 2)
    assert [len(data.windows(part)) for part in ("train", "val", "test")] == [
        6 * 365 + 1 - 23,
        366 - 11,
        730 - 11,
    ]
    assert data.spec.references[-1] == "day-of-year"
    assert data.grid.header.mesh.wraps
    # hourly, these are the published 52,559 and 17,495 windows
    published = load(
        GridSection(source=known.name, **known.options, protocol="openstl"),
        lookback=12,
        horizon=12,
    )
    assert len(published.windows("train")) == 6 * 365 + 1 - 25
    assert len(published.windows("val")) == len(published.windows("test")) == 730 - 25


def test_a_missing_year_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    write_weatherbench1(tmp_path, "2m_temperature", "t2m", (2015, 2017))
    with pytest.raises(DataError, match="but 2017-01-01T00:00:00 follows 2015-12-31T00:00:00"):
        load(GridSection(source="weatherbench-t2m", split=(0.7, 0.1, 0.2)), lookback=4, horizon=4)


def test_several_variables_come_from_several_folders(tmp_path):
    write_weatherbench1(tmp_path, "2m_temperature", "t2m", (2016, 2017))
    write_weatherbench1(tmp_path, "geopotential_500", "z", (2016, 2017))
    root = tmp_path / "weatherbench" / "5.625deg"
    grid = read((root / "2m_temperature", root / "geopotential_500"), GridOptions())
    assert [channel.name for channel in grid.header.channels] == ["t2m", "z"]
    values = grid.store(1 << 30).values().numpy()
    np.testing.assert_array_equal(values[:366, 0], weather(grid.times[:366], 2016))
    write_weatherbench1(tmp_path, "total_precipitation", "tp", (2016,))
    with pytest.raises(DataError, match=r"tp has 366 frames .*, and t2m 731 from"):
        read((root / "2m_temperature", root / "total_precipitation"), GridOptions())


def test_zarr_of_weatherbench2_longitude_first_with_levels(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    times = pd.date_range("1979-01-01", "1984-12-31 18:00", freq="6h")
    surface, levels = weather(times), np.stack([weather(times, 1), weather(times, 2)], axis=1)
    data = xr.Dataset(
        {
            "2m_temperature": (("time", "latitude", "longitude"), surface, {"units": "K"}),
            "geopotential": (("time", "level", "latitude", "longitude"), levels),
        },
        {"time": times, "level": [500, 850], "latitude": LATITUDE, "longitude": LONGITUDE},
    ).transpose("time", "level", "longitude", "latitude")
    name = "1959-2022-6h-64x32_equiangular_conservative.zarr"
    (tmp_path / "weatherbench2").mkdir()
    path = tmp_path / "weatherbench2" / name
    data.to_zarr(path, zarr_format=2, consolidated=True)
    known = DATASETS["weatherbench2"]
    options = {**known.options, "split": ("1983", "1984")}
    loaded = load(GridSection(source=known.name, **options), lookback=4, horizon=8)
    assert loaded.spec.frequency == known.frequency == "6h"
    assert loaded.columns == known.variates
    np.testing.assert_array_equal(loaded.frames.values[:, 0].numpy(), surface)
    grid = read(path, GridOptions(variables=("z", "t2m"), levels=(850.0,)))
    assert [channel.name for channel in grid.header.channels] == [
        "geopotential_850",
        "2m_temperature",
    ]
    np.testing.assert_array_equal(grid.store(1 << 30).values()[:, 0].numpy(), levels[:, 1])
    # the climatology of the day and hour knows no noise: it is closer than the frame of yesterday
    names = loaded.spec.references
    assert names[-1] == "day-of-year"
    batch = loaded.windows("test").batch(torch.arange(0, 200, 10))
    errors = (batch.references[:, :, 4:] - batch.target[:, None]).square().mean((0, 2, 3, 4, 5))
    assert errors.isfinite().all()


def test_short_and_long_names_stand_for_each_other():
    for short, long in LONG_NAMES.items():
        assert other_name(short) == long
        assert other_name(long) == short
    assert other_name("z_500") == "geopotential_500"
    assert other_name("uwnd") == "uwnd"


def test_data_that_are_not_there_say_where_they_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"server of WeatherBench 1 .* is switched off"):
        load(GridSection(source="weatherbench-t2m"), lookback=4, horizon=4)
    with pytest.raises(NotFoundError, match="gs://weatherbench2"):
        load(GridSection(source="weatherbench2"), lookback=4, horizon=4)


@pytest.mark.parametrize("name", ["uk-t2m", "fnoc-wind"])
def test_real_files_are_the_published_ones(name):
    known = DATASETS[name]
    if "FORECAST_DATA" not in os.environ:
        pytest.skip("FORECAST_DATA is not set")
    path = data_root() / known.files[0].path
    if not Path(path).is_file():
        pytest.skip(f"{known.files[0].path} is not under FORECAST_DATA")
    assert verify(path, known.files[0])
    data = load(GridSection(source=name, **known.options), lookback=12, horizon=1)
    assert len(data.grid.times) == known.rows
    assert data.columns == known.variates
    assert data.spec.season == known.season
    assert data.spec.frequency == known.frequency


def test_real_wind_scores_by_area_as_published():
    if "FORECAST_DATA" not in os.environ:
        pytest.skip("FORECAST_DATA is not set")
    known = DATASETS["fnoc-wind"]
    if not (data_root() / known.files[0].path).is_file():
        pytest.skip("the file is not under FORECAST_DATA")
    from forecast.models.grid_baselines import grid_baselines

    data = load(GridSection(source="fnoc-wind", **known.options), lookback=12, horizon=1)
    models = grid_baselines(data.spec)
    found = {}
    for name in ("persistence", "month-of-year"):
        sums = error_sums(data)
        for batch in data.windows("test").batches(5):
            sums.add(models[name](batch), batch)
        found[name] = sums.result()["area"]["uwnd"]
    # area-weighted RMSE in m/s, poles included, and ACC
    assert found["month-of-year"]["rmse"] == pytest.approx(2.110, abs=5e-4)
    assert found["persistence"]["rmse"] == pytest.approx(2.360, abs=5e-4)
    assert found["persistence"]["acc"] == pytest.approx(0.429, abs=5e-4)
