"""A block of Titans: a memory and attention joined in one of several ways, and a gated layer.

Letters: N streams, T tokens, D width.

Source: Behrouz et al., "Titans", arXiv 2501.00663, section 4.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.layers import Dropout, RMSNorm, RowLinear
from forecast.models.stateful.model import State
from forecast.models.titans.layers import Memory, Target, Tokens, WindowAttention
from forecast.models.titans.memory_store import Kind

Variant = Literal["gate", "layer", "context", "memory", "attention"]


class Block(nn.Module):
    """Join a memory and attention in one of four ways, then mix the channels of each token.

    gate: both see the tokens, and a gate weighs what they say.
    layer: the memory first, attention to what it gives.
    context: attention within a segment to the tokens and to what the memory, as it was before the
        segment, says of them; its outputs are written.
    memory: the memory alone.
    attention: attention alone, to see what the memory is worth.
    """

    def __init__(
        self,
        width: int,
        *,
        variant: Variant,
        heads: int,
        window: int,
        persistent: int,
        memory: Kind,
        momentum: bool,
        target: Target,
        dropout: float,
    ) -> None:
        super().__init__()
        self.variant, self.window = variant, window
        self.memory = self.attention = self.weigh = self.norm_near = self.norm_far = None
        if variant != "attention":
            self.memory = Memory(width, heads=heads, momentum=momentum, target=target, kind=memory)
        if variant != "memory":
            self.attention = WindowAttention(
                width,
                heads=heads,
                window=window,
                persistent=persistent,
                dropout=dropout,
                sources=2 if variant == "context" else 1,
            )
        if variant == "gate":
            self.weigh = RowLinear(width, width)
            self.norm_near, self.norm_far = RMSNorm(width), RMSNorm(width)
        inner = 64 * math.ceil(8 * width / 3 / 64)
        self.norm = RMSNorm(width)
        self.expand = RowLinear(width, 2 * inner)
        self.contract = RowLinear(inner, width)
        self.dropout = Dropout(dropout)

    @property
    def grid(self) -> int:
        """Period [tokens] within which the positions of streams must agree to be run together."""
        memory = 1 if self.memory is None else self.memory.hold.grid
        return math.lcm(memory, self.window) if self.variant == "context" else memory

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream."""
        shapes: dict[str, tuple[int, ...]] = {} if self.memory is None else self.memory.sizes()
        if self.attention is not None:
            shapes |= self.attention.sizes()
        if self.variant == "context":
            shapes["start"] = shapes["memory"]
        return shapes

    def forward(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        """Return the tokens and the state after the last of them.

        Of several tokens all streams must be at the same place of the `grid`.
        """
        if self.variant == "gate":
            tokens, after = self._gate(tokens, known, state)
        elif self.variant == "context":
            tokens, after = self._context(tokens, known, state)
        else:
            after = State()
            if self.memory is not None:
                far, after = self.memory(tokens, known, state)
                tokens = self.dropout(far, residual=tokens)
            if self.attention is not None:
                near, changed = self._attend(tokens, known, state)
                tokens, after = self.dropout(near, residual=tokens), after | changed
        gate, value = self.expand(self.norm(tokens)).chunk(2, 2)
        mixed = self.contract(nn.functional.silu(gate) * value)
        return self.dropout(mixed, residual=tokens), after

    def _attend(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        assert self.attention is not None
        return self.attention(tokens, known, known.visible(self.window), state)

    def _gate(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        assert self.memory is not None
        assert self.weigh is not None
        assert self.norm_near is not None
        assert self.norm_far is not None
        near, changed = self._attend(tokens, known, state)
        far, after = self.memory(tokens, known, state)
        share = torch.sigmoid(self.weigh(tokens))
        joined = share * self.norm_near(near) + (1 - share) * self.norm_far(far)
        return self.dropout(joined, residual=tokens), after | changed

    def _context(
        self, tokens: Float[Tensor, "N T D"], known: Tokens, state: State
    ) -> tuple[Float[Tensor, "N T D"], State]:
        """Go from segment to segment: what is attended to in one depends on the writes before."""
        assert self.memory is not None
        assert self.attention is not None
        count, parts = tokens.shape[1], list[Tensor]()
        # A single token may be at any place of its segment, several begin at the same one.
        first = int(known.place[0, 0]) % self.window if count > 1 else 0
        borders = [0, *range(self.window - first, count, self.window), count]
        for start, stop in itertools.pairwise(borders):
            some, own = tokens[:, start:stop], known.part(slice(start, stop))
            within = own.place % self.window
            begins = (within[:, 0] == 0)[:, None, None, None]
            anchor = torch.where(begins, state["memory"], state["start"])
            recalled = self.memory.read(some, anchor)
            visible = own.visible(within + 1)
            near, changed = self.attention(some, own, visible, state, recalled)
            near = self.dropout(near, residual=some)
            far, after = self.memory(near, own, state)
            parts.append(self.dropout(near * far, residual=near))
            state = after | changed | {"start": anchor}
        return torch.cat(parts, 1), state
