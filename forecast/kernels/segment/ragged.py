"""Attention of ragged segments in plain torch: gathers and sums by index, and a gradient by hand.

Softmax weights are kept for the backward pass; everything else is computed again.

Letters: T segments, m messages, A heads, E columns of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


def attend(
    scores: Float[Tensor, "m A"], values: Float[Tensor, "m A E"], offsets: Int[Tensor, " T1"]
) -> Float[Tensor, "T A E"]:
    """Compute what `reference.attend` defines."""
    return _Ragged.apply(scores, values, offsets)  # pyright: ignore[reportReturnType]


class _Ragged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        count = len(offsets) - 1
        owner = torch.repeat_interleave(offsets.diff())
        heads = scores.shape[1]
        top = scores.new_full((count, heads), -torch.inf)
        top = top.scatter_reduce(0, owner[:, None].expand(-1, heads), scores, "amax")
        weights = (scores - top.index_select(0, owner)).exp_()
        sums = scores.new_zeros(count, heads).index_add_(0, owner, weights)
        weights.div_(sums.index_select(0, owner))
        out = values.new_zeros(count, *values.shape[1:])
        out.index_add_(0, owner, weights[..., None] * values)
        ctx.save_for_backward(weights, values, owner)
        ctx.count = count
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, values, owner = ctx.saved_tensors
        above = grads[0].index_select(0, owner)  # (m, A, E)
        reach = weights * (above * values).sum(-1)
        mean = reach.new_zeros(ctx.count, reach.shape[1]).index_add_(0, owner, reach)
        slope = reach - weights * mean.index_select(0, owner)
        return slope, above.mul_(weights[..., None]), None
