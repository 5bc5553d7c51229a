"""Attention of ragged segments in Triton: a program for each segment and head, no atomics.

The forward pass keeps the logarithm of each softmax's sum; the backward pass makes the weights from
it again. Values are read once in each pass.

Letters: T segments, m messages, A heads, E columns of a head.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

# Messages that a program takes at once.
_BLOCK = 32


@triton.jit
def _forward(scores, values, offsets, out, logs, heads, width,
             BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    segment, head = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(offsets + segment), tl.load(offsets + segment + 1)
    column = tl.arange(0, WIDTH)
    top = -float("inf")
    total = 0.0
    rest = tl.zeros([WIDTH], tl.float32)
    for start in range(first, end, BLOCK):
        number = start + tl.arange(0, BLOCK)
        live = number < end
        score = tl.load(scores + number * heads + head, mask=live, other=-float("inf"))
        score = score.to(tl.float32)
        higher = tl.maximum(top, tl.max(score, 0))
        weight = tl.exp(score - higher)
        shrink = tl.exp(top - higher)
        place = (number * heads + head)[:, None] * width + column[None, :]
        value = tl.load(values + place, mask=live[:, None] & (column < width)[None, :], other=0.0)
        rest = rest * shrink + tl.sum(weight[:, None] * value.to(tl.float32), 0)
        total = total * shrink + tl.sum(weight, 0)
        top = higher
    filled = end > first
    row = segment * heads + head
    rest = tl.where(filled, rest / tl.where(filled, total, 1.0), 0.0)
    tl.store(out + row * width + column, rest.to(out.dtype.element_ty), mask=column < width)
    tl.store(logs + row, tl.where(filled, top + tl.log(tl.where(filled, total, 1.0)), 0.0))


@triton.jit
def _backward(scores, values, offsets, out, logs, grad, d_scores, d_values, heads, width,
              BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    segment, head = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(offsets + segment), tl.load(offsets + segment + 1)
    column = tl.arange(0, WIDTH)
    row = segment * heads + head
    inside = column < width
    above = tl.load(grad + row * width + column, mask=inside, other=0.0).to(tl.float32)
    result = tl.load(out + row * width + column, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(above * result, 0)
    log = tl.load(logs + row)
    for start in range(first, end, BLOCK):
        number = start + tl.arange(0, BLOCK)
        live = number < end
        score = tl.load(scores + number * heads + head, mask=live, other=-float("inf"))
        weight = tl.exp(score.to(tl.float32) - log)
        place = (number * heads + head)[:, None] * width + column[None, :]
        both = live[:, None] & inside[None, :]
        value = tl.load(values + place, mask=both, other=0.0).to(tl.float32)
        slope = weight * (tl.sum(value * above[None, :], 1) - mean)
        tl.store(d_scores + number * heads + head, slope.to(d_scores.dtype.element_ty), mask=live)
        change = weight[:, None] * above[None, :]
        tl.store(d_values + place, change.to(d_values.dtype.element_ty), mask=both)


def attend(
    scores: Float[Tensor, "m A"], values: Float[Tensor, "m A E"], offsets: Int[Tensor, " T1"]
) -> Float[Tensor, "T A E"]:
    """Compute what `reference.attend` defines."""
    return _Segments.apply(scores, values, offsets)  # pyright: ignore[reportReturnType]


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        scores, values = scores.contiguous(), values.contiguous()
        _, heads, width = values.shape
        count = len(offsets) - 1
        # The backward pass wants more digits of the result than a half has.
        out = values.new_empty(count, heads, width, dtype=torch.float32)
        logs = values.new_empty(count, heads, dtype=torch.float32)
        if count:
            _forward[(count, heads)](
                scores, values, offsets, out, logs, heads, width, **_sizes(width)
            )
        ctx.save_for_backward(scores, values, offsets, out, logs)
        return out.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scores, values, offsets, out, logs = ctx.saved_tensors
        count, heads, width = out.shape
        d_scores, d_values = torch.empty_like(scores), torch.empty_like(values)
        if count:
            _backward[(count, heads)](
                scores, values, offsets, out, logs, grads[0].contiguous(), d_scores, d_values,
                heads, width, **_sizes(width),
            )  # fmt: skip
        return d_scores, d_values, None


def _sizes(width: int) -> dict[str, int]:
    return {"BLOCK": _BLOCK, "WIDTH": max(16, triton.next_power_of_2(width)), "num_warps": 2}
