"""The benchmark protocol: windows, published floors, resume, refusals."""

import os
from pathlib import Path

import numpy as np
import pytest

from forecast.auto import scores
from forecast.benchmark import run
from forecast.benchmark.sets import SETS, Set, load_set, number_of_windows, published
from forecast.errors import DataError, NotFoundError, UsageError

needs_data = pytest.mark.skipif(
    not (Path(os.environ.get("FORECAST_DATA", "")) / "bench").is_dir(),
    reason="FORECAST_DATA holds no bench/",
)


def small(seed=0):
    rng = np.random.default_rng(seed)
    values = 10 + np.sin(np.arange(240) / 24 * 2 * np.pi) + 0.2 * rng.normal(size=(2, 240))
    return Set("small", values, 12, 24, "H", 2, variates=True, domain="Energy")


@needs_data
@pytest.mark.parametrize("name", sorted(SETS))
def test_seasonal_naive_equals_the_published_figure(name):
    root = Path(os.environ["FORECAST_DATA"])
    one = load_set(name, root)
    row = run.score(one, run.forecasts(one, "seasonal-naive"))
    assert row[run.MASE] == pytest.approx(published(root)[name]["seasonal_naive"][0], abs=6e-4)


def test_windows_are_a_tenth_of_the_shortest_series():
    assert number_of_windows(69_680, 48) == 20
    assert number_of_windows(17_420, 480) == 4
    assert number_of_windows(725, 30) == 3
    assert number_of_windows(20, 30) == 1


def test_a_model_that_is_given_the_future_scores_zero():
    one = small()
    truth = np.stack([one.values[:, o : o + 12] for o in run.origins_of(one)], axis=1)
    row = run.score(one, np.repeat(truth[..., None], len(scores.LEVELS), axis=-1))
    assert row[run.MASE] == row[run.WQL] == row["CRPS"] == row["RMSSE"] == 0
    assert row["coverage_80"] == 1


def test_no_test_row_changes_the_first_window():
    one = small()
    first = run.origins_of(one)[0]
    other = one.values.copy()
    other[:, first:] = 1e3
    moved = Set("small", other, 12, 24, "H", 2, variates=True, domain="Energy")
    np.testing.assert_array_equal(
        run.forecasts(one, "auto")[:, 0], run.forecasts(moved, "auto")[:, 0]
    )


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "small", lambda root: small())
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "gift_eval_published.csv").write_text(
        "config,model,mase,wql\nsmall,seasonal_naive,1.0,0.1\nsmall,peer,0.5,0.05\n"
    )
    models = ("seasonal-naive", "theta")
    out = tmp_path / "out"
    whole = run.benchmark(["small"], tmp_path, models, out)
    text = (out / "all_results.csv").read_text()
    assert whole.peers["peer"] == pytest.approx((0.5, 0.5))
    lines = text.splitlines(keepends=True)
    (out / "all_results.csv").write_text("".join(lines[:2]) + lines[2][:30])
    seen = []
    monkeypatch.setattr(run, "_measured", lambda one, model, _: seen.append(model) or whole.rows[1])
    again = run.benchmark(["small"], tmp_path, models, out)
    assert seen == ["theta"]
    assert again.relative.keys() == whole.relative.keys()
    for model, means in whole.relative.items():
        assert again.relative[model] == pytest.approx(means)


@needs_data
def test_what_is_wrong_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="no benchmark set"):
        load_set("ett3/H/short", tmp_path)
    with pytest.raises(NotFoundError, match="ETTm1"):
        load_set("ett1/H/short", tmp_path)
    source = Path(os.environ["FORECAST_DATA"]) / "ett" / "ETTm1.csv"
    (tmp_path / "ett").mkdir()
    (tmp_path / "ett" / "ETTm1.csv").write_bytes(source.read_bytes()[:20_000].rsplit(b"\n", 1)[0])
    with pytest.raises(DataError, match="69680"):
        load_set("ett1/H/short", tmp_path)
