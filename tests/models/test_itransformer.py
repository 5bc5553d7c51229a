"""iTransformer: the properties of the paper, and parameter counts of the published sizes."""

from __future__ import annotations

import pytest
import torch

from forecast.batch import SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.models.itransformer import ITransformer, ITransformerConfig


def make(lookback=24, horizon=12, variates=5, calendar=4, seed=0, **config):
    torch.manual_seed(seed)
    spec = Spec(lookback=lookback, horizon=horizon, variates=variates, calendar=calendar)
    settings = {"width": 32, "heads": 4, **config}
    return ITransformer(ITransformerConfig(**settings), spec).eval()


def windows(count=3, lookback=24, variates=5, calendar=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return SeriesBatch(
        past=torch.randn(count, lookback, variates, generator=generator),
        past_time=torch.rand(count, lookback, calendar, generator=generator) - 0.5,
    )


@pytest.mark.parametrize(
    ("lookback", "horizon", "width", "layers", "count"),
    [
        (96, 96, 256, 2, 841_568),
        (96, 96, 128, 2, 224_224),
        (96, 96, 512, 3, 4_833_888),
        (96, 720, 512, 2, 3_576_016),
    ],
)
def test_parameter_counts_are_the_published_ones(lookback, horizon, width, layers, count):
    spec = Spec(lookback=lookback, horizon=horizon, variates=7, calendar=4)
    model = ITransformer(ITransformerConfig(width=width, layers=layers), spec)
    assert sum(weight.numel() for weight in model.parameters()) == count


@torch.no_grad()
def test_permuting_the_variates_permutes_the_forecast():
    model, batch = make(), windows()
    order = torch.tensor([3, 0, 4, 2, 1])
    permuted = SeriesBatch(past=batch.past[:, :, order], past_time=batch.past_time)
    torch.testing.assert_close(
        model(permuted).values, model(batch).values[:, :, order], atol=1e-5, rtol=1e-5
    )
    # and the variates do see each other, else the property would be empty
    changed = batch.past.clone()
    changed[:, :, 0] += torch.linspace(0, 3, 24)
    other = model(SeriesBatch(past=changed, past_time=batch.past_time)).values
    assert (other[:, :, 1] - model(batch).values[:, :, 1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 7.0, 100.0])
def test_scale_and_shift_of_a_variate_carry_over(scale):
    model, batch = make(), windows()
    moved = SeriesBatch(past=batch.past * scale + 40, past_time=batch.past_time)
    expected = model(batch).values * scale + 40
    torch.testing.assert_close(model(moved).values, expected, rtol=1e-3, atol=1e-3 * scale)


@torch.no_grad()
def test_a_forecast_does_not_depend_on_its_batch_mates():
    model, batch = make(), windows(count=8)
    alone = torch.cat([model(batch.rows(row, row + 1)).values for row in range(8)])
    torch.testing.assert_close(alone, model(batch).values, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_same_weights_take_another_number_of_variates():
    model = make(variates=5)
    assert model(windows(variates=9)).values.shape == (3, 12, 9)
    assert model(windows(variates=1)).values.shape == (3, 12, 1)


@torch.no_grad()
def test_a_constant_window_is_forecast_near_its_constant():
    model = make()
    for level in (0.0, 1.0, 1e4):
        values = model(SeriesBatch(past=torch.full((1, 24, 5), level))).values
        assert values.isfinite().all()
        assert (values - level).abs().max() <= 0.02 * max(1.0, level)


@torch.no_grad()
def test_what_a_missing_cell_holds_has_no_effect():
    model, batch = make(), windows()
    mask = torch.rand(batch.past.shape) > 0.2
    forecasts = [
        model(
            SeriesBatch(
                past=torch.where(mask, batch.past, filler),
                past_mask=mask,
                past_time=batch.past_time,
            )
        ).values
        for filler in (0.0, 123.0)
    ]
    torch.testing.assert_close(*forecasts)
    # a mask that hides nothing is no mask
    whole = SeriesBatch(past=batch.past, past_mask=torch.ones_like(mask), past_time=batch.past_time)
    torch.testing.assert_close(model(whole).values, model(batch).values, atol=1e-5, rtol=1e-5)


def test_the_future_calendar_is_not_read():
    model, batch = make(), windows()
    marked = SeriesBatch(
        past=batch.past, past_time=batch.past_time, future_time=torch.randn(3, 12, 4)
    )
    assert torch.equal(model(marked).values, model(batch).values)


def test_it_learns_a_sine_it_can_learn():
    torch.manual_seed(0)
    model = make(lookback=24, horizon=12, variates=1, calendar=0, dropout=0.0).train()
    phase = torch.rand(256, 1, 1) * 6.28
    wave = torch.sin(phase + torch.arange(36).view(1, 36, 1) * 6.28 / 12)
    batch = SeriesBatch(past=wave[:, :24], target=wave[:, 24:])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        total, count = model.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert (total / count).item() < 0.02  # the variance of the wave is 0.5


def test_a_width_the_heads_do_not_divide_is_refused_by_name():
    with pytest.raises(UsageError, match=r"model\.width = 30.*model\.heads = 8"):
        make(width=30, heads=8)
