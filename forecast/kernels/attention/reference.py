"""Scaled dot-product attention, written as its formula: the specification of the faster forms.

Letters: B batch, H heads, L queries, S keys, E head width.

Source: Vaswani et al., "Attention is all you need", arXiv 1706.03762, equation 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def visible(
    rows: Int[Tensor, "*rows L"], keys: Int[Tensor, " S"], causal: bool, window: int | None
) -> Bool[Tensor, "*rows L S"]:
    """Return the mask of keys that a query at each position of `rows` may see."""
    distance = rows.unsqueeze(-1) - keys
    seen = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance.abs() < window
    return seen


def attention(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    *,
    causal: bool,
    window: int | None,
    key_padding: Bool[Tensor, "B S"] | None,
    dropout: float,
    scale: float,
) -> Float[Tensor, "B H L E"]:
    """Compute `softmax(q k^T scale) v` over the visible keys; a row that sees none is 0."""
    queries, keys = q.shape[2], k.shape[2]
    rows = torch.arange(keys - queries, keys, device=q.device)
    seen = visible(rows, torch.arange(keys, device=q.device), causal, window)
    if key_padding is not None:
        seen = seen & ~key_padding[:, None, None, :]
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~seen, -torch.inf)
    # Any finite shift leaves the quotient as it is; this one keeps rows that see nothing finite.
    peak = scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - peak).exp()
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    return torch.nn.functional.dropout(weights, dropout) @ v
