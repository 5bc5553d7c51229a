"""Scores on grids: numbers derived by hand, and sums that no batch size changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from forecast.batch import Forecast, GridBatch
from forecast.scoring.fields import GridErrorSums, anomaly_correlation, area_weights, psnr, ssim


def batch_of(truth, mask=None, references=None):
    past = torch.zeros(truth.shape[0], 1, *truth.shape[2:])
    return GridBatch(frames=past, target=truth, target_mask=mask, references=references)


def scored(sums, prediction, truth, **parts):
    sums.add(Forecast(values=prediction), batch_of(truth, **parts))
    return sums.result()


def test_errors_of_two_by_two_cells_by_hand():
    # One window, one lead, two channels of two by two cells; a scaled unit is worth 10 and 100.
    truth = torch.zeros(1, 1, 2, 2, 2)
    prediction = torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.5, 0.5]]).view(1, 1, 2, 2, 2)
    sums = GridErrorSums(columns=("a", "b"), deviation=torch.tensor([10.0, 100.0]).view(2, 1, 1))
    result = scored(sums, prediction, truth)
    # squares: 1 + 4 + 9 + 0 = 14 and 0.25 + 0.25 = 0.5; absolutes: 6 and 1
    assert result["mse"] == pytest.approx(14.5 / 8)
    assert result["mae"] == pytest.approx(7 / 8)
    assert result["openstl"] == pytest.approx({"mse": 14.5, "mae": 7.0})
    units = result["units"]
    assert units["a"] == pytest.approx(
        {"mse": 350.0, "mae": 15.0, "rmse": math.sqrt(350), "bias": 5.0}
    )
    assert units["b"] == pytest.approx(
        {"mse": 1250.0, "mae": 25.0, "rmse": math.sqrt(1250), "bias": 25.0}
    )
    assert "area" not in result
    assert "ssim" not in result["openstl"]


def test_missing_targets_are_left_out_of_sums_and_counts():
    truth = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 2, 2)
    mask = torch.tensor([True, False, True, True]).view(1, 1, 1, 2, 2)
    prediction = torch.tensor([2.0, 1e6, 3.0, 2.0]).view(1, 1, 1, 2, 2)
    sums = GridErrorSums(
        columns=("a",), deviation=torch.ones(1, 1, 1), latitudes=torch.tensor([-45.0, 45.0])
    )
    result = scored(sums, prediction, truth, mask=mask)
    assert result["mse"] == pytest.approx((1 + 4) / 3)
    assert result["values"] == 3
    # the rows are of one area, so the weighted figures are the same
    assert result["area"]["a"]["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert result["area"]["a"]["bias"] == pytest.approx((1 - 2) / 3)


def test_area_weights_by_hand():
    # Rows at -60, 0, 60 reach to -30 and 30 and as far beyond, which is the pole: the sines are
    # -1, -1/2, 1/2, 1, so the shares are 1/2, 1, 1/2 and with mean 1 they are 3/4, 3/2, 3/4.
    weights = area_weights(torch.tensor([-60.0, 0.0, 60.0]))
    torch.testing.assert_close(weights, torch.tensor([0.75, 1.5, 0.75], dtype=torch.float64))
    # On WeatherBench's 32 rows they are the cosine's.
    latitudes = torch.linspace(-87.1875, 87.1875, 32, dtype=torch.float64)
    cosine = torch.cos(torch.deg2rad(latitudes))
    torch.testing.assert_close(area_weights(latitudes), cosine / cosine.mean())
    # With rows on the poles they are not: published to five digits.
    weights = area_weights(torch.linspace(-90, 90, 73))
    assert float(weights[0]) == pytest.approx(0.00869, abs=5e-6)
    assert float(weights[36]) == pytest.approx(1.59249, abs=5e-6)
    assert float(area_weights(torch.linspace(90, -90, 121))[0]) == pytest.approx(0.00518, abs=5e-6)
    # A region's outer rows are no larger than their neighbours.
    weights = area_weights(torch.tensor([50.0, 50.25, 50.5]))
    assert float(weights.max() / weights.min()) < 1.02


def test_area_weighted_rmse_is_rooted_after_the_mean_over_times():
    # Errors 3 on the equator at one time, 0 at the other; weights 3/4, 3/2, 3/4 over three rows:
    # sqrt(mean of (0, 1.5 * 9, 0) and 0) = sqrt(13.5 / 6) = 1.5, not the mean of the roots, 1.06.
    truth = torch.zeros(2, 1, 1, 3, 1)
    prediction = truth.clone()
    prediction[0, 0, 0, 1] = 3.0
    sums = GridErrorSums(
        columns=("a",),
        deviation=torch.ones(1, 1, 1),
        latitudes=torch.tensor([-60.0, 0.0, 60.0]),
    )
    area = scored(sums, prediction, truth)["area"]["a"]
    assert area["rmse"] == pytest.approx(1.5)
    assert area["mae"] == pytest.approx(1.5 * 3 / 6)
    assert area["rmse_by_lead"] == pytest.approx([1.5])


def test_anomaly_correlation_by_hand():
    # Climate 10; anomalies of the truth (1, 2), of the forecast (2, 1): (2 + 2) / sqrt(5 * 5).
    truth, prediction = torch.tensor([[11.0, 12.0]]), torch.tensor([[12.0, 11.0]])
    climate, weights = torch.full((1, 2), 10.0), torch.ones(1, 2, dtype=torch.float64)
    assert float(anomaly_correlation(prediction, truth, climate, weights)) == pytest.approx(0.8)
    # It is not centred: anomalies of one size and sign agree perfectly.
    one = torch.full((1, 2), 13.0)
    assert float(anomaly_correlation(one, one + 4, climate, weights)) == pytest.approx(1.0)
    # A forecast of the climatology itself has no anomaly to agree with.
    assert float(anomaly_correlation(climate, truth, climate, weights)) == 0.0


def test_acc_is_averaged_over_instants_and_leads():
    # Reference 1 is the climatology: 0. Window one is right, window two has the sign wrong.
    truth = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2, 1).repeat(2, 1, 1, 1, 1)
    prediction = torch.stack([truth[0], -truth[1]])
    references = torch.zeros(2, 2, 2, 1, 2, 1)
    references[:, 0] = 7.0
    sums = GridErrorSums(
        columns=("a",), deviation=torch.full((1, 1, 1), 5.0), latitudes=None, climate=1
    )
    assert scored(sums, prediction, truth, references=references)["area"]["a"]["acc"] == 0.0


def test_psnr_by_hand():
    # Cells off by 0.1: mse 0.01, 20 dB. A forecast above 1 is cut to 1 first.
    truth = torch.full((1, 1, 2, 2), 0.9)
    assert float(psnr(truth - 0.1, truth)) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr(truth + 5.0, truth)) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr(truth, truth)) == 100.0


def test_ssim_of_single_windows_by_hand():
    # On 7 x 7 cells there is one window. Constants 0.5 and 0.25 have no variance: what is left is
    # (2 * 0.5 * 0.25 + C1) / (0.25 + 0.0625 + C1), with C1 = 1e-4 of the range 1.
    first, second = torch.full((7, 7), 0.5), torch.full((7, 7), 0.25)
    assert float(ssim(first, second, 1.0)) == pytest.approx(0.2501 / 0.3126, rel=1e-9)
    assert float(ssim(first, first, 1.0)) == pytest.approx(1.0)
    # A board of +-1/2 about 0 against its negative: sample variance v = 49/48 (1/4 - mean^2).
    board = (torch.arange(49) % 2).double().view(7, 7) - 0.5
    mean = float(board.mean())
    variance = 49 / 48 * (0.25 - mean**2)
    c1, c2 = 0.02**2, 0.06**2
    expected = (c1 - 2 * mean**2) * (c2 - 2 * variance)
    expected /= (2 * mean**2 + c1) * (2 * variance + c2)
    assert float(ssim(board, -board, 2.0)) == pytest.approx(expected, rel=1e-9)


def test_ssim_takes_each_window_of_a_larger_frame():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 9, 8, generator=generator, dtype=torch.float64)
    windows = [
        float(ssim(first[y : y + 7, x : x + 7], second[y : y + 7, x : x + 7], 1.0))
        for y in range(3)
        for x in range(2)
    ]
    assert float(ssim(first, second, 1.0)) == pytest.approx(np.mean(windows), rel=1e-12)
    # a wider range forgives more
    assert float(ssim(first, second, 2.0)) > float(ssim(first, second, 1.0))


@pytest.mark.parametrize("size", [1, 7, 256])
def test_sums_do_not_depend_on_the_batch_size(size):
    generator = torch.Generator().manual_seed(1)
    truth, prediction = torch.rand(2, 23, 3, 2, 8, 9, generator=generator)
    mask = torch.rand(truth.shape, generator=generator) > 0.2
    references = torch.rand(23, 1, 4, 2, 8, 9, generator=generator)

    def result(step):
        sums = GridErrorSums(
            columns=("a", "b"),
            deviation=torch.rand(2, 8, 9, generator=torch.Generator().manual_seed(2)) + 0.5,
            latitudes=torch.linspace(-70, 70, 8),
            climate=0,
            unit_range=True,
        )
        for start in range(0, 23, step):
            part = slice(start, start + step)
            sums.add(
                Forecast(values=prediction[part]),
                batch_of(truth[part], mask[part], references[part]),
            )
        return sums.result()

    def flat(figures):
        if isinstance(figures, dict):
            return [value for item in figures.values() for value in flat(item)]
        return figures if isinstance(figures, list) else [figures]

    assert flat(result(size)) == pytest.approx(flat(result(23)), rel=1e-12)


def test_nothing_scored_gives_no_figures():
    sums = GridErrorSums(columns=("a",), deviation=torch.ones(1, 1, 1))
    assert sums.result() == {"mse": None, "mae": None, "rmse": None, "windows": 0, "values": 0}
