"""Shared blocks: masked statistics, dropout's distribution, the loss over observed targets."""

from __future__ import annotations

import pytest
import torch

from forecast.batch import Forecast, SeriesBatch
from forecast.layers import Dropout, last_observed, squared_error, window_statistics


def test_window_statistics_see_observed_cells_alone():
    past = torch.randn(3, 10, 2)
    mask = torch.rand(3, 10, 2) > 0.4
    mask[:, :2] = True
    poisoned = torch.where(mask, past, 1e6)
    mean, deviation = window_statistics(poisoned * mask, mask)
    for sample in range(3):
        for variate in range(2):
            seen = past[sample, mask[sample, :, variate], variate]
            torch.testing.assert_close(mean[sample, 0, variate], seen.mean())
            expected = (seen.var(correction=0) + 1e-5).sqrt()
            torch.testing.assert_close(deviation[sample, 0, variate], expected)
    full = window_statistics(past, None)
    same = window_statistics(past, torch.ones_like(mask))
    torch.testing.assert_close(full, same)


def test_last_observed_skips_missing_cells():
    past = torch.tensor([[[1.0, 5.0], [2.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[True, False], [True, False], [False, False]]])
    # the first variate ends in a gap after 2, the second has nothing
    assert last_observed(past, mask).tolist() == [[[2.0, 0.0]]]
    assert last_observed(past, None).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
def test_dropout_keeps_the_expectation_and_the_rate(probability):
    torch.manual_seed(0)
    layer = Dropout(probability)
    x = torch.ones(400_003)
    out = layer(x)
    rate = (out == 0).float().mean().item()
    # three standard deviations of a binomial share
    bound = 3 * (probability * (1 - probability) / x.numel()) ** 0.5
    assert abs(rate - probability) < bound
    assert abs(out.mean().item() - 1) < bound / (1 - probability)
    # neighbours come from one 64-bit draw and must be independent all the same
    pairs = (out[:-3].view(-1, 4) == 0).float()
    joint = (pairs[:, 0] * pairs[:, 1]).mean().item()
    assert abs(joint - probability**2) < 4 * (probability**2 / pairs.shape[0]) ** 0.5


def test_dropout_is_the_identity_in_evaluation_and_adds_to_a_residual():
    x, residual = torch.randn(5, 7), torch.randn(5, 7)
    layer = Dropout(0.3)
    torch.manual_seed(1)
    dropped = layer(x)
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x, residual=residual), dropped + residual)
    layer.eval()
    assert layer(x) is x
    assert torch.equal(layer(x, residual=residual), x + residual)


def test_dropout_passes_gradients_where_it_kept():
    x = torch.randn(64, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 2.0))


def test_squared_error_counts_observed_targets():
    batch = SeriesBatch(
        past=torch.zeros(1, 2, 1),
        target=torch.tensor([[[1.0], [9.0]]]),
        target_mask=torch.tensor([[[True], [False]]]),
    )
    total, count = squared_error(Forecast(values=torch.tensor([[[3.0], [0.0]]])), batch)
    assert (total.item(), count.item()) == (4.0, 1.0)
