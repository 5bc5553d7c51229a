"""Triton kernels against the float64 reference; `test_interpreter.py` runs this file."""

from __future__ import annotations

import functools

import pytest
import torch

from forecast.kernels import dispatch
from forecast.kernels.attention import attention
from forecast.kernels.probsparse import draw, probsparse, reference
from forecast.kernels.probsparse import triton as form

SIZES = ((1, 1), (4, 4), (63, 65), (64, 64), (65, 130), (130, 130))
MASKS = {
    "none": {},
    "causal": {"causal": True},
    "window": {"window": 7},
    "causal window": {"window": 40, "causal": True},
    "padding": {"padded": True},
    "all": {"window": 40, "causal": True, "padded": True},
}


pytestmark = pytest.mark.interpreter


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill what the kernels are to write with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def tensors(queries, keys, width=16, heads=1, dtype=torch.float32):
    """Draw tensors that lie between NaN, so that a load outside them shows."""
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    drawn = []
    for length in (queries, keys, keys):
        count = 2 * heads * length * width
        memory = torch.full((count + 8192,), torch.nan, dtype=dtype)
        inner = memory[4096 : 4096 + count]
        inner.copy_(torch.randn(count, generator=generator))
        drawn.append(inner.view(2, heads, length, width))
    return drawn


def every_size(*cases, whole):
    """Pair cases with sizes: all of them for the cases of `whole`, else a few; the rest is slow."""
    few = ((4, 4), (65, 130))
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            *size,
            marks=[] if case in whole or size in few else [pytest.mark.slow],
        )
        for case in cases
        for size in SIZES
    ]


@pytest.mark.parametrize(("mask", "queries", "keys"), every_size(*MASKS, whole=("all",)))
def test_attention(mask, queries, keys):
    options = {key: value for key, value in MASKS[mask].items() if key != "padded"}
    if "padded" in MASKS[mask]:
        hidden = torch.rand(2, keys, generator=torch.Generator().manual_seed(keys)) < 0.5
        hidden[0] = True  # the first sample's queries see nothing at all
        options["key_padding"] = hidden
    trial, exact = (
        functools.partial(attention, backend=backend, **options)
        for backend in ("triton", "reference")
    )
    assert dispatch.disagreement(trial, exact, tensors(queries, keys), 1e-5) == ""


@pytest.mark.parametrize(
    ("width", "heads", "dtype", "tolerance"),
    [(64, 3, torch.float32, 1e-5), (24, 1, torch.float32, 1e-5), (128, 1, torch.bfloat16, 1e-2)],
)
def test_attention_of_other_widths_heads_and_types(width, heads, dtype, tolerance):
    trial, exact = (
        functools.partial(attention, causal=True, scale=0.3, backend=backend)
        for backend in ("triton", "reference")
    )
    inputs = tensors(65, 70, width, heads, dtype)
    assert dispatch.disagreement(trial, exact, inputs, tolerance) == ""


def test_two_runs_agree_bit_for_bit():
    def run():
        q, k, v = (x.clone().requires_grad_() for x in tensors(130, 130))
        out = attention(q, k, v, causal=True, backend="triton")
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("mode", "queries", "keys"), every_size("exact", "shared", whole=()))
def test_measure(mode, causal, queries, keys):
    if causal:
        queries = keys  # a causal measure is one of a square
    q, k, _ = tensors(queries, keys, heads=2)
    sample = draw(mode, queries, keys, 5, torch.Generator().manual_seed(1))
    exact = reference.measure(q.double(), k.double(), sample=sample, causal=causal)
    found = form.measure(q, k, sample=sample, causal=causal)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("causal", "queries", "keys"),
    [*every_size(False, True, whole=()), (False, 130, 64)],
)
def test_active_and_lazy_rows(causal, queries, keys):
    if causal:
        queries = keys
    rows = reference.select(torch.rand(2, 2, queries), min(queries, 40))
    trial, exact = (
        functools.partial(module.attend, rows=rows, causal=causal, dropout=0.0)
        for module in (form, reference)
    )
    assert dispatch.disagreement(trial, exact, tensors(queries, keys, heads=2), 1e-5) == ""


def test_the_facade_runs_the_kernels():
    q, k, v = tensors(96, 96)
    for options in ({"mode": "exact"}, {"mode": "exact", "causal": True}):
        found, expected = (
            probsparse(q, k, v, backend=backend, **options) for backend in ("triton", "reference")
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_dropout_drops_the_same_weights_in_both_passes(sparse):
    q, k, v = tensors(64, 64, width=64)
    rows = reference.select(torch.rand(2, 1, 64), 40)
    index = rows.unsqueeze(-1).expand(-1, -1, -1, 64)

    def run(q, k, v):
        torch.manual_seed(5)
        if sparse:
            return form.attend(q, k, v, rows, causal=False, dropout=0.3).gather(2, index)
        return attention(q, k, v, dropout=0.3, backend="triton")

    # with the identity for values the answer is the weights themselves
    keep = run(q, k, torch.eye(64).expand_as(v)) != 0
    # 5120 weights or more: the rate's deviation is at most sqrt(.3 * .7 / 5120) = 0.0064
    assert keep.double().mean().item() == pytest.approx(0.7, abs=4 * 0.0064)

    def expected(q, k, v):
        chosen = q.gather(2, index) if sparse else q
        return ((chosen @ k.mT / 8).softmax(-1) * keep / 0.7) @ v

    assert dispatch.disagreement(run, expected, (q, k, v), 1e-5) == ""


def test_self_check_of_both_operations_passes():
    from forecast.kernels import attention as dense
    from forecast.kernels import probsparse as sparse

    assert dense.self_check(torch.device("cpu"), torch.bfloat16) == ""
    assert sparse.self_check(torch.device("cpu"), torch.float32) == ""
