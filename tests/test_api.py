"""The Python interface: frames, paths and what training returned, all in the same place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import forecast
from forecast.errors import UsageError


@pytest.fixture
def frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    hours = pd.date_range("2024-01-01", periods=200, freq="h")
    return pl.DataFrame({"date": hours, "load": np.sin(np.arange(200) / 4)})


def test_frames_and_trained_models_go_in_and_equal_forecasts_come_out(
    frame: pl.DataFrame, tmp_path: Path
) -> None:
    frame.write_parquet(tmp_path / "load.parquet")
    trained = forecast.train(frame.to_pandas(), model="ridge", lookback=12, horizon=4)
    expected = forecast.predict(trained.artefact, tmp_path / "load.parquet", level=[80])
    indexed = frame.to_pandas().set_index("date")
    for source in (frame, frame.to_pandas(), indexed):
        assert forecast.predict(trained, source, level=80).equals(expected)
    scores = [
        forecast.evaluate(trained, source)["metrics"]["test"]["mse"]
        for source in (tmp_path / "load.parquet", frame, indexed)
    ]
    assert len(set(scores)) == 1
    assert repr(trained).startswith("Trained(ridge on frame.parquet, horizon 4, mse ")
    shown = repr(forecast.load(trained))
    assert shown == "Forecaster(ridge on frame.parquet: load; lookback 12, horizon 4)"


def test_dir_lists_what_there_is() -> None:
    assert dir(forecast) == sorted(forecast.__all__)
    assert {"evaluate", "load", "predict", "train"} <= set(dir(forecast))


@pytest.mark.parametrize("value", ["[" * 5_000, "9" * 10_000])
def test_a_setting_beyond_all_bounds_is_a_sentence(frame: pl.DataFrame, value: str) -> None:
    with pytest.raises(UsageError, match=r"train\.epochs"):
        forecast.train(frame, model="ridge", settings=[f"train.epochs={value}"])


@pytest.mark.parametrize("text", ["a = " + "[" * 5_000, f"[train]\nepochs = {'9' * 10_000}"])
def test_a_recipe_beyond_all_bounds_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.toml").write_text(text)
    with pytest.raises(UsageError, match="not valid TOML"):
        forecast.train(tmp_path / "deep.toml")
