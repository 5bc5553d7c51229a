"""Backtests: which rows each window sees, figures that `evaluate` repeats, and going on."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from forecast import artefact, recipe, tasks, training
from forecast.backtest import backtest, compare
from forecast.errors import DataError
from forecast.tasks import Plan

ROWS = 400


def table(path, poison=None):
    random = np.random.default_rng(0)
    rows = np.arange(ROWS)
    values = np.sin(rows * 2 * np.pi / 24) + 0.2 * random.normal(size=ROWS)
    if poison is not None:
        values[poison] = 1e3
    times = np.datetime64("2024-01-01T00") + rows.astype("timedelta64[h]")
    pl.DataFrame({"date": [str(time) for time in times], "load": values}).write_csv(path)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))


def loaded(path, model="ridge", *settings):
    return recipe.load(
        path, model=model, lookback=24, horizon=6,
        settings=["data.split=[0.7, 0.1, 0.2]", "train.threads=1", *settings],
    )  # fmt: skip


@pytest.mark.parametrize("rolling", [False, True])
def test_windows_touch_end_with_the_data_and_see_what_the_plan_says(tmp_path, rolling):
    plan = Plan(windows=3, step=12, gap=5, rolling=rolling)
    folds = tasks.folds(loaded(table(tmp_path / "a.csv")), plan)
    # 40 rows of validation, a tenth of 400; what is left before the first window: 400-36-5-40.
    first = 319
    for number, fold in enumerate(folds):
        task = tasks.open_task(fold.recipe, None, "cpu")
        begin = 12 * number if rolling else 0
        rows = {
            part: (np.array(task.data.windows(part).origins.tolist()) + begin)
            for part in ("train", "val", "test")
        }
        stop = 400 - 12 * (2 - number)
        assert rows["train"].min() == begin + 24
        assert rows["train"].max() + 6 == first + 12 * number
        assert rows["val"].min() == first + 12 * number
        assert rows["val"].max() + 6 == first + 12 * number + 40
        # Five rows are known to nobody in time.
        assert rows["test"].min() == first + 12 * number + 40 + 5 == stop - 12
        assert rows["test"].max() + 6 == stop
        start = np.datetime64("2024-01-01T00") + np.timedelta64(stop - 12, "h")
        assert np.datetime64(fold.start) == start


def test_figures_are_those_of_evaluate_and_a_killed_backtest_goes_on(tmp_path, monkeypatch):
    path = table(tmp_path / "a.csv")
    recipes = [loaded(path), loaded(path, "dlinear", "train.epochs=1")]
    plan = Plan(windows=3, step=24)
    real, calls = training.train, []

    def counted(*arguments, **options):
        if len(calls) == 4:
            calls.append("killed")
            raise KeyboardInterrupt
        calls.append(arguments[0].model)
        return real(*arguments, **options)

    monkeypatch.setattr(training, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        backtest(recipes, plan)
    found = backtest(recipes, plan, resume=True)
    # Four done before the kill are not done again.
    assert calls == ["ridge"] * 3 + ["dlinear", "killed"] + ["dlinear"] * 2
    for key, result in found.results.items():
        again = tasks.evaluate(artefact.load(result["artefact"]))["metrics"]
        assert again["test"]["mse"] == result["test"]["mse"], key
    monkeypatch.undo()
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "other"))
    whole = backtest(recipes, plan)
    assert whole.rows == found.rows
    names = {row.model for row in found.rows}
    # The ridge that was asked for is not there twice.
    assert names == {"ridge", "dlinear", "persistence", "seasonal-naive", "mean"}


def test_what_comes_after_a_window_and_in_the_gap_changes_none_of_its_weights(tmp_path):
    plan = Plan(windows=2, step=24, gap=4)
    clean = tasks.folds(loaded(table(tmp_path / "a.csv")), plan)[0].recipe
    # The first window is scored on rows 352 to 376, and knows those before 348.
    poisoned = tasks.folds(loaded(table(tmp_path / "b.csv", poison=slice(348, None))), plan)[
        0
    ].recipe
    weights = [
        artefact.load(training.train(one).artefact).model.state_dict()["weight"]
        for one in (clean, poisoned)
    ]
    assert (weights[0] == weights[1]).all()


def test_without_refit_the_first_model_is_scored_on_every_window(tmp_path):
    path = table(tmp_path / "a.csv")
    found = backtest([loaded(path)], Plan(windows=3, step=24), refit=False)
    assert {result["artefact"] for result in found.results.values()} == {
        str(found.folder / "ridge-0")
    }
    apart = backtest([loaded(path)], Plan(windows=3, step=24))
    assert found.results["ridge/0"]["test"] == apart.results["ridge/0"]["test"]
    assert found.results["ridge/2"]["test"] != apart.results["ridge/2"]["test"]


def test_errors_and_p_values_by_hand():
    def result(mse, mean):
        return {"test": {"mse": mse, "mae": 0.0}, "baselines": {"mean": {"mse": mean, "mae": 0.0}}}

    results = {f"ridge/{n}": result(*pair) for n, pair in enumerate([(1, 2), (2, 4), (3, 6)])}
    best, other = compare(results, ["ridge"], 3)
    assert (best.model, best.mean_mse, best.baseline) == ("ridge", 2.0, True)
    # Deviation 1 over the root of 3.
    assert best.error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(best.p_value)
    # Differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641 of two degrees of freedom.
    t = 2 * math.sqrt(3)
    assert other.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_data_too_short_for_the_windows_are_refused(tmp_path):
    with pytest.raises(DataError, match="400 rows do not hold 20 windows of 24"):
        backtest([loaded(table(tmp_path / "a.csv"))], Plan(windows=20, step=24))


def test_results_are_one_document(tmp_path):
    found = backtest([loaded(table(tmp_path / "a.csv"))], Plan(windows=1, step=24))
    kept = json.loads((found.folder / "results.json").read_text())
    assert kept == found.results
    assert math.isnan(found.rows[0].error)
