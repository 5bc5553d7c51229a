"""Attention over ragged segments: every form against the reference, on poisoned memory."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forecast.errors import UsageError
from forecast.kernels import dispatch, explain
from forecast.kernels import segment as room
from forecast.kernels.segment import BACKENDS, attend, total

TABLE = Path(__file__).parent / "resources_segment.json"
# lengths of segments: empty ones, one message, those around a tile, one that is very long
SIZES = ([1], [0, 4, 0], [63, 64, 65], [130, 1, 2], [33, 31, 32, 0], [1000])


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill fresh memory with NaN, so that what is read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(lengths, heads=3, width=16, dtype=torch.float32):
    """Draw scores and values that lie between NaN, and the offsets of the segments."""
    count = sum(lengths)
    generator = torch.Generator().manual_seed(count)
    drawn = []
    for shape in ((count, heads), (count, heads, width)):
        size = torch.Size(shape).numel()
        memory = torch.full((size + 8192,), torch.nan, dtype=dtype)
        inner = memory[4096 : 4096 + size]
        inner.copy_(torch.randn(size, generator=generator))
        drawn.append(inner.view(shape))
    return drawn, torch.tensor([0, *lengths]).cumsum(0)


def held(backend, lengths, tolerance, **options):
    inputs, offsets = draw(lengths, **options)
    trial, exact = (
        functools.partial(dispatch.form(BACKENDS, name).attend, offsets=offsets)
        for name in (backend, "reference")
    )
    return dispatch.disagreement(trial, exact, inputs, tolerance)


@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_values_and_gradients_equal_the_reference(lengths):
    assert held("ragged", lengths, 1e-5) == ""
    assert held("ragged", lengths, 1e-5, heads=1, width=5) == ""
    assert held("ragged", lengths, 1e-12, dtype=torch.float64) == ""


def test_equal_scores_average_and_a_far_higher_one_wins_without_overflow():
    offsets = torch.tensor([0, 2, 4])
    scores = torch.tensor([[0.0], [0.0], [1e4], [-1e4]])
    values = torch.tensor([2.0, 4.0, 7.0, 9.0]).view(4, 1, 1)
    for backend in ("reference", "ragged"):
        assert attend(scores, values, offsets, backend=backend).flatten().tolist() == [3.0, 7.0]


def test_the_order_inside_a_segment_changes_nothing_and_totals_add_up():
    (scores, values), offsets = draw([5, 40, 3])
    order = torch.cat([torch.randperm(5), 5 + torch.randperm(40), 45 + torch.randperm(3)])
    torch.testing.assert_close(
        attend(scores[order], values[order], offsets), attend(scores, values, offsets)
    )
    sums = [part.sum(0) for part in values.split([5, 40, 3])]
    torch.testing.assert_close(total(values, offsets), torch.stack(sums))


def test_a_row_tells_what_runs_and_a_named_kernel_says_why_it_cannot():
    assert "segment" in [row[0] for row in explain("cpu")]
    (scores, values), offsets = draw([4])
    with pytest.raises(UsageError, match=r"Triton (is not installed|kernels run on CUDA tensors)"):
        attend(scores, values, offsets, backend="triton")


def test_a_kernel_that_fails_its_check_is_replaced_with_a_warning(monkeypatch):
    kernel = dispatch.Choice("triton", "for this test")
    failing = replace(
        room.OPERATION, choose=lambda *_, **__: kernel, check=lambda *_: "its values differ"
    )
    monkeypatch.setattr(room, "OPERATION", failing)
    (scores, values), offsets = draw([4])
    with pytest.warns(RuntimeWarning, match="its values differ. 'ragged' runs instead"):
        attend(scores, values, offsets)


@pytest.mark.interpreter
def test_triton_form_agrees_with_the_reference():
    for lengths in SIZES:
        assert held("triton", lengths, 1e-5) == "", lengths
        assert held("triton", lengths, 1e-2, heads=2, width=5, dtype=torch.bfloat16) == "", lengths
    assert room.self_check(torch.device("cpu"), torch.float32) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_spill_nothing_and_do_not_grow(
    dtype, capability, launches, compile_launch, hold_to_table
):
    pytest.importorskip("triton", reason="Triton is not installed")
    from forecast.kernels.segment.triton import attend as fused

    scores = torch.zeros(64, 4, dtype=dtype, requires_grad=True)
    values = torch.zeros(64, 4, 16, dtype=dtype, requires_grad=True)
    fused(scores, values, torch.tensor([0, 32, 64])).sum().backward()
    assert [launch.kernel.__name__ for launch in launches] == ["_forward", "_backward"]
    case, found = str(dtype).partition(".")[2], {}
    for launch in launches:
        used = compile_launch(launch, capability)
        assert used.spilled == 0
        assert used.registers <= 128
        assert used.shared <= 99 * 1024
        found[f"{launch.kernel.__name__}, {capability}"] = [used.registers, used.shared]
    hold_to_table(TABLE, case, found)
