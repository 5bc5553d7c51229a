"""The gate of SwiGLU: every form against the reference in float64, and the hash that drops."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels import gated as room
from forecast.kernels.gated import BACKENDS, gated, reference, tiled

SIZES = ((1, 1), (4, 4), (63, 65), (64, 64), (65, 130), (130, 63))
TABLE = Path(__file__).parent / "resources_gated.json"


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(rows, width, dtype=torch.float32):
    """Draw gates and values that lie between NaN, so that a load outside them shows."""
    count = rows * 2 * width
    memory = torch.full((count + 8192,), torch.nan, dtype=dtype)
    inner = memory[4096 : 4096 + count]
    inner.copy_(torch.randn(count, generator=torch.Generator().manual_seed(rows * 1000 + width)))
    return inner.view(rows, 2 * width)


def held(backend, both, dropout, tolerance, seed=3 << 40):
    trial, exact = (
        functools.partial(dispatch.form(BACKENDS, name).gated, dropout=dropout, seed=seed)
        for name in (backend, "reference")
    )
    return dispatch.disagreement(trial, exact, (both,), tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
def test_values_and_gradients_equal_the_reference(monkeypatch, dropout):
    # tiles of four rows and less, so that their borders are crossed
    monkeypatch.setattr(tiled, "TILE", 256)
    for rows, width in SIZES:
        # with the same seed the same elements are dropped
        assert held("tiled", draw(rows, width), dropout, 1e-5) == "", (rows, width)
        assert held("tiled", draw(rows, width, torch.bfloat16), dropout, 1e-2) == ""


def test_the_sizes_of_the_published_networks():
    for rows, width in ((7, 128), (100, 512), (300, 1024)):
        assert held("tiled", draw(rows, width), 0.1, 1e-5) == ""


def test_gradients_agree_with_finite_differences():
    both = draw(5, 6, torch.float64).requires_grad_()
    for form in (tiled, reference):
        run = functools.partial(form.gated, dropout=0.3, seed=11)
        assert torch.autograd.gradcheck(run, (both,))


def test_reference_is_the_formula():
    # g = ln 3 has the sigmoid 3/4: SiLU(g) v = ln 3 * 3/4 * 8
    both = torch.tensor([[torch.tensor(3.0).log(), 8.0]])
    assert gated(both, backend="reference").item() == pytest.approx(6 * 1.0986123, rel=1e-6)


def test_the_hash_is_the_stated_one():
    def signed(word, bits=32):
        return (word + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)

    first, second = reference.keys(77)
    kept = []
    for number in range(200):
        word = signed(number // 2 * reference.FIRST + first)
        word = signed(word ^ word >> 15)
        word = signed(word * reference.SECOND + second)
        word = signed(word ^ word >> 13)
        word = signed(word * reference.THIRD)
        word = signed(word ^ (word >> 16 & 0xFFFF))
        bits = signed(word >> 16 * (number % 2) & 0xFFFF, 16)
        kept.append(bits >= 20_000 - 32_768)
    found = reference.keep(torch.Size([200]), 20_000, 77, torch.device("cpu"))
    assert found.tolist() == kept


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_elements_are_dropped_at_the_rate_and_independently(dropout):
    shape = torch.Size([1024, 1024])
    rate = reference.threshold(dropout) / reference.LEVELS
    masks = [
        reference.keep(shape, reference.threshold(dropout), seed, torch.device("cpu")).double()
        for seed in (0, 1, 1 << 32, 2**61 - 1)
    ]
    sigma = (rate * (1 - rate) / shape.numel()) ** 0.5
    for mask in masks:
        assert abs(float(mask.mean()) - (1 - rate)) < 3 * sigma
        rest = (mask - mask.mean()).flatten() / mask.std()
        for lag in (1, 2, 3, 16, 512, 1024, 2048, 4096):
            # a correlation of n products has the deviation 1 / sqrt(n)
            assert abs(float((rest[:-lag] * rest[lag:]).mean())) < 4 / shape.numel() ** 0.5, lag
    for place, mask in enumerate(masks):
        for other in masks[:place]:
            shared = ((mask - mask.mean()) * (other - other.mean())).mean()
            assert abs(float(shared)) < 4 * rate * (1 - rate) / shape.numel() ** 0.5


def test_the_seed_comes_from_torchs_generator_and_only_with_dropout():
    both = draw(9, 10)
    state = torch.get_rng_state()
    gated(both)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    first, second = gated(both, dropout=0.5), gated(both, dropout=0.5)
    torch.manual_seed(4)
    assert torch.equal(gated(both, dropout=0.5), first)
    assert not torch.equal(first, second)


def test_only_the_input_is_kept_for_the_backward_pass():
    both = draw(64, 64).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        gated(both, dropout=0.1)
    assert kept == [both.numel()]


def test_a_named_kernel_that_cannot_run_says_why(monkeypatch):
    with pytest.raises(UsageError, match=r"Triton (is not installed|kernels run on CUDA tensors)"):
        gated(draw(2, 2), backend="triton")
    with pytest.raises(UsageError, match="no backend"):
        gated(draw(2, 2), backend="fused")
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    chosen = room.choose(torch.device("cuda"), torch.float32)
    assert chosen == ("tiled", "Triton is not installed")


def test_a_kernel_that_fails_its_check_is_replaced_with_a_warning(monkeypatch):
    kernel = dispatch.Choice("triton", "for this test")
    failing = replace(
        room.OPERATION, choose=lambda *_, **__: kernel, check=lambda *_: "its values differ"
    )
    monkeypatch.setattr(room, "OPERATION", failing)
    with pytest.warns(RuntimeWarning, match="its values differ. 'tiled' runs instead"):
        out = gated(draw(4, 4))
    torch.testing.assert_close(out, gated(draw(4, 4), backend="reference"))


@pytest.mark.interpreter
def test_triton_form_agrees_with_the_reference():
    for rows, width in SIZES:
        for dropout in (0.0, 0.3):
            assert held("triton", draw(rows, width), dropout, 1e-5) == "", (rows, width, dropout)
            assert held("triton", draw(rows, width, torch.bfloat16), dropout, 1e-2) == ""
    for dtype in (torch.float32, torch.bfloat16):
        assert room.self_check(torch.device("cpu"), dtype) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_spill_nothing_and_do_not_grow(
    dtype, capability, launches, compile_launch, hold_to_table
):
    pytest.importorskip("triton", reason="Triton is not installed")
    from forecast.kernels.gated.triton import gated as fused

    both = torch.zeros(64, 2 * 1024, dtype=dtype, requires_grad=True)
    fused(both, dropout=0.1, seed=1).sum().backward()
    assert [launch.kernel.__name__ for launch in launches] == ["_forward", "_backward"]
    case, found = str(dtype).partition(".")[2], {}
    for launch in launches:
        used = compile_launch(launch, capability)
        assert used.spilled == 0
        assert used.registers <= 128
        assert used.shared <= 99 * 1024
        found[f"{launch.kernel.__name__}, {capability}"] = [used.registers, used.shared]
    hold_to_table(TABLE, case, found)
