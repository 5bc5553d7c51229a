"""The model `in-context`: what its windows promise."""

import numpy as np
import torch

from forecast.batch import SeriesBatch, Spec
from forecast.models.in_context import InContext, InContextConfig


def model(lookback=512, horizon=96, variates=1, season=24, **config):
    spec = Spec(lookback=lookback, horizon=horizon, variates=variates, season=season)
    return InContext(InContextConfig(**config), spec)


def windows(count, rows, variates, seed=0):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(count, rows, variates)).cumsum(1)).float()


def test_windows_are_apart_and_a_shift_and_a_scale_pass_through():
    past = windows(3, 200, 2)
    one = model(200, 24, 2)
    together = one(SeriesBatch(past=past)).values
    for k in range(3):
        torch.testing.assert_close(
            together[k : k + 1], one(SeriesBatch(past=past[k : k + 1])).values, rtol=0, atol=0
        )
    moved = one(SeriesBatch(past=(past.double() * 10 + 7))).values
    torch.testing.assert_close(moved, one(SeriesBatch(past=past.double())).values * 10 + 7)
    turned = one(SeriesBatch(past=past.flip(2))).values
    torch.testing.assert_close(turned.flip(2), together, rtol=1e-4, atol=1e-4)


def test_a_noisy_sine_is_followed_closer_than_the_season_repeated():
    rng = np.random.default_rng(0)
    rows = np.arange(608)
    truth = np.sin(2 * np.pi * rows / 24)[None, :, None]
    values = torch.tensor(truth + 0.3 * rng.normal(size=(16, 608, 1))).float()
    ahead = model()(SeriesBatch(past=values[:, :512])).values
    error = ((ahead - values[:, 512:]) ** 2).mean()
    assert error < 0.105
    assert error < 0.65 * ((values[:, 488:512].repeat(1, 4, 1) - values[:, 512:]) ** 2).mean()


def test_random_walks_stay_near_persistence():
    walks = windows(60, 608, 1)
    ahead = model()(SeriesBatch(past=walks[:, :512])).values
    error = ((ahead - walks[:, 512:]) ** 2).mean()
    still = ((walks[:, 511:512] - walks[:, 512:]) ** 2).mean()
    assert error < 1.2 * still


def test_few_rows_constants_and_missing_rows_have_an_answer():
    for rows in (1, 15, 16, 40, 144):
        assert model(rows, 96)(SeriesBatch(past=windows(2, rows, 1))).values.isfinite().all()
    still = model(100, 8)(SeriesBatch(past=torch.full((1, 100, 1), 3.0))).values
    torch.testing.assert_close(still, torch.full((1, 8, 1), 3.0))
    mask = torch.ones(1, 100, 1, dtype=torch.bool)
    mask[:, 40:60] = False
    past = torch.where(mask, windows(1, 100, 1), torch.nan)
    assert model(100, 8)(SeriesBatch(past=past, past_mask=mask)).values.isfinite().all()
    none = torch.zeros(1, 100, 1, dtype=torch.bool)
    empty = model(100, 8)(SeriesBatch(past=torch.zeros(1, 100, 1), past_mask=none)).values
    assert empty.isfinite().all()
