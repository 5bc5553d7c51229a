"""From an artefact and a table to forecasts: short, new and empty series, long tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

import forecast
from forecast import api, artefact, recipe
from forecast.errors import DataError, UsageError
from forecast.runs import run as training
from forecast.series import context, predict

SMALL = ["model.width=16", "model.heads=2", "train.epochs=1", "train.threads=1"]


def hours(count, start="2024-01-01T00"):
    return [str(np.datetime64(start) + np.timedelta64(hour, "h")) for hour in range(count)]


def long_table(ids=("007", "b"), rows=240, seed=0):
    random = np.random.default_rng(seed)
    frames = []
    for place, name in enumerate(ids):
        wave = np.sin(np.arange(rows) * 2 * np.pi / 24 + place)
        values = 10.0 ** (3 * place) * (5 + wave + 0.1 * random.normal(size=rows))
        frames.append(pl.DataFrame({"unique_id": [name] * rows, "ds": hours(rows), "y": values}))
    return pl.concat(frames)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))

    def run(frame, *settings, model="itransformer", **data):
        path = tmp_path / "table.csv"
        frame.write_csv(path)
        resolved = recipe.load(
            path,
            model=model,
            lookback=48,
            horizon=12,
            settings=[*(SMALL if model == "itransformer" else []), *settings],
            data=data,
        )
        return api.load(training.train(resolved).artefact)

    return run


def test_a_long_table_gives_each_series_its_own_scale_and_keeps_ids_as_text(train):
    frame = long_table()
    forecaster = train(frame)
    assert forecaster.scaler.ids == ("007", "b")
    # a thousandfold apart, and each about its own level
    assert forecaster.scaler.mean[1, 0] / forecaster.scaler.mean[0, 0] == pytest.approx(1000, 0.05)
    found = forecast.predict(forecaster, frame)
    assert found.columns == ["unique_id", "ds", "y"]
    assert found["unique_id"].unique(maintain_order=True).to_list() == ["007", "b"]
    assert found.filter(unique_id="007")["y"].is_between(2, 8).all()
    assert found.filter(unique_id="b")["y"].is_between(2000, 8000).all()
    # the series do not see each other, nor the order they come in
    alone = forecast.predict(forecaster, frame.filter(unique_id="b"))
    np.testing.assert_allclose(
        alone["y"].to_numpy(), found.filter(unique_id="b")["y"].to_numpy(), rtol=1e-6
    )
    assert forecast.predict(forecaster, frame.reverse()).equals(found)


def test_new_short_and_empty_series_follow_their_rules(train):
    forecaster = train(long_table(), model="ridge")
    frame = pl.concat(
        [
            long_table(ids=("new",), rows=60).with_columns(pl.col("y") * 1e6),
            long_table(ids=("short",), rows=5),
            long_table(ids=("void",), rows=50).with_columns(y=pl.lit(None, dtype=pl.Float64)),
        ]
    )
    table = context.read_context(forecaster, frame)
    found = predict.predict_table(forecaster, table)
    told = " ".join(found.notices)
    assert found.skipped == ("void",)
    assert found.series == 2
    assert "not in the training data" in told
    assert "fewer rows than the lookback" in told
    large = found.frame.filter(unique_id="new")["y"]
    assert large.is_between(3e6, 7e6).all()
    assert found.frame.filter(unique_id="short")["ds"][0].startswith("2024-01-01T05")


def test_a_column_without_a_value_is_left_empty_and_named(train):
    random = np.random.default_rng(0)
    frame = pl.DataFrame({"ds": hours(240), "a": random.normal(size=240), "b": np.arange(240.0)})
    forecaster = train(frame)
    found = predict.predict_table(
        forecaster,
        context.read_context(forecaster, frame.with_columns(b=pl.lit(None, dtype=pl.Float64))),
    )
    assert found.frame["b"].is_null().all() or found.frame["b"].is_nan().all()
    assert found.frame["a"].is_finite().all()
    assert any("'b'" in text for text in found.notices)


def test_categorical_columns_reach_the_model_by_level(train):
    random = np.random.default_rng(0)
    weather = random.choice(["rain", "sun"], size=400)
    # what is about to happen shows in the weather one step before
    y = np.concatenate([[0.0], np.where(weather[:-1] == "rain", 3.0, -3.0)])
    frame = pl.DataFrame({"ds": hours(400), "y": y + 0.1 * random.normal(size=400), "sky": weather})
    forecaster = train(frame, categorical=("sky",))
    assert forecaster.layout.levels == {"sky": ("rain", "sun")}
    expected = forecast.predict(forecaster, frame)
    changed = frame.with_columns(sky=pl.lit("rain"))
    assert not forecast.predict(forecaster, changed).equals(expected)
    with pytest.raises(DataError, match="'snow' is new to the model, which knows 'rain', 'sun'"):
        context.read_context(forecaster, frame.with_columns(sky=pl.lit("snow")))


def test_ids_as_variates_of_one_series(train):
    forecaster = train(long_table(), joint=True)
    assert forecaster.columns == ("007", "b")
    assert forecaster.spec.variates == 2
    found = forecast.predict(forecaster, long_table())
    assert found.columns == ["unique_id", "ds", "y"]
    assert found.height == 24


def test_padding_in_front_has_the_calendar_of_the_time_before(train):
    frame = pl.DataFrame({"ds": hours(240), "y": np.arange(240.0)})
    forecaster = train(frame)
    table = context.read_context(forecaster, frame.tail(10))
    times = context.last_times(table, 48)
    assert (np.diff(times[0]) == np.timedelta64(1, "h")).all()


def test_an_artefact_round_trip_forecasts_the_same_bits(train, tmp_path):
    frame = long_table()
    forecaster = train(frame)
    artefact.save(tmp_path / "copy", forecaster)
    again = artefact.load(tmp_path / "copy")
    assert forecast.predict(again, frame).equals(forecast.predict(forecaster, frame))
    assert dataclasses.asdict(again.layout) == dataclasses.asdict(forecaster.layout)
    assert again.recipe == forecaster.recipe
    assert torch.equal(again.ridge, forecaster.ridge)
    (tmp_path / "copy" / "arrays.safetensors").unlink()
    with pytest.raises(DataError, match="missing from the artefact"):
        artefact.load(tmp_path / "copy")


@pytest.mark.parametrize("model", ["lmuformer", "titans"])
def test_history_and_then_new_rows_are_one_table(train, model):
    frame = long_table()
    forecaster = train(frame, "model.width=8", "train.epochs=1", model=model)
    expected = forecast.predict(forecaster, frame)
    late = pl.col("ds") >= hours(240)[230]
    # The history may overlap, and hold series that nobody asks for.
    earlier = pl.concat([frame, long_table(ids=("other",))])
    found = forecast.predict(forecaster, frame.filter(late), history=earlier)
    assert found.equals(expected)
    alone = forecast.predict(forecaster, frame.filter(late))
    assert (alone["y"] - expected["y"]).abs().max() > 1e-3


def test_a_model_without_a_state_takes_no_history(train):
    frame = long_table()
    with pytest.raises(
        UsageError, match=r"ridge forecasts from the last 48 rows and carries no st"
    ):
        forecast.predict(train(frame, model="ridge"), frame, history=frame)
