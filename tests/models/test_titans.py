"""Titans: one network however it is run, causal to the bit, writing only what was observed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from forecast.batch import SeriesBatch, Spec
from forecast.batch.segments import SegmentBatch, segments
from forecast.batch.windows import Series, Windows
from forecast.errors import UsageError
from forecast.models.titans.layers import Memory, Tokens, WindowAttention
from forecast.models.titans.model import Titans, TitansConfig
from forecast.series.rolling_origin import answers, prepare

# Ways to configure the network, each with parts of its own in the state.
KINDS = {
    "gate": {},
    "layer": {"variant": "layer"},
    "context": {"variant": "context"},
    "memory alone": {"variant": "memory", "momentum": True},
    "attention alone": {"variant": "attention", "persistent": 0},
    "own scale": {"half_life": 20.0, "momentum": True, "target": "self"},
    "deep": {"memory": "deep", "momentum": True},
    "deep context": {"memory": "deep", "variant": "context", "target": "self"},
    "joint": {"channel_independent": False, "calendar": True, "direct": False},
}


def make(horizon=5, variates=3, dtype=torch.float32, **options):
    torch.manual_seed(0)
    spec = Spec(lookback=48, horizon=horizon, variates=variates, season=12, calendar=2)
    sizes = {"width": 16, "heads": 2, "depth": 2, "window": 6, "patch": 4}
    model = Titans(TitansConfig(**(sizes | options)), spec)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    if model.direct is not None:
        torch.nn.init.normal_(model.direct.map.weight, std=0.1)
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
def by_steps(model, batch, state=None):
    state = model.init_state(len(batch)) if state is None else state
    forecasts = []
    for row in range(batch.past.shape[1]):
        part = cut(batch, row, row + 1)
        mask = None if part.past_mask is None else part.past_mask[:, 0]
        forecast, state = model.step(part.past[:, 0], state, mask=mask, time=part.past_time)
        forecasts.append(forecast.values)
    return torch.stack(forecasts, 1), state


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@torch.no_grad()
def test_at_once_in_pieces_and_by_steps_are_the_same(kind, missing, dtype, tolerance):
    model, batch = make(dtype=dtype, **KINDS[kind]), rows(missing=missing, dtype=dtype)
    expected, final = by_steps(model, batch)
    scale = max(1.0, expected.abs().max().item())
    whole, last = model.run(batch)
    assert (whole.values - expected).abs().max() <= tolerance * scale
    state, parts = None, []
    for first, stop in itertools.pairwise([0, 1, 6, 7, 31, 32, 90, 150]):
        dense, state = model.run(cut(batch, first, stop), state)
        parts.append(dense.values)
    assert (torch.cat(parts, 1) - expected).abs().max() <= tolerance * scale
    for name, part in final.items():
        for other in (last[name], state[name]):
            assert (other - part).abs().max() <= 10 * tolerance * scale, name


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_changed_future_row_changes_no_bit_of_an_earlier_forecast(kind):
    model, batch = make(**KINDS[kind]), rows(missing=0.2)
    for first in (89, 90, 91, 92):
        changed = rows(missing=0.2)
        changed.past[:, first:] = 1e4
        changed.past_mask[:, first:] = True
        one, other = model.run(batch)[0].values, model.run(changed)[0].values
        assert torch.equal(one[:, :first], other[:, :first])
        assert not torch.equal(one[:, first:], other[:, first:])
    assert torch.equal(by_steps(model, batch)[0][:, :92], by_steps(model, changed)[0][:, :92])


@torch.no_grad()
def test_streams_need_not_begin_together_nor_know_of_each_other():
    model, batch = make(dtype=torch.float64, variant="context"), rows(dtype=torch.float64)
    expected = by_steps(model, batch)[0]
    early, late = cut(batch, 0, 60), cut(batch, 0, 49)
    _, first = model.run(early)
    _, second = model.run(late)
    # the first series after 60 rows beside the second one after 49
    state = {name: torch.stack([part[0], second[name][1]]) for name, part in first.items()}
    past = torch.stack([batch.past[0, 60:90], batch.past[1, 49:79]])
    time = torch.stack([batch.past_time[0, 60:90], batch.past_time[1, 49:79]])
    found = model.run(SeriesBatch(past=past, past_time=time), state)[0].values
    torch.testing.assert_close(found[0], expected[0, 60:90], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1], expected[1, 49:79], rtol=0, atol=1e-10)
    # variates neither, unless they are forecast together
    flipped = SeriesBatch(past=batch.past.flip(2), past_time=batch.past_time)
    torch.testing.assert_close(model(flipped).values, model(batch).values.flip(2))


@torch.no_grad()
def test_a_stream_gets_the_same_bits_in_any_company():
    model, batch = make(), rows(batch=20, count=40)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    shuffled = SeriesBatch(past=batch.past[order], past_time=batch.past_time[order])
    assert torch.equal(by_steps(model, shuffled)[0], by_steps(model, batch)[0][order])


@torch.no_grad()
def test_a_value_is_written_under_the_key_before_it_once_it_is_observed():
    torch.manual_seed(0)
    layer = Memory(8, heads=1, momentum=False, target="next").double()
    tokens = torch.randn(1, 3, 8, dtype=torch.float64)
    state = {
        name: torch.zeros(1, *size, dtype=torch.float64) for name, size in layer.sizes().items()
    }
    live = torch.tensor([[True, True, False]])
    known = Tokens(torch.arange(3).view(1, 3), live)
    after = [layer(tokens[:, :n], known.part(slice(0, n)), state)[1] for n in (1, 2, 3)]
    # The first value has no key before it, and the third token was not observed.
    assert after[0]["memory"].eq(0).all()
    key, (_, _, value, _) = (
        after[0]["key"],
        layer._project(layer.norm(tokens[:, :2]), known.part(slice(0, 2)), state["ring"]),
    )
    write = torch.sigmoid(layer.write(layer.norm(tokens[:, 1])))
    wanted = write * key.unsqueeze(3) * value[:, :, 1].unsqueeze(2)
    torch.testing.assert_close(after[1]["memory"], wanted)
    keep = 1 - torch.sigmoid(layer.forget(layer.norm(tokens[:, 2])))
    torch.testing.assert_close(after[2]["memory"], wanted * keep)


@torch.no_grad()
def test_a_deep_memory_carries_its_weights_twice_and_learns_its_first_ones():
    layer = Memory(16, heads=2, momentum=True, target="self", kind="deep")
    # of each head 8 times 16 and 16 times 8: what was learned, its momentum, where the chunk began
    shapes = layer.sizes()
    assert [math.prod(shapes[name]) for name in ("memory", "surprise", "anchor")] == 3 * [2 * 256]
    linear = Memory(16, heads=2, momentum=True, target="self")
    counts = [sum(x.numel() for x in part.parameters()) for part in (layer, linear)]
    assert counts[0] - counts[1] == 2 * 256
    # A memory that has read nothing is its first weights, and a token not observed leaves it so.
    state = {name: torch.zeros(1, *size) for name, size in shapes.items()}
    torch.nn.init.normal_(layer.hold.outer)
    q = torch.nn.functional.normalize(torch.randn(1, 2, 3, 8), dim=3)
    first = torch.nn.functional.silu(q @ layer.hold.inner) @ layer.hold.outer
    torch.testing.assert_close(layer.hold.recall(q, state["memory"]), first)
    known = Tokens.at(torch.arange(3).view(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    assert layer(torch.randn(1, 3, 16), known, state)[1]["memory"].eq(0).all()


@torch.no_grad()
def test_attention_sees_its_window_and_tells_distance_and_not_place():
    torch.manual_seed(0)
    layer = WindowAttention(16, heads=2, window=5, persistent=3, dropout=0.0).double()
    tokens = torch.randn(1, 12, 16, dtype=torch.float64)
    state = {"pairs": torch.zeros(1, 4, 1, 32, dtype=torch.float64)}

    def run(tokens, first):
        place = torch.arange(first, first + tokens.shape[1]).view(1, -1)
        known = Tokens(place, torch.ones_like(place, dtype=torch.bool))
        return layer(tokens, known, (place - first + 1).clamp(max=5), state)[0]

    answer = run(tokens, 0)
    torch.testing.assert_close(run(tokens, 1_000_000), answer, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(run(tokens[:, 7:], 7)[:, 4], answer[:, 11])
    changed = tokens.clone()
    changed[:, 6] += 1.0
    differs = (run(changed, 0) != answer).any(2)[0]
    assert differs.tolist() == [6 <= token < 11 for token in range(12)]


@torch.no_grad()
def test_a_patch_ages_until_the_next_one_is_whole():
    # Without a direct path the network's forecast of a row stays what it was, less the last value.
    model, batch = make(direct=False, dtype=torch.float64), rows(dtype=torch.float64)
    values = model.run(batch)[0].values - batch.past.unsqueeze(2)
    # Patches end behind rows 4, 8, ...: the forecasts of rows 7, 8, 9 and 10 are of one outlook.
    for later in (1, 2, 3):
        torch.testing.assert_close(values[:, 7 + later, : 5 - later], values[:, 7, later:])
    assert (values[:, 11, :3] - values[:, 10, 1:4]).abs().min() > 1e-6


@torch.no_grad()
def test_a_long_stream_of_a_season_leaves_the_memory_bounded():
    torch.manual_seed(0)
    layer = Memory(16, heads=2, momentum=True, target="next")
    layer.write.bias.fill_(4.0)
    layer.forget.bias.fill_(-20.0)
    season = torch.randn(1, 24, 16)
    state = {name: torch.zeros(1, *size) for name, size in layer.sizes().items()}
    tokens = season.repeat(1, 512, 1)
    known = Tokens(
        torch.zeros(1, tokens.shape[1], dtype=torch.int64),
        torch.ones(1, tokens.shape[1], dtype=torch.bool),
    )
    for _ in range(10):
        _, state = layer(tokens, known, state)
    assert state["memory"].square().mean().sqrt() < 2


def test_slabs_computed_again_have_the_values_and_gradients_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    layer = Memory(16, heads=2, momentum=True, target="next").double()
    tokens = torch.randn(3, 100, 16, dtype=torch.float64, requires_grad=True)
    place = (torch.arange(100) + torch.tensor([[0], [-7], [5]])).expand(3, -1)
    known = Tokens.at(place, torch.rand(3, 100) > 0.1)
    before = {
        name: torch.randn(3, *size, dtype=torch.float64, requires_grad=True)
        for name, size in layer.sizes().items()
    }
    found = []
    monkeypatch.setattr("forecast.models.titans.layers._SLAB", 16)
    for kept in (1_000, 30):
        monkeypatch.setattr("forecast.models.titans.layers._KEPT", kept)
        # What other layers carry is none of the memory's.
        read, after = layer(tokens, known, before | {"pairs": torch.zeros(3, 1)})
        outputs = [read, *(after[name] for name in before)]
        wanted = [tokens, *before.values(), *layer.parameters()]
        slopes = torch.autograd.grad(sum(x.square().sum() for x in outputs), wanted)
        found.append([*outputs, *slopes])
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-9, atol=1e-10)


def test_sizes_of_the_specification():
    assert sum(
        x.numel() for x in Memory(128, heads=1, momentum=True, target="next").parameters()
    ) == (84_611)
    layer = Memory(128, heads=4, momentum=True, target="next")
    assert sum(x.numel() for x in layer.parameters()) == 85_676
    # 4 heads of 32 times 32, and as much of momentum
    shapes = layer.sizes()
    assert sum(math.prod(shapes[name]) for name in ("memory", "surprise")) == 2 * 4 * 32 * 32


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"width = 10 gives 4 heads no even width"):
        make(width=10, heads=4)
    with pytest.raises(UsageError, match=r"3 variates together, and got 2"):
        make(channel_independent=False)(rows(variates=2))


def panel(count=600):
    time = torch.arange(2 * count)
    wave = torch.sin(time * 2 * math.pi / 24) + torch.sin(time * 2 * math.pi / 7) / 2
    series = Series(values=wave.view(-1, 1), series_id=time // count)
    origins = torch.cat([torch.arange(48, count - 4), torch.arange(count + 48, 2 * count - 4)])
    return Windows(series=series, origins=origins, lookback=48, horizon=5)


def test_the_loss_of_a_segment_is_that_of_its_forecasts():
    model, windows = make(variates=1, dtype=torch.float32, warm_up=30), panel()
    batch = segments(windows, warm_up=30, scored=20, stride=40).batch(torch.tensor([0, 3]))
    assert isinstance(batch, SegmentBatch)
    total, count = model.loss(batch)
    with torch.no_grad():
        values = model.run(batch, kept=20)[0].values
    truth, mask = batch.truth()
    error = (values - truth).square()
    error = error if mask is None else error * mask
    torch.testing.assert_close(total, error.sum(), rtol=1e-5, atol=1e-5)
    assert count == (truth.numel() if mask is None else mask.sum())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_answers_are_those_of_a_stream_of_each_series(kind):
    model = make(dtype=torch.float64, **KINDS[kind])
    # Longer and shorter than lookback and patches, beginning with gaps of any length or none.
    lengths, gaps = (140, 61, 13, 47, 30), (0, 5, 3, 0, 14)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(sum(lengths), 3, generator=generator, dtype=torch.float64).cumsum(0) / 4
    mask = torch.rand(values.shape, generator=generator) > 0.2
    time = torch.rand(len(values), 2, generator=generator, dtype=torch.float64) - 0.5
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    origins = []
    for start, length, gap in zip(starts, lengths, gaps, strict=True):
        mask[start : start + gap] = False
        mask[start : start + gap + 9, 1] = False
        origins.append(torch.arange(start + 2, start + length - 4))
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    series = Series(values=values * mask, mask=mask, calendar=time, series_id=owners)
    windows = Windows(series=series, origins=torch.cat(origins), lookback=48, horizon=5)
    expected = []
    for start, some in zip(starts, origins, strict=True):
        rows = slice(start, int(some[-1]))
        past, seen, times = ((x[rows].unsqueeze(0)) for x in (values * mask, mask, time))
        stream, _ = by_steps(model, SeriesBatch(past=past, past_mask=seen, past_time=times))
        expected.append(stream[0, some - 1 - start])
    found = torch.cat([forecast.values for forecast, *_ in answers(model, windows, 1_000)])
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_before_the_first_observation_leave_no_trace(kind):
    model, batch = make(dtype=torch.float64, **KINDS[kind]), rows(count=60, dtype=torch.float64)
    for before in (3, 40):
        gone = torch.zeros(2, before, 3, dtype=torch.float64)
        seen = torch.ones_like(batch.past, dtype=torch.bool)
        padded = SeriesBatch(
            past=torch.cat([gone, batch.past], 1),
            past_mask=torch.cat([gone.bool(), seen], 1),
            past_time=torch.cat(
                [torch.ones(2, before, 2, dtype=torch.float64), batch.past_time], 1
            ),
        )
        later, state = model.run(padded)
        own, expected = model.run(batch)
        torch.testing.assert_close(later.values[:, before:], own.values, rtol=0, atol=1e-10)
        assert later.values[:, :before].eq(0).all()
        for name, part in expected.items():
            torch.testing.assert_close(state[name], part, rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_state_is_of_one_size_however_much_was_read():
    model = make(variates=1, width=64, heads=4, depth=2, window=32, patch=8)
    sizes = []
    for count in (10, 1_000):
        _, state = model.run(rows(count=count, variates=1))
        sizes.append(sum(part[0].numel() * part.element_size() for part in state.values()))
    # two blocks with 31 pairs of key and value of 64 numbers each are the largest part of it
    assert sizes[0] == sizes[1] < 1.5 * (2 * 31 * 2 * 64 * 4)


@pytest.mark.parametrize("kind", ["gate", "context", "deep"])
def test_it_learns_a_signal_it_can_learn(kind):
    windows = panel()
    torch.manual_seed(0)
    spec = Spec(lookback=48, horizon=5, variates=1, season=24)
    options = {"width": 16, "heads": 2, "window": 8, "patch": 4, "dropout": 0.0, "depth": 1}
    config = TitansConfig(**options, **KINDS[kind], segment=128, warm_up=64, direct=False)
    model = Titans(config, spec)
    part, _ = prepare(model, windows, windows)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for epoch in range(10):
        for index in part.order(epoch, 0).split(4):
            total, count = model.loss(part.batch(index))
            optimizer.zero_grad()
            (total / count).backward()
            optimizer.step()
            losses.append((total / count).item())
    # persistence, where it begins, has the variance of a change
    assert losses[-1] < 0.4 * losses[0]


def test_half_of_its_training_is_from_states_that_were_carried():
    """A segment's loss is that of its scored rows behind all its history, run in one go."""
    torch.manual_seed(0)
    config = TitansConfig(
        width=16, heads=2, patch=4, window=4, dropout=0.0, direct=False, segment=8, warm_up=8,
        carried=1_000,
    )  # fmt: skip
    model = Titans(config, Spec(lookback=8, horizon=4, variates=1, season=12))
    torch.nn.init.normal_(model.head.weight, std=0.3)
    values = torch.randn(90, 1)
    windows = Windows(
        series=Series(values=values), origins=torch.arange(8, 86), lookback=8, horizon=4
    )
    train, _ = prepare(model, windows, windows, fresh=False)
    number = next(n for n in range(60, 70) if train.history(torch.tensor([n])) > 0)
    batch = train.batch(torch.tensor([number, number + 1]))
    assert batch.carrying.tolist() == [True, False]
    total, count = model.loss(batch)
    expected = 0.0
    for one, history in ((number, None), (number + 1, 16)):
        end = int(train.origins[one])
        past = values[0 if history is None else end - history : end]
        answer, _ = model.run(SeriesBatch(past=past[None]), kept=8)
        rows = torch.arange(end - 8, end)[:, None] + torch.arange(1, 5)
        expected += float((answer.values[0, :, :, 0] - values[rows, 0]).square().sum().detach())
    assert count.item() == 2 * 8 * 4
    assert total.item() == pytest.approx(expected, rel=1e-4)
    # and from an empty state the first would have cost something else
    bare, _ = model.loss(train._gather(torch.tensor([number, number + 1]), None))
    assert abs(bare.item() - total.item()) > 1e-4
