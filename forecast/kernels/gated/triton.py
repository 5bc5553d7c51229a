"""The gate of SwiGLU in Triton: one pass over memory, forward as backward.

Letters: n rows, F gate width, W = 2 F.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.gated.reference import FIRST, LEVELS, SECOND, THIRD, keys, threshold

_FIRST, _SECOND, _THIRD = tl.constexpr(FIRST), tl.constexpr(SECOND), tl.constexpr(THIRD)
# Elements of a program.
_BLOCK = 1024


@triton.jit
def _mask(number, first, second, dropped, scale):
    """Return 0 for a dropped element and the scale for a kept one."""
    word = (number // 2).to(tl.int32) * _FIRST + first
    word = word ^ (word >> 15)
    word = word * _SECOND + second
    word = word ^ (word >> 13)
    word = word * _THIRD
    word = word ^ (word >> 16 & 0xFFFF)
    bits = tl.where(number % 2 == 0, word << 16, word) >> 16
    return tl.where(bits >= dropped - 32768, scale, 0.0)


@triton.jit
def _forward(both, out, first, second, dropped, scale, width, total, DROPOUT: tl.constexpr,
             BLOCK: tl.constexpr):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = number < total
    place = number + number // width * width
    gate = tl.load(both + place, mask=live, other=0.0).to(tl.float32)
    value = tl.load(both + place + width, mask=live, other=0.0).to(tl.float32)
    inner = gate * tl.sigmoid(gate) * value
    if DROPOUT:
        inner = inner * _mask(number, first, second, dropped, scale)
    tl.store(out + number, inner.to(out.dtype.element_ty), mask=live)


@triton.jit
def _backward(both, grad, slope, first, second, dropped, scale, width, total,
              DROPOUT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = number < total
    place = number + number // width * width
    gate = tl.load(both + place, mask=live, other=0.0).to(tl.float32)
    value = tl.load(both + place + width, mask=live, other=0.0).to(tl.float32)
    above = tl.load(grad + number, mask=live, other=0.0).to(tl.float32)
    if DROPOUT:
        above = above * _mask(number, first, second, dropped, scale)
    sigmoid = tl.sigmoid(gate)
    swish = gate * sigmoid
    d_gate = above * value * (sigmoid + swish * (1.0 - sigmoid))
    tl.store(slope + place, d_gate.to(slope.dtype.element_ty), mask=live)
    tl.store(slope + place + width, (above * swish).to(slope.dtype.element_ty), mask=live)


def gated(both: Float[Tensor, "*n W"], *, dropout: float, seed: int) -> Float[Tensor, "*n F"]:
    """Compute what `reference.gated` defines."""
    return _Fused.apply(both, threshold(dropout), seed)  # pyright: ignore[reportReturnType]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, dropped: int, seed: int) -> Tensor:
        both = both.contiguous()
        out = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
        grid, sizes = _launch(out, dropped, seed)
        _forward[grid](both, out, **sizes)
        ctx.save_for_backward(both)
        ctx.dropped, ctx.seed = dropped, seed
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (both,) = ctx.saved_tensors
        grad, slope = grads[0].contiguous(), torch.empty_like(both)
        grid, sizes = _launch(grad, ctx.dropped, ctx.seed)
        _backward[grid](both, grad, slope, **sizes)
        return slope, None, None


def _launch(out: Tensor, dropped: int, seed: int) -> tuple[tuple[int], dict[str, Any]]:
    first, second = keys(seed)
    sizes = {
        "first": first, "second": second, "dropped": dropped,
        "scale": LEVELS / (LEVELS - dropped), "width": out.shape[-1], "total": out.numel(),
        "DROPOUT": dropped > 0, "BLOCK": _BLOCK, "num_warps": 4,
    }  # fmt: skip
    return (triton.cdiv(out.numel(), _BLOCK),), sizes
