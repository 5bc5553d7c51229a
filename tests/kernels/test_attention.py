"""Attention: every form against the reference in float64, masks, dropout, and who runs it."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import OPERATIONS, dispatch, explain
from forecast.kernels import attention as room
from forecast.kernels.attention import BACKENDS, attention, choose, tiled

SIZES = ((1, 1), (4, 4), (63, 65), (64, 64), (65, 130), (130, 130))
MASKS = {
    "none": {},
    "causal": {"causal": True},
    "window": {"window": 7},
    "causal window": {"window": 40, "causal": True},
    "padding": {"padded": True},
    "all": {"window": 40, "causal": True, "padded": True},
}


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(queries, keys, width=16, heads=2):
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    q, k, v = (
        torch.randn(2, heads, length, width, generator=generator)
        for length in (queries, keys, keys)
    )
    return q, k, v


def padding(keys):
    hidden = torch.rand(2, keys, generator=torch.Generator().manual_seed(keys)) < 0.5
    hidden[0] = True  # the first sample's queries see nothing at all
    return hidden


def held(backend, mask, queries, keys):
    """Compare one form with the reference in float64."""
    options = {key: value for key, value in MASKS[mask].items() if key != "padded"}
    if "padded" in MASKS[mask]:
        options["key_padding"] = padding(keys)
    fast = functools.partial(attention, backend=backend, **options)
    reference = functools.partial(attention, backend="reference", **options)
    return dispatch.disagreement(fast, reference, draw(queries, keys), 1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", ["sdpa", "tiled"])
def test_values_and_gradients_equal_the_reference(backend, mask):
    for queries, keys in SIZES:
        assert held(backend, mask, queries, keys) == "", (queries, keys)


@pytest.mark.parametrize("mask", MASKS)
def test_tiles_of_any_size_give_the_same(monkeypatch, mask):
    monkeypatch.setattr(tiled, "TILE_QUERIES", 7)
    monkeypatch.setattr(tiled, "TILE_SCORES", 1000)
    assert held("tiled", mask, 65, 130) == ""


def test_few_scores_held_at_once_equal_the_reference():
    for queries, keys in SIZES:
        assert held("direct", "none", queries, keys) == ""
    assert choose(torch.device("cpu"), torch.float32, keys=8, scores=64).backend == "direct"


def test_half_precision_is_computed_in_single():
    inputs = [x.bfloat16() for x in draw(65, 130)]
    exact = attention(*(x.double() for x in inputs), causal=True, backend="reference")
    found = attention(*inputs, causal=True, backend="tiled")
    assert found.dtype == torch.bfloat16
    # half a unit in the last of bfloat16's 8 bits
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-6)


def test_reference_is_the_formula():
    # softmax of (0, ln 3) is (1/4, 3/4): the answer lies three quarters of the way from 0 to 8
    q, k = torch.ones(1, 1, 1, 1), torch.tensor([0.0, 3.0]).log1p().view(1, 1, 2, 1)
    k[0, 0, 1] = torch.tensor(3.0).log()
    v = torch.tensor([0.0, 8.0]).view(1, 1, 2, 1)
    assert attention(q, k, v, scale=1.0, backend="reference").item() == pytest.approx(6.0)


def test_causal_window_of_one_answers_the_querys_own_value():
    q, k, v = draw(5, 9)
    out = attention(q, k, v, causal=True, window=1)
    torch.testing.assert_close(out, v[:, :, -5:])


@pytest.mark.parametrize("backend", ["reference", "sdpa", "tiled"])
def test_a_query_that_sees_nothing_gives_zero_and_no_gradient(backend):
    q, k, v = (x.requires_grad_() for x in draw(4, 4))
    out = attention(q, k, v, key_padding=torch.tensor([[True] * 4, [False] * 4]), backend=backend)
    out.sum().backward()
    for x in (out, q.grad, k.grad, v.grad):
        assert x[0].eq(0).all()
        assert not x.isnan().any()
    assert out[1].ne(0).all()


def test_keys_outside_the_window_are_never_touched():
    q, k, v = draw(10, 1000)
    k[:, :, :900], v[:, :, :900] = torch.nan, torch.nan
    assert attention(q, k, v, causal=True, window=90, backend="tiled").isfinite().all()


@pytest.mark.parametrize("backend", ["tiled", "direct"])
def test_dropout_drops_the_same_weights_in_both_passes(backend, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_QUERIES", 20)
    q, k, v = draw(64, 64, width=64)
    run = functools.partial(attention, dropout=0.3, backend=backend)
    # with the identity for values the answer is the weights themselves
    torch.manual_seed(5)
    dropped = run(q, k, torch.eye(64).expand_as(v))
    keep = dropped != 0
    # 2 * 2 * 64 * 64 weights: the rate's deviation is sqrt(.3 * .7 / 16384) = 0.0036
    assert keep.double().mean().item() == pytest.approx(0.7, abs=4 * 0.0036)

    def expected(q, k, v):
        weights = (q @ k.mT / 8).softmax(-1)
        return (weights * keep / (1 - round(0.3 * 65536) / 65536)) @ v

    def same_seed(q, k, v):
        torch.manual_seed(5)
        return run(q, k, v)

    assert dispatch.disagreement(same_seed, expected, (q, k, v), 1e-5) == ""


def test_arguments_that_contradict_each_other_are_refused():
    q, k, v = draw(9, 5)
    with pytest.raises(UsageError, match="9 queries cannot stand at the last positions of 5 keys"):
        attention(q, k, v, causal=True)
    with pytest.raises(UsageError, match="at least 1"):
        attention(k, k, v, window=0)
    with pytest.raises(UsageError, match="no backend"):
        attention(q, k, v, backend="flash")
    with pytest.raises(UsageError, match="takes no mask"):
        attention(k, k, v, causal=True, backend="direct")


def test_a_named_kernel_that_cannot_run_says_why(monkeypatch):
    q, k, v = draw(4, 4)
    with pytest.raises(UsageError, match=r"Triton (is not installed|kernels run on CUDA tensors)"):
        attention(q, k, v, backend="triton")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Triton is not installed"):
        attention(q, k, v, backend="triton")
    chosen = choose(torch.device("cuda"), torch.float32, mask="stored")
    assert chosen == ("tiled", "SDPA would store the mask; Triton is not installed")


def test_explain_names_a_backend_and_a_reason_for_every_operation():
    for device in ("cpu", "cuda"):
        rows = explain(device, torch.bfloat16)
        assert {operation.partition(",")[0] for operation, _, _ in rows} == set(OPERATIONS)
        for operation, backend, why in rows:
            module = importlib.import_module(OPERATIONS[operation.partition(",")[0]])
            assert backend in module.BACKENDS, operation
            assert why


def test_a_kernel_that_fails_its_check_is_replaced_with_a_warning(monkeypatch):
    q, k, v = draw(4, 4)
    kernel = dispatch.Choice("triton", "for this test")
    failing = replace(
        room.OPERATION, choose=lambda *_, **__: kernel, check=lambda *_: "its values differ"
    )
    monkeypatch.setattr(room, "OPERATION", failing)
    with pytest.warns(RuntimeWarning, match="its values differ. 'tiled' runs instead"):
        out = attention(q, k, v, causal=True)
    torch.testing.assert_close(out, attention(q, k, v, causal=True, backend="reference"))


@pytest.mark.parametrize("stand_in", ["sdpa", "flawed"])
def test_self_check_runs_the_kernel_against_the_reference(monkeypatch, stand_in):
    class Flawed:
        @staticmethod
        def attention(q, k, v, **options):
            # right but for the key padding
            return dispatch.form({"sdpa": BACKENDS["sdpa"]}, "sdpa").attention(
                q, k, v, **options | {"key_padding": None}
            )

    real = dispatch.form

    def form(backends, backend):
        if backend != "triton":
            return real(backends, backend)
        return Flawed if stand_in == "flawed" else real(backends, "sdpa")

    monkeypatch.setattr(dispatch, "form", form)
    room.self_check.cache_clear()
    reason = room.self_check(torch.device("cpu"), torch.float32)
    room.self_check.cache_clear()
    assert ("its values differ" in reason) == (stand_in == "flawed")
    assert bool(reason) == (stand_in == "flawed")
