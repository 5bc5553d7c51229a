"""Closed forms of `auto`: exact where the data are, blind to the future, right on ragged panels."""

import numpy as np
import pytest

from forecast.auto.candidates import candidates
from forecast.auto.cleaning import cleaned
from forecast.auto.gram import window_gram
from forecast.auto.in_context import InContext
from forecast.auto.intermittent import Intermittent
from forecast.auto.look import CLASSES, look
from forecast.auto.ridge import Ridge, reference_weight, solve
from forecast.auto.simple import Drift
from forecast.auto.smoothing import Smoothing
from forecast.auto.theta import Theta
from forecast.auto.transformed import Log


def ragged(lengths, rows=90, seed=0):
    rng = np.random.default_rng(seed)
    values = np.full((len(lengths), rows), np.nan)
    for one, length in zip(values, lengths, strict=True):
        one[rows - length :] = 5 + rng.normal(size=length).cumsum()
    return values


@pytest.mark.parametrize("rows", [3, 17, 40])
def test_the_gram_matrix_is_the_sum_over_all_windows(rows):
    values = ragged([90, 41, 40, 16, 2])
    direct, count = np.zeros((rows, rows)), 0
    for row in values:
        one = row[np.isfinite(row)]
        for begin in range(len(one) - rows + 1):
            window = one[begin : begin + rows]
            direct += np.outer(window, window)
            count += 1
    gram, windows = window_gram(values, rows)
    assert windows == count
    np.testing.assert_allclose(gram, direct, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("reference", ["last", "season", "window"])
def test_ridge_solves_the_normal_equations_of_the_windows_themselves(reference):
    one = ragged([90])[0] - 5
    lookback, horizon, penalty = 12, 4, 0.01
    u = reference_weight(lookback, 6, reference)
    windows = np.lib.stride_tricks.sliding_window_view(one, lookback + horizon)
    past, ahead = windows[:, :lookback], windows[:, lookback:]
    level = (past @ u)[:, None]
    x, y = past - level, ahead - level
    square = x.T @ x / len(x)
    square += penalty * np.trace(square) / lookback * np.eye(lookback)
    expected = np.linalg.solve(square, x.T @ y / len(x))
    gram, count = window_gram(one[None], lookback + horizon)
    np.testing.assert_allclose(solve(gram, count, lookback, u, penalty), expected, atol=1e-7)


def test_a_linear_recurrence_is_continued_by_ridge():
    rows = np.arange(400)
    value = 3 + np.sin(2 * np.pi * rows / 7.3) + 0.5 * np.cos(2 * np.pi * rows / 19.1)
    form = Ridge(lookback=20, penalty=1e-12)
    past = value[None, :380]
    ahead = form.forecast(form.fit(past, 20), past, [380], 20)
    np.testing.assert_allclose(ahead[0, 0], value[380:], atol=1e-4)


def test_a_regression_of_its_own_lies_between_the_common_one_and_its_own():
    values = ragged([90, 90, 90])
    common = Ridge(lookback=6, scale="step").fit(values, 3)["weights"]
    made = {
        pull: Ridge(lookback=6, scale="step", own=True, pull=pull).fit(values, 3)["weights"]
        for pull in (1e-6, 1.0, 1e6)
    }
    np.testing.assert_allclose(made[1e6][0], common, atol=1e-3)
    assert np.abs(made[1.0] - common).sum() < np.abs(made[1e-6] - common).sum()


def test_in_context_continues_a_season_and_moves_with_its_series():
    rows = np.arange(24 * 20)
    season = np.sin(2 * np.pi * rows / 24) + (rows % 24 == 3)
    form = InContext(season=24, penalty=1e-9)
    ahead = form.forecast({}, season[None, :456], [456], 24)[0, 0]
    np.testing.assert_allclose(ahead, season[456:], atol=1e-6)
    moved = form.forecast({}, 7 + 100 * season[None, :456], [456], 24)[0, 0]
    np.testing.assert_allclose(moved, 7 + 100 * ahead, atol=1e-6)


def test_smoothing_and_theta_continue_a_season_and_a_line():
    rows = np.arange(60)
    table = np.array([2.0, -1.0, 0.5, -1.5])
    seasonal = 10 + table[rows % 4]
    for form in (Smoothing(season=4), Theta(season=4)):
        ahead = form.forecast(form.fit(seasonal[None], 8), seasonal[None], [60], 8)[0, 0]
        np.testing.assert_allclose(ahead, 10 + table[np.arange(60, 68) % 4], atol=0.02)
    line = 3.0 + 2.0 * rows
    ahead = Drift().forecast({}, line[None], [60], 3)[0, 0]
    np.testing.assert_allclose(ahead, 3 + 2 * np.arange(60, 63))
    grown = np.exp(0.1 * rows)
    ahead = Log(Drift()).forecast({}, grown[None], [60], 2)[0, 0]
    np.testing.assert_allclose(ahead, np.exp([6.0, 6.1]))


def test_theta_of_a_line_is_the_line_less_half_its_slope_of_the_longest_memory():
    # alpha -> 1 on a line: the level is the last value, the lag 1: last + slope (h + 1) / 2.
    line = 1.0 + 4.0 * np.arange(50)
    ahead = Theta(season=1).forecast({}, line[None], [50], 3)[0, 0]
    np.testing.assert_allclose(ahead, 197 + 0.5 * 4 * np.array([1, 2, 3]), rtol=2e-3)


def test_croston_and_tsb_on_a_demand_every_fourth_row():
    demand = np.tile([8.0, 0, 0, 0], 100)[None]
    croston = Intermittent(method="croston", alpha=0.1).forecast({}, demand, [400], 2)
    np.testing.assert_allclose(croston, 0.95 * 8 / 4, rtol=1e-5)
    tsb = Intermittent(method="tsb").forecast({}, demand, [400, 400], 2)
    assert abs(tsb[0, 0, 0] - 2) < 0.3
    sold_out = np.concatenate([demand, np.zeros((1, 100))], axis=1)
    falling = Intermittent(method="tsb").forecast({}, sold_out, [400, 500], 1)[0, :, 0]
    assert falling[1] < 0.05 * falling[0]


def test_no_candidate_reads_a_row_after_its_origin():
    values = ragged([160, 160, 120, 60], rows=160) + 50
    facts = look(values, (7,), 5)
    other = values.copy()
    other[:, 130:] = 1e3 + np.arange(30)
    forms = candidates(facts, 120, 5)
    assert len(forms) > 15
    for form in forms:
        state = form.fit(values[:, :120], 5)
        one = form.forecast(state, values, [120, 130], 5)
        two = form.forecast(state, other, [120, 130], 5)
        np.testing.assert_array_equal(one, two, err_msg=form.name)
        assert one.shape == (4, 2, 5)


def test_series_are_told_apart_by_class():
    values = ragged([90, 90, 10, 90])
    values[0] = 3.0
    values[1] = np.where(np.arange(90) % 5 == 0, 4.0, 0.0)
    names = [CLASSES[k] for k in look(values, (7,), 5).classes]
    assert names == ["constant", "intermittent", "short", "smooth"]


def test_an_outlier_is_set_aside_and_a_gap_is_filled_from_the_season_before():
    rows = np.arange(600)
    values = (45 + 5 * np.sin(2 * np.pi * rows / 24))[None].copy()
    truth = values.copy()
    values[0, 300] = 99999.0
    values[0, 400:424] = np.nan
    tidy = cleaned(values, 24)
    assert tidy.outliers.sum() == 1
    assert tidy.outliers[0, 300]
    assert tidy.filled.sum() == 24
    # Three rows hold the last value, the others repeat the day before.
    np.testing.assert_allclose(tidy.values, truth, atol=1.5)
    np.testing.assert_allclose(tidy.values[0, 403:424], truth[0, 403:424])
    rare = np.where(np.arange(400) % 40 == 0, 30.0, 0.0)[None]
    assert not cleaned(rare, 7).outliers.any()
