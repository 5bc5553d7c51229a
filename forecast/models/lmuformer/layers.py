"""The layers of LMUFormer: an embedding of the last rows, and a block of Legendre memories.

Letters: N streams, L rows, X inputs, R rows of a ring, D width, U memory channels, d order.

Source: Liu et al., "LMUFormer", ICLR 2024, arXiv 2402.04882, sections 3 and 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from forecast.kernels.lmu import memory
from forecast.layers import Dropout, RowLinear

State = dict[str, Tensor]


class Embedding(nn.Module):
    """Map the last `kernel` rows to a vector, normalise and rectify it: a causal convolution."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel, self.inputs = kernel, inputs
        self.map = RowLinear(kernel * inputs, width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, rows: Float[Tensor, "N L X"], ring: Float[Tensor, "N R X"]
    ) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N R X"]]:
        """Return the vectors, and the rows that the next step looks back on."""
        known = torch.cat([ring, rows], 1)
        windows = known.unfold(1, self.kernel, 1).flatten(2)
        return torch.relu(self.norm(self.map(windows))), known[:, rows.shape[1] :]


class Block(nn.Module):
    """Write into memories, read them, then mix the channels of each step; both with residual.

    The memories feed nothing back into what is written, so that they can be computed at once.
    """

    def __init__(
        self,
        width: int,
        *,
        channels: int,
        windows: tuple[int, ...],
        order: int,
        expansion: int,
        dropout: float,
        spiking: bool,
    ) -> None:
        super().__init__()
        self.windows, self.order, self.spiking = windows, order, spiking
        self.share = channels // len(windows)
        self.norm_memory = nn.LayerNorm(width)
        self.write = RowLinear(width, channels)
        self.read = RowLinear(channels * order + width, width)
        self.project = RowLinear(width, width)
        self.norm_mix = nn.LayerNorm(width)
        self.expand = RowLinear(width, expansion * width)
        self.contract = RowLinear(expansion * width, width)
        self.dropout = Dropout(dropout)

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each part of the state of a stream."""
        channels, width = self.write.out_features, self.read.out_features
        shapes: dict[str, tuple[int, ...]] = {"memory": (channels, self.order)}
        if self.spiking:
            shapes |= {"write": (channels,), "held": (channels * self.order,), "read": (width,)}
        return shapes

    def forward(
        self,
        tokens: Float[Tensor, "N L D"],
        begun: Bool[Tensor, "N L 1"] | None,
        state: State,
        backend: str,
    ) -> tuple[Float[Tensor, "N L D"], State]:
        """Return the tokens and the state after the last of them.

        Args:
            tokens: one for each row.
            begun: False before the first observation, where nothing may be written.
            state: the state before the first row.
            backend: the form of the memory.
        """
        after: State = {}
        inputs = self.norm_memory(tokens)
        written = self._activate(self.write(inputs), "write", 0.5, begun, state, after)
        memories = self._remember(written, state["memory"], backend)
        after["memory"] = memories[:, -1]
        held = memories.flatten(2)
        if self.spiking:
            # The memory itself stays analogue: spikes are what is read of it.
            held = self._activate(held, "held", 1.0, begun, state, after)
        read = self.read(torch.cat([held, inputs], 2))
        seen = self._activate(read, "read", 1.0, begun, state, after)
        tokens = self.dropout(self.project(seen), residual=tokens)
        mixed = self.contract(nn.functional.gelu(self.expand(self.norm_mix(tokens))))
        return self.dropout(mixed, residual=tokens), after

    def _remember(
        self, written: Float[Tensor, "N L U"], state: Float[Tensor, "N U d"], backend: str
    ) -> Float[Tensor, "N L U d"]:
        """Keep the channels in memories, shared out among the windows in equal parts."""
        streams, rows, _ = written.shape
        parts = [
            memory(
                written[..., first : first + self.share].transpose(1, 2).reshape(-1, rows),
                state[:, first : first + self.share].reshape(-1, self.order),
                order=self.order,
                window=window,
                backend=backend,
            ).view(streams, self.share, rows, self.order)
            for window, first in zip(
                self.windows, range(0, written.shape[2], self.share), strict=True
            )
        ]
        return torch.cat(parts, 1).transpose(1, 2)

    def _activate(
        self,
        x: Float[Tensor, "N L X"],
        name: str,
        threshold: float,
        begun: Bool[Tensor, "N L 1"] | None,
        state: State,
        after: State,
    ) -> Float[Tensor, "N L X"]:
        if begun is not None:
            x = x * begun
        if not self.spiking:
            return torch.relu(x)
        spikes, after[name] = fire(x, state[name], threshold)
        return spikes


def fire(
    x: Float[Tensor, "N L X"], potential: Float[Tensor, "N X"], threshold: float
) -> tuple[Float[Tensor, "N L X"], Float[Tensor, "N X"]]:
    """Run leaky integrate-and-fire neurons: `v <- v + (x - v) / 2`, a spike and v = 0 above it.

    Returns:
        The spikes, whose gradient is that of a sigmoid of slope 4, and the potentials.

    Source: Liu et al., equations 3 and 4; the reset passes no gradient on.
    """
    spikes: list[Tensor] = []
    for current in x.unbind(1):
        potential = potential + (current - potential) / 2
        soft = torch.sigmoid(4 * (potential - threshold))
        hard = (potential >= threshold).to(x.dtype)
        spikes.append(hard.detach() + soft - soft.detach())
        potential = potential * (1 - hard)
    return torch.stack(spikes, 1), potential
