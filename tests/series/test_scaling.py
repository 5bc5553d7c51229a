"""The scaler: fitted on training rows alone, by series, undone exactly."""

from __future__ import annotations

import numpy as np

from forecast.series.scaling import Scaler, rounded


def test_statistics_are_of_observed_training_rows_and_biased():
    values = np.array([[1.0, 5.0], [3.0, np.nan], [5.0, 7.0], [1e9, 1e9]])
    scaler = Scaler.fit(values, np.array([0, 4]), np.array([3]), ("",))
    # by hand: mean 3, variance (4 + 0 + 4) / 3; mean 6, variance (1 + 1) / 2
    np.testing.assert_allclose(scaler.mean, [[3.0, 6.0]])
    np.testing.assert_allclose(scaler.deviation, [[np.sqrt(8 / 3), 1.0]])


def test_apply_and_undo_are_inverse_for_each_series():
    random = np.random.default_rng(0)
    offsets = np.array([0, 20, 50])
    values = random.normal(size=(50, 2)) * [[3.0, 500.0]] + 7
    values[20:] *= 1000
    scaler = Scaler.fit(values, offsets, np.array([15, 25]), ("a", "b"))
    scaled = scaler.apply(values, offsets)
    np.testing.assert_allclose(scaled[:15].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled[20:45].std(0), 1, atol=1e-9)
    back = scaler.undo(np.stack([scaled[:5], scaled[20:25]]))
    np.testing.assert_allclose(back[0], values[:5])
    np.testing.assert_allclose(back[1], values[20:25])


def test_constant_and_unobserved_variates_divide_by_one():
    values = np.array([[0.1, np.nan], [0.1, np.nan], [0.1, np.nan]])
    scaler = Scaler.fit(values, np.array([0, 3]), np.array([3]), ("",))
    np.testing.assert_array_equal(scaler.deviation, [[1.0, 1.0]])
    np.testing.assert_allclose(scaler.mean, [[0.1, 0.0]])


def test_a_new_series_is_scaled_by_its_own_context():
    scaler = Scaler(mean=np.array([[10.0]]), deviation=np.array([[2.0]]), ids=("known",))
    context = np.array([[100.0], [300.0]])
    found = scaler.for_series(("new", "known"), [context, context])
    np.testing.assert_allclose(found.mean, [[200.0], [10.0]])
    np.testing.assert_allclose(found.deviation, [[100.0], [2.0]])
    assert scaler.new_ids(("new", "known")) == ("new",)


def test_forecasts_are_rounded_to_what_float32_resolves():
    values = np.array([[[123.4567890123], [1e-9]]])
    found = rounded(values, np.array([[20.0]]))
    # a deviation of 20 is resolved to 2e-5: five decimals
    assert found[0, 0, 0] == 123.45679
    assert found[0, 1, 0] == 0.0
