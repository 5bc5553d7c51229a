"""TaxiBJ: its files in exactly their layout, days that lack slots, windows put together again."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from forecast.catalogue import DATASETS
from forecast.errors import DataError, NotFoundError
from forecast.grids.context import read_context
from forecast.grids.data import load
from forecast.grids.files import GridOptions
from forecast.grids.output import write_forecast
from forecast.grids.reading import read
from forecast.grids.score import error_sums
from forecast.grids.section import GridSection

# Each published file: its first day, complete days, and slots in all.
FILES = {
    "BJ13": ("2013-07-01", 101, 4_888),
    "BJ14": ("2014-03-01", 91, 4_780),
    "BJ15": ("2015-03-01", 115, 5_596),
    "BJ16": ("2015-11-01", 138, 7_220),
}
RUNS = {"BJ13": 14, "BJ14": 15, "BJ15": 12, "BJ16": 16}


def write_slots(path, days, slots, *, side=(4, 4), per_day=48, seed=0):
    """Write frames of counts: for each day the slots it has, numbered from 1, from 0 for hours."""
    first = 1 if per_day == 48 else 0
    dates = [
        f"{str(day).replace('-', '')}{slot + first:02d}".encode()
        for day, kept in zip(days, slots, strict=True)
        for slot in kept
    ]
    values = np.random.default_rng(seed).integers(0, 1293, (len(dates), 2, *side)).astype("f8")
    with h5py.File(path, "w") as file:
        file["data"], file["date"] = values, np.array(dates, dtype="S10")
    return values


def write_published(folder, side=(2, 2)):
    """Write four files with the published numbers of slots, days and runs."""
    for number, (name, (first, complete, total)) in enumerate(FILES.items()):
        # An incomplete day ends each run but the last; their slots make up the total.
        breaks = RUNS[name] - 1
        spare = total - 48 * complete
        assert breaks <= spare <= 47 * breaks
        sizes = np.full(breaks, spare // breaks)
        sizes[: spare % breaks] += 1
        lengths = np.full(RUNS[name], complete // RUNS[name])
        lengths[: complete % RUNS[name]] += 1
        slots = []
        for run, length in enumerate(lengths):
            slots += [range(48)] * length
            if run < breaks:
                slots.append(range(sizes[run]))
        days = np.datetime64(first, "D") + np.arange(len(slots))
        path = folder / f"{name}_M32x32_T30_InOut.h5"
        assert len(write_slots(path, days, slots, side=side, seed=number)) == total


def test_published_files_give_the_documented_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    (tmp_path / "taxibj").mkdir()
    write_published(tmp_path / "taxibj")
    known = DATASETS["taxibj"]
    section = GridSection(source="taxibj", **known.options)
    data = load(section, lookback=4, horizon=4)
    # 445 days in 57 runs: 21,360 slots and 21,360 - 7 * 57 windows of 8
    assert len(data.grid.times) == known.rows == 21_360
    assert len(np.unique(data.grid.runs)) == 57
    assert data.frames.values.dtype == torch.int16
    assert data.spec.frequency == known.frequency == "30min"
    assert data.spec.references == ("day", "week", "time-of-day", "time-of-week")
    openstl = load(
        GridSection(source="taxibj", **{**known.options, "protocol": "openstl",
                                        "split": (20_461, 500, 500)}),
        lookback=4, horizon=4,
    )  # fmt: skip
    assert [len(openstl.windows(part)) for part in ("train", "val", "test")] == [20_461, 500, 500]
    assert 20_461 + 500 == 21_360 - 7 * 57
    # Counts are divided by the largest of the training frames, or by the largest of all.
    assert float(openstl.scaler.deviation.max()) == 1292
    last = data.windows("test").origins
    assert int(last.min()) >= 21_360 - 28 * 48
    assert len(data.windows("train")) + len(data.windows("val")) + len(last) <= 20_961


def test_half_hours_count_from_one_and_hours_from_zero(tmp_path):
    days = np.datetime64("2014-08-04") + np.arange(3)
    write_slots(tmp_path / "a.h5", days, [range(40, 48), range(48), range(48)])
    grid = read(tmp_path / "a.h5", GridOptions())
    # the day that lacks slots is left out
    assert str(grid.times[0]) == "2014-08-05T00:00:00.000000"
    assert len(grid.times) == 96
    assert grid.clock.frequency == "30min"
    write_slots(tmp_path / "b.h5", days, [[23], range(24), range(24)], per_day=24)
    grid = read(tmp_path / "b.h5", GridOptions())
    assert grid.clock.frequency == "h"
    assert str(grid.times[-1]) == "2014-08-06T23:00:00.000000"


def test_slots_that_could_be_either_are_asked_for(tmp_path):
    write_slots(tmp_path / "a.h5", [np.datetime64("2014-08-04")], [range(10)])
    with pytest.raises(DataError, match="from 1 to 10, from which their number a day cannot"):
        read(tmp_path / "a.h5", GridOptions())
    with pytest.raises(DataError, match="No day of the file has all of its 48 slots"):
        read(tmp_path / "a.h5", GridOptions(slots_per_day=48))
    with pytest.raises(DataError, match="run up to 10, and a day has 6"):
        read(tmp_path / "a.h5", GridOptions(slots_per_day=6))


def test_counts_are_rounded_and_never_negative(tmp_path):
    days = np.datetime64("2014-08-04") + np.arange(2)
    values = write_slots(tmp_path / "a.h5", days, [range(48)] * 2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["data"][0, 0, 0] = [-3, 1.4, 1.6, 2]
    storage = read(tmp_path / "a.h5", GridOptions(counts=True)).store(1 << 30)
    assert storage.values()[0, 0, 0].tolist() == [0, 1, 2, 2]
    np.testing.assert_array_equal(storage.values().numpy()[1:], values[1:])


def openstl_windows(frames, runs, train):
    """Cut frames into windows of 4 + 4 as OpenSTL's npz has them, scaled to [-1, 1]."""
    windows = np.stack(
        [
            frames[start : start + 8]
            for first, stop in runs
            for start in range(first, stop - 7)
        ]
    )  # fmt: skip
    scaled = (2 * windows / 1292 - 1).astype(np.float32)
    parts = {"train": scaled[:train], "test": scaled[train:]}
    return {
        f"{half}_{part}": values[:, :4] if half == "X" else values[:, 4:]
        for part, values in parts.items()
        for half in "XY"
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_overlapping_windows_of_the_npz_are_put_together_to_their_frames(
    tmp_path, monkeypatch, save
):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    (tmp_path / "taxibj").mkdir()
    frames = np.random.default_rng(0).integers(0, 1293, (70, 2, 4, 4)).astype(float)
    frames[5, 0, 0, 0] = 1292
    runs = [(0, 30), (30, 70)]
    arrays = openstl_windows(frames, runs, train=46)
    save(tmp_path / "taxibj" / "dataset.npz", **arrays)
    section = GridSection(
        source="taxibj-npz", **{**DATASETS["taxibj-npz"].options, "split": (46, 10, 10)}
    )
    data = load(section, lookback=4, horizon=4)
    np.testing.assert_array_equal(data.frames.values.numpy(), frames)
    assert data.frames.values.dtype == torch.int16
    assert data.grid.runs.tolist() == [0] * 30 + [30] * 40
    for part in ("train", "test"):
        windows = data.windows(part)
        batch = windows.batch(torch.arange(len(windows)))
        np.testing.assert_allclose(
            batch.frames.numpy(), (arrays[f"X_{part}"] + 1) / 2, atol=1e-6
        )  # fmt: skip
        np.testing.assert_allclose(
            batch.target.numpy(), (arrays[f"Y_{part}"] + 1) / 2, atol=1e-6
        )  # fmt: skip
    assert data.spec.references == ()
    assert any("no dates" in notice for notice in data.notices)


def test_sequences_of_a_moving_picture_stay_apart(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 7, 6, 6)).astype(np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", pixels)
    options = {**DATASETS["moving-mnist"].options, "split": (0.5, 0.25, 0.25)}
    data = load(
        GridSection(source=str(tmp_path / "mnist_test_seq.npy"), **options), lookback=10, horizon=10
    )
    assert len(data.grid.times) == 140
    windows = data.windows("train")
    batch = windows.batch(torch.arange(len(windows)))
    for place, origin in enumerate(windows.origins.tolist()):
        sequence, step = divmod(origin, 20)
        assert step == 10
        shown = torch.cat([batch.frames[place], batch.target[place]])[:, 0] * 255
        np.testing.assert_allclose(shown.numpy(), pixels[:, sequence], atol=1e-3)


def test_an_npy_with_a_file_beside_it_has_dates_and_names(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 2, 3, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    side = '{"start": "2020-01-01", "step_hours": 6, "channels": ["u", "v"], "units": "m s-1"}'
    (tmp_path / "a.json").write_text(side)
    grid = read(tmp_path / "a.npy", GridOptions())
    assert grid.clock.frequency == "6h"
    assert [(c.name, c.units) for c in grid.header.channels] == [("u", "m s-1"), ("v", "m s-1")]
    np.testing.assert_array_equal(grid.store(1 << 30).values().numpy(), values)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a": np.zeros((3, 2, 2)), "b": np.zeros(3)}, r"The file holds a, b"),
        ({"data": np.zeros(4)}, r"shape \(4,\) has not the axes of a grid"),
        (
            {name: np.zeros((3, 4, 2, 2, 2 + (name == "Y_test")))
             for name in ("X_train", "Y_train", "X_test", "Y_test")},
            r"The windows differ in shape",
        ),
        ({"data": np.asfortranarray(np.ones((3, 2, 2)))}, r"Fortran order"),
    ],
)  # fmt: skip
def test_arrays_of_another_form_are_refused(tmp_path, arrays, told):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=told):
        read(tmp_path / "a.npz", GridOptions())


def test_a_cut_off_array_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 3, 4), np.float32))
    path = tmp_path / "a.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="ends before its array does"):
        read(path, GridOptions()).store(1 << 30)


def test_a_forecast_goes_on_in_the_same_layout(tmp_path):
    days = np.datetime64("2016-04-01") + np.arange(10)
    write_slots(tmp_path / "a.h5", days, [range(48)] * 10)
    section = GridSection(source=str(tmp_path / "a.h5"), counts=True, split=(0, 96, 96))
    data = load(section, lookback=4, horizon=4)
    context = read_context(data.header, data.arrays(), data.spec, tmp_path / "a.h5")
    values = np.random.default_rng(0).integers(0, 9, (4, 2, 4, 4)).astype(np.float32)
    write_forecast(tmp_path / "f.h5", values, context.times, context.last, context.header)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["date"][:].tolist() == [b"2016041101", b"2016041102", b"2016041103",
                                            b"2016041104"]  # fmt: skip
        np.testing.assert_array_equal(file["data"][:], values)


def test_data_that_are_not_there_say_where_they_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"TaxiBJ has no official address any more") as caught:
        load(GridSection(source="taxibj"), lookback=4, horizon=4)
    assert caught.value.exit_code == 4
    assert str(tmp_path / "taxibj") in caught.value.message


def test_real_bikes_by_the_published_protocol():
    if "FORECAST_DATA" not in os.environ:
        pytest.skip("FORECAST_DATA is not set")
    known = DATASETS["bikenyc"]
    if not (Path(os.environ["FORECAST_DATA"]) / known.files[0].path).is_file():
        pytest.skip("the file is not under FORECAST_DATA")
    data = load(GridSection(source="bikenyc", **known.options), lookback=4, horizon=4)
    assert str(data.grid.times[0]) == "2014-08-05T00:00:00.000000"
    assert len(data.grid.times) == known.rows == 1_368
    assert float(data.scaler.deviation.max()) == 239
    assert len(data.windows("test")) == 237
    sums = {name: error_sums(data) for name in ("persistence", "day", "week")}
    from forecast.models.grid_baselines import grid_baselines

    models = grid_baselines(data.spec)
    for batch in data.windows("test").batches(64):
        for name, total in sums.items():
            total.add(models[name](batch), batch)
    # published with the file
    for name, mse in (("persistence", 1.0533), ("day", 0.5601), ("week", 0.3253)):
        assert sums[name].result()["openstl"]["mse"] == pytest.approx(mse, abs=5e-5)
