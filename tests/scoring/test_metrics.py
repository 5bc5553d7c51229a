"""Error measures against numbers derived by hand, and independence of the batch size."""

from __future__ import annotations

import math

import pytest
import torch

from forecast.scoring import measures
from forecast.scoring.sums import ErrorSums, IntervalSums, QuantileSums


def test_two_by_two_by_hand():
    prediction = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    truth = torch.tensor([[1.0, 4.0], [0.0, 5.0]])
    # errors 0, -2, 3, -1: squares 0 + 4 + 9 + 1 = 14, absolutes 6, truth 10
    assert measures.mse(prediction, truth) == 3.5
    assert measures.mae(prediction, truth) == 1.5
    assert measures.rmse(prediction, truth) == pytest.approx(math.sqrt(3.5))
    assert measures.wape(prediction, truth) == pytest.approx(0.6)
    mask = torch.tensor([[True, False], [True, True]])
    # without the -2: squares 10 over 3, absolutes 4 over 3, truth 6 over 3
    assert measures.mse(prediction, truth, mask) == pytest.approx(10 / 3)
    assert measures.mae(prediction, truth, mask) == pytest.approx(4 / 3)
    assert measures.wape(prediction, truth, mask) == pytest.approx(4 / 6)


def test_sums_do_not_depend_on_the_batch_size_and_equal_the_functions():
    torch.manual_seed(0)
    prediction, truth = torch.randn(50, 6, 3), torch.randn(50, 6, 3)
    mask = torch.rand(50, 6, 3) > 0.3
    deviation = torch.tensor([[2.0, 3.0, 5.0]])
    results = []
    for size in (1, 7, 256):
        sums = ErrorSums(deviation)
        for start in range(0, 50, size):
            part = slice(start, start + size)
            sums.add(prediction[part], truth[part], mask[part])
        results.append(sums.result(("a", "b", "c")))
    for result in results:
        assert result["mse"] == pytest.approx(results[0]["mse"], rel=1e-12)
        assert result["units"]["c"]["mae"] == pytest.approx(
            results[0]["units"]["c"]["mae"], rel=1e-12
        )
    assert results[0]["mse"] == pytest.approx(measures.mse(prediction, truth, mask), rel=1e-12)
    assert results[0]["windows"] == 50
    assert results[0]["values"] == int(mask.sum())
    lead = measures.mse(prediction[:, 2], truth[:, 2], mask[:, 2])
    assert results[0]["mse_by_lead"][2] == pytest.approx(lead, rel=1e-12)
    units = measures.mae(prediction[..., 1].double() * 3, truth[..., 1].double() * 3, mask[..., 1])
    assert results[0]["units"]["b"]["mae"] == pytest.approx(units, rel=1e-12)


def test_units_follow_the_scale_of_each_series():
    sums = ErrorSums(torch.tensor([[2.0], [10.0]]))
    sums.add(torch.ones(2, 1, 1), torch.zeros(2, 1, 1), series_id=torch.tensor([0, 1]))
    # one unit of error in each series: 2 and 10 in the units of the data
    assert sums.result(("y",))["units"]["y"]["mae"] == 6.0


def test_nothing_observed_is_none_and_not_a_division_by_zero():
    sums = ErrorSums(torch.ones(1, 1))
    sums.add(torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.zeros(1, 2, 1, dtype=torch.bool))
    result = sums.result(("y",))
    assert result["mse"] is None
    assert result["units"]["y"]["rmse"] is None


def test_percentage_and_scaled_errors_by_hand():
    prediction, truth = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([3.0, 0.0, 1.0])
    # 200 * 2 / 4 twice, and 0 of 0 is none: (100 + 0 + 100) / 3
    assert measures.smape(prediction, truth) == pytest.approx(200 / 3)
    # errors 2, 0, 2 against a naive error of 0.5: 4 / 3 / 0.5; squares 4, 0, 4 against 0.25
    assert measures.mase(prediction, truth, 0.5) == pytest.approx(8 / 3)
    assert measures.rmsse(prediction, truth, 0.25) == pytest.approx(math.sqrt(8 / 3 / 0.25))


def test_probabilistic_scores_by_hand():
    prediction, truth = torch.tensor([1.0, 1.0]), torch.tensor([3.0, 0.0])
    # errors 2 and -1: at 0.9 they cost 1.8 and 0.1, at 0.5 half their size
    assert measures.pinball(prediction, truth, 0.9) == pytest.approx(0.95)
    assert measures.pinball(prediction, truth, 0.5) == pytest.approx(
        measures.mae(prediction, truth) / 2
    )
    both = torch.stack([prediction, prediction], -1)
    assert measures.crps(both, truth, (0.5, 0.9)) == pytest.approx(2 * (0.75 + 0.95) / 2)
    lower, upper = torch.tensor([0.0, 0.5]), torch.tensor([2.0, 1.5])
    # 3 is above 2 by 1, 0 below 0.5 by 0.5; at 80 % each unit outside costs 2 / 0.2 = 10
    assert measures.coverage(lower, upper, truth) == 0.0
    assert measures.coverage(lower, upper, torch.tensor([2.0, 1.0])) == 1.0
    assert measures.interval_width(lower, upper) == 1.5
    assert measures.interval_score(lower, upper, truth, 80.0) == pytest.approx((2 + 10 + 1 + 5) / 2)


def test_the_crps_of_many_quantiles_nears_its_closed_form():
    # CRPS of a standard normal forecast at truth 0: 2 / sqrt(2 pi) - 1 / sqrt(pi) = 0.2337
    levels = [(number + 0.5) / 200 for number in range(200)]
    quantiles = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64))[None]
    expected = math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi)
    assert measures.crps(quantiles, torch.zeros(1), levels) == pytest.approx(expected, abs=1e-3)


def test_streamed_probabilistic_sums_equal_the_functions():
    torch.manual_seed(0)
    truth, mask = torch.randn(40, 5, 2), torch.rand(40, 5, 2) > 0.2
    values = torch.randn(40, 5, 2, 3).sort(-1).values
    quantiles = (0.1, 0.5, 0.9)
    levels, width = (10.0, 90.0), torch.tensor([0.1, 1.5]).view(2, 1, 1, 1)
    lower, upper = values[..., 1] - width, values[..., 1] + width
    streamed, ranges = QuantileSums(quantiles), IntervalSums(levels, (90.0,))
    for part in torch.arange(40).split(7):
        streamed.add(values[part], truth[part], mask[part])
        ranges.add(lower[:, part], upper[:, part], truth[part], mask[part])
    found = streamed.result()
    assert found["crps"] == pytest.approx(measures.crps(values, truth, quantiles, mask))
    assert found["pinball"]["0.9"] == pytest.approx(
        measures.pinball(values[..., 2], truth, 0.9, mask)
    )
    assert found["below"]["0.1"] == pytest.approx(
        float((truth <= values[..., 0])[mask].float().mean())
    )
    shown = ranges.result()["levels"]
    assert set(shown) == {"90"}
    figures = shown["90"]
    assert figures["coverage"] == pytest.approx(measures.coverage(lower[1], upper[1], truth, mask))
    assert figures["width"] == pytest.approx(3.0)
    assert figures["interval_score"] == pytest.approx(
        measures.interval_score(lower[1], upper[1], truth, 90.0, mask)
    )
    by_lead = measures.coverage(lower[1, :, 3], upper[1, :, 3], truth[:, 3], mask[:, 3])
    assert figures["coverage_by_lead"][3] == pytest.approx(by_lead)
    bounds = torch.stack([lower[1], lower[0], upper[0], upper[1]], -1)
    assert ranges.result()["crps"] == pytest.approx(
        measures.crps(bounds, truth, (0.05, 0.45, 0.55, 0.95), mask)
    )


def test_scaled_errors_are_means_over_series_of_their_own_scales():
    deviation, mean = torch.tensor([[2.0], [10.0]]), torch.tensor([[5.0], [0.0]])
    naive = torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [16.0]])
    sums = ErrorSums(deviation, mean, naive)
    sums.add(torch.ones(2, 1, 1), torch.zeros(2, 1, 1), series_id=torch.tensor([0, 1]))
    found = sums.result(("y",))
    # an error of 1 in each: 1 / 0.5 and 1 / 2; roots of 1 / 1 and 1 / 16
    assert found["mase"] == pytest.approx((2 + 0.5) / 2)
    assert found["rmsse"] == pytest.approx((1 + 0.25) / 2)
    # in units 7 for 5 and 10 for 0: 200 * 2 / 12 and 200 * 10 / 10
    assert found["smape"] == pytest.approx((400 / 12 + 200) / 2)
