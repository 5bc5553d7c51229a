"""LMUFormer: one network however it is run, causal to the bit, with a state of fixed size."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace

import pytest
import torch

from forecast.batch import SeriesBatch, Spec
from forecast.batch.segments import SegmentBatch, segments
from forecast.batch.windows import Series, Windows
from forecast.errors import UsageError
from forecast.models.lmuformer.layers import fire
from forecast.models.lmuformer.model import LMUFormer, LMUFormerConfig
from forecast.series.rolling_origin import answers, early_errors, prepare

# Ways to configure the network, each with parts of its own in the state.
KINDS = {
    "plain": {},
    "without the direct path": {"direct_order": 0},
    "two windows": {"windows": (48, 24)},
    "own scale": {"half_life": 20.0},
    "joint": {"channel_independent": False, "observed": True},
    "calendar": {"calendar": True},
    "spiking": {"spiking": True},
}


def make(season=24, horizon=5, variates=3, dtype=torch.float32, **options):
    torch.manual_seed(0)
    spec = Spec(lookback=48, horizon=horizon, variates=variates, season=season, calendar=2)
    model = LMUFormer(LMUFormerConfig(**({"width": 16} | options)), spec)
    if model.direct is not None:
        torch.nn.init.normal_(model.direct.map.weight, std=0.1)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.to(dtype).eval()


def rows(count=150, batch=2, variates=3, missing=0.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(count)
    past = torch.randn(batch, count, variates, generator=generator, dtype=dtype).cumsum(1) / 4
    mask = torch.rand(batch, count, variates, generator=generator) >= missing
    mask[0, :30, 0] = mask[0, :30, 0] & (missing == 0)  # one variate begins later than the others
    mask[1, :20] = mask[1, :20] & (missing == 0)  # one series does
    time = torch.rand(batch, count, 2, generator=generator, dtype=dtype) - 0.5
    return SeriesBatch(past=past * mask, past_mask=mask if missing else None, past_time=time)


def cut(batch, first, last):
    return SeriesBatch(
        past=batch.past[:, first:last],
        past_mask=None if batch.past_mask is None else batch.past_mask[:, first:last],
        past_time=batch.past_time[:, first:last],
    )


@torch.no_grad()
def by_steps(model, batch):
    state, forecasts = model.init_state(len(batch)), []
    for row in range(batch.past.shape[1]):
        part = cut(batch, row, row + 1)
        mask = None if part.past_mask is None else part.past_mask[:, 0]
        forecast, state = model.step(part.past[:, 0], state, mask=mask, time=part.past_time)
        forecasts.append(forecast.values)
    return torch.stack(forecasts, 1), state


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_at_once_in_pieces_and_by_steps_are_the_same(kind, missing, dtype, tolerance):
    model, batch = make(dtype=dtype, **KINDS[kind]), rows(missing=missing, dtype=dtype)
    expected, final = by_steps(model, batch)
    scale = max(1.0, expected.abs().max().item())
    cuts = torch.randperm(149, generator=torch.Generator().manual_seed(3))[:5].sort()[0] + 1
    borders = [0, *cuts.tolist(), 150]
    for backend in ("chunk", "fft", "auto"):
        whole, last = model.run(batch, backend=backend)
        assert (whole.values - expected).abs().max() <= tolerance * scale, backend
        state, parts = None, []
        for first, stop in itertools.pairwise(borders):
            dense, state = model.run(cut(batch, first, stop), state, backend=backend)
            parts.append(dense.values)
        assert (torch.cat(parts, 1) - expected).abs().max() <= tolerance * scale, backend
        for name, part in final.items():
            for other in (last[name], state[name]):
                assert (other - part).abs().max() <= 10 * tolerance * scale, (backend, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_future_row_changes_no_bit_of_an_earlier_forecast(kind):
    model, batch = make(**KINDS[kind]), rows(missing=0.2)
    changed = rows(missing=0.2)
    changed.past[:, 90:] = 1e4
    changed.past_mask[:, 90:] = True
    with torch.no_grad():
        for run in (lambda some: by_steps(model, some)[0], lambda some: model.run(some)[0].values):
            first, second = run(batch), run(changed)
            assert torch.equal(first[:, :90], second[:, :90])
            assert not torch.equal(first[:, 90:], second[:, 90:])


@torch.no_grad()
def test_series_do_not_know_of_each_other():
    model, batch = make(), rows(batch=20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    shuffled = SeriesBatch(past=batch.past[order], past_time=batch.past_time[order])
    assert torch.equal(by_steps(model, shuffled)[0], by_steps(model, batch)[0][order])
    # variates neither, unless they are forecast together
    flipped = SeriesBatch(past=batch.past.flip(2), past_time=batch.past_time)
    torch.testing.assert_close(model(flipped).values, model(batch).values.flip(2))


def test_rows_before_the_first_observation_leave_no_trace():
    model, batch = make(), rows(count=60)
    gone = torch.zeros(2, 40, 3)
    padded = SeriesBatch(
        past=torch.cat([gone, batch.past], 1),
        past_mask=torch.cat([gone.bool(), torch.ones_like(batch.past, dtype=torch.bool)], 1),
    )
    with torch.no_grad():
        later, state = model.run(padded)
        own, expected = model.run(batch)
    torch.testing.assert_close(later.values[:, 40:], own.values, rtol=1e-5, atol=1e-5)
    assert later.values[:, :40].eq(0).all()
    assert torch.equal(state["count"], expected["count"])


def test_a_level_that_is_added_is_added_to_the_direct_path():
    # Without the network what is left is the direct path, which sees differences alone.
    model, batch = make(dtype=torch.float64), rows(dtype=torch.float64)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    with torch.no_grad():
        low = model(batch).values
        high = model(SeriesBatch(past=batch.past + 7.0)).values
    torch.testing.assert_close(high, low + 7.0, rtol=0, atol=1e-9)


def test_sizes_of_the_specification():
    options = {"width": 64, "channels": 4, "depth": 2, "expansion": 4, "direct_order": 0}
    joint = make(
        horizon=96, variates=7, season=1, windows=(336,), order=32, convolutions=4,
        channel_independent=False, **options,
    )  # fmt: skip
    assert sum(part.numel() for part in joint.parameters()) == 182_888
    state = joint.init_state(1)
    memories = sum(part.numel() for name, part in state.items() if name.startswith("block"))
    # 2 rows of 7 inputs and of 3 times 64 channels; 2 blocks of 4 memories of order 32
    assert sum(part.numel() for name, part in state.items() if name.startswith("embed")) == 398
    assert memories == 256
    single = make(horizon=96, variates=7, windows=(168,), order=40, **options)
    assert sum(part.numel() for part in single.parameters()) == 123_432


def test_the_state_of_a_stream_is_small():
    state = make(width=64, variates=1, horizon=96).init_state(1)
    assert sum(part[0].numel() * part.element_size() for part in state.values()) <= 2_048


def test_an_order_too_small_for_the_season_is_warned_of():
    with pytest.warns(UserWarning, match=r"order = 32 cannot hold 14 seasons.*65 can"):
        make(windows=(336,), order=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for season in (1, 7, 12, 24, 52, 96):
            make(season=season)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"channels = 4 cannot be shared out among 3"):
        make(windows=(48, 24, 12))
    with pytest.raises(UsageError, match=r"3 variates together, and got 2"):
        make(channel_independent=False)(rows(variates=2))


def test_neurons_leak_fire_and_reset():
    current = torch.tensor([1.0, 1.0, 4.0, 0.0]).view(1, 4, 1).requires_grad_()
    spikes, potential = fire(current, torch.zeros(1, 1), 1.0)
    # v: 0.5, 0.75, then (0.75 + 4) / 2 = 2.375 fires and resets to 0, which stays 0
    assert spikes.flatten().tolist() == [0.0, 0.0, 1.0, 0.0]
    assert potential.item() == 0.0
    spikes[0, 0].backward()
    # the slope of sigmoid(4 (v - 1)) at v = 0.5, through dv/dx = 1/2
    soft = 1 / (1 + math.exp(2))
    assert current.grad[0, 0, 0].item() == pytest.approx(4 * soft * (1 - soft) / 2)


def test_the_loss_of_a_segment_is_that_of_its_forecasts():
    model, batch = make(dtype=torch.float64), rows(count=80, missing=0.2, dtype=torch.float64)
    target = rows(count=5, missing=0.2, dtype=torch.float64)
    segment = SegmentBatch(
        past=batch.past, past_mask=batch.past_mask, target=target.past,
        target_mask=target.past_mask, scored=10,
        counted=torch.arange(10).expand(2, -1) >= torch.tensor([[0], [4]]),
    )  # fmt: skip
    total, count = model.loss(segment)
    with torch.no_grad():
        dense = model.run(segment)[0].values[:, -10:]
    series = torch.cat([batch.past, target.past], 1)
    observed = torch.cat([batch.past_mask, target.past_mask], 1)
    expected, number = 0.0, 0
    for sample, first in ((0, 0), (1, 4)):
        for place in range(first, 10):
            after = slice(71 + place, 76 + place)
            error = (dense[sample, place] - series[sample, after])[observed[sample, after]]
            expected += error.square().sum()
            number += error.numel()
    assert count.item() == number
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)


def panel(count=600):
    time = torch.arange(2 * count)
    wave = torch.sin(time * 2 * math.pi / 24) + torch.sin(time * 2 * math.pi / 7) / 2
    series = Series(values=wave.view(-1, 1), series_id=time // count)
    origins = torch.cat([torch.arange(48, count - 4), torch.arange(count + 48, 2 * count - 4)])
    return Windows(series=series, origins=origins, lookback=48, horizon=5)


def test_answers_have_the_truth_of_the_windows_and_all_history_before_it():
    model, windows = make(variates=1), panel()
    windows = windows.every(3)
    found = list(answers(model, windows, 100))
    assert max(len(batch) for _, batch, _ in found) <= 100
    expected = windows.batch(torch.arange(len(windows)))
    assert torch.equal(torch.cat([batch.target for _, batch, _ in found]), expected.target)
    assert torch.equal(torch.cat([batch.series_id for _, batch, _ in found]), expected.series_id)
    values = torch.cat([forecast.values for forecast, *_ in found])
    # the last one of the second series, by all the rows of that series and no other
    with torch.no_grad():
        past = windows.series.values[600 : int(windows.origins[-1])].unsqueeze(0)
        torch.testing.assert_close(model(SeriesBatch(past=past)).values[0], values[-1])


@pytest.mark.parametrize("missing", [False, True])
def test_the_direct_path_is_the_same_solved_in_pieces(monkeypatch, missing):
    windows, found = panel(), []
    if missing:
        mask = torch.rand(windows.series.values.shape, generator=torch.Generator()) > 0.02
        windows = replace(windows, series=replace(windows.series, mask=mask))
    for rows in (10_000, 50):
        monkeypatch.setattr("forecast.models.stateful.model._PIECE", rows)
        model = make(variates=1, direct_window=48)
        prepare(model, windows, windows)
        found.append(model.direct.map.weight)
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


def test_it_learns_a_signal_it_can_learn_and_forecasts_better_the_more_it_has_seen():
    windows = panel()
    model = make(variates=1, segment=64, warm_up=24, dropout=0.0, direct_window=48).train()
    part, _ = prepare(model, windows, windows)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for epoch in range(4):
        for index in part.order(epoch, 0).split(8):
            total, count = model.loss(part.batch(index))
            optimizer.zero_grad()
            (total / count).backward()
            optimizer.step()
    fresh, full = early_errors(model, segments(windows, warm_up=96, scored=96, stride=50))
    # the variance of the signal is 0.5 + 0.125
    assert full.mean() < 0.05
    assert fresh[0] > 4 * full[0]
    torch.testing.assert_close(fresh[-8:], full[-8:], rtol=0.2, atol=0.002)
