"""`forecast` over gridded files, as people type it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr


def write(path, count=200, units="K"):
    random = np.random.default_rng(0)
    values = 280 + random.normal(size=(count, 4, 4)).cumsum(0).astype(np.float32)
    xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": units})},
        {
            "time": pd.date_range("2024-03-01", periods=count, freq="h"),
            "lat": [50.0, 51, 52, 53],
            "lon": [0.0, 1, 2, 3],
        },
    ).to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture(scope="module")
def artefact(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    write(folder / "a.nc")
    wrote = command("init", "a.nc", "--horizon", 3, "--lookback", 6, cwd=folder)
    assert wrote.returncode == 0, wrote.stderr
    assert "200 frames of 4 x 4 cells, one every h" in (folder / "a.toml").read_text()
    tiny = (
        "model.blocks=3",
        "model.width=16",
        "model.heads=2",
        "train.epochs=1",
        "train.threads=1",
    )
    settings = [part for one in tiny for part in ("--set", one)]
    done = command("train", "a.toml", *settings, "--out", "art", cwd=folder)
    assert done.returncode == 0, done.stderr
    for words in ("persistence", "protocol honest", "t2m, by area: RMSE", "forecast.png"):
        assert words in done.stdout
    return folder / "art"


def test_forecasts_go_to_a_file_or_to_a_folder(command, artefact):
    folder = artefact.parent
    done = command("predict", "art", "a.nc", "--out", "f.zarr", "--json", cwd=folder)
    assert json.loads(done.stdout)["written"][0]["frames"] == 3
    write(folder / "b.nc", count=300)
    done = command("predict", "art", "a.nc", "b.nc", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    with xr.open_zarr(folder / "f.zarr") as one, xr.open_dataset(folder / "out/a.nc") as same:
        xr.testing.assert_allclose(one.load(), same.load())
    with xr.open_dataset(folder / "out/b.nc") as other:
        assert other.time.values[0] == np.datetime64("2024-03-13T12")
    evaluated = command("evaluate", "art", "b.nc", "--json", cwd=folder)
    assert json.loads(evaluated.stdout)["metrics"]["test"]["windows"] == 300 - 6 - 3 + 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a.nc",), 2, "does not go to standard output"),
        (("a.nc", "--out", "a.nc"), 2, "would overwrite the input"),
        (("a.nc", "--out", "f.nc", "--top-k", "3"), 2, "--top-k is for graphs"),
        (("a.nc", "--out", "f.csv"), 2, "written as .nc, .zarr, .h5, not .csv"),
        (("a.nc", "--out", "f.nc", "--level", "90"), 2, "--level is for tables"),
        (("celsius.nc", "--out", "f.nc"), 3, "'t2m' is in degC"),
        (("cut.nc", "--out", "f.nc"), 3, "cut.nc"),
        (("absent.nc", "--out", "f.nc"), 4, "absent.nc"),
        (("a.nc", "--out", "nowhere/f.nc"), 4, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_nothing_is_written(
    command, artefact, arguments, code, words
):
    folder = artefact.parent
    write(folder / "celsius.nc", units="degC")
    (folder / "cut.nc").write_bytes((folder / "a.nc").read_bytes()[:5000])
    done = command("predict", "art", *arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    # The panel is as wide as the terminal: words may be broken over its lines.
    assert words.replace(" ", "") in "".join(done.stderr.replace("|", " ").split())
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("f.[nc]*"))


def test_a_stream_or_a_table_command_names_the_way_for_grids(command, artefact):
    done = command("stream", "art", cwd=artefact.parent, stdin="")
    assert done.returncode == 2
    assert "forecaster of grids" in " ".join(done.stderr.replace("|", " ").split())
