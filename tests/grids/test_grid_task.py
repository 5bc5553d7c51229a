"""Grids through the whole program: train, score, keep, register, forecast, go on from there."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import xarray as xr

import forecast
from forecast import api, artefact, kinds, recipe
from forecast.errors import DataError, UsageError
from forecast.grids import predict
from forecast.grids.forecaster import GridForecaster
from forecast.runs import run

SMALL = [
    "model.width=16", "model.heads=2", "model.gate=32", "model.blocks=3", "train.epochs=1",
    "train.threads=1", "train.batch_size=32",
]  # fmt: skip
ROWS, COLUMNS = 5, 6


def grid(count=24 * 12, seed=0, units="K"):
    """Make hourly frames with a daily cycle, rows from north to south."""
    random = np.random.default_rng(seed)
    hour = np.arange(count)[:, None, None]
    place = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) / 7
    values = 280 + 5 * np.sin(hour * 2 * np.pi / 24 + place)
    values = values + random.normal(size=(count, ROWS, COLUMNS))
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values.astype(np.float32), {"units": units})},
        {
            "time": pd.date_range("2024-03-01", periods=count, freq="h"),
            "lat": np.linspace(58, 54, ROWS),
            "lon": np.linspace(-10, -5, COLUMNS),
        },
    )


def write(data, path):
    data.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))


def train(path, *settings, model="predformer", **options):
    small = SMALL if model == "predformer" else []
    return run.train(
        recipe.load(
            path, model=model, lookback=6, horizon=4, settings=[*small, *settings], **options
        )
    )


@pytest.mark.parametrize(("rule", "back"), [("persistence", 1), ("day", 24)])
def test_a_rule_forecasts_the_very_frames_it_names_in_the_layout_of_the_file(tmp_path, rule, back):
    data = grid()
    trained = train(write(data, tmp_path / "a.nc"), f'model.rule="{rule}"', model="grid-rule")
    found = forecast.predict(trained.artefact, tmp_path / "a.nc")
    steps = range(len(data.time) - back, len(data.time) - back + 4)
    if rule == "persistence":
        steps = [len(data.time) - 1] * 4
    # Scaled and scaled back in float32: about 280 to six digits.
    np.testing.assert_allclose(found.t2m.values, data.t2m.values[list(steps)], atol=1e-4)
    assert found.t2m.dims == ("time", "lat", "lon")
    assert found.t2m.attrs["units"] == "K"
    np.testing.assert_array_equal(found.lat, data.lat)
    assert found.time.values[0] == data.time.values[-1] + np.timedelta64(1, "h")
    np.testing.assert_array_equal(found.lead_time, [1, 2, 3, 4])


def test_scores_stand_beside_the_rules_and_come_back_from_the_artefact(tmp_path):
    trained = train(write(grid(), tmp_path / "a.nc"))
    metrics = trained.metrics
    assert metrics["protocol"] == "honest"
    assert {"persistence", "day", "time-of-day", "day-offset"} <= set(metrics["baselines"])
    # Noise of variance 1 on the frame a day before and on the one forecast.
    assert metrics["baselines"]["day"]["units"]["t2m"]["mse"] == pytest.approx(2.0, rel=0.05)
    again = kinds.evaluate(artefact.load(trained.artefact))
    assert again["metrics"]["test"] == metrics["test"]
    assert again["metrics"]["baselines"] == metrics["baselines"]
    assert trained.picture.stat().st_size > 10_000

    # Every frame after the first lookback of a new file: 48 - 6 - 4 + 1 windows.
    other = write(grid(48, seed=1), tmp_path / "b.nc")
    scored = kinds.evaluate(artefact.load(trained.artefact), str(other))
    assert scored["metrics"]["test"]["windows"] == 39

    write(grid(seed=2), tmp_path / "a.nc")
    with pytest.raises(DataError, match="has changed since training"):
        kinds.evaluate(artefact.load(trained.artefact))


def test_frames_after_the_training_part_change_no_bit_of_weights_or_statistics(tmp_path):
    data = grid()
    border = int(0.7 * len(data.time))
    kept = []
    for name, first in (("clean", len(data.time)), ("poisoned", border)):
        changed = data.copy(deep=True)
        changed.t2m.values[first:] = 1e4
        # One epoch and no choice among epochs: validation decides nothing.
        trained = train(write(changed, tmp_path / f"{name}.nc"))
        kept.append(artefact.load(trained.artefact))
    clean, poisoned = kept
    for name, weight in clean.model.state_dict().items():
        assert torch.equal(weight, poisoned.model.state_dict()[name]), name
    assert clean.statistics.keys() == poisoned.statistics.keys()
    for name, value in clean.statistics.items():
        assert torch.equal(value, poisoned.statistics[name]), name


def test_training_goes_on_from_a_forecaster_with_its_scaling_and_refuses_another_grid(tmp_path):
    start = train(write(grid(), tmp_path / "a.nc")).artefact
    warmer = grid(seed=3)
    warmer.t2m.values[:] += 7
    resolved = recipe.load(
        write(warmer, tmp_path / "b.nc"), settings=["train.threads=1", "train.epochs=1"]
    )
    first = artefact.load(start)
    second = artefact.load(run.train(resolved, init=start).artefact)
    assert isinstance(first, GridForecaster)
    assert isinstance(second, GridForecaster)
    assert torch.equal(first.statistics["scaler.mean"], second.statistics["scaler.mean"])
    assert second.spec == first.spec
    assert any(
        not torch.equal(weight, second.model.state_dict()[name])
        for name, weight in first.model.state_dict().items()
    )
    fewer = recipe.load(write(grid().isel(lon=slice(0, 4)), tmp_path / "c.nc"))
    with pytest.raises(DataError, match="is not the one the model was trained on, 5 x 6"):
        run.train(fewer, init=start)


def test_files_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path):
    trained = train(write(grid(), tmp_path / "a.nc"), model="grid-rule")
    cases = {
        "is in degC, and the model was trained on K": grid(60, units="degC"),
        "There is no variable 't2m'": grid(60).rename(t2m="x"),
        "is not the one the model was trained on": grid(60).isel(lat=slice(1, None)),
        "the model looks back over 6": grid(5),
        "those of the training data are not": grid(60).isel(time=slice(None, None, 2)),
    }
    for place, (message, data) in enumerate(cases.items()):
        path = write(data, tmp_path / f"bad{place}.nc")
        with pytest.raises(DataError, match=message):
            forecast.predict(trained.artefact, path)
    cut = tmp_path / "cut.nc"
    cut.write_bytes((tmp_path / "a.nc").read_bytes()[:4000])
    with pytest.raises(DataError):
        forecast.predict(trained.artefact, cut)


def test_several_files_are_the_times_of_one_grid_in_any_order(tmp_path):
    data = grid()
    trained = train(write(data, tmp_path / "a.nc"), 'model.rule="day"', model="grid-rule")
    whole = forecast.predict(trained.artefact, tmp_path / "a.nc")
    late = write(data.isel(time=slice(250, None)), tmp_path / "part-1.nc")
    early = write(data.isel(time=slice(0, 250)), tmp_path / "part-2.nc")
    for source in ([late, early], str(tmp_path / "part-*.nc")):
        xr.testing.assert_identical(forecast.predict(trained.artefact, source), whole)


def test_a_registered_grid_model_is_served_from_a_table_of_cells(tmp_path):
    path = write(grid(), tmp_path / "a.nc")
    settings = ('tracking.register="uk"', 'tracking.alias="champion"')
    trained = train(path, *settings)
    assert trained.version == 1
    expected = forecast.predict("models:/uk@champion", path)
    xr.testing.assert_identical(expected, forecast.predict(trained.artefact, path))

    cells = grid().t2m.to_dataframe().reset_index().sample(frac=1, random_state=0)
    (folder,) = (tmp_path / "home").glob("**/MLmodel")
    served = mlflow.pyfunc.load_model(str(folder.parent))
    assert served.metadata.signature.inputs.input_names() == ["time", "lat", "lon", "t2m"]
    cells["time"] = cells["time"].astype(str)
    answer = served.predict(cells)
    assert len(answer) == 4 * ROWS * COLUMNS
    table = answer.astype({"time": "datetime64[ns]"}).set_index(["time", "lat", "lon"])
    np.testing.assert_allclose(
        table.t2m.to_xarray().reindex_like(expected.t2m).values, expected.t2m.values, rtol=1e-6
    )


def test_cells_across_the_meridian_on_falling_levels_are_served(tmp_path):
    columns = [355.0, 0.0, 5.0]
    values = np.random.default_rng(0).normal(280, 5, (80, 2, 4, 3)).astype(np.float32)
    data = xr.Dataset(
        {"t": (("time", "plev", "lat", "lon"), values, {"units": "K"})},
        {
            "time": pd.date_range("2020", periods=80, freq="6h"),
            "plev": [850.0, 500.0],
            "lat": [60.0, 20.0, -20.0, -60.0],
            "lon": columns,
        },
    )
    trained = train(write(data, tmp_path / "a.nc"), "data.rows=[1, 4]", model="grid-rule")
    forecaster = artefact.load(trained.artefact)
    expected = forecast.predict(trained.artefact, tmp_path / "a.nc")
    cells = data.isel(lat=slice(0, 3)).t.to_dataframe().reset_index()
    for shift in (0.0, -360.0):
        # 355 and -5 are one place; the answer names it as the question did
        asked = cells.assign(lon=np.where(cells.lon > 180, cells.lon + shift, cells.lon))
        answer = predict.predict_frame(forecaster, pl.from_pandas(asked.sample(frac=1)))
        table = answer.to_pandas()
        assert set(table.lon) == set(asked.lon)
        table["lon"] = table.lon % 360
        table["time"] = table.time.astype("datetime64[ns]")
        found = table.set_index(["time", "plev", "lat", "lon"]).t.to_xarray()
        np.testing.assert_allclose(found.reindex_like(expected.t).values, expected.t.values)
    with pytest.raises(DataError, match="lat = 33 is none of the 3 places of the model"):
        predict.predict_frame(forecaster, pl.from_pandas(cells.assign(lat=33.0)))


def test_a_model_of_another_kind_is_refused_with_those_that_fit(tmp_path):
    path = write(grid(), tmp_path / "a.nc")
    with pytest.raises(UsageError, match="itransformer forecasts tables of series") as caught:
        recipe.load(path, model="itransformer")
    assert "predformer" in caught.value.hint
    with pytest.raises(UsageError, match="predformer forecasts grids, and etth1 holds tables"):
        recipe.load("etth1", model="predformer")
    trained = train(path, model="grid-rule")
    with pytest.raises(UsageError, match="a forecaster of grids"):
        api.load_series(trained.artefact)


def test_the_resolved_recipe_is_a_recipe(tmp_path):
    trained = train(write(grid(), tmp_path / "a.nc"), "data.latitude=[54.5, 58]")
    (folder,) = (tmp_path / "home" / "runs").iterdir()
    again = recipe.load(folder / "recipe.toml")
    assert again == trained.recipe
    assert again.grid.references == ("day", "3-day-mean", "time-of-day")
    assert json.loads((trained.artefact / "forecaster.json").read_text())["spec"]["rows"] == 4
