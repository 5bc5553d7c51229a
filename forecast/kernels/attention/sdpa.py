"""Attention by torch's `scaled_dot_product_attention`, which has fused forms on CPU and CUDA.

A window, or key padding together with a causal mask, is handed over as one mask of L x S bits per
sample. With dropout torch's CPU form stores all scores. The facade avoids both.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from forecast.kernels.attention.reference import visible


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
    """Compute what `reference.attention` defines."""
    queries, keys = q.shape[2], k.shape[2]
    # One query at the end of the keys sees them all.
    causal = causal and queries > 1
    diagonal = causal and window is None and key_padding is None and queries == keys
    mask = None if key_padding is None else ~key_padding[:, None, None, :]
    if window is not None or (causal and not diagonal):
        rows = torch.arange(keys - queries, keys, device=q.device)
        seen = visible(rows, torch.arange(keys, device=q.device), causal, window)
        mask = seen if mask is None else mask & seen
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=diagonal, scale=scale
    )
