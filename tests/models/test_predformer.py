"""PredFormer: published sizes, axes that do not mix, and the network as the paper writes it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from forecast.batch import GridBatch, GridSpec
from forecast.errors import UsageError
from forecast.models.grid_baselines import GridRule, GridRuleConfig, grid_baselines, rules
from forecast.models.predformer import (
    ORDERS,
    Block,
    PredFormer,
    PredFormerConfig,
    multiplications,
    position_table,
)

TAXIBJ = GridSpec(lookback=4, horizon=4, channels=2, rows=32, columns=32)
WEATHER = GridSpec(lookback=12, horizon=12, channels=1, rows=32, columns=64)
MNIST = GridSpec(lookback=10, horizon=10, channels=1, rows=64, columns=64)
SMALL = {"width": 16, "heads": 4, "gate": 24, "patch": 2}
LENGTHS = {"full": 2, "fac_st": 4, "fac_ts": 4, "binary_ts": 4, "binary_st": 4,
           "triplet_tst": 6, "triplet_sts": 6, "quad_tsst": 4, "quad_stts": 4}  # fmt: skip


def make(variant="triplet_sts", seed=0, spec=None, **config):
    torch.manual_seed(seed)
    spec = spec or GridSpec(lookback=3, horizon=3, channels=2, rows=6, columns=4)
    settings = {**SMALL, "variant": variant, "blocks": LENGTHS[variant], **config}
    return PredFormer(PredFormerConfig(**settings), spec).eval()


def windows(spec, count=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (spec.channels, spec.rows, spec.columns)
    total = spec.lookback + spec.horizon
    return GridBatch(
        frames=torch.randn(count, spec.lookback, *shape, generator=generator),
        target=torch.randn(count, spec.horizon, *shape, generator=generator),
        calendar=torch.randn(count, spec.lookback, spec.calendar, generator=generator),
        future_calendar=torch.randn(count, spec.horizon, spec.calendar, generator=generator),
        references=torch.randn(count, len(spec.references), total, *shape, generator=generator),
        coordinates=torch.randn(spec.places, *shape[1:], generator=generator),
    )


def size(**config):
    spec = config.pop("spec")
    model = PredFormer(PredFormerConfig(**config), spec)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("variants", "blocks", "taxibj", "weather"),
    [
        (("triplet_tst", "triplet_sts"), 6, 6_333_216, 3_959_568),
        (("binary_ts", "binary_st", "quad_tsst", "quad_stts"), 8, 8_438_560, 5_276_432),
        (("fac_st", "fac_ts"), 8, 8_435_488, 5_273_360),
        (("full",), 8, 8_434_976, 5_272_848),
    ],
)
def test_parameter_counts_are_the_published_ones(variants, blocks, taxibj, weather):
    for variant in variants:
        assert size(variant=variant, blocks=blocks, spec=TAXIBJ) == taxibj
        assert size(variant=variant, blocks=blocks, gate=512, spec=WEATHER) == weather


def test_parameter_count_on_moving_mnist():
    assert size(variant="quad_tsst", blocks=24, patch=8, spec=MNIST) == 25_297_728


@pytest.mark.parametrize(
    ("variant", "blocks", "gate", "spec", "published"),
    [
        ("triplet_sts", 6, 1024, TAXIBJ, 1.649e9),
        ("binary_st", 8, 1024, TAXIBJ, 2.19e9),
        ("full", 8, 1024, TAXIBJ, 2.42e9),
        ("triplet_sts", 6, 512, WEATHER, 6.47e9),
        ("fac_ts", 8, 512, WEATHER, 8.51e9),
        ("full", 8, 512, WEATHER, 17.7e9),
    ],
)
def test_multiplications_are_the_published_ones(variant, blocks, gate, spec, published):
    config = PredFormerConfig(variant=variant, blocks=blocks, gate=gate)
    assert multiplications(config, spec) == pytest.approx(published, rel=0.005)


def counted(model, batch):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    return counter.get_total_flops() / 2 / len(batch)


def test_multiplications_are_those_that_torch_counts():
    for variant in ("triplet_sts", "full", "fac_ts"):
        spec = GridSpec(lookback=3, horizon=5, channels=2, rows=7, columns=4)
        model = make(variant, spec=spec)
        assert multiplications(model.config, spec) == counted(model, windows(spec))


def reference(model, frames):
    """Forecast L frames as the paper and the authors' code define it, token by token."""
    config, p = model.config, model.config.patch
    state = {name: value.double() for name, value in model.state_dict().items()}
    length, channels, rows, columns = frames.shape[1:]
    h, w = math.ceil(rows / p), math.ceil(columns / p)
    width, heads = config.width, config.heads

    def linear(x, name):
        out = x @ state[f"{name}.weight"].T
        return out + state[f"{name}.bias"] if f"{name}.bias" in state else out

    def norm(x, name):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        scaled = (x - mean) / (variance + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attend(x, name):
        q, k, v = linear(x, f"{name}.project_in").split(width, -1)
        mixed = []
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = q[:, part] @ k[:, part].T / math.sqrt(width // heads)
            mixed.append(scores.softmax(-1) @ v[:, part])
        return linear(torch.cat(mixed, -1), f"{name}.project_out")

    answers = []
    for sample in frames.double():
        padded = torch.zeros(length, channels, h * p, w * p, dtype=torch.float64)
        padded[:, :, :rows, :columns] = sample
        z = torch.zeros(length, h * w, width, dtype=torch.float64)
        for t in range(length):
            for n in range(h * w):
                y, x = n // w * p, n % w * p
                # rows, columns, channels: in this order
                cells = padded[t, :, y : y + p, x : x + p].permute(1, 2, 0).reshape(-1)
                q = t * h * w + n
                position = torch.tensor(
                    [
                        (math.sin, math.cos)[i % 2](q / 10000 ** (2 * (i // 2) / width))
                        for i in range(width)
                    ],
                    dtype=torch.float64,
                )
                z[t, n] = linear(cells, "embed") + position
        for place, block in enumerate(model.blocks):
            name = f"blocks.{place}"
            a = norm(z, f"{name}.norm_attention")
            mixed = torch.zeros_like(z)
            if block.axis == "S":
                for t in range(length):
                    mixed[t] = attend(a[t], name)
            elif block.axis == "T":
                for n in range(h * w):
                    mixed[:, n] = attend(a[:, n], name)
            else:
                mixed = attend(a.reshape(-1, width), name).view_as(z)
            z = z + mixed
            gate, value = linear(norm(z, f"{name}.norm_gated"), f"{name}.expand").chunk(2, -1)
            z = z + linear(gate * torch.sigmoid(gate) * value, f"{name}.contract")
            if f"{name}.norm_out.weight" in state:
                z = norm(z, f"{name}.norm_out")
        out = linear(norm(z, "norm"), "head")
        answer = torch.zeros(length, channels, h * p, w * p, dtype=torch.float64)
        for t in range(length):
            for n in range(h * w):
                y, x = n // w * p, n % w * p
                # channels, rows, columns: another order than at the entrance
                answer[t, :, y : y + p, x : x + p] = out[t, n].view(channels, p, p)
        answers.append(answer[:, :, :rows, :columns])
    return torch.stack(answers)


@torch.no_grad()
@pytest.mark.parametrize("variant", ORDERS)
def test_every_variant_is_the_network_as_the_paper_writes_it(variant):
    # a grid that the patch does not divide
    spec = GridSpec(lookback=3, horizon=3, channels=2, rows=5, columns=4)
    model, batch = make(variant, spec=spec), windows(spec)
    # norms other than the identity, so that a misplaced one shows
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.add_(0.3 * torch.randn_like(weight))
    expected = reference(model, batch.frames)
    torch.testing.assert_close(model(batch).values.double(), expected, atol=1e-5, rtol=1e-5)
    closing = [f"blocks.{n}.norm_out.weight" in model.state_dict() for n in range(LENGTHS[variant])]
    # once at the end of a stack, or in every block
    if variant.startswith("fac"):
        assert closing == [False, True, False, True]
    elif variant == "full":
        assert closing == [False, True]
    else:
        assert all(closing)
    axes = "".join(block.axis for block in model.blocks)
    assert axes == {"fac_st": "SSTT", "fac_ts": "TTSS", "full": "FF"}.get(
        variant, ORDERS[variant] * (LENGTHS[variant] // len(ORDERS[variant]))
    )


@torch.no_grad()
@pytest.mark.parametrize("axis", "STF")
def test_a_block_mixes_along_its_axis_alone(axis):
    torch.manual_seed(0)
    block = Block(PredFormerConfig(**SMALL), axis, closing=True).eval()
    tokens = torch.randn(2, 3, 5, 16)
    changed = tokens.clone()
    changed[1, 2, 3] = torch.randn(16)
    moved = (block(changed) - block(tokens)).abs().amax(-1) > 0
    expected = torch.zeros(2, 3, 5, dtype=torch.bool)
    expected[1, 2 if axis == "S" else slice(None), 3 if axis == "T" else slice(None)] = True
    assert torch.equal(moved, expected)


@torch.no_grad()
def test_over_one_frame_temporal_attention_is_its_value_projection():
    torch.manual_seed(0)
    block = Block(PredFormerConfig(**SMALL), "T", closing=False).eval()
    tokens = torch.randn(2, 1, 5, 16)
    value = block.norm_attention(tokens) @ block.project_in.weight.chunk(3)[2].T
    expected = tokens + block.project_out(value)
    torch.testing.assert_close(block._attend(tokens, tokens, 1.0), expected)


@torch.no_grad()
@pytest.mark.parametrize("variant", ORDERS)
@pytest.mark.parametrize("lookback", [1, 5, 12])
def test_any_lookback_horizon_and_grid(variant, lookback):
    for horizon in (1, lookback, 2 * lookback + 1):
        for head in ("rollout", "direct"):
            spec = GridSpec(lookback=lookback, horizon=horizon, channels=1, rows=3, columns=7)
            model, batch = make(variant, spec=spec, head=head), windows(spec)
            assert model(batch).values.shape == batch.target.shape
            assert model(batch).values.isfinite().all()


@torch.no_grad()
def test_a_long_horizon_feeds_forecasts_back_and_a_short_one_is_cut():
    spec = GridSpec(lookback=3, horizon=3, channels=2, rows=6, columns=4)
    model, batch = make(spec=spec), windows(spec)
    first = model(batch).values
    second = model(replace(batch, frames=first)).values
    longer = make(spec=replace(spec, horizon=5))
    torch.testing.assert_close(longer(batch).values, torch.cat([first, second[:, :2]], dim=1))
    shorter = make(spec=replace(spec, horizon=2))
    torch.testing.assert_close(shorter(batch).values, first[:, :2])


def test_the_position_table_counts_frame_after_frame():
    table = position_table(3, 4, 6)
    assert float(table[0, 1, 0]) == pytest.approx(math.sin(1))
    assert float(table[2, 3, 1]) == pytest.approx(math.cos(11))
    assert float(table[1, 0, 4]) == pytest.approx(math.sin(4 / 10_000 ** (4 / 6)))
    model = make()
    assert "positions" not in model.state_dict()
    assert model.to(torch.float64).positions.dtype == torch.float64


INFORMED = GridSpec(
    lookback=3, horizon=4, channels=2, rows=6, columns=4, calendar=5,
    references=("day", "time-of-day"), places=2,
)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("head", ["rollout", "direct"])
def test_each_input_that_is_switched_on_is_used_and_no_other(head):
    changes = {
        "calendar": lambda batch: replace(batch, calendar=batch.calendar + 1),
        "future": lambda batch: replace(batch, future_calendar=batch.future_calendar + 1),
        "references": lambda batch: replace(batch, references=batch.references + 1),
        "places": lambda batch: replace(batch, coordinates=batch.coordinates + 1),
    }
    for on in ("calendar", "references", "places", None):
        settings = {on: True} if on else {}
        model, batch = make(spec=INFORMED, head=head, **settings), windows(INFORMED)
        before = model(batch).values
        for name, change in changes.items():
            moved = not torch.equal(model(change(batch)).values, before)
            assert moved == ({"future": "calendar"}.get(name, name) == on), (on, name)


@torch.no_grad()
def test_an_untrained_correction_leaves_its_base():
    batch = windows(INFORMED)
    blended = make(spec=INFORMED, base="blend")(batch).values
    torch.testing.assert_close(blended, rules(batch, 4).mean(1))
    chosen = make(spec=INFORMED, base="blend", use=("time-of-day",))(batch).values
    torch.testing.assert_close(chosen, rules(batch, 4)[:, [0, 2, 4]].mean(1))
    last = make(spec=INFORMED, base="persistence")(batch).values
    torch.testing.assert_close(last, batch.frames[:, -1:].expand(-1, 4, -1, -1, -1))


@torch.no_grad()
def test_with_window_norm_a_shift_of_all_frames_shifts_the_forecast():
    model = make(spec=INFORMED, window_norm=True, references=True)
    batch = windows(INFORMED)
    moved = replace(batch, frames=batch.frames + 7, references=batch.references + 7)
    torch.testing.assert_close(
        model(moved).values, model(batch).values + 7, atol=1e-4, rtol=1e-4
    )  # fmt: skip
    assert (
        make(spec=INFORMED)(moved).values - make(spec=INFORMED)(batch).values - 7
    ).abs().max() > 1


@torch.no_grad()
def test_what_a_missing_cell_held_has_no_effect():
    spec = replace(INFORMED, horizon=3)
    mask = torch.rand(2, 3, 2, 6, 4, generator=torch.Generator().manual_seed(0)) > 0.3
    batch = windows(spec)
    model = make(spec=spec, base="blend", window_norm=True)
    # the last frame, which offsets are taken from, may have gaps too
    masked = replace(batch, frames=batch.frames * mask, mask=mask)
    assert model(masked).values.isfinite().all()
    whole = replace(batch, mask=torch.ones_like(mask))
    torch.testing.assert_close(model(whole).values, model(batch).values)
    targets = replace(masked, target_mask=mask)
    total, count = model.loss(targets)
    hidden = replace(targets, target=torch.where(mask, batch.target, 1e6))
    assert torch.equal(model.loss(hidden)[0], total)
    assert int(count) == int(mask.sum())


def test_skipped_samples_pass_a_block_unchanged_and_others_count_more():
    torch.manual_seed(0)
    config = PredFormerConfig(**SMALL, dropout=0.0, attention_dropout=0.0, path_dropout=0.5)
    block = Block(config, "S", closing=False).train()
    tokens = torch.randn(400, 2, 3, 16)
    moved = block(tokens) - tokens
    skipped = (moved == 0).all(-1).all(-1).all(-1).double().mean().item()
    # both layers skipped: a quarter, with the deviation sqrt(3 / 16 / 400) = 0.022
    assert skipped == pytest.approx(0.25, abs=4 * 0.022)
    # layers are scaled up: their sum is right in the mean, up to the second layer's curvature
    with torch.no_grad():
        mean = torch.stack([block(tokens) - tokens for _ in range(60)]).mean(0)
        expected = block.eval()(tokens) - tokens
    assert float((mean - expected).norm() / expected.norm()) < 0.2
    always = Block(replace(config, path_dropout=0.999999), "S", closing=False).train()
    assert torch.equal(always(tokens[:4]), tokens[:4])


def test_recomputed_blocks_give_the_same_gradients():
    def gradients(recompute):
        model = make("quad_tsst", recompute=recompute, dropout=0.2, path_dropout=0.2).train()
        torch.manual_seed(3)
        total, _ = model.loss(windows(model.spec, count=4))
        total.backward()
        return [weight.grad for weight in model.parameters()]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, theirs)


def test_the_head_stays_in_single_precision():
    model, batch = make(), windows(make().spec)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(batch).values
    assert half.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(half, model(batch).values, atol=0.05, rtol=0.05)


@torch.no_grad()
def test_a_forecast_does_not_depend_on_its_batch_mates():
    model = make(spec=INFORMED, base="blend", references=True, calendar=True)
    batch = windows(INFORMED, count=5)
    names = ("frames", "calendar", "future_calendar", "references", "target")
    alone = [
        model(replace(batch, **{name: getattr(batch, name)[n : n + 1] for name in names})).values
        for n in range(5)
    ]
    torch.testing.assert_close(torch.cat(alone), model(batch).values, atol=1e-5, rtol=1e-5)


def test_it_learns_a_pattern_that_moves():
    torch.manual_seed(0)
    spec = GridSpec(lookback=4, horizon=4, channels=1, rows=8, columns=8)
    model = make("binary_ts", spec=spec, dropout=0.0, attention_dropout=0.0, path_dropout=0.0)
    model.train()
    phase = torch.rand(32, 1, 1, 1, 1) * 6.28
    step, column = torch.arange(8.0).view(1, 8, 1, 1, 1), torch.arange(8.0)
    wave = torch.sin(phase + 0.6 * step + 6.28 / 8 * column).expand(32, 8, 1, 8, 8)
    batch = GridBatch(frames=wave[:, :4], target=wave[:, 4:])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        total, count = model.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert (total / count).item() < 0.05  # the variance of the wave is 0.5


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"blocks": 7}, r"model\.blocks = 7 is no multiple of the 3 blocks in a layer of triplet"),
        ({"width": 30}, r"model\.width = 30 is not a multiple of model\.heads = 4"),
        ({"calendar": True}, r"frames have no dates"),
        ({"use": ("day",)}, r"model\.use names 'day', and the data bring along no references"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(config, told):
    with pytest.raises(UsageError, match=told):
        make(**config)


@torch.no_grad()
def test_simple_rules_by_hand():
    # One cell: past 1, 5; reference 2, 3 in the past and 4, 6 ahead.
    batch = GridBatch(
        frames=torch.tensor([1.0, 5.0]).view(1, 2, 1, 1, 1),
        references=torch.tensor([2.0, 3.0, 4.0, 6.0]).view(1, 1, 4, 1, 1, 1),
        target=torch.zeros(1, 2, 1, 1, 1),
    )
    spec = GridSpec(lookback=2, horizon=2, channels=1, rows=1, columns=1, references=("day",))
    found = {name: model(batch).values.flatten().tolist()
             for name, model in grid_baselines(spec).items()}  # fmt: skip
    assert found == {
        "persistence": [5.0, 5.0],
        "day": [4.0, 6.0],
        # the last frame lay 2 above the reference at its own time
        "day-offset": [6.0, 8.0],
    }
    total, count = grid_baselines(spec)["day"].loss(batch)
    assert (float(total), float(count)) == (52.0, 2.0)
    mask = torch.tensor([True, False]).view(1, 2, 1, 1, 1)
    gap = replace(batch, mask=mask)
    assert GridRule(GridRuleConfig(), spec)(gap).values.flatten().tolist() == [1.0, 1.0]
    with pytest.raises(UsageError, match="no reference for model"):
        GridRule(GridRuleConfig(rule="week"), spec)
