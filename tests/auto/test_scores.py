"""Scores of arrays, against numbers derived by hand."""

import numpy as np
import pytest

from forecast.auto import scores


def test_wql_of_a_constant_forecast_by_hand():
    # truth 1, 3; every quantile 2: errors -1, 1. Loss at q: 2 (1 - q) + 2 q = 2, over sum 4.
    quantiles = np.full((1, 2, 19), 2.0)
    assert scores.wql(np.array([[1.0, 3.0]]), quantiles) == pytest.approx(0.5)
    assert scores.wql(np.array([[2.0, 2.0]]), quantiles) == 0
    # Missing truth counts on neither side.
    assert scores.wql(np.array([[1.0, np.nan]]), quantiles) == pytest.approx(1.0)


def test_mase_and_rmsse_use_the_whole_history():
    history = np.array([[0.0, 10, 2, 10, 4, 10]])  # seasonal steps of 2: 2, 0, 2, 0
    scale = scores.seasonal_scale(history, 2)
    np.testing.assert_allclose(scale, [1.0])
    assert scores.mase(np.array([[5.0, 7.0]]), np.array([[6.0, 4.0]]), scale) == 2.0
    square = scores.seasonal_scale(history, 2, power=2)
    np.testing.assert_allclose(square, [2.0])
    assert scores.rmsse(np.array([[5.0, 7.0]]), np.array([[6.0, 4.0]]), square) == pytest.approx(
        (5 / 2) ** 0.5
    )
    assert np.isnan(scores.seasonal_scale(np.ones((1, 9)), 2)).all()


def test_shares_of_errors():
    truth, forecast = np.array([[10.0, 30.0, 0.0]]), np.array([[20.0, 30.0, 0.0]])
    assert scores.wape(truth, forecast) == pytest.approx(10 / 40)
    assert scores.smape(truth, forecast) == pytest.approx((2 * 10 / 30) / 3)


def test_msis_adds_what_lies_outside():
    # Width 2, one of two values outside by 1: (2 + (2 + 40)) / 2 = 22, over a scale of 2.
    truth = np.array([[0.0, 2.0]])
    low, high = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    assert scores.msis(truth, low, high, np.array([2.0])) == pytest.approx(11.0)
    assert scores.coverage(truth, low, high) == 0.5


def test_levels_in_between_are_on_the_line():
    quantiles = np.array([1.0, 2.0, 4.0])
    assert scores.at_level(quantiles, (0.1, 0.5, 0.9), 0.7) == pytest.approx(3.0)
    assert scores.at_level(quantiles, (0.1, 0.5, 0.9), 0.9) == 4.0
    assert scores.at_level(quantiles, (0.1, 0.5, 0.9), 0.01) == 1.0
