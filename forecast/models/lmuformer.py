"""LMUFormer: Legendre memories between pointwise layers, trained in parallel, run as a stream.

Every layer looks back only: convolutions over the last rows, Legendre memories of the last theta
steps, and maps of single steps. So the network has a state of fixed size, and computing all steps
at once, in pieces with the state carried, or one by one gives the same forecasts up to rounding.

Source: Liu et al., "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory
Units", ICLR 2024, arXiv 2402.04882, section 4. The published network classifies clips and is not
causal: its convolutions are padded on both sides (five steps of look-ahead), batch norm mixes all
steps, the memory is fixed to 128 steps. Here convolutions are padded on the left, norms are of one
step, memories are of any length and of several channels, and a head forecasts from every step. New
here is the direct path: one linear map of the memory of the input itself and of the last rows, each
less the last value, which is a ridge regression on a compressed window.

Letters: B batch, L rows, H horizon, C variates, F calendar features, N streams, V values of a
stream, D width, U memory channels, d order of a memory, P rows that the direct path reads as such.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import DenseForecast, Forecast, SeriesBatch, Spec
from forecast.data.segments import SegmentBatch
from forecast.errors import UsageError
from forecast.kernels.lmu import least_order, memory
from forecast.layers import Dropout, squared_error

Positive = Annotated[int, Field(ge=1)]
State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LMUFormerConfig:
    """Choose the size of an LMUFormer.

    Attributes:
        width: D, numbers that stand for a step between the layers.
        depth: blocks.
        convolutions: causal convolutions that embed the rows.
        kernel: rows that each of them reads.
        channels: U, Legendre memories of a block, shared out evenly among the windows.
        windows: theta, lengths of the memories [rows]; by default seven seasons, of short seasons
            four.
        order: d; by default what seasons need that fill the longest window.
        expansion: width of a block's last layer, as a multiple of `width`.
        direct_window: rows that the direct path remembers; by default twice the longest window.
        direct_order: order of that memory; 0 leaves the direct path out.
        direct_rows: P; by default one season, at most 24.
        channel_independent: forecast every variate by itself, with the same weights, instead of
            all together.
        calendar: let the network see calendar features.
        observed: let the network see which values are missing; they are held in either case.
        half_life: scale by a mean and deviation carried along, in which a row weighs half after so
            many rows; None leaves the scale as it is.
        dropout: probability of zeroing an element between two layers.
        spiking: let inner values be spikes of leaky integrate-and-fire neurons. They run step by
            step and cost several times more to train and nothing less to run on ordinary
            processors; what they would save takes neuromorphic hardware.
    """

    width: Positive = 64
    depth: Positive = 1
    convolutions: Positive = 2
    kernel: Positive = 3
    channels: Positive = 4
    windows: tuple[Positive, ...] = ()
    order: Positive | None = None
    expansion: Positive = 2
    direct_window: Positive | None = None
    direct_order: Annotated[int, Field(ge=0)] | None = None
    direct_rows: Positive | None = None
    channel_independent: bool = True
    calendar: bool = False
    observed: bool = False
    half_life: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    spiking: bool = False


class Sizes(NamedTuple):
    """Hold what a config leaves to the season of the data."""

    windows: tuple[int, ...]
    order: int
    direct_window: int
    direct_order: int
    direct_rows: int


def sizes(config: LMUFormerConfig, season: int) -> Sizes:
    """Fill in the memories' sizes for a season [rows]."""
    windows = config.windows or ((7 if season >= 24 else 4) * season,)
    longest = max(windows)
    direct_window = config.direct_window or 2 * longest
    order, direct_order = config.order, config.direct_order
    return Sizes(
        windows=windows,
        order=_ample(longest, season) if order is None else order,
        direct_window=direct_window,
        direct_order=_ample(direct_window, season) if direct_order is None else direct_order,
        direct_rows=config.direct_rows or min(season, 24),
    )


def _ample(window: int, season: int) -> int:
    """Give an order a fifth above what the season needs, a multiple of 8."""
    return 8 * math.ceil(least_order(window, season) * 1.2 / 8)


class Memory(nn.Module):
    """Keep channels in Legendre memories; the channels are shared out among the windows."""

    def __init__(self, channels: int, windows: tuple[int, ...], order: int) -> None:
        super().__init__()
        self.windows, self.order = windows, order
        self.share = channels // len(windows)

    def forward(
        self, u: Float[Tensor, "N L U"], state: Float[Tensor, "N U d"], backend: str
    ) -> Float[Tensor, "N L U d"]:
        """Give the memory after every step; the last one is the next state."""
        streams, rows, _ = u.shape
        parts: list[Tensor] = []
        for place, window in enumerate(self.windows):
            some = slice(place * self.share, (place + 1) * self.share)
            held = memory(
                u[..., some].transpose(1, 2).reshape(-1, rows),
                state[:, some].reshape(-1, self.order),
                order=self.order,
                window=window,
                backend=backend,
            )
            parts.append(held.view(streams, self.share, rows, self.order))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).transpose(1, 2)


class Embedding(nn.Module):
    """Map the last `kernel` rows to a vector, then normalise and rectify it."""

    def __init__(self, inputs: int, config: LMUFormerConfig) -> None:
        super().__init__()
        self.kernel = config.kernel
        # One product over the flattened rows: the same numbers for one row as for many.
        self.map = nn.Linear(config.kernel * inputs, config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, rows: Float[Tensor, "N L X"], ring: Float[Tensor, "N R X"]
    ) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N R X"]]:
        """Return the vectors, and the rows that the next step looks back on."""
        known = torch.cat([ring, rows], 1)
        windows = known.unfold(1, self.kernel, 1).flatten(2)
        return torch.relu(self.norm(self.map(windows))), known[:, rows.shape[1] :]


class Block(nn.Module):
    """Write into memories, read them, then mix the channels of each step; both with residual."""

    def __init__(self, config: LMUFormerConfig, given: Sizes) -> None:
        super().__init__()
        width, channels = config.width, config.channels
        self.memory = Memory(channels, given.windows, given.order)
        self.norm_memory = nn.LayerNorm(width)
        self.write = nn.Linear(width, channels)
        self.read = nn.Linear(channels * given.order + width, width)
        self.project = nn.Linear(width, width)
        self.norm_mix = nn.LayerNorm(width)
        self.expand = nn.Linear(width, config.expansion * width)
        self.contract = nn.Linear(config.expansion * width, width)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, tokens: Float[Tensor, "N L D"], live: Tensor | None, state: State, backend: str
    ) -> tuple[Float[Tensor, "N L D"], State]:
        """Return the tokens and the state after the last of them."""
        inputs = self.norm_memory(tokens)
        written = torch.relu(self.write(inputs))
        if live is not None:
            written = written * live
        held = self.memory(written, state["memory"], backend)
        seen = torch.relu(self.read(torch.cat([held.flatten(2), inputs], 2)))
        tokens = self.dropout(self.project(seen), residual=tokens)
        mixed = self.contract(nn.functional.gelu(self.expand(self.norm_mix(tokens))))
        return self.dropout(mixed, residual=tokens), {"memory": held[:, -1]}
