"""What a head of the memory of Titans holds: a matrix from keys to values, or two layers.

Letters: N streams, H heads, T tokens, K key width, V value width, M columns of what is held.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forecast.kernels import neural_memory as kernel
from forecast.models.stateful.model import State

Kind = Literal["linear", "deep"]


class LinearMemory(nn.Module):
    """Linear memory: a matrix from keys to values per head, M = V columns of a row per key column.

    Its state is zero where nothing has been read.
    """

    # Streams may be at different places of their chunks.
    grid = 1

    def __init__(self, heads: int, width: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.square, self.backend = (heads, width, width), backend

    def sizes(self, momentum: bool) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream."""
        names = ("memory", "surprise") if momentum else ("memory",)
        return dict.fromkeys(names, self.square)

    def forward(
        self,
        q: Float[Tensor, "N H T K"],
        k: Float[Tensor, "N H T K"],
        v: Float[Tensor, "N H T V"],
        gate: kernel.Gates,
        place: Int[Tensor, "N T"],
        state: State,
    ) -> tuple[Float[Tensor, "N H T V"], State]:
        """Write tokens, read them, and return the state behind the last."""
        held = kernel.State(state["memory"], state.get("surprise"))
        answer, held = kernel.memory(q, k, v, gate, held, backend=self.backend)
        after: State = {"memory": held.memory}
        if held.surprise is not None:
            after["surprise"] = held.surprise
        return answer, after

    def recall(
        self, q: Float[Tensor, "N H T K"], held: Float[Tensor, "N H K V"]
    ) -> Float[Tensor, "N H T V"]:
        """Read a memory without writing."""
        return q @ held


class DeepMemory(nn.Module):
    """Deep memory: two layers from keys to values per head, twice as wide between them.

    The state is what was learned besides the first weights, which are trained: zero where nothing
    has been read. Both matrices lie in one part, the second transposed: M = 4 K columns.
    """

    # Streams at the same place of their chunks go together; others are read token by token.
    grid = kernel.DEEP_CHUNK

    def __init__(self, heads: int, width: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.shape, self.backend = (heads, width, 4 * width), backend
        # Keys have length 1, so that features begin at a size of about 1. Nothing is recalled yet:
        # values are small at first, and would be lost in what a drawn matrix gives.
        self.inner = nn.Parameter(torch.randn(heads, width, 2 * width))
        self.outer = nn.Parameter(torch.zeros(heads, 2 * width, width))

    def sizes(self, momentum: bool) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream."""
        names = ("memory", "anchor", "surprise") if momentum else ("memory", "anchor")
        return dict.fromkeys(names, self.shape)

    def forward(
        self,
        q: Float[Tensor, "N H T K"],
        k: Float[Tensor, "N H T K"],
        v: Float[Tensor, "N H T V"],
        gate: kernel.Gates,
        place: Int[Tensor, "N T"],
        state: State,
    ) -> tuple[Float[Tensor, "N H T V"], State]:
        """Write tokens, read them, and return the state behind the last."""
        surprise = state.get("surprise")
        held = kernel.DeepState(
            _layers(state["memory"]),
            None if surprise is None else _layers(surprise),
            _layers(state["anchor"]),
            place[:, 0],
        )
        first = kernel.Layers(self.inner, self.outer)
        answer, held = kernel.deep_memory(q, k, v, gate, first, held, backend=self.backend)
        after: State = {"memory": _packed(held.change), "anchor": _packed(held.anchor)}
        if held.surprise is not None:
            after["surprise"] = _packed(held.surprise)
        return answer, after

    def recall(
        self, q: Float[Tensor, "N H T K"], held: Float[Tensor, "N H K M"]
    ) -> Float[Tensor, "N H T V"]:
        """Read a memory without writing."""
        inner, outer = _layers(held)
        return nn.functional.silu(q @ (self.inner + inner)) @ (self.outer + outer)


def _layers(packed: Float[Tensor, "N H K M"]) -> kernel.Layers:
    inner, outer = packed.chunk(2, 3)
    return kernel.Layers(inner, outer.transpose(2, 3))


def _packed(layers: kernel.Layers) -> Float[Tensor, "N H K M"]:
    return torch.cat([layers.inner, layers.outer.transpose(2, 3)], 3)


STORES: dict[Kind, type[LinearMemory | DeepMemory]] = {"linear": LinearMemory, "deep": DeepMemory}
