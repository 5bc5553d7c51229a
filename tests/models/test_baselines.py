"""Baselines: numbers derived by hand, and ridge against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forecast.batch import SeriesBatch, Spec
from forecast.batch.windows import Series, Windows
from forecast.errors import UsageError
from forecast.models.baselines import (
    DLinear,
    DLinearConfig,
    Mean,
    NoConfig,
    Persistence,
    Ridge,
    SeasonalNaive,
)


def spec(lookback, horizon, season=1, variates=1):
    return Spec(lookback=lookback, horizon=horizon, variates=variates, season=season)


PAST = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(1, 5, 1)


def test_persistence_seasonal_naive_and_mean_by_hand():
    batch = SeriesBatch(past=PAST)
    assert Persistence(NoConfig(), spec(5, 3))(batch).values.flatten().tolist() == [5, 5, 5]
    seasonal = SeasonalNaive(NoConfig(), spec(5, 4, season=3))
    assert seasonal(batch).values.flatten().tolist() == [3, 4, 5, 3]
    # a season longer than the window is cut to it
    assert SeasonalNaive(NoConfig(), spec(5, 2, season=9))(batch).values.flatten().tolist() == [
        1,
        2,
    ]
    assert Mean(NoConfig(), spec(5, 2))(batch).values.flatten().tolist() == [0, 0]


def test_missing_values_fall_back_on_the_last_observed_one():
    mask = torch.tensor([True, True, True, True, False]).view(1, 5, 1)
    batch = SeriesBatch(past=PAST * mask, past_mask=mask)
    assert Persistence(NoConfig(), spec(5, 2))(batch).values.flatten().tolist() == [4, 4]
    seasonal = SeasonalNaive(NoConfig(), spec(5, 3, season=3))
    assert seasonal(batch).values.flatten().tolist() == [3, 4, 4]


def windows(values, lookback, horizon, mask=None):
    count = values.shape[0]
    return Windows(
        series=Series(values=values, mask=mask),
        origins=torch.arange(lookback, count - horizon + 1),
        lookback=lookback,
        horizon=horizon,
    )


def rows_of(part, lookback, horizon):
    """Lay windows out one by one, as the definition has it: each less its last value."""
    inputs, targets = [], []
    values = part.series.values.double().numpy()
    for origin in part.origins.tolist():
        for variate in range(values.shape[1]):
            window = values[origin - lookback : origin, variate]
            inputs.append(window - window[-1])
            targets.append(values[origin : origin + horizon, variate] - window[-1])
    return np.array(inputs), np.array(targets)


def test_ridge_is_the_penalised_least_squares_solution_chosen_on_validation():
    torch.manual_seed(0)
    lookback, horizon = 6, 3
    values = torch.randn(300, 2).cumsum(0) * 0.1 + torch.randn(300, 2)
    train, val = windows(values[:200], lookback, horizon), windows(values[200:], lookback, horizon)
    model = Ridge(NoConfig(), spec(lookback, horizon))
    model.fit(train, val)
    x, y = rows_of(train, lookback, horizon)
    vx, vy = rows_of(val.every(4), lookback, horizon)
    solutions = {
        penalty: np.linalg.solve(x.T @ x / len(x) + penalty * np.eye(lookback), x.T @ y / len(x))
        for penalty in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    }
    best = min(solutions, key=lambda penalty: ((vx @ solutions[penalty] - vy) ** 2).mean())
    np.testing.assert_allclose(model.weight.numpy(), solutions[best], atol=1e-5)


def test_ridge_drops_a_missing_target_from_the_equations_of_its_step_only():
    torch.manual_seed(0)
    lookback, horizon = 4, 2
    values = torch.randn(120, 1)
    mask = torch.ones(120, 1, dtype=torch.bool)
    mask[50] = False
    train = windows(values * mask, lookback, horizon, mask)
    # One value missing: step 0 lacks the window whose first target it is, step 1 that whose second.
    model = Ridge(NoConfig(), spec(lookback, horizon))
    model.fit(train, train)
    data, hidden = (values * mask).double().numpy(), mask.numpy()
    for step in range(horizon):
        x, y = [], []
        for origin in train.origins.tolist():
            past, seen = data[origin - lookback : origin, 0], hidden[origin - lookback : origin, 0]
            last = past[np.flatnonzero(seen)[-1]]
            if hidden[origin + step, 0]:
                x.append((past - last) * seen)
                y.append(data[origin + step, 0] - last)
        x, y = np.array(x), np.array(y)
        candidates = [
            np.linalg.solve(x.T @ x / len(x) + penalty * np.eye(lookback), x.T @ y / len(x))
            for penalty in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
        ]
        distance = min(np.abs(model.weight[:, step].numpy() - found).max() for found in candidates)
        assert distance < 1e-5


def test_dlinear_starts_as_the_mean_of_the_window_and_shares_or_splits_its_maps():
    batch = SeriesBatch(past=torch.randn(2, 30, 3))
    shared = DLinear(DLinearConfig(), spec(30, 4, variates=3))
    # trend and remainder add up to the window, and both maps average it
    expected = batch.past.mean(1, keepdim=True).expand(2, 4, 3)
    torch.testing.assert_close(shared(batch).values, expected)
    assert sum(weight.numel() for weight in shared.parameters()) == 2 * (30 * 4 + 4)
    own = DLinear(DLinearConfig(individual=True), spec(30, 4, variates=3))
    torch.testing.assert_close(own(batch).values, expected)
    with pytest.raises(UsageError, match="3 variates of its own and got 5"):
        own(SeriesBatch(past=torch.randn(2, 30, 5)))
    with pytest.raises(UsageError, match="even"):
        DLinear(DLinearConfig(kernel=24), spec(30, 4))
