"""Intervals keep their promise: nested, finite-sample exact, blind to what is not known yet."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

import forecast
from forecast import api, artefact, recipe
from forecast.batch import Forecast, SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.layers import check_quantiles, quantile_error, rising
from forecast.models import MODELS
from forecast.runs import run as training
from forecast.series import context, online_intervals, predict, score
from forecast.series import data as loading
from forecast.series.intervals import GRID, RATE, Band, Calibration, Tracker, calibrate
from forecast.tables import reading
from forecast.tables.reading import TableOptions

QUANTILES = (0.05, 0.2, 0.5, 0.9, 0.95)


def test_quantiles_cannot_cross_whatever_the_head_gives():
    torch.manual_seed(0)
    raw = torch.cat([torch.randn(200, 5), 1e4 * torch.randn(200, 5), torch.zeros(1, 5)])
    values = rising(raw, QUANTILES)
    assert (values.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(values[:, 2], raw[:, 2])
    # one step from the median is the softplus of its number, the next is added to it
    expected = raw[0, 2] + torch.log1p(raw[0, 3].exp()) + torch.log1p(raw[0, 4].exp())
    torch.testing.assert_close(values[0, 4], expected)


def test_the_loss_of_the_median_alone_is_the_mae_and_of_others_leans_to_their_side():
    truth = torch.tensor([[[1.0], [5.0]]])
    batch = SeriesBatch(past=torch.zeros(1, 1, 1), target=truth)
    median = Forecast(values=torch.zeros(1, 2, 1, 1), quantiles=(0.5,))
    total, count = quantile_error(median, batch)
    assert total / count == 3.0
    # the median costs 3 as before; at 0.9 a forecast of 3 costs 2 * 0.1 * 2 and 2 * 0.9 * 2
    both = Forecast(values=torch.tensor([0.0, 3.0]).expand(1, 2, 1, 2), quantiles=(0.5, 0.9))
    total, count = quantile_error(both, batch)
    assert float(total / count) == pytest.approx((3.0 + 2.0) / 2)
    masked = dataclasses.replace(batch, target_mask=torch.tensor([[[True], [False]]]))
    total, count = quantile_error(median, masked)
    assert (float(total), float(count)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("quantiles", "words"), [((0.1, 0.9), r"lacks 0\.5.*0\.1, 0\.5, 0\.9"), ((0.5, 0.1), "rise")]
)
def test_quantiles_without_a_median_or_out_of_order_are_refused(quantiles, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        check_quantiles(quantiles)


def test_the_reach_of_a_point_forecast_is_the_absolute_residual():
    band = Band.of(Forecast(values=torch.tensor([[[2.0]]])))
    truth = torch.tensor([[[-1.0]]])
    assert band.reach(truth) == 3.0
    lower, upper = band.bounds(torch.tensor([[[3.0]]]))
    assert (lower, upper) == (-1.0, 5.0)


def test_the_reach_of_three_quantiles_is_that_of_cqr_m():
    # max((median - y) / (median - low), (y - median) / (high - median))
    values = torch.tensor([[[[-1.0, 1.0, 5.0]]]])
    band = Band.of(Forecast(values=values, quantiles=(0.05, 0.5, 0.95)))
    for truth, reach in ((3.0, 0.5), (5.0, 1.0), (9.0, 2.0), (0.0, 0.5), (-3.0, 2.0), (1.0, 0.0)):
        assert band.reach(torch.tensor([[[truth]]])) == pytest.approx(reach, abs=1e-6)


@pytest.mark.parametrize("name", ["itransformer", "informer", "dlinear"])
def test_every_trained_model_forecasts_rising_quantiles(name):
    torch.manual_seed(0)
    spec = Spec(lookback=24, horizon=6, variates=3)
    model, config = MODELS[name].load()
    small = {} if name == "dlinear" else {"width": 16, "heads": 2}
    made = model(config(quantiles=(0.1, 0.5, 0.8), **small), spec)
    batch = SeriesBatch(past=50 * torch.randn(5, 24, 3), target=torch.randn(5, 6, 3))
    found = made(batch)
    assert found.values.shape == (5, 6, 3, 3)
    assert (found.values.diff(dim=-1) >= 0).all()
    assert torch.equal(found.point(), found.values[..., 1])
    assert Band.of(found).reach(batch.target).shape == (5, 6, 3)
    total, count = made.loss(batch)
    (total / count).backward()
    assert all(weight.grad is not None for weight in made.parameters())
    assert model(config(**small), spec)(batch).values.shape == (5, 6, 3)


def random_forecast(kind, count=50):
    torch.manual_seed(1)
    values = torch.randn(count, 6, 3)
    if kind == "point":
        return Forecast(values=values)
    quantiles = QUANTILES if kind == "quantiles" else (0.5, 0.8, 0.9)
    return Forecast(values=rising(torch.randn(count, 6, 3, len(quantiles)), quantiles),
                    quantiles=quantiles)  # fmt: skip


@pytest.mark.parametrize("kind", ["point", "quantiles", "one side"])
def test_intervals_are_nested_and_hold_exactly_what_they_reach(kind):
    made = random_forecast(kind)
    band = Band.of(made)
    truth = made.point() + 3 * torch.randn(50, 6, 3)
    reach = band.reach(truth)
    before = band.bounds(torch.zeros_like(reach))
    for opening in (0.2, 0.7, 1.0, 1.9, 5.0):
        lower, upper = band.bounds(torch.full_like(reach, opening))
        assert (lower <= before[0]).all()
        assert (upper >= before[1]).all()
        inside = (truth >= lower) & (truth <= upper)
        # equal but for rounding at the very bound
        differ = inside != (reach <= opening)
        assert not differ[(reach - opening).abs() > 1e-4].any()
        before = lower, upper


def test_quantiles_that_are_true_open_to_themselves():
    # At an opening of 1 the outermost quantiles are the bounds; inner ones lie on the way.
    made = random_forecast("quantiles")
    band = Band.of(made)
    lower, upper = band.bounds(torch.ones(50, 6, 3))
    torch.testing.assert_close(lower, made.values[..., 0])
    torch.testing.assert_close(upper, made.values[..., 4])
    torch.testing.assert_close(
        band.reach(made.values[..., 1])[0, 0, 0], torch.tensor(0.8416 / 1.6449), atol=1e-3, rtol=0
    )


def test_split_intervals_cover_what_the_finite_sample_promises():
    torch.manual_seed(0)
    # 19 exchangeable reaches: the 18th smallest covers the 20th in 18 of 20 cases, exactly
    reaches = torch.rand(20, 1, 40_000)
    thresholds = Calibration.of(reaches[:19]).thresholds([50.0, 90.0])
    assert (reaches[19] <= thresholds[1]).float().mean() == pytest.approx(0.9, abs=0.006)
    assert (reaches[19] <= thresholds[0]).float().mean() == pytest.approx(0.5, abs=0.01)
    assert thresholds[1, 0, 0] == reaches[:19, 0, 0].sort().values[17]


def test_levels_that_the_validation_part_is_too_short_for_are_refused():
    few = Calibration.of(torch.rand(8, 2, 1))
    with pytest.raises(UsageError, match=r"90 %.*9 at least"):
        few.thresholds([90.0])
    assert Calibration.of(torch.rand(9, 2, 1)).thresholds([90.0]).isfinite().all()
    with pytest.raises(UsageError, match="at most 99"):
        few.thresholds([100.0])
    # targets that were not observed do not count
    gaps = torch.rand(9, 2, 1)
    gaps[0, 0] = torch.nan
    found = Calibration.of(gaps).thresholds([90.0])
    assert found.isinf().flatten().tolist() == [True, False]


def test_a_level_between_two_of_the_grid_lies_between_their_thresholds():
    calibration = Calibration.of(torch.rand(500, 1, 1))
    low, middle, high = calibration.thresholds([65.0, 68.0, 70.0]).flatten().tolist()
    assert middle == pytest.approx(low + 0.6 * (high - low))


def reaches_in_time(count=400, horizon=4, variates=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, horizon, variates, generator=generator).abs()


def issued(calibration, needed, levels=(50.0, 90.0)):
    tracker = Tracker(calibration, levels)
    return torch.stack([tracker.issue(row) for row in needed])


def test_a_tracker_knows_no_row_before_its_time():
    needed = reaches_in_time()
    calibration = Calibration.of(reaches_in_time(seed=1)[:, 0])
    expected = issued(calibration, needed)
    # Row i + h is the target of step h from origin i, and the last row that origin i sees is i - 1.
    cut, steps = 200, torch.arange(4)
    later = torch.arange(len(needed))[:, None] + steps >= cut
    changed = torch.where(later[:, None, :, None], needed + 100, needed)
    found = issued(calibration, changed)
    assert torch.equal(found[: cut + 1], expected[: cut + 1])
    # Row `cut` is the target of step h from origin cut - h, so every step learns of it at once.
    assert (found[cut + 1, 1] != expected[cut + 1, 1]).any(-1).all()


def test_a_tracker_moves_by_what_a_miss_is_worth():
    calibration = Calibration(reaches=torch.ones(len(GRID), 1, 1))
    found = issued(calibration, torch.tensor([5.0, 0.5, torch.nan]).view(3, 1, 1, 1), [90.0])
    # split threshold 1; a miss adds RATE * 0.9, a hit takes RATE * 0.1
    assert found.flatten().tolist() == pytest.approx([1, 1 + 0.9 * RATE, 1 + 0.8 * RATE])


def test_a_tracker_recovers_coverage_that_split_intervals_lose():
    calibration = Calibration.of(reaches_in_time(2_000)[:, 0])
    drifting = reaches_in_time(6_000, seed=2) * 2
    opened = issued(calibration, drifting)[:, 1]
    late = slice(1_000, None)
    assert (drifting <= calibration.thresholds([90.0])).float().mean() < 0.65
    covered = (drifting <= opened)[late].float().mean((0, 1, 3))
    assert ((covered - 0.9).abs() < 0.015).all()
    # and the levels stay in order, at every origin and step
    both = issued(calibration, drifting)
    assert (both[:, 0] <= both[:, 1]).all()


SETTINGS = ["train.epochs=1", "train.threads=1"]


def hours(count):
    return [
        str(np.datetime64("2024-01-01T00") + np.timedelta64(hour, "h")) for hour in range(count)
    ]


def wide(rows=400, seed=0):
    random = np.random.default_rng(seed)
    wave = 10 + np.sin(np.arange(rows) * 2 * np.pi / 24)
    return pl.DataFrame(
        {
            "ds": hours(rows),
            "a": wave + 0.2 * random.normal(size=rows),
            "b": 50 * wave + random.normal(size=rows),
        }
    )


def long(rows=300):
    frames = [wide(rows, seed).select(pl.lit(name).alias("unique_id"), "ds", y="a")
              for seed, name in enumerate(("x", "z"))]  # fmt: skip
    return pl.concat(frames)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setenv("FORECAST_HOME", str(tmp_path / "home"))

    def run(frame, model, *settings):
        path = tmp_path / "table.csv"
        frame.write_csv(path)
        resolved = recipe.load(
            path, model=model, lookback=48, horizon=12, settings=[*SETTINGS, *settings]
        )
        return training.train(resolved)

    return run


@pytest.mark.parametrize("method", ["split", "adaptive"])
@pytest.mark.parametrize("frame", [wide(), long()], ids=["wide", "long"])
def test_interval_columns_are_named_and_nested_in_both_layouts(train, frame, method):
    forecaster = api.load(train(frame, "ridge").artefact)
    found = forecast.predict(forecaster, frame, level=[50, 87.5], method=method)
    plain = forecast.predict(forecaster, frame)
    assert plain.columns == frame.columns
    assert found.select(plain.columns).equals(plain)
    for name in forecaster.layout.values:
        order = [f"{name}-lo-87.5", f"{name}-lo-50", name, f"{name}-hi-50", f"{name}-hi-87.5"]
        rows = found.select(order).to_numpy()
        assert (np.diff(rows, axis=1) >= 0).all()
        assert (np.diff(rows, axis=1) > 0).any()
    if found.width == 7:
        assert found.columns[3:] == ["y-lo-87.5", "y-lo-50", "y-hi-50", "y-hi-87.5"]


def test_adaptive_intervals_follow_the_file_and_short_files_take_the_split_ones(train):
    frame = wide()
    forecaster = api.load(train(frame, "ridge").artefact)

    def predicted(rows, method):
        table = context.read_context(forecaster, rows)
        return predict.predict_table(forecaster, table, level=[90], method=method)

    assert predicted(frame, "adaptive").intervals == "adaptive"
    assert not predicted(frame, "adaptive").frame.equals(predicted(frame, "split").frame)
    short = predicted(frame.tail(48), "adaptive")
    assert short.intervals == "split"
    assert short.frame.equals(predicted(frame.tail(48), "split").frame)


def test_what_predict_learns_from_the_past_is_what_it_forecast_there(train):
    frame = wide()
    forecaster = api.load(train(frame, "ridge").artefact)
    table = context.read_context(forecaster, frame)
    needed = online_intervals.recently_needed(
        forecaster, table, forecaster.scaler, forecaster.covariates, np.empty((1, 12, 0)), 20,
        torch.device("cpu"),
    )  # fmt: skip
    # as if the file had ended five rows earlier, of which the last five are known by now
    earlier = forecast.predict(forecaster, frame.head(395))["a"].to_numpy()
    misses = np.abs(frame["a"].to_numpy()[395:] - earlier[:5]) / forecaster.scaler.deviation[0, 0]
    np.testing.assert_allclose(needed[15, 0, :5, 0].numpy(), misses, atol=1e-5)
    assert needed[15, 0, 5:].isnan().all()


@pytest.mark.parametrize("model", ["dlinear", "itransformer"])
def test_a_model_with_quantiles_gives_them_without_being_asked(train, model):
    frame = long()
    small = ["model.width=16", "model.heads=2"] if model == "itransformer" else []
    trained = train(frame, model, "model.quantiles=[0.1, 0.25, 0.5, 0.75, 0.9]", *small)
    forecaster = api.load(trained.artefact)
    found = forecast.predict(forecaster, frame)
    order = ["y-lo-80", "y-lo-50", "y-median", "y-hi-50", "y-hi-80"]
    assert found.columns == ["unique_id", "ds", "y", "y-median", *order[:2], *order[3:]]
    assert (np.diff(found.select(order).to_numpy(), axis=1) >= 0).all()
    assert found["y"].equals(found["y-median"].rename("y"))
    test = trained.metrics["test"]
    assert set(test["quantiles"]["pinball"]) == {"0.1", "0.25", "0.5", "0.75", "0.9"}
    # twice the pinball loss of the median is the MAE
    assert 2 * test["quantiles"]["pinball"]["0.5"] == pytest.approx(test["mae"])
    assert test["quantiles"]["crps"] > 0


def test_results_hold_intervals_of_both_methods_and_of_the_baselines(train):
    trained = train(wide(), "ridge")
    found = trained.metrics["test"]["intervals"]
    assert set(found) == {"split", "adaptive"}
    for figures in found.values():
        assert figures["crps"] > 0
        assert set(figures["levels"]) == {"50", "90"}
        assert len(figures["levels"]["90"]["coverage_by_lead"]) == 12
        assert figures["levels"]["90"]["width"] > figures["levels"]["50"]["width"]
    assert set(trained.metrics["baselines"]["seasonal-naive"]["intervals"]) == {"split"}
    # the scores of a reloaded forecaster are the same
    again = score.evaluate(artefact.load(trained.artefact))
    assert again["metrics"]["test"]["intervals"] == found


def test_calibration_reads_the_validation_part_and_no_other(tmp_path):
    frame = wide()
    poisoned = frame.with_columns(a=pl.when(pl.int_range(400) < 350).then("a").otherwise(1e6))
    found = []
    for number, rows in enumerate((frame, poisoned)):
        path = tmp_path / f"{number}.csv"
        rows.write_csv(path)
        data = loading.load(
            reading.read(path, TableOptions()), split=(200, 150, 50), lookback=48, horizon=12
        )
        model = score.fit_baselines(data)["seasonal-naive"]
        found.append(calibrate(model, data.windows("val")).reaches)
    assert torch.equal(found[0], found[1])


def test_a_forecaster_without_a_calibration_says_so(train):
    forecaster = api.load(train(wide(), "ridge").artefact)
    bare = dataclasses.replace(forecaster, calibration=None)
    assert forecast.predict(bare, wide()).columns == ["ds", "a", "b"]
    with pytest.raises(UsageError, match="no intervals"):
        forecast.predict(bare, wide(), level=[90])
