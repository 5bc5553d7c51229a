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
less the last value. It is a ridge regression on a compressed window and solved for as one, before
the network learns what to add.

Letters: B batch, L rows, H horizon, C variates, F calendar features, G groups of variates that are
forecast together, V variates of a group, N = B G streams, K positions to forecast from, D width,
U memory channels, d order of a memory, P rows that the direct path reads as such, X inputs.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import Spec
from forecast.errors import UsageError
from forecast.kernels.lmu import least_order
from forecast.layers import RowLinear
from forecast.models.lmuformer.layers import Block, Embedding
from forecast.models.stateful.direct_path import DirectPath
from forecast.models.stateful.model import Piece, State, StatefulModel, own_part

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class LMUFormerConfig:
    """Config of LMUFormer.

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
        direct_window: rows that the direct path remembers; by default thrice the longest window.
        direct_order: order of that memory; by default what seasons need, 0 leaves the path out.
        direct_rows: P; by default one season, at most 24.
        channel_independent: forecast every variate by itself, with the same weights, instead of
            all together.
        calendar: let the network see calendar features.
        observed: let the network see which values are missing; they are held in either case.
        half_life: scale by a mean and deviation carried along, in which a row weighs half after so
            many rows; None leaves the scale as it is.
        dropout: probability of zeroing an element of what a layer adds.
        segment: rows of a training segment that are scored; one starts every half segment.
        warm_up: rows before them that only bring the state up; by default those that the longest
            memory holds.
        spiking: let inner values be spikes of leaky integrate-and-fire neurons. They run step by
            step and cost several times more to train and nothing less to run on ordinary
            processors; what they would save takes neuromorphic hardware.
    """

    width: Positive = 32
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
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    segment: Annotated[int, Field(ge=2)] = 256
    warm_up: Annotated[int, Field(ge=0)] | None = None
    spiking: bool = False


class Sizes(NamedTuple):
    """Sizes of the network, what the config leaves open filled in from the season of the data."""

    windows: tuple[int, ...]
    order: int
    direct_window: int
    direct_order: int
    direct_rows: int
    context: int
    warm_up: int


def sizes(config: LMUFormerConfig, season: int) -> Sizes:
    """Fill in the sizes of the memories for a season [rows]; without a season, 7 stands for it."""
    season = season if season > 1 else 7
    windows = config.windows or ((7 if season >= 24 else 4) * season,)
    longest = max(windows)
    direct_window = config.direct_window or 3 * longest
    direct_order = config.direct_order
    if direct_order is None:
        direct_order = _ample(direct_window, season)
    context = max(longest, direct_window if direct_order else 0)
    return Sizes(
        windows=windows,
        order=config.order or _ample(longest, season),
        direct_window=direct_window,
        direct_order=direct_order,
        direct_rows=config.direct_rows or min(season, 24),
        context=context,
        warm_up=context if config.warm_up is None else config.warm_up,
    )


def _ample(window: int, season: int) -> int:
    """Return an order a fifth above what the season needs, a multiple of 8."""
    return 8 * math.ceil(least_order(window, season) * 1.2 / 8)


class LMUFormer(StatefulModel):
    """Forecast from every row, with a state of fixed size for each stream.

    The forecast is the last value, plus the direct path's linear map of the recent past, plus what
    the network adds. A stream begins with its first observation: the memory of the input then
    holds that value as if it had always been so. Missing values are held.
    """

    # A row far enough back no longer shows, so that a warm-up stands for all history.
    forgets = True
    carried = 0

    def __init__(self, config: LMUFormerConfig, spec: Spec) -> None:
        super().__init__()
        given = sizes(config, spec.season)
        _check(config, given, spec.season)
        self.config, self.given = config, given
        self.horizon, self.variates = spec.horizon, spec.variates
        # After so many rows a stream is no longer cold: every memory has filled up once.
        self.context = given.context
        self.segment, self.warm_up = config.segment, given.warm_up
        self.observed, self.half_life = config.observed, config.half_life
        self.calendar_rows = 1 if config.calendar and spec.calendar else 0
        self.together = 1 if config.channel_independent else spec.variates  # V
        inputs = self.together * (2 if config.observed else 1)
        inputs += spec.calendar * self.calendar_rows
        widths = [inputs] + [config.width] * (config.convolutions - 1)
        self.embed = nn.ModuleList(Embedding(size, config.width, config.kernel) for size in widths)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                channels=config.channels,
                windows=given.windows,
                order=given.order,
                expansion=config.expansion,
                dropout=config.dropout,
                spiking=config.spiking,
            )
            for _ in range(config.depth)
        )
        self.head = RowLinear(config.width, spec.horizon * self.together)
        # What the network adds begins at nothing.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.direct = None
        if given.direct_order:
            self.direct = DirectPath(
                spec.horizon,
                window=given.direct_window,
                order=given.direct_order,
                rows=given.direct_rows,
            )

    def state_sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a stream's `embed*` rows and `block*` memories."""
        shapes: dict[str, tuple[int, ...]] = {}
        for number, layer in enumerate(cast("list[Embedding]", self.embed)):
            shapes[f"embed{number}"] = (self.config.kernel - 1, layer.inputs)
        for number, block in enumerate(cast("list[Block]", self.blocks)):
            shapes |= {f"block{number}.{name}": size for name, size in block.sizes().items()}
        return shapes

    def network(self, piece: Piece, before: State) -> tuple[Float[Tensor, "N K H V"], State]:
        """Compute what the network adds behind the last K rows, and its state after them."""
        tokens, live, after = piece.inputs, piece.live, State()
        for number, layer in enumerate(self.embed):
            if live is not None:
                tokens = tokens * live
            name = f"embed{number}"
            tokens, after[name] = layer(tokens, before[name])
        for number, block in enumerate(self.blocks):
            prefix = f"block{number}."
            own = own_part(before, prefix)
            tokens, changed = block(tokens, live, own, piece.backend)
            after |= {prefix + name: part for name, part in changed.items()}
        added = self.head(tokens[:, tokens.shape[1] - piece.kept :])
        return added.unflatten(2, (self.horizon, self.together)), after


def _check(config: LMUFormerConfig, given: Sizes, season: int) -> None:
    """Refuse channels that cannot be shared out, and warn of memories too small for the season."""
    if config.channels % len(given.windows):
        raise UsageError(
            f"model.channels = {config.channels} cannot be shared out among "
            f"{len(given.windows)} windows.",
            hint=f"Take a multiple of {len(given.windows)}.",
        )
    memories = {
        "model.order": (given.order, max(given.windows)),
        "model.direct_order": (given.direct_order, given.direct_window),
    }
    for name, (order, window) in memories.items():
        needed = least_order(window, season)
        if season > 1 and 0 < order < needed:
            warnings.warn(
                f"{name} = {order} cannot hold {window / season:g} seasons of {season} rows, which "
                f"its window of {window} has; {needed} can. A shorter window needs less.",
                stacklevel=4,
            )
