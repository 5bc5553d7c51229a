"""Informer: the paper's sizes, determinism, what a forecast depends on, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load, save

from forecast.batch import SeriesBatch, Spec
from forecast.errors import UsageError
from forecast.models.informer import Distil, Informer, InformerConfig, sinusoids

SPEC = Spec(lookback=24, horizon=12, variates=3, calendar=4)
SMALL = {"width": 16, "feed_forward": 32, "heads": 2, "dropout": 0.0}


def batch(count=4, spec=SPEC, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(count, *shape, generator=generator)

    return SeriesBatch(
        past=draw(spec.lookback, spec.variates),
        past_time=draw(spec.lookback, spec.calendar) if spec.calendar else None,
        future_time=draw(spec.horizon, spec.calendar) if spec.calendar else None,
        target=draw(spec.horizon, spec.variates),
    )


def build(spec=SPEC, seed=0, **options):
    torch.manual_seed(seed)
    return Informer(InformerConfig(**SMALL | options), spec)


def test_parameter_count_of_the_paper():
    spec = Spec(lookback=96, horizon=96, variates=7, calendar=4)
    with torch.device("meta"):
        model = Informer(InformerConfig(), spec)
    # 2 embeddings, 2 encoder layers, 1 distilling step, 1 decoder layer, 2 last norms, head
    c, d, f, marks = 7, 512, 2048, 4
    inner = 2 * d * f + f + d
    expected = 2 * (3 * c * d + marks * d) + 2 * (4 * (d * d + d) + inner + 4 * d)
    expected += 3 * d * d + d + 2 * d + 8 * (d * d + d) + inner + 6 * d + 4 * d + d * c + c
    assert sum(x.numel() for x in model.parameters()) == expected == 11_328_007


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_distilling_halves_the_tokens(norm):
    distil = Distil(InformerConfig(**SMALL, distil_norm=norm))
    lengths = {96: 48, 168: 84, 192: 96, 336: 168, 97: 49} | {
        n: math.ceil(n / 2) for n in range(1, 9)
    }
    found = {n: distil(torch.randn(2, n, 16)).shape for n in lengths}
    assert found == {n: (2, half, 16) for n, half in lengths.items()}


def test_positions_are_sines_and_cosines():
    table = sinusoids(5, 4)
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    assert table[3].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 1},
        {"stack": (3, 1)},
        {"stack": (3, 2, 1), "distil": False},
        {"decoder_layers": 2, "label_length": 0},
        {"label_length": 24, "distil_norm": "layer"},
        {"evaluation_attention": "published", "attention": "full"},
    ],
)
def test_every_variant_forecasts_and_learns_from_every_weight(options):
    model = build(**options)
    total, count = model.loss(batch())
    total.backward()
    assert count == 4 * 12 * 3
    idle = [name for name, x in model.named_parameters() if x.grad is None]
    assert idle == []
    assert model.eval()(batch()).values.shape == (4, 12, 3)


@pytest.mark.parametrize("lookback", range(1, 9))
def test_short_lookbacks_run_without_a_calendar(lookback):
    spec = Spec(lookback=lookback, horizon=2, variates=1)
    model = build(spec, encoder_layers=3)
    assert model.loss(batch(3, spec))[0].isfinite()
    assert model.eval()(batch(3, spec)).values.shape == (3, 2, 1)


def test_a_stack_reads_the_end_of_the_window():
    # three layers halve twice; the encoder of one layer reads the last quarter, 6 of 24 rows
    model = build(stack=(3, 1)).eval()
    seen = []
    for encoder in model.encoders:
        encoder.register_forward_hook(
            lambda _, inputs, out: seen.append((inputs[0].shape[1], out.shape[1]))
        )
    model(batch())
    assert seen == [(24, 6), (6, 6)]


def test_a_forecast_is_the_same_twice_and_whatever_its_batch_mates():
    model = build().eval()
    whole, alone = batch(5), batch(5)
    first = model(whole).values
    torch.rand(3)
    assert torch.equal(first, model(whole).values)
    alone = SeriesBatch(
        past=whole.past[3:4], past_time=whole.past_time[3:4], future_time=whole.future_time[3:4]
    )
    torch.testing.assert_close(model(alone).values, first[3:4], rtol=0, atol=1e-6)


def test_a_forecast_depends_on_past_and_calendar_and_not_on_the_target():
    model, given = build().eval(), batch()
    before = model(given).values
    given.target.add_(1)
    assert torch.equal(before, model(given).values)
    for part in (given.past, given.past_time, given.future_time):
        part[:, -1].add_(1)
        after = model(given).values
        assert not torch.equal(before, after)
        before = after


def test_full_attention_equals_exact_where_every_query_is_active():
    # 10 * ceil(ln 24) = 40 queries, more than the 24 tokens of encoder and decoder
    full = build(evaluation_attention="full", factor=10).eval()
    exact = build(evaluation_attention="exact", factor=10).eval()
    torch.testing.assert_close(full(batch()).values, exact(batch()).values, rtol=0, atol=1e-5)


def test_training_resumes_with_the_draws_it_would_have_made():
    model, twin = build(factor=1), build(factor=1, seed=9)
    model.loss(batch())
    # through the bytes of a weights file
    twin.load_state_dict(load(save(model.state_dict())))
    expected = [model.loss(batch())[0] for _ in range(3)]
    assert [twin.loss(batch())[0] for _ in range(3)] == expected
    # and each call draws anew
    assert len({x.item() for x in expected}) > 1


def test_the_same_seed_draws_the_same_keys():
    assert build(factor=1).loss(batch())[0] == build(factor=1).loss(batch())[0]


def test_it_learns_a_sine_wave():
    spec = Spec(lookback=24, horizon=12, variates=1)
    model = build(spec)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        phase = torch.rand(16, 1, 1, generator=generator) * 24 + torch.arange(36).view(1, 36, 1)
        wave = (phase * 2 * math.pi / 24).sin()
        total, count = model.loss(SeriesBatch(past=wave[:, :24], target=wave[:, 24:]))
        losses.append((total / count).item())
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    # predicting zeros costs 1/2
    assert losses[0] > 0.5
    assert sum(losses[-5:]) / 5 < 0.1


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="label_length = 25 is more than the lookback of 24"):
        build(label_length=25)
    with pytest.raises(UsageError, match=r"no multiple of model\.heads = 3"):
        build(heads=3)
