"""Backtests: which rows each window sees, figures that `evaluate` repeats, and going on."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from forecast import artefact, kinds, recipe
from forecast.contracts import Plan
from forecast.errors import DataError
from forecast.runs import run
from forecast.runs.backtest import backtest, compare

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
    folds = kinds.folds(loaded(table(tmp_path / "a.csv")), plan)
    # 40 rows of validation, a tenth of 400; what is left before the first window: 400-36-5-40.
    first = 319
    for number, fold in enumerate(folds):
        task = kinds.open_task(fold.recipe, None, "cpu")
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
    real, calls = run.train, []

    def counted(*arguments, **options):
        if len(calls) == 4:
            calls.append("killed")
            raise KeyboardInterrupt
        calls.append(arguments[0].model)
        return real(*arguments, **options)

    monkeypatch.setattr(run, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        backtest(recipes, plan)
    found = backtest(recipes, plan, resume=True)
    # Four done before the kill are not done again.
    assert calls == ["ridge"] * 3 + ["dlinear", "killed"] + ["dlinear"] * 2
    for key, result in found.results.items():
        again = kinds.evaluate(artefact.load(result["artefact"]))["metrics"]
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
    clean = kinds.folds(loaded(table(tmp_path / "a.csv")), plan)[0].recipe
    # The first window is scored on rows 352 to 376, and knows those before 348.
    poisoned = kinds.folds(loaded(table(tmp_path / "b.csv", poison=slice(348, None))), plan)[
        0
    ].recipe
    weights = [
        artefact.load(run.train(one).artefact).model.state_dict()["weight"]
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
    assert (best.model, best.mean("mse"), best.baseline) == ("ridge", 2.0, True)
    # Deviation 1 over the root of 3.
    assert best.error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(best.p_value)
    # Differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641 of two degrees of freedom.
    t = 2 * math.sqrt(3)
    assert other.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))


def events(path, count=1500, poison=None):
    """Write events of 30 sources, each with two destinations; ten at a time."""
    random = np.random.default_rng(0)
    source = random.integers(0, 30, count)
    target = 100 + 2 * source + random.integers(0, 2, count)
    if poison is not None:
        target[poison:] = 900 + np.arange(count - poison)
    time = np.repeat(np.arange(count // 10) * 60.0, 10)
    pl.DataFrame({"src": source, "dst": target, "t": time}).write_csv(path)
    return path


def of_events(path, *settings):
    return recipe.load(
        path, model="todyformer", lookback=200,
        settings=[
            "train.epochs=1", "train.threads=1", "model.width=16", "model.heads=2",
            "model.depth=1", "data.queries=50", *settings,
        ],
    )  # fmt: skip


@pytest.mark.parametrize("rolling", [False, True])
def test_windows_of_links_touch_and_keep_events_of_one_time_together(tmp_path, rolling):
    plan = Plan(windows=3, step=95, gap=15, rolling=rolling)
    folds = kinds.folds(of_events(events(tmp_path / "a.csv")), plan)
    # A step of 95 reaches back to the middle of ten events of one time, all of which belong to the
    # window: windows begin at 1400, 1300 and 1200. The gap of 15 likewise takes 20; before it are
    # 15 % of the time for validation, rounded to whole instants.
    ends, before = [1300, 1400, 1500], []
    for fold, end in zip(folds, ends, strict=True):
        data = kinds.open_task(fold.recipe, None, "cpu").data
        start = end - len(data.events)
        parts = {part: data.split.part(part) for part in ("train", "val", "test")}
        assert start + parts["test"].stop == end
        assert start + parts["test"].start == end - 100
        assert start + parts["val"].stop == end - 120
        assert parts["val"].start == parts["train"].stop
        assert len(parts["val"]) in (220, 230)
        before.append(parts["train"].stop)
        assert fold.start == f"{(end - 100) // 10 * 60}"
    assert (len(set(before)) == 1) == rolling


def test_windows_and_gaps_are_not_shorter_than_asked(tmp_path):
    source = np.arange(6000) % 30
    frame = {"src": source, "dst": 100 + source, "t": np.repeat(np.arange(60), 100)}
    pl.DataFrame(frame).write_csv(tmp_path / "a.csv")
    # A hundred events of each time, which stay together.
    for fold in kinds.folds(of_events(tmp_path / "a.csv"), Plan(windows=2, step=50, gap=30)):
        split = kinds.open_task(fold.recipe, None, "cpu").data.split
        assert (split.end - split.test, split.test - split.val) == (100, 100)
    # What a recipe says of the gap holds where the plan says nothing.
    (fold,) = kinds.folds(of_events(tmp_path / "a.csv", "data.gap=30"), Plan(windows=1, step=50))
    assert fold.recipe.graph.gap == 100


def test_a_window_of_links_is_trained_and_scored_as_if_the_file_ended_with_it(tmp_path):
    plan = Plan(windows=2, step=100)
    whole = of_events(events(tmp_path / "a.csv", poison=1400))
    found = backtest([whole], plan)
    cut = pl.read_csv(tmp_path / "a.csv").head(1400)
    cut.write_csv(tmp_path / "cut.csv")
    split = kinds.folds(whole, plan)[0].recipe.graph.split
    alone = of_events(tmp_path / "cut.csv", f"data.split={list(split)}")
    metrics = run.train(alone).metrics
    first = found.results["todyformer/0"]
    assert first["test"]["mrr"] == metrics["test"]["mrr"]
    assert first["baselines"]["recency"]["mrr"] == metrics["baselines"]["recency"]["mrr"]
    again = kinds.evaluate(artefact.load(first["artefact"]))["metrics"]
    assert again["test"]["mrr"] == first["test"]["mrr"]
    # Destinations that nobody had before are not foreseen: the best is what has most of MRR.
    assert found.measures == ("mrr", "ap")
    means = [row.mean("mrr") for row in found.rows]
    assert means == sorted(means, reverse=True)
    assert first["test"]["mrr"] > found.results["todyformer/1"]["test"]["mrr"]


@pytest.mark.parametrize("unit", [60.0, 0.1])
def test_windows_of_shares_hold_the_periods_asked_for(tmp_path, unit):
    path = events(tmp_path / "a.csv")
    pl.read_csv(path).with_columns(pl.col("t") / 60 * unit).write_csv(path)
    # Of tenths a period is not exact in binary.
    settings = ("data.task=affinity", f"data.period={7 * unit}", "data.averaged=2")
    for fold in kinds.folds(of_events(path, *settings), Plan(windows=2, step=3)):
        windows = kinds.open_task(fold.recipe, None, "cpu").data.windows("test")
        assert len(windows) == 3


def test_data_too_short_for_the_windows_are_refused(tmp_path):
    with pytest.raises(DataError, match="400 rows do not hold 20 windows of 24"):
        backtest([loaded(table(tmp_path / "a.csv"))], Plan(windows=20, step=24))


@pytest.mark.parametrize("rolling", [False, True])
def test_windows_of_sensors_see_what_the_plan_says(tmp_path, rolling):
    random = np.random.default_rng(0)
    values = random.normal(size=(300, 3)) + 50
    pl.DataFrame(dict(zip("xyz", values.T, strict=True))).write_csv(tmp_path / "v.csv")
    pl.DataFrame({"src": ["x", "y"], "dst": ["y", "z"], "weight": [0.5, 0.9]}).write_csv(
        tmp_path / "e.csv"
    )
    path = tmp_path / "sensors.toml"
    path.write_text(
        '[data]\nsource = ["v.csv", "e.csv"]\ntask = "sensor"\nsplit = [0.7, 0.1, 0.2]\n'
        "[window]\nlookback = 6\nhorizon = 3\n[train]\nepochs = 1\nthreads = 1\n"
    )
    plan = Plan(windows=2, step=20, gap=4, rolling=rolling)
    for number, fold in enumerate(kinds.folds(recipe.load(path), plan)):
        data = kinds.open_task(fold.recipe, None, "cpu").data
        begin = 20 * number if rolling else 0
        # 30 steps of validation, a tenth of 300; the first window begins at 260.
        first = 260 + 20 * number
        assert data.origins("test").min() + begin == first
        assert data.origins("test").max() + 3 + begin == first + 20
        assert data.origins("val").max() + 3 + begin == first - 4
        assert data.origins("train").max() + 3 + begin == first - 34
        assert len(data.values) + begin == first + 20


def test_a_model_kept_for_later_windows_keeps_its_season_and_its_logarithm(tmp_path):
    # Counts at first, and of one season of 12 throughout, which the mean of a slot knows.
    values = np.tile(np.arange(12.0), 30)[:, None] + np.array([[5.0, 9.0]])
    values[300:] *= 1.0 + 1e-6
    pl.DataFrame(dict(zip("xy", values.T, strict=True))).write_csv(tmp_path / "v.csv")
    pl.DataFrame({"src": ["x"], "dst": ["y"], "weight": [0.5]}).write_csv(tmp_path / "e.csv")
    path = tmp_path / "sensors.toml"
    path.write_text(
        '[data]\nsource = ["v.csv", "e.csv"]\ntask = "sensor"\nsplit = [0.7, 0.1, 0.2]\n'
        "season = 12\n[window]\nlookback = 6\nhorizon = 3\n[train]\nepochs = 1\nthreads = 1\n"
    )
    plan = Plan(windows=3, step=17, rolling=True)
    found = backtest([recipe.load(path)], plan, refit=False)
    for result in found.results.values():
        assert result["baselines"]["historical-mean"]["mae"] < 1e-3


def test_results_are_one_document(tmp_path):
    found = backtest([loaded(table(tmp_path / "a.csv"))], Plan(windows=1, step=24))
    kept = json.loads((found.folder / "results.json").read_text())
    assert kept == found.results
    assert math.isnan(found.rows[0].error)
