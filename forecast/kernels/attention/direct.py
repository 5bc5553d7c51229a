"""Attention with all scores held at once: the fastest form on a CPU while they are few.

torch's softmax and its fused attention spend twenty nanoseconds on a score when a row has a dozen
of them, as the variates of a table are. Four plain passes over the whole block take a sixth of
that, and the weights are kept for the backward pass.

Letters: B batch, H heads, N = B H planes, L queries, S keys, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.dropout import keep_mask


def attention(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    *,
    causal: bool,
    window: int | None,
    key_padding: Tensor | None,
    dropout: float,
    scale: float,
) -> Float[Tensor, "B H L E"]:
    """Compute what `reference.attention` defines for calls without masks."""
    assert not causal
    assert window is None
    assert key_padding is None
    planes = (x.reshape(-1, x.shape[2], x.shape[3]) for x in (q, k, v))
    return _Direct.apply(*planes, scale, dropout).view(q.shape)  # pyright: ignore[reportReturnType]


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float
    ) -> Float[Tensor, "N L E"]:
        # The softmax is taken in float32 whatever the inputs are.
        weights = torch.bmm(q, k.transpose(1, 2)).to(_statistics(q.dtype)).mul_(scale)  # (N, L, S)
        weights = weights.sub_(weights.amax(-1, keepdim=True)).exp_()
        weights = weights.div_(weights.sum(-1, keepdim=True))
        keep = None
        if dropout:
            keep, kept_scale = keep_mask(
                weights.shape, dropout, weights.dtype, device=weights.device
            )
            keep.mul_(kept_scale)
        ctx.save_for_backward(q, k, v, weights, keep)
        ctx.scale = scale
        return torch.bmm(_kept(weights, keep, v.dtype), v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, keep = ctx.saved_tensors
        d_out = gradients[0].contiguous()
        d_v = torch.bmm(_kept(weights, keep, v.dtype).transpose(1, 2), d_out)
        d_weights = torch.bmm(d_out, v.transpose(1, 2)).to(weights.dtype)
        if keep is not None:
            d_weights.mul_(keep)
        d_weights.mul_(weights)
        mean = d_weights.sum(-1, keepdim=True)
        d_scores = torch.addcmul(d_weights, weights, mean, value=-1).mul_(ctx.scale).to(q.dtype)
        return torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q), d_v, None, None


def _statistics(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _kept(weights: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    return (weights if keep is None else weights * keep).to(dtype)
