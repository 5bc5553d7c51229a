"""Runs brought together: repeats in one row, what differs named, the best baseline beside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from forecast.errors import NotFoundError
from forecast.scoring.comparison import more_is_better
from forecast.tracking import Run, TrackedRun, grouped, tracked_runs


def run(seed, mse, **params):
    return TrackedRun(
        run_id=f"id{seed}",
        name=f"run-{seed}",
        started=datetime(2024, 1, 1, tzinfo=UTC),
        params={
            "data.source": "etth1", "window.lookback": "96", "window.horizon": "24",
            "model.name": "dlinear", "train.seed": str(seed), "train.epochs": "3", **params,
        },
        metrics={"test_mse": mse, "ridge_test_mse": 0.4, "mean_test_mse": 1.1},
    )  # fmt: skip


def test_repeats_are_one_row_and_other_settings_another():
    first, second = grouped([run(0, 0.3), run(1, 0.5), run(2, 0.2, **{"train.epochs": "9"})])
    assert (first.mean("test_mse"), len(first.runs)) == (pytest.approx(0.4), 2)
    # Of 0.3 and 0.5 about 0.4: the root of 2 * 0.01 / 1.
    assert first.spread("test_mse") == pytest.approx(0.02**0.5)
    assert dict(first.differing) == {"train.epochs": "3"}
    assert dict(second.differing) == {"train.epochs": "9"}
    assert second.spread("test_mse") is None
    assert first.best_baseline("test_mse") == ("ridge", 0.4)
    # Of a figure that is better the larger it is, the largest.
    assert first.best_baseline("test_mse", more=True) == ("mean", 1.1)
    large = {"test_mrr": True, "recency_test_hits_at_10": True, "test_area_acc_t2m": True}
    small = {"test_mse": False, "ridge_test_mae": False, "test_area_rmse_t2m": False}
    for name, more in (large | small).items():
        assert more_is_better(name) == more, name


def test_runs_come_from_the_store_by_name_and_unknown_ones_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, status in (("one", "FINISHED"), ("two", "FINISHED"), ("three", "FAILED")):
        made = Run.start(
            experiment="forecast", name=name, params={"train.seed": 1, "window.lookback": 96},
            tags={}, datasets=[], folder=tmp_path,
        )  # fmt: skip
        made.log({"test_mse": 0.25}, step=0)
        made.finish(status)
    assert {run.name for run in tracked_runs("forecast")} == {"one", "two"}
    (only,) = tracked_runs("forecast", names=["tw"])
    assert (only.name, only.metrics["test_mse"]) == ("two", 0.25)
    with pytest.raises(NotFoundError, match="no finished run 'three'"):
        tracked_runs("forecast", names=["three"])
    with pytest.raises(NotFoundError, match="no experiment 'forecst'"):
        tracked_runs("forecst")
