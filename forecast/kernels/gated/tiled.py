"""The gate of SwiGLU in plain torch, a tile of rows at a time that stays in a core's cache.

Only the input is kept for the backward pass; the gate and its dropout bits are computed again.

Letters: n rows, F gate width, W = 2 F.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.gated.reference import FIRST, LEVELS, SECOND, THIRD, keys, signed, threshold

aten = torch.ops.aten

# Elements of a tile: a few arrays of so many float32 fit the second cache, and torch splits one
# evenly among four threads.
TILE = 1 << 17


def gated(both: Float[Tensor, "*n W"], *, dropout: float, seed: int) -> Float[Tensor, "*n F"]:
    """Compute what `reference.gated` defines."""
    return _Tiled.apply(both, threshold(dropout), seed)  # pyright: ignore[reportReturnType]


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, dropped: int, seed: int) -> Tensor:
        rows = both.reshape(-1, both.shape[-1])
        width = rows.shape[1] // 2
        out = rows.new_empty(len(rows), width)
        for part, mask in _tiles(rows, dropped, seed):
            gate, value = rows[part].split(width, dim=1)
            inner = aten.silu.out(gate, out=out[part]).mul_(value)
            if mask is not None:
                inner.mul_(mask).mul_(_scale(dropped))
        ctx.save_for_backward(both)
        ctx.dropped, ctx.seed = dropped, seed
        return out.view(*both.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (both,) = ctx.saved_tensors
        rows = both.reshape(-1, both.shape[-1])
        width = rows.shape[1] // 2
        slopes = grads[0].reshape(-1, width)
        out = torch.empty_like(rows)
        for part, mask in _tiles(rows, ctx.dropped, ctx.seed):
            gate, value = rows[part].split(width, dim=1)
            d_gate, d_value = out[part].split(width, dim=1)
            slope = slopes[part]
            if mask is not None:
                slope = (slope * mask).mul_(_scale(ctx.dropped))
            aten.silu_backward.grad_input(slope * value, gate, grad_input=d_gate)
            torch.mul(aten.silu.default(gate), slope, out=d_value)
        return out.view_as(both), None, None


def _scale(dropped: int) -> float:
    return LEVELS / (LEVELS - dropped)


def _tiles(rows: Tensor, dropped: int, seed: int) -> Iterator[tuple[slice, Tensor | None]]:
    """Cut rows into tiles, each with a mask of 0 and 1, or None without dropout."""
    count, width = len(rows), rows.shape[1] // 2
    # A GPU has no use for small tiles. An even number of rows begins each tile with a whole word.
    height = max(2, TILE // width // 2 * 2) if rows.device.type == "cpu" else max(count, 1)
    first, second = keys(seed)
    counters = mask = key = None
    for start in range(0, count, height):
        part = slice(start, min(start + height, count))
        if not dropped:
            yield part, None
            continue
        size = (part.stop - start) * width
        if counters is None or mask is None or key is None:
            words = (size + 1) // 2
            counters = torch.arange(words, dtype=torch.int32, device=rows.device) * FIRST
            mask = torch.empty(2 * words, dtype=rows.dtype, device=rows.device)
            key = torch.full((), second, dtype=torch.int32, device=rows.device)
        # Sums and products of int32 wrap round.
        word = counters[: (size + 1) // 2] + signed(start * width // 2 * FIRST + first)
        word.bitwise_xor_(word >> 15)
        word = torch.add(key, word, alpha=SECOND)
        word.bitwise_xor_(word >> 13).mul_(THIRD)
        word.bitwise_xor_((word >> 16).bitwise_and_(0xFFFF))
        bits = word.view(torch.int16)[:size]
        yield part, torch.ge(bits, dropped - LEVELS // 2, out=mask[:size]).view(-1, width)
