"""ProbSparse attention as the paper writes it: the specification of the faster forms.

The queries whose scores are least like a uniform distribution attend in full; all others, the lazy
ones, answer the mean of the values.

Letters: B batch, H heads, L queries, S keys, E head width, U sampled keys, u active queries.

Source: Zhou et al., "Informer", arXiv 2012.07436, equation 4 and algorithm 1. Three points of its
published code are not followed: a lazy query under a causal mask answers the running mean and not
the running sum of the values, attention dropout is applied, and the axes of heads and time are
never mixed. Mode `published` keeps that code's way of choosing the active queries.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.kernels.attention.reference import visible


def measure(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    *,
    sample: Int[Tensor, " U"] | Int[Tensor, "L U"] | None,
    causal: bool,
) -> Float[Tensor, "B H L"]:
    """Measure how far each query's scores are from uniform: their maximum minus their mean.

    Args:
        q: queries.
        k: keys.
        sample: keys over which the maximum runs; None for all. One row for each query is the
            published code's measure: raw scores, sampled sum over S, no mask.
        causal: hide later keys from both terms. The maximum then also sees the query's own key.
    """
    keys = k.shape[2]
    if sample is not None and sample.ndim == 2:
        each = torch.arange(q.shape[2], device=q.device).unsqueeze(-1)
        layout = k.unsqueeze(2).expand(-1, -1, q.shape[2], -1, -1)[:, :, each, sample]
        sampled = (q.unsqueeze(-2) @ layout.mT).squeeze(-2)  # (B, H, L, U)
        return sampled.amax(-1) - sampled.sum(-1) / keys
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    positions, columns = (torch.arange(n, device=q.device) for n in (q.shape[2], keys))
    seen = counted = visible(positions, columns, causal, None)
    if sample is not None:
        own = positions.unsqueeze(-1) == columns
        counted = seen & (torch.isin(columns, sample) | (own & causal))
    mean = scores.masked_fill(~seen, 0.0).sum(-1) / seen.sum(-1)
    return scores.masked_fill(~counted, -torch.inf).amax(-1) - mean


def select(measured: Float[Tensor, "B H L"], count: int) -> Int[Tensor, "B H u"]:
    """Take the `count` queries of largest measure, ascending; of equals, the earlier."""
    order = measured.sort(dim=-1, descending=True, stable=True).indices
    return order[..., :count].sort().values


def attend(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    rows: Int[Tensor, "B H u"],
    *,
    causal: bool,
    dropout: float,
) -> Float[Tensor, "B H L E"]:
    """Let the queries in `rows` attend, and give all others the mean of the visible values."""
    keys, width = k.shape[2], q.shape[3]
    index = rows.unsqueeze(-1).expand(-1, -1, -1, width)
    scores = q.gather(2, index) @ k.mT / math.sqrt(width)
    if causal:
        seen = visible(rows, torch.arange(keys, device=q.device), causal, None)
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = torch.nn.functional.dropout(scores.softmax(-1), dropout)
    return lazy(v, q.shape[2], causal).scatter(2, index, weights @ v)


def lazy(v: Float[Tensor, "B H S E"], queries: int, causal: bool) -> Float[Tensor, "B H L E"]:
    """Compute the output of a lazy query at every position: the mean of the values it may see."""
    if not causal:
        return v.mean(2, keepdim=True).expand(-1, -1, queries, -1)
    count = torch.arange(1, v.shape[2] + 1, device=v.device, dtype=v.dtype)
    return v.cumsum(2) / count.unsqueeze(-1)
