"""Gridded files in any layout: the same frames, honest windows, forecasts written back."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from forecast.batch import GridSpec
from forecast.errors import DataError, NotFoundError, UsageError
from forecast.grids import windows as grid_windows
from forecast.grids.axes import mesh
from forecast.grids.climatology import fit_table
from forecast.grids.context import as_test_set, read_context
from forecast.grids.data import load
from forecast.grids.files import GridOptions
from forecast.grids.header import GridHeader
from forecast.grids.output import write_forecast
from forecast.grids.pictures import draw_last
from forecast.grids.reading import read
from forecast.grids.score import error_sums
from forecast.grids.section import GridSection
from forecast.grids.times import Clock, clock_of, lag_rows
from forecast.grids.windows import Storage, grid_origins
from forecast.models.grid_baselines import grid_baselines

SHAPE = (60, 4, 6)


def field(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(280, 5, shape).astype(np.float32)


def dataset(values=None, start="2020-01-30", freq="h", name="t2m", units="K"):
    values = field() if values is None else values
    times = pd.date_range(start, periods=len(values), freq=freq)
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values, {"units": units})},
        {
            "time": times,
            "lat": np.linspace(-60, 60, values.shape[1]),
            "lon": np.arange(values.shape[2]) * 360 / values.shape[2],
        },
    )


def write(data, path, **encoding):
    data.to_netcdf(path, engine="h5netcdf", encoding=encoding or None)
    return path


def frames(path, **options):
    grid = read(path, GridOptions(**options))
    return grid.store(1 << 30).values().numpy(), grid


def real(name):
    if "FORECAST_DATA" not in os.environ:
        pytest.skip("FORECAST_DATA is not set")
    path = Path(os.environ["FORECAST_DATA"]) / "grid" / name
    if not path.is_file():
        pytest.skip(f"{name} is not under FORECAST_DATA")
    return path


# Formats and layouts


@pytest.mark.parametrize("kind", ["netcdf4", "classic", "zarr2", "zarr3", "zip2", "zip3"])
def test_every_format_gives_the_same_frames(tmp_path, kind):
    data, path = dataset(), tmp_path / f"data.{kind}"
    if kind == "netcdf4":
        write(data, path)
    elif kind == "classic":
        data.to_netcdf(path, engine="scipy")
    elif kind.startswith("zarr"):
        data.to_zarr(path, zarr_format=int(kind[-1]), consolidated=False)
    else:
        folder = tmp_path / "folder"
        data.to_zarr(folder, zarr_format=int(kind[-1]), consolidated=False)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    found, grid = frames(path)
    np.testing.assert_array_equal(found[:, 0], data["t2m"].values)
    assert grid.header.channels[0].units == "K"
    assert grid.clock.frequency == "h"


@pytest.mark.parametrize("order", list(itertools.permutations(("time", "level", "lat", "lon"))))
def test_axes_in_any_order_give_the_same_frames(tmp_path, order):
    values = field((10, 3, 4, 6))
    data = xr.Dataset(
        {"z": (("time", "level", "lat", "lon"), values)},
        {
            "time": pd.date_range("2020", periods=10, freq="6h"),
            "level": [850.0, 500.0, 250.0],
            "lat": [60.0, 20.0, -20.0, -60.0],
            "lon": np.arange(6) * 60.0,
        },
    )
    found, grid = frames(write(data.transpose(*order), tmp_path / "z.nc"), levels=(250.0, 850.0))
    # rows ascend, whatever the file's do
    np.testing.assert_array_equal(found, values[:, [2, 0], ::-1])
    assert [channel.name for channel in grid.header.channels] == ["z_250", "z_850"]
    assert grid.header.mesh.descending
    assert grid.header.mesh.wraps


@pytest.mark.parametrize(
    ("names", "attributes"),
    [
        (("valid_time", "latitude", "longitude"), ({}, {}, {})),
        (("time", "y", "x"), ({}, {}, {})),
        (("t", "a", "b"), ({}, {"units": "degrees_north"}, {"units": "degrees_east"})),
        (("t", "a", "b"), ({}, {"standard_name": "latitude"}, {"standard_name": "longitude"})),
        (("t", "a", "b"), ({}, {"axis": "Y"}, {"axis": "X"})),
    ],
)
def test_axes_are_found_by_name_and_by_attributes(tmp_path, names, attributes):
    data = dataset().rename(dict(zip(("time", "lat", "lon"), names, strict=True)))
    for name, given in zip(names, attributes, strict=True):
        data[name].attrs.update(given)
    found, _ = frames(write(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(found[:, 0], field())


def test_packed_integers_are_decoded_and_missing_cells_are_nan(tmp_path):
    data = dataset()
    data["t2m"][3, 1, 2] = np.nan
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32767}
    found, _ = frames(write(data, tmp_path / "a.nc", t2m=packed))
    assert np.isnan(found[3, 0, 1, 2])
    assert np.isnan(found).sum() == 1
    rest = np.isfinite(found[:, 0])
    # half a step of the packing
    assert np.abs(found[:, 0] - field())[rest].max() <= 0.005 * 1.01


def test_members_scalar_levels_and_single_places_along_other_axes(tmp_path):
    values = field((2, 1, *SHAPE))
    data = dataset().drop_vars("t2m").assign_coords(level=850, number=[0, 1])
    data["t"] = (("number", "expver", "time", "lat", "lon"), values)
    path = write(data, tmp_path / "a.nc")
    np.testing.assert_array_equal(frames(path, member=0)[0][:, 0], values[0, 0])
    np.testing.assert_array_equal(frames(path, member=1)[0][:, 0], values[1, 0])
    # none is chosen that nobody named, and none stands in for one that is not there
    with pytest.raises(DataError, match="an ensemble of 2 members along 'number'") as caught:
        frames(path)
    assert "data.member=0" in caught.value.hint
    with pytest.raises(DataError, match=r"has 2 members, and data\.member = 2"):
        frames(path, member=2)
    one = xr.open_dataset(path).isel(number=[1])
    np.testing.assert_array_equal(frames(write(one, tmp_path / "b.nc"))[0][:, 0], values[1, 0])


def test_variables_of_several_files_and_years_become_channels_of_one_axis(tmp_path):
    first, second = field((731, 4, 6), 1), field((731, 4, 6), 2)
    for name, values in (("t2m", first), ("z", second)):
        whole_axis = dataset(values, "2019-01-01", "D", name)
        for year in (2019, 2020):
            write(whole_axis.sel(time=str(year)), tmp_path / f"{name}_{year}.nc")
    sources = [tmp_path / "t2m_*.nc", tmp_path / "z_*.nc"]
    found, grid = frames(list(map(str, sources)))
    np.testing.assert_array_equal(found, np.stack([first, second], axis=1))
    found, grid = frames(list(map(str, sources)), first="2019-12", last="2020-02-03")
    # December, January and three days, the last one whole
    assert len(found) == 31 + 31 + 3
    assert str(grid.times[0])[:10] == "2019-12-01"
    # long names are understood for short ones
    _, grid = frames(str(sources[1]), variables=("geopotential",))
    assert grid.header.channels[0].name == "z"


def test_regions_and_the_seam_of_the_globe(tmp_path):
    values = field((5, 5, 36))
    data = dataset(values)
    path = write(data, tmp_path / "a.nc")
    found, grid = frames(path, latitude=(-30.0, 30.0), longitude=(-20.0, 20.0))
    # columns 340, 350, 0, 10, 20 in this order, rows -30, 0, 30
    np.testing.assert_array_equal(found[:, 0], values[:, 1:4][:, :, [34, 35, 0, 1, 2]])
    np.testing.assert_allclose(grid.header.mesh.x, [-20, -10, 0, 10, 20])
    assert not grid.header.mesh.wraps
    found, _ = frames(path, longitude=(340.0, 20.0))
    np.testing.assert_array_equal(found[:, 0], values[:, :, [34, 35, 0, 1, 2]])
    found, _ = frames(path, rows=(1, 3), columns=(30, 36))
    np.testing.assert_array_equal(found[:, 0], values[:, 1:3, 30:])
    # a file in -180..180 gives the same region
    moved = data.assign_coords(lon=(data.lon + 180) % 360 - 180).sortby("lon")
    found, _ = frames(
        write(moved, tmp_path / "b.nc"), latitude=(-30.0, 30.0), longitude=(340.0, 20.0)
    )
    np.testing.assert_array_equal(found[:, 0], values[:, 1:4][:, :, [34, 35, 0, 1, 2]])


def test_real_zarr_with_longitude_first_equals_the_netcdf_of_the_same_values():
    zarr = real("wb2like_64x32_sample24.zarr.zip")
    netcdf = real("era5_global_5.625deg_sample24.nc")
    names = {"t2m": "2m_temperature", "u10": "10m_u_component_of_wind"}
    # its 24 instants are unevenly 7 hours apart
    with pytest.raises(DataError, match="7h apart, but"):
        read(netcdf, GridOptions())
    ours, grid = frames(netcdf, variables=tuple(names), gaps="split")
    theirs, other = frames(zarr, variables=tuple(names), gaps="split")
    assert ours.shape == (24, 2, 32, 64)
    np.testing.assert_array_equal(ours, theirs)
    assert [channel.name for channel in other.header.channels] == list(names.values())
    with xr.open_dataset(netcdf) as data:
        np.testing.assert_array_equal(ours[:, 0], data["t2m"].values)
    assert grid.header.mesh.wraps


def test_real_temperatures_scale_by_the_published_statistics():
    real("2m_temperature_2019-03_uk_0.25deg.nc")
    data = load(GridSection(source="uk-t2m", rows=(0, 32), columns=(0, 48), split=(504, 72, 168),
                            inside=True), lookback=12, horizon=12)  # fmt: skip
    assert float(data.scaler.mean) == pytest.approx(280.6378, abs=1e-4)
    assert float(data.scaler.deviation) == pytest.approx(2.3424, abs=1e-4)
    assert len(data.windows("test")) == 145
    assert data.spec.references == ("day", "3-day-mean", "7-day-mean", "time-of-day")


# Bad input


def broken(tmp_path, kind):
    path = tmp_path / "a.nc"
    if kind == "truncated":
        content = write(dataset(), path).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "truncated classic":
        dataset().to_netcdf(path, engine="scipy")
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "no grid file":
        path.write_text("time,value\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "shuffled":
        write(dataset().isel(time=[*range(30), 40, 35, *range(41, 50)]), path)
    elif kind == "unknown unit":
        data = dataset().assign_coords(time=np.arange(60))
        data.time.attrs["units"] = "fortnights since 2020-01-01"
        write(data, path)
    elif kind == "no unit":
        write(dataset().assign_coords(time=np.arange(60)), path)
    elif kind == "no grid":
        write(xr.Dataset({"a": ("depth", np.arange(3.0))}), path)
    elif kind == "missing year":
        for year in (2019, 2020, 2022):
            days = 366 if year == 2020 else 365
            write(dataset(field((days, 4, 6)), f"{year}-01-01", "D"), tmp_path / f"{year}.nc")
        return str(tmp_path / "20*.nc")
    elif kind == "mixed grids":
        write(dataset(), path)
        write(dataset(field((60, 4, 5)), "2020-02-01T12"), tmp_path / "b.nc")
        return str(tmp_path / "*.nc")
    elif kind == "mixed units":
        write(dataset(), path)
        write(dataset(start="2020-02-01T12", units="degC"), tmp_path / "b.nc")
        return str(tmp_path / "*.nc")
    elif kind == "overlap":
        write(dataset(), path)
        write(dataset(start="2020-01-31"), tmp_path / "b.nc")
        return str(tmp_path / "*.nc")
    elif kind == "strange axis":
        write(dataset().expand_dims(depth=3), path)
    elif kind == "broken chunk":
        path = tmp_path / "a.zarr"
        dataset().to_zarr(path, zarr_format=2)
        next((path / "t2m").glob("0*")).write_bytes(b"??")
    elif kind == "infinite":
        write(dataset(np.where(field() > 285, np.inf, field())), path)
    elif kind == "nothing observed":
        write(dataset(np.full(SHAPE, np.nan, np.float32)), path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("truncated", r"a\.nc: The file cannot be read: .*truncated"),
        ("truncated classic", r"a\.nc: The file cannot be read"),
        ("no grid file", r"neither NetCDF, HDF5, Zarr, npy nor npz"),
        ("empty", r"neither NetCDF"),
        ("shuffled", r"not in ascending order: 2020-01-31T11:00:00 follows 2020-01-31T16:00:00"),
        ("unknown unit", r"The times cannot be read: their unit is 'fortnights since 2020-01-01'"),
        ("no unit", r"The axis 'time' holds no times"),
        ("no grid", r"the axes found are depth: other \(3\)"),
        ("missing year", r"D apart, but 2022-01-01T00:00:00 follows 2020-12-31T00:00:00"),
        ("mixed grids", r"b\.nc: Its grid of 4 x 5 cells .* differs from that of a\.nc"),
        ("mixed units", r"'t2m' is in 'degC', and in 'K' in a\.nc"),
        ("overlap", r"b\.nc: It begins at 2020-01-31T00:00:00, before a\.nc ends"),
        ("strange axis", r"axis 'depth' that is none of"),
        ("broken chunk", r"a\.zarr: The file cannot be read"),
        ("infinite", r"infinite values"),
        ("nothing observed", r"no observed value"),
    ],
)
def test_bad_input_is_one_error_that_says_what_is_wrong(tmp_path, kind, told):
    with pytest.raises(DataError, match=told) as caught:
        load(GridSection(source=broken(tmp_path, kind)), lookback=4, horizon=4)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_what_is_not_there_is_named(tmp_path):
    path = write(dataset(), tmp_path / "a.nc")
    with pytest.raises(DataError, match="Did you mean 't2m'"):
        read(path, GridOptions(variables=("t2n",)))
    with pytest.raises(DataError, match="holds no cell of the grid, which spans -60 to 60"):
        read(path, GridOptions(latitude=(70.0, 80.0)))
    with pytest.raises(DataError, match="No frame lies from 2030"):
        read(path, GridOptions(first="2030"))
    with pytest.raises(UsageError, match="'20x0' is no time"):
        read(path, GridOptions(first="20x0"))
    with pytest.raises(NotFoundError, match="no gridded files"):
        read(tmp_path / "none.nc", GridOptions())
    with pytest.raises(UsageError, match="'hour' is no reference"):
        load(GridSection(source=str(path), references=("hour",)), lookback=4, horizon=4)
    with pytest.raises(DataError, match="holds a window of lookback 40"):
        load(GridSection(source=str(path)), lookback=40, horizon=4)


# Storage


def test_whole_numbers_take_two_bytes_until_one_does_not_fit():
    storage = Storage((6, 1, 2, 2), resident=1 << 20)
    whole_numbers = np.arange(8.0, dtype=np.float32).reshape(2, 1, 2, 2)
    whole_numbers[0, 0, 0, 0] = np.nan
    storage.put(0, 0, whole_numbers)
    assert storage.values().dtype == torch.int16
    storage.put(2, 0, whole_numbers + 0.5)
    storage.put(4, 0, whole_numbers + 40_000)
    found = storage.values().numpy()
    assert found.dtype == np.float32
    expected = np.concatenate([whole_numbers, whole_numbers + 0.5, whole_numbers + 40_000])
    np.testing.assert_array_equal(found, expected)
    assert storage.missing


def test_frames_beyond_the_memory_allowed_are_mapped_and_give_the_same_batches(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))
    path = write(dataset(field((400, 20, 40))), tmp_path / "a.nc")
    monkeypatch.setattr(grid_windows, "_CHUNK", 1 << 12)
    small, large = (
        load(GridSection(source=str(path), resident_mb=limit), lookback=4, horizon=4)
        for limit in (1, 100)
    )
    assert any("memory-mapped" in notice for notice in small.notices)
    assert not any("memory-mapped" in notice for notice in large.notices)
    # the file has no name any more, so nothing is left behind
    assert not list((tmp_path / "home" / "cache").iterdir())
    assert small.digest == large.digest
    index = torch.tensor([0, 200, 17])
    ours, theirs = (data.windows("train").batch(index) for data in (small, large))
    # and however many windows there are, so many cells are gathered at a time
    monkeypatch.setattr(grid_windows, "_MOST_CELLS", 10 * 8 * 20 * 40)
    assert max(len(batch) for batch in large.windows("train").batches(1000)) == 10
    assert torch.equal(ours.frames, theirs.frames)
    assert torch.equal(ours.references, theirs.references)


# Times


def test_months_are_steps_of_their_own_length():
    times = np.array(["2020-01-16T20", "2020-02-16T06", "2020-03-17", "2020-04-16"], "M8[us]")
    clock = clock_of(times)
    assert clock.frequency == "MS"
    assert clock.season == 12
    after = clock.after(np.datetime64("2020-11-30T06", "us"), 3).astype("M8[D]").astype(str)
    # the 30th of February is taken for the 28th
    assert after.tolist() == ["2020-12-28", "2021-01-28", "2021-02-28"]


def test_lags_look_up_times_and_not_rows():
    hours = np.array([*range(30), *range(40, 80)])
    times = np.datetime64("2020-01-01", "us") + hours.astype("m8[h]")
    clock = Clock(step=3_600_000_000)
    rows = lag_rows(times, len(times), clock, 24, count=1, horizon=6)[:, 0]
    for row, hour in enumerate(hours):
        earlier = np.flatnonzero(hours == hour - 24)
        assert rows[row] == (earlier[0] if len(earlier) else -1)
    # of hours still to come, a day that is known
    times = np.datetime64("2020-01-01", "us") + np.arange(60).astype("m8[h]")
    rows = lag_rows(times, 30, clock, 24, count=2, horizon=24)
    assert rows[[30, 53, 54, 59]].tolist() == [[6, -1], [29, 5], [6, -1], [11, -1]]
    # nor of hours that the forecast itself is of
    assert lag_rows(times, 60, clock, 24, count=2, horizon=25)[58].tolist() == [10, -1]


# Windows


def test_targets_stay_in_their_part_and_windows_in_their_run():
    # runs of frames 0-19, 20-24 and 25-59
    runs = np.repeat([0, 20, 25], [20, 5, 35])
    train = grid_origins(runs, 0, 40, 4, 3)
    assert set(train) == {*range(4, 18), *range(29, 38)}
    val = grid_origins(runs, 40, 50, 4, 3)
    # inputs reach back over the border, unless told to stay inside
    assert set(val) == set(range(40, 48))
    assert set(grid_origins(runs, 40, 50, 4, 3, inside=True)) == set(range(44, 48))
    assert not len(grid_origins(runs, 20, 25, 4, 3))


@pytest.fixture
def counting(tmp_path):
    """Write frames whose value is their number."""
    values = np.broadcast_to(np.arange(240.0, dtype=np.float32)[:, None, None], (240, 4, 6)).copy()
    return write(dataset(values), tmp_path / "count.nc")


def test_a_window_holds_consecutive_frames_their_calendar_and_references(counting):
    data = load(GridSection(source=str(counting), scaling="none"), lookback=5, horizon=3)
    windows = data.windows("test")
    batch = windows.batch(torch.arange(len(windows)))
    origin = windows.origins.float()
    steps = torch.arange(-5, 3)
    number = origin[:, None] + steps
    seen = torch.cat([batch.frames, batch.target], dim=1)[:, :, 0, 0, 0]
    assert torch.equal(seen, number)
    assert data.spec.references == ("day", "3-day-mean", "time-of-day")
    day, recent, mean = batch.references[:, :, :, 0, 0, 0].unbind(1)
    assert torch.equal(day, number - 24)
    assert torch.equal(recent, number - 48)
    # 168 training frames: seven days, whose mean is three days after the first
    assert torch.equal(mean, number % 24 + 3 * 24)
    hour = torch.cat([batch.calendar, batch.future_calendar], dim=1)[..., 1]
    torch.testing.assert_close(hour, torch.sin(number * 2 * torch.pi / 24), atol=1e-5, rtol=0)


def test_a_lag_among_the_frames_to_come_says_how_far_back_it_lies(tmp_path):
    path = write(dataset(field((240, 4, 6)), "2020-01-01", "D"), tmp_path / "a.nc")
    data = load(GridSection(source=str(path)), lookback=5, horizon=4)
    assert data.spec.references[:2] == ("day", "3-day-mean")
    (told,) = (one for one in data.notices if "References" in one)
    assert "day 4" in told
    assert not load(GridSection(source=str(path)), lookback=5, horizon=1).notices


def test_within_a_slot_a_training_mean_tells_nothing_of_the_frame_to_come(tmp_path):
    path = write(dataset(field((240, 4, 6))), tmp_path / "a.nc")
    data = load(GridSection(source=str(path)), lookback=5, horizon=3)
    windows = data.windows("train")
    batch = windows.batch(torch.arange(len(windows)))
    hours = (windows.origins % 24)[:, None] + torch.arange(3)
    mean, target = batch.references[:, 2, 5:, 0, 0, 0], batch.target[:, :, 0, 0, 0]
    for hour in range(24):
        chosen = hours % 24 == hour
        assert target[chosen].std() > 0.1
        # with a frame taken out of its own mean this would be the target times -1/6, exactly
        assert mean[chosen].max() == mean[chosen].min()


def test_missing_cells_enter_as_zero_with_a_mask_and_leave_means_alone(tmp_path):
    values = field((240, 4, 6))
    values[::7, 1, 2] = np.nan
    values[:, 3, 3] = np.nan
    data = load(
        GridSection(source=str(write(dataset(values), tmp_path / "a.nc"))), lookback=5, horizon=3
    )
    observed = values[:168][np.isfinite(values[:168])]
    assert float(data.scaler.mean) == pytest.approx(observed.mean(), rel=1e-6)
    batch = data.windows("train").batch(torch.arange(30))
    assert not batch.mask[:, :, 0, 3, 3].any()
    assert batch.frames[~batch.mask].eq(0).all()
    for part in (batch.frames, batch.references, batch.target):
        assert part.isfinite().all()
    scores = {}
    for name, model in grid_baselines(data.spec).items():
        sums = error_sums(data)
        for part in data.windows("test").batches(7):
            sums.add(model(part), part)
        scores[name] = sums.result()
    assert len({figures["values"] for figures in scores.values()}) == 1
    assert all(np.isfinite(figures["mse"]) for figures in scores.values())


def test_nothing_of_the_future_reaches_a_window(tmp_path):
    values = field((300, 4, 6))
    poisoned = values.copy()
    cut = 260
    poisoned[cut:] = 1e6
    first, second = (
        load(
            GridSection(
                source=str(write(dataset(part), tmp_path / f"{name}.nc")), split=(200, 50, 50)
            ),
            lookback=6,
            horizon=4,
        )
        for name, part in (("a", values), ("b", poisoned))
    )
    for part in ("train", "val", "test"):
        ours, theirs = first.windows(part), second.windows(part)
        index = torch.nonzero(ours.origins <= cut)[:, 0]
        one, other = ours.batch(index), theirs.batch(index)
        assert torch.equal(one.frames, other.frames)
        # references of the whole window, its targets included, are known at its origin
        assert torch.equal(one.references, other.references)


def test_openstl_windows_by_dates_stay_inside_and_scale_by_their_own_part(tmp_path):
    values = field((900, 4, 6))
    values[600:] += 10
    path = write(dataset(values, "2015-12-01", "D"), tmp_path / "a.nc")
    section = GridSection(source=str(path), protocol="openstl", split=("2017-02", "2017-08"))
    data = load(section, lookback=12, horizon=12)
    train_end = (np.datetime64("2017-02-01") - np.datetime64("2015-12-01")).astype(int)
    test_start = (np.datetime64("2017-08-01") - np.datetime64("2015-12-01")).astype(int)
    # 52,559 of 52,584 hours and 17,495 of 17,520: N - L - H - 1 windows
    assert len(data.windows("train")) == train_end - 25
    assert len(data.windows("test")) == len(data.windows("val")) == 900 - test_start - 25
    shown = data.windows("test").batch(torch.arange(200)).target
    assert abs(float(shown.mean())) < 0.1
    assert any("validation part is the test part" in notice for notice in data.notices)


def test_openstl_by_dates_has_one_scaler_for_frames_means_and_scores(tmp_path):
    values = field((900, 4, 6))
    values[600:] += 10
    path = write(dataset(values, "2015-12-01", "D"), tmp_path / "a.nc")
    section = GridSection(
        source=str(path), protocol="openstl", split=("2017-02", "2017-08"),
        references=("month-of-year",),
    )  # fmt: skip
    data = load(section, lookback=12, horizon=12)
    windows = data.windows("test")
    batch = windows.batch(torch.arange(len(windows)))
    # in kelvin the reference is the mean of its month over the 428 training days, whatever scales
    months = np.arange("2015-12", "2018-06", dtype="M8[D]")[:900].astype("M8[M]").astype(int) % 12
    mean = np.stack([values[:428][months[:428] == month].mean(0) for month in range(12)])
    rows = windows.origins[:, None] + torch.arange(-12, 12)
    shown = windows.frames.scaler.undo(batch.references[:, 0]).numpy()
    np.testing.assert_allclose(shown[:, :, 0], mean[months[rows]], atol=1e-3)
    # and so is the error, in kelvin
    sums = error_sums(data)
    sums.add(grid_baselines(data.spec)["month-of-year"](batch), batch)
    later = rows[:, 12:]
    error = values[later] - mean[months[later]]
    found = sums.result()["units"]["t2m"]["rmse"]
    assert found == pytest.approx(np.sqrt(np.square(error.astype(float)).mean()), rel=1e-5)


def test_day_of_year_means_are_smoothed_round_the_year():
    times = np.arange("2001-01-01", "2005-01-01", dtype="M8[D]").astype("M8[us]")
    phase = torch.arange(len(times)) * (2 * np.pi / 365.25)
    cells = torch.cos(phase).view(-1, 1, 1, 1)
    table = fit_table("day-of-year", times, 1, iter([cells]), torch.device("cpu"))
    means = table.means[:, 0, 0, 0]
    # a Gaussian of 10 days damps a wave of a year to exp(-(10 * 2 pi / 365)^2 / 2) = 0.985
    torch.testing.assert_close(
        means[:365], 0.985 * torch.cos(phase[:365]), atol=0.01, rtol=0
    )  # fmt: skip


# From a trained model to a file


@pytest.fixture
def trained(tmp_path):
    values = field((400, 4, 6))
    path = write(dataset(values).isel(lat=slice(None, None, -1)), tmp_path / "a.nc")
    data = load(GridSection(source=str(path)), lookback=6, horizon=4)
    # through JSON, as an artefact keeps it
    kept = GridHeader.from_dict(json.loads(json.dumps(data.header.to_dict())))
    return data, kept, data.arrays(), values, tmp_path


def test_the_context_of_a_file_is_the_window_that_training_would_have_cut(trained):
    data, description, arrays, values, folder = trained
    windows = data.windows("test")
    known = int(windows.origins[5])
    shorter = dataset(values[:known], units="K")
    path = write(shorter.assign(other=shorter["t2m"] * 0), folder / "later.nc")
    context = read_context(description, arrays, data.spec, path)
    expected = windows.batch(torch.tensor([5]))
    assert torch.equal(context.batch.frames, expected.frames)
    assert torch.equal(context.batch.references, expected.references)
    assert torch.equal(context.batch.future_calendar, expected.future_calendar)
    assert context.batch.target is None
    assert np.array_equal(context.times, data.grid.times[known : known + 4])


def test_a_later_file_is_scored_by_the_scaler_and_means_of_training(trained):
    data, description, arrays, values, folder = trained
    path = write(dataset(values + 1, "2021-05-01"), folder / "later.nc")
    later = as_test_set(description, arrays, data.spec, path)
    assert len(later.windows("test")) == 400 - 6 - 4 + 1
    assert torch.equal(later.scaler.mean, data.scaler.mean)
    shifted = later.windows("test").batch(torch.tensor([0])).frames
    expected = data.scaler.apply(torch.from_numpy(values[:6] + 1)[:, None])
    torch.testing.assert_close(shifted[0], expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.rename(t2m="z"), "There is no variable 't2m'"),
        (lambda data: data.isel(lat=slice(1, None)), "is not the one the model was trained on"),
        (lambda data: data.isel(time=slice(None, None, 2)), "2h apart"),
        (lambda data: data.isel(time=slice(0, 3)), "the model looks back over 6"),
        (lambda data: data.assign(t2m=data.t2m.assign_attrs(units="degC")), "is in degC"),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused(trained, change, told):
    data, description, arrays, values, folder = trained
    path = write(change(dataset(values)), folder / "later.nc")
    with pytest.raises(DataError, match=told):
        read_context(description, arrays, data.spec, path)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_forecasts_come_in_the_layout_of_the_file_with_lead_times(trained, suffix):
    data, description, arrays, _, folder = trained
    context = read_context(description, arrays, data.spec, folder / "a.nc")
    values = np.arange(4 * 24, dtype=np.float32).reshape(4, 1, 4, 6)
    target = folder / f"forecast{suffix}"
    for _ in range(2):
        # the second time it takes the place of the first
        write_forecast(target, values, context.times, context.last, context.header, model="m")
    with xr.open_dataset(target, engine=None if suffix == ".nc" else "zarr") as written:
        assert written["t2m"].dims == ("time", "lat", "lon")
        assert written["t2m"].attrs["units"] == "K"
        # rows descend as they do in the file it goes on from
        assert written["lat"].values.tolist() == [60.0, 20.0, -20.0, -60.0]
        np.testing.assert_array_equal(written["t2m"].values, values[:, 0, ::-1])
        assert written["time"].values[0] == context.last + np.timedelta64(1, "h")
        hours = written["lead_time"]
        lead = hours.values / np.timedelta64(1, "h") if hours.dtype.kind == "m" else hours.values
        assert lead.tolist() == [1, 2, 3, 4]
        assert written["forecast_reference_time"].values == context.last
    found, _ = frames(target)
    np.testing.assert_array_equal(found, values)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_levels_and_orders_are_written_back_as_they_were_read(tmp_path):
    values = field((10, 2, 4, 6))
    data = xr.Dataset(
        {"z": (("time", "level", "lat", "lon"), values, {"units": "m2 s-2"})},
        {
            "time": pd.date_range("2020", periods=10, freq="6h"),
            "level": [500, 850],
            "lat": np.linspace(-60, 60, 4),
            "lon": np.arange(6) * 60.0,
        },
    ).transpose("time", "lon", "lat", "level")
    found, grid = frames(write(data, tmp_path / "a.nc"))
    times = grid.clock.after(grid.times[-1], 10)
    write_forecast(tmp_path / "f.nc", found, times, grid.times[-1], grid.header)
    with xr.open_dataset(tmp_path / "f.nc") as written:
        assert written["z"].dims == data["z"].dims
        np.testing.assert_array_equal(written["z"].values, data["z"].values)


def atlas(x=(355.0, 0.0, 5.0), levels=(850.0, 500.0)):
    """Frames across the meridian on falling levels, with what CF says of each."""
    values = field((40, len(levels), 4, len(x)))
    return xr.Dataset(
        {
            "t": (
                ("time", "plev", "lat", "lon"), values,
                {"units": "K", "standard_name": "air_temperature", "long_name": "Temperature",
                 "cell_methods": "time: mean", "history": "made up"},
            )
        },
        {
            "time": pd.date_range("2020", periods=40, freq="6h"),
            "plev": ("plev", list(levels), {"units": "hPa", "positive": "down", "axis": "Z",
                                            "standard_name": "air_pressure"}),
            "lat": ("lat", [60.0, 20.0, -20.0, -60.0], {"units": "degrees_north",
                                                         "long_name": "latitude"}),
            "lon": ("lon", list(x), {"units": "degrees_east"}),
        },
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_forecast_keeps_what_cf_says_of_fields_and_axes(tmp_path, suffix):
    found, grid = frames(write(atlas(), tmp_path / "a.nc"))
    times = grid.clock.after(grid.times[-1], 4)
    target = tmp_path / f"f{suffix}"
    write_forecast(target, found[:4], times, grid.times[-1], grid.header, model="m")
    options = {"decode_cf": False} | ({"engine": "zarr"} if suffix == ".zarr" else {})
    with xr.open_dataset(target, **options) as made:
        assert made.attrs["Conventions"].startswith("CF-")
        field_of = made["t"].attrs
        assert field_of["standard_name"] == "air_temperature"
        assert field_of["long_name"] == "Temperature"
        assert field_of["units"] == "K"
        assert field_of["cell_methods"] == "time: mean"
        # what a file went through is not what a forecast went through
        assert "history" not in field_of
        assert set(field_of["coordinates"].split()) == {"lead_time", "forecast_reference_time"}
        axes = {"plev": "Z", "lat": "Y", "lon": "X", "time": "T"}
        for name, axis in axes.items():
            assert made[name].attrs["axis"] == axis
            assert made[name].attrs["standard_name"]
            assert made[name].attrs["units"]
            # CF 2.5.1: a coordinate variable has no missing values
            assert "_FillValue" not in made[name].attrs
        assert made["plev"].attrs["positive"] == "down"
        assert made["plev"].attrs["units"] == "hPa"
        assert made["lat"].attrs["long_name"] == "latitude"
        assert made["plev"].values.tolist() == [850, 500]
        assert made["lon"].values.tolist() == [355, 0, 5]
        assert made["lead_time"].attrs["standard_name"] == "forecast_period"


def test_a_crop_across_the_meridian_keeps_the_longitudes_of_the_file(tmp_path):
    path = write(atlas(np.arange(0.0, 360, 5)), tmp_path / "a.nc")
    section = GridSection(source=str(path), longitude=(-5.0, 5.0), split=(20, 10, 10))
    data = load(section, lookback=4, horizon=4)
    context = read_context(data.header, data.arrays(), data.spec, path)
    target = tmp_path / "f.nc"
    write_forecast(target, np.zeros((4, 2, 4, 3)), context.times, context.last, context.header)
    with xr.open_dataset(target) as made:
        assert made["lon"].values.tolist() == [355, 0, 5]
    # the forecast is a file like others: the model reads on from it, joined to what it knew
    with xr.open_dataset(path) as known, xr.open_dataset(target) as ahead:
        both = xr.concat(
            [known.sel(lon=[355, 0, 5]), ahead.drop_vars(["lead_time", "forecast_reference_time"])],
            "time", join="override",
        )  # fmt: skip
        write(both, tmp_path / "b.nc")
    later = read_context(data.header, data.arrays(), data.spec, tmp_path / "b.nc")
    assert later.last == context.times[-1]
    # maps run on over the meridian instead of back
    assert np.all(np.diff(later.header.mesh.x) == 5)
    moved = write(atlas((350.0, 355.0, 0.0)), tmp_path / "c.nc")
    with pytest.raises(DataError, match="is not the one the model was trained on"):
        read_context(data.header, data.arrays(), data.spec, moved)


def test_cells_never_observed_are_missing_in_a_forecast_and_others_are_not(tmp_path):
    values = field((200, 4, 6))
    values[:, 3, 3] = np.nan
    # observed in training, though not of late
    values[190:, 0, 0] = np.nan
    path = write(dataset(values), tmp_path / "a.nc")
    data = load(GridSection(source=str(path), references=("time-of-day",)), lookback=4, horizon=4)
    for kept in (data.arrays(), {k: v for k, v in data.arrays().items() if k != "observed"}):
        context = read_context(data.header, kept, data.spec, path)
        found = context.frames(torch.zeros(1, 4, 1, 4, 6))[:, 0]
        assert np.isnan(found[:, 3, 3]).all()
        assert np.isfinite(found).sum() == 4 * 23
        # what the next file observes is forecast
        write(dataset(field((60, 4, 6)), "2020-02-08"), tmp_path / "b.nc")
        context = read_context(data.header, kept, data.spec, tmp_path / "b.nc")
        assert np.isfinite(context.frames(torch.zeros(1, 4, 1, 4, 6))).all()


def test_a_failure_leaves_the_older_forecast_in_place(trained, monkeypatch):
    data, description, arrays, _, folder = trained
    context = read_context(description, arrays, data.spec, folder / "a.nc")
    target = folder / "forecast.nc"
    target.write_text("older")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        write_forecast(target, np.zeros((4, 1, 4, 6)), context.times, context.last, context.header)
    assert target.read_text() == "older"
    with pytest.raises(UsageError, match=r"written as \.nc, \.zarr, \.h5, not \.csv"):
        write_forecast(folder / "f.csv", np.zeros((4, 1, 4, 6)), context.times, context.last,
                       context.header)  # fmt: skip


def test_a_picture_is_drawn(trained):
    data, _, _, _, folder = trained
    draw_last(folder / "maps.png", model=grid_baselines(data.spec)["day"], data=data)
    assert (folder / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_a_mesh_of_one_row_and_disorder():
    options = {"latitude": None, "longitude": None, "rows": None, "columns": None, "file": "f"}
    one = mesh(np.array([50.0]), np.arange(3.0), geographic=True, **options)
    assert one.shape == (1, 3)
    with pytest.raises(DataError, match="row coordinates are not in order"):
        mesh(np.array([1.0, 3.0, 2.0]), np.arange(3.0), geographic=True, **options)


def test_a_spec_needs_the_frames_of_its_references(trained):
    data = trained[0]
    assert data.spec == GridSpec(
        lookback=6, horizon=4, channels=1, rows=4, columns=6, calendar=9,
        references=("day", "3-day-mean", "time-of-day"), places=3, season=24, frequency="h",
        context=6 + 72,
    )  # fmt: skip
