"""Attention of ragged segments, written as its formula: the specification of the faster forms.

Letters: T segments, m messages, A heads, E columns of a head.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor


def attend(
    scores: Float[Tensor, "m A"], values: Float[Tensor, "m A E"], offsets: Int[Tensor, " T1"]
) -> Float[Tensor, "T A E"]:
    """Compute `sum_j softmax_j(scores) values_j` of each segment."""
    rows: list[Tensor] = []
    for first, end in itertools.pairwise(offsets.tolist()):
        weights = torch.softmax(scores[first:end], 0)
        rows.append((weights[..., None] * values[first:end]).sum(0))
    return torch.stack(rows) if rows else values.sum(0)[None][:0]
