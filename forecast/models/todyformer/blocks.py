"""The two halves of a Todyformer block: messages inside patches, attention along a node's tokens.

Letters: T tokens, m messages, e edges, A heads, D width, U nodes, L lookback, H horizon.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from forecast.kernels.segment import attend, owners
from forecast.models.todyformer.tokens import Tokens


class TimeCode(nn.Module):
    """Encode a time as cosines whose frequencies fall from 1 by powers of ten.

    Args:
        width: cosines.
        decades: powers of ten between the highest and the lowest frequency.
    """

    def __init__(self, width: int, *, decades: float = 4.0) -> None:
        super().__init__()
        steps = torch.arange(width) / max(width - 1, 1)
        self.frequency = nn.Parameter(10 ** (-decades * steps))
        self.phase = nn.Parameter(torch.zeros(width))

    def forward(self, time: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Compute the cosines."""
        return torch.cos(time[:, None] * self.frequency + self.phase)


class DirectMap(nn.Module):
    """Map a window to the values after it, the same for all nodes.

    Args:
        lookback: L.
        horizon: H.
        start: weights of a window's values and of 1 to start from.
        mean: start from the mean of the window instead of its last value, where `start` is None.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        start: Float[Tensor, "L1 H"] | None,
        *,
        mean: bool = False,
    ) -> None:
        super().__init__()
        if start is None:
            start = torch.zeros(lookback + 1, horizon)
            start[slice(lookback) if mean else lookback - 1] = 1 / lookback if mean else 1.0
        self.weight = nn.Parameter(start[:-1].clone())
        self.bias = nn.Parameter(start[-1].clone())

    def forward(self, past: Float[Tensor, "*n L"]) -> Float[Tensor, "*n H"]:
        """Compute the values."""
        return past @ self.weight + self.bias


class Local(nn.Module):
    """Pass messages along the edges of each patch, weighed by attention of the target.

    Args:
        width: D.
        heads: A.
        edge_width: numbers of an edge.
    """

    def __init__(self, width: int, heads: int, edge_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.edge = nn.Linear(edge_width, 2 * width)
        self.direction = nn.Parameter(torch.randn(2, 2 * width) * 0.1)
        self.out = nn.Linear(width, width)
        self.skip = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tokens, x: Float[Tensor, "T D"], edges: Float[Tensor, "e d"]
    ) -> Float[Tensor, "T D"]:
        """Compute the next value of each token."""
        code = self.edge(edges)
        both = torch.cat([code + self.direction[0], code + self.direction[1]])
        sent = self.key_value(x).index_select(0, tokens.source)
        sent = sent + both.index_select(0, tokens.edge)
        key, value = sent.view(len(sent), 2, self.heads, sent.shape[1] // (2 * self.heads)).unbind(
            1
        )  # (m, A, E)
        query = self.query(x).index_select(0, owners(tokens.offsets))
        scores = (query.view_as(key) * key).sum(-1) / math.sqrt(key.shape[-1])
        received = attend(scores, value, tokens.offsets).flatten(1)
        return self.norm(functional.gelu(self.out(received) + self.skip(x)))


class Global(nn.Module):
    """Let the tokens of each node attend to each other, and to no other node's.

    Args:
        width: D.
        heads: A.
        dropout: probability of zeroing an element of what a layer adds.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mixer = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(
        self, tokens: Tokens, x: Float[Tensor, "T D"], position: Float[Tensor, "M D"]
    ) -> Float[Tensor, "T D"]:
        """Compute the next value of each token."""
        y = x + position.index_select(0, tokens.patch)
        mixed = self.out(self._attend(tokens, self.qkv(self.attention_norm(y))))
        y = y + functional.dropout(mixed, self.dropout, self.training)
        return y + self.mixer(y)

    def _attend(self, tokens: Tokens, qkv: Float[Tensor, "T D3"]) -> Float[Tensor, "T D"]:
        width = qkv.shape[1] // 3
        parts: list[Tensor] = []
        for bucket in tokens.buckets:
            count, length = bucket.rows.shape
            if length == 1:
                # one token attends to itself
                parts.append(qkv.index_select(0, bucket.rows[:, 0])[:, 2 * width :])
                continue
            rows = qkv.index_select(0, bucket.rows.flatten())
            rows = rows.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mask = None if bucket.real is None else bucket.real[:, None, None]
            out = functional.scaled_dot_product_attention(*rows.unbind(0), attn_mask=mask)
            out = out.transpose(1, 2).reshape(count * length, width)
            if bucket.real is not None:
                out = out.index_select(0, bucket.real.flatten().nonzero().flatten())
            parts.append(out)
        return torch.cat(parts).index_select(0, tokens.unpacked) if parts else qkv[:, :width]
