"""ProbSparse attention: the paper's properties, the published measure, every form the same."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels import probsparse as room
from forecast.kernels.attention import attention, tiled
from forecast.kernels.probsparse import draw, logarithmic, probsparse, reference
from forecast.kernels.probsparse import tiled as fast

MODES = ("full", "exact", "shared", "published")
SIZES = ((1, 1), (4, 4), (63, 65), (64, 64), (130, 64), (130, 130))


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(queries, keys=None, *, batch=2, heads=2, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = (queries, keys or queries, keys or queries)
    return tuple(torch.randn(batch, heads, n, width, generator=generator) for n in lengths)


def seeded(mode, *tensors, **options):
    return probsparse(*tensors, mode=mode, generator=torch.Generator().manual_seed(1), **options)


def test_number_of_active_queries():
    # 5 ceil(ln L): ln 48 = 3.9, ln 96 = 4.6, ln 168 = 5.1, ln 336 = 5.8, ln 720 = 6.6
    counts = {48: 20, 96: 25, 168: 30, 192: 30, 336: 30, 720: 35, 1440: 40, 1: 1, 2: 2, 7: 7}
    assert {length: logarithmic(length, 5) for length in counts} == counts


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (1, 8), (3, 1), (3, 8)])
@pytest.mark.parametrize("mode", ["exact", "shared", "published"])
def test_with_every_query_active_it_is_full_attention(mode, batch, heads, causal):
    q, k, v = inputs(24, batch=batch, heads=heads)
    # 6 * ceil(ln 24) = 24
    sparse = seeded(mode, q, k, v, factor=6, causal=causal)
    torch.testing.assert_close(sparse, attention(q, k, v, causal=causal), rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_constant_values_come_back(mode, causal):
    # the published code's running sum would answer 64 at position 63
    q, k, v = inputs(96)
    row = v[:, :, :1]
    out = seeded(mode, q, k, row.expand_as(v), factor=1, causal=causal)
    torch.testing.assert_close(out, row.expand_as(v), rtol=1e-5, atol=1e-5)


def test_exact_does_not_depend_on_chance_or_on_batch_mates():
    q, k, v = inputs(96, batch=4)
    once = probsparse(q, k, v, mode="exact")
    torch.rand(7)
    assert torch.equal(once, probsparse(q, k, v, mode="exact"))
    alone = probsparse(q[2:3], k[2:3], v[2:3], mode="exact")
    torch.testing.assert_close(alone, once[2:3], rtol=0, atol=1e-6)


def test_a_generator_decides_the_draw():
    q, k, v = inputs(96)
    for mode in ("shared", "published"):
        assert torch.equal(seeded(mode, q, k, v), seeded(mode, q, k, v))
        generator = torch.Generator().manual_seed(1)
        first, second = (
            probsparse(q, k, v, mode=mode, generator=generator, factor=1) for _ in range(2)
        )
        assert not torch.equal(first, second)


@pytest.mark.parametrize("form", [reference, fast])
def test_causal_rows_see_no_later_row_once_the_active_set_is_fixed(form):
    q, k, v = inputs(65)
    rows = torch.tensor([3, 20, 21, 64]).expand(2, 2, 4)
    before = form.attend(q, k, v, rows, causal=True, dropout=0.0)
    # change everything after position 20: an active row, and lazy rows on both sides of it
    for x in (q, k, v):
        x[:, :, 21:] += 1
    after = form.attend(q, k, v, rows, causal=True, dropout=0.0)
    assert torch.equal(before[:, :, :21], after[:, :, :21])
    assert not torch.equal(before[:, :, 21:], after[:, :, 21:])


@pytest.mark.parametrize("form", [reference, fast])
@pytest.mark.parametrize("shared", [False, True])
def test_causal_measure_sees_no_later_key(form, shared):
    q, k, _ = inputs(65)
    sample = torch.arange(0, 65, 3) if shared else None
    before = form.measure(q, k, sample=sample, causal=True)
    k[:, :, 40:] += 1
    after = form.measure(q, k, sample=sample, causal=True)
    assert torch.equal(before[:, :, :40], after[:, :, :40])


def test_published_equals_a_loop_over_its_definition():
    length, width = 30, 16
    q, k, v = (x.double() for x in inputs(length, heads=1))
    sample = draw("published", length, length, 2, torch.Generator().manual_seed(1))
    # 2 * ceil(ln 30) = 8 keys of each query's own, and 8 active queries
    assert sample.shape == (length, 8)
    expected = torch.empty_like(v)
    for batch in range(2):
        raw = q[batch, 0] @ k[batch, 0].T
        measured = [
            max(raw[i, j].item() for j in sample[i]) - sum(raw[i, j].item() for j in sample[i]) / 30
            for i in range(length)
        ]
        active = sorted(range(length), key=lambda i: -measured[i])[:8]
        for i in range(length):
            weights = [math.exp(score / math.sqrt(width)) for score in raw[i].tolist()]
            if i not in active:
                weights = [1.0] * length
            expected[batch, 0, i] = sum(
                weight / sum(weights) * v[batch, 0, j] for j, weight in enumerate(weights)
            )
    for backend in ("reference", "tiled"):
        found = seeded("published", q, k, v, factor=2, backend=backend)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mode", ["exact", "shared", "published"])
def test_the_tiled_measure_equals_the_reference(mode, causal, monkeypatch):
    for queries, keys in SIZES:
        if causal and queries != keys:
            continue
        q, k, _ = inputs(queries, keys)
        sample = draw(mode, queries, keys, 5, torch.Generator().manual_seed(1))
        exact = reference.measure(q.double(), k.double(), sample=sample, causal=causal)
        for tile in (256, 9):
            monkeypatch.setattr(tiled, "TILE_QUERIES", tile)
            monkeypatch.setattr(tiled, "TILE_SCORES", tile * 100)
            found = fast.measure(q, k, sample=sample, causal=causal)
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_tiled_values_and_gradients_equal_the_reference(causal, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_QUERIES", 5)
    for queries, keys in SIZES:
        if causal and queries != keys:
            continue
        tensors = inputs(queries, keys)
        rows = reference.select(torch.rand(2, 2, queries), min(queries, 9))
        trial, exact = (
            functools.partial(form.attend, rows=rows, causal=causal, dropout=0.0)
            for form in (fast, reference)
        )
        assert dispatch.disagreement(trial, exact, tensors, 1e-5) == "", (queries, keys)


@pytest.mark.parametrize("form", [reference, fast])
def test_equal_measures_go_to_the_earlier_query(form):
    measured = torch.tensor([[[1.0, 3.0, 2.0, 2.0, 0.0, 2.0]]])
    assert form.select(measured, 3).tolist() == [[[1, 2, 3]]]
    # one number more is no reason to break: a diverged run reports its NaN loss
    assert form.select(torch.full((1, 1, 6), torch.nan), 3).shape == (1, 1, 3)


def test_dropout_falls_on_the_active_rows_alone_and_the_same_in_both_passes():
    q, k, v = inputs(64, width=64)
    rows = torch.tensor([0, 5, 63]).expand(2, 2, 3)

    def run(q, k, v):
        torch.manual_seed(5)
        return fast.attend(q, k, v, rows, causal=False, dropout=0.3)

    # with the identity for values the answer is the weights themselves
    keep = run(q, k, torch.eye(64).expand_as(v))[:, :, [0, 5, 63]] != 0
    # 2 * 2 * 3 * 64 weights: the rate's deviation is sqrt(.3 * .7 / 768) = 0.017
    assert keep.double().mean().item() == pytest.approx(0.7, abs=4 * 0.017)

    def expected(q, k, v):
        weights = (q[:, :, [0, 5, 63]] @ k.mT / 8).softmax(-1)
        active = (weights * keep / (1 - round(0.3 * 65536) / 65536)) @ v
        out = v.mean(2, keepdim=True).repeat(1, 1, 64, 1)
        out[:, :, [0, 5, 63]] = active
        return out

    assert dispatch.disagreement(run, expected, (q, k, v), 1e-5) == ""


def test_arguments_that_contradict_each_other_are_refused():
    q, k, v = inputs(9, 5)
    with pytest.raises(UsageError, match="as many keys as queries"):
        probsparse(q, k, v, mode="exact", causal=True)
    with pytest.raises(UsageError, match="mode='sparse'"):
        probsparse(q, k, v, mode="sparse")
    with pytest.raises(UsageError, match="factor=0"):
        probsparse(q, k, v, mode="exact", factor=0)
    with pytest.raises(UsageError, match="for parity alone"):
        probsparse(q, k, v, mode="published", backend="triton")


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("", ""),
        ("measure", "its measure differs"),
        ("attend", "its values differ"),
        ("raise", "its measure raised ValueError: no such device"),
    ],
)
def test_self_check_runs_the_kernels_against_the_reference(monkeypatch, flaw, words):
    class StandIn:
        @staticmethod
        def measure(q, k, *, sample, causal):
            if flaw == "raise":
                raise ValueError("no such device")
            return fast.measure(q, k, sample=sample, causal=causal and flaw != "measure")

        @staticmethod
        def attend(q, k, v, rows, *, causal, dropout):
            return fast.attend(q, k, v, rows, causal=causal and flaw != "attend", dropout=dropout)

    real = dispatch.form
    monkeypatch.setattr(
        dispatch, "form", lambda all_, name: StandIn if name == "triton" else real(all_, name)
    )
    room.self_check.cache_clear()
    reason = room.self_check(torch.device("cpu"), torch.float32)
    room.self_check.cache_clear()
    assert reason.startswith(words)
    assert bool(reason) == bool(words)


def test_a_kernel_that_fails_its_check_is_replaced_with_a_warning(monkeypatch):
    q, k, v = inputs(9)
    kernel = dispatch.Choice("triton", "for this test")
    failing = replace(
        room.OPERATION, choose=lambda *_, **__: kernel, check=lambda *_: "its measure differs"
    )
    monkeypatch.setattr(room, "OPERATION", failing)
    with pytest.warns(RuntimeWarning, match="its measure differs. 'tiled' runs instead"):
        out = probsparse(q, k, v, mode="exact")
    assert torch.equal(out, probsparse(q, k, v, mode="exact", backend="tiled"))
