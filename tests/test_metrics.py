"""Error measures against numbers derived by hand, and independence of the batch size."""

from __future__ import annotations

import math

import pytest
import torch

from forecast import metrics
from forecast.metrics import ErrorSums


def test_two_by_two_by_hand():
    prediction = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    truth = torch.tensor([[1.0, 4.0], [0.0, 5.0]])
    # errors 0, -2, 3, -1: squares 0 + 4 + 9 + 1 = 14, absolutes 6, truth 10
    assert metrics.mse(prediction, truth) == 3.5
    assert metrics.mae(prediction, truth) == 1.5
    assert metrics.rmse(prediction, truth) == pytest.approx(math.sqrt(3.5))
    assert metrics.wape(prediction, truth) == pytest.approx(0.6)
    mask = torch.tensor([[True, False], [True, True]])
    # without the -2: squares 10 over 3, absolutes 4 over 3, truth 6 over 3
    assert metrics.mse(prediction, truth, mask) == pytest.approx(10 / 3)
    assert metrics.mae(prediction, truth, mask) == pytest.approx(4 / 3)
    assert metrics.wape(prediction, truth, mask) == pytest.approx(4 / 6)


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
    assert results[0]["mse"] == pytest.approx(metrics.mse(prediction, truth, mask), rel=1e-12)
    assert results[0]["windows"] == 50
    assert results[0]["values"] == int(mask.sum())
    lead = metrics.mse(prediction[:, 2], truth[:, 2], mask[:, 2])
    assert results[0]["mse_by_lead"][2] == pytest.approx(lead, rel=1e-12)
    units = metrics.mae(prediction[..., 1].double() * 3, truth[..., 1].double() * 3, mask[..., 1])
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
