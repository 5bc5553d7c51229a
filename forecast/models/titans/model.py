"""Titans: a forecaster whose memory learns from what it reads, and goes on as a stream.

The rows of a stream are cut into patches, each a token. Attention sees the last tokens; a memory,
corrected by every token as it comes (`kernels.memory`), holds what lies further back. Both
look back only, so that the network has a state of fixed size: all rows at once, pieces with the
state carried, or one row after the other give the same forecasts up to rounding.

Source: Behrouz, Zhong and Mirrokni, "Titans: Learning to Memorize at Test Time", arXiv 2501.00663.
The forecaster of the paper was not published. Ours differs in this: keys have length 1 and the step
leaves room for the momentum, without which the memory diverges; a value is written under the key of
the patch before it; gate and attention are added rather than multiplied in the variant `gate`;
patches come from values, what is observed of them, and the calendar. As in `lmuformer`, what the
network says is added to the last value and to a ridge regression on the recent past, the direct
path, which is solved for before training.

A token is there only once its patch is whole. Until the next one the network's forecast ages: it
is made for up to a patch more than H rows, and the rows gone by are dropped. The direct path is
new at every row.

Letters: B batch, L rows, H horizon, C variates, F calendar features, G groups of variates that are
forecast together, V variates of a group, N = B G streams, K positions to forecast from, D width,
P rows of a patch, T tokens, X inputs of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from forecast.batch import Spec
from forecast.errors import UsageError
from forecast.kernels.lmu import least_order
from forecast.layers import RMSNorm, RowLinear
from forecast.models.stateful.direct_path import DirectPath
from forecast.models.stateful.model import Piece, State, StatefulModel, own_part
from forecast.models.titans.block import Block, Variant
from forecast.models.titans.layers import Target, Tokens
from forecast.models.titans.memory_store import Kind

Positive = Annotated[int, Field(ge=1)]
# So that a token forgets little at first: alpha = 0.0067.
_FORGET = -5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TitansConfig:
    """Config of Titans.

    Attributes:
        width: D, numbers that stand for a patch between the layers.
        heads: of the memory and of attention.
        depth: blocks.
        patch: P, rows of a patch; by default a third of a season, at most 16.
        variant: how memory and attention are joined: `gate` weighs one against the other, `layer`
            puts attention behind the memory, `context` lets attention see what the memory recalls,
            `memory` leaves attention out, `attention` the memory.
        window: tokens that attention sees; with `context`, of a segment.
        persistent: learned tokens that attention always sees.
        memory: what a head of it holds: a matrix from keys to values (`linear`), or two layers
            (`deep`, experimental), which hold what no matrix can and learn less from a token.
        momentum: let the steps of the memory have momentum.
        target: write a value under the key of the patch before it (`next`) or of its own (`self`).
        direct: add the direct path.
        channel_independent: forecast every variate by itself, with the same weights, instead of
            all together.
        calendar: let the network see calendar features.
        half_life: scale by a mean and deviation carried along, in which a row weighs half after so
            many rows; None leaves the scale as it is.
        dropout: probability of zeroing an element of what a layer adds, and of a weight of
            attention.
        segment: rows of a training segment that are scored; one starts every half segment.
        warm_up: rows before them that only bring the state up; by default what attention and the
            direct path see.
        carried: most rows of history before those that half of the training segments begin with,
            so that the state of a long stream is one that the weights have met; 0 trains from
            empty states alone.
    """

    width: Positive = 32
    heads: Positive = 4
    depth: Positive = 1
    patch: Positive | None = None
    variant: Variant = "gate"
    window: Annotated[int, Field(ge=2)] = 32
    persistent: Annotated[int, Field(ge=0)] = 4
    memory: Kind = "linear"
    momentum: bool = False
    target: Target = "next"
    direct: bool = True
    channel_independent: bool = True
    calendar: bool = False
    half_life: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    segment: Annotated[int, Field(ge=2)] = 512
    warm_up: Annotated[int, Field(ge=0)] | None = None
    carried: Annotated[int, Field(ge=0)] = 8_192


class Titans(StatefulModel):
    """Forecast from every row, with a state of fixed size for each stream.

    The forecast is the last value, plus the direct path's linear map of the recent past, plus what
    the network added when the last patch was whole. Missing values are held; the network sees
    which they are, and writes nothing for a patch without any observation.

    A stream begins, and its patches with it, at its first observation; rows before that one leave
    no trace.
    """

    # Its memory reaches back to the first row.
    forgets = False

    def __init__(self, config: TitansConfig, spec: Spec) -> None:
        super().__init__()
        _check(config)
        season = spec.season if spec.season > 1 else 7
        self.config = config
        self.horizon, self.variates = spec.horizon, spec.variates
        self.patch = config.patch or min(16, max(1, season // 3))
        self.together = 1 if config.channel_independent else spec.variates  # V
        self.observed, self.half_life = True, config.half_life
        self.calendar_rows = 1 if config.calendar and spec.calendar else 0
        self.inputs = 2 * self.together + spec.calendar * self.calendar_rows
        self.embed = RowLinear(self.patch * self.inputs, config.width)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                variant=config.variant,
                heads=config.heads,
                window=config.window,
                persistent=config.persistent,
                memory=config.memory,
                momentum=config.momentum,
                target=config.target,
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.norm = RMSNorm(config.width)
        self.reach = spec.horizon + self.patch - 1
        self.head = RowLinear(config.width, self.reach * self.together)
        self.direct = None
        window = (21 if season >= 24 else 12) * season
        if config.direct:
            # A fifth above what the season needs, a multiple of 8.
            order = 8 * math.ceil(least_order(window, season) * 1.2 / 8)
            self.direct = DirectPath(spec.horizon, window=window, order=order, rows=min(season, 24))
        # After so many rows a stream is no longer cold, though its memory reaches further back.
        self.context = max(config.window * self.patch, window if config.direct else 0)
        self.segment, self.carried = config.segment, config.carried
        self.warm_up = self.context if config.warm_up is None else config.warm_up
        self._begin()

    def _begin(self) -> None:
        """Set the first weights; what the network adds begins at nothing."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    nn.init.zeros_(layer.bias)
        scale = 1 / math.sqrt(2 * self.config.depth)
        with torch.no_grad():
            for block in cast("list[Block]", self.blocks):
                for part in (block.memory, block.attention):
                    if part is not None:
                        part.out.weight.mul_(scale)
                block.contract.weight.mul_(scale)
                if block.memory is not None:
                    block.memory.forget.bias.fill_(_FORGET)
        nn.init.zeros_(self.head.weight)
        if self.direct is not None:
            nn.init.zeros_(self.direct.map.weight)

    def state_sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the state of a stream.

        They are `patch` rows, the `outlook` of the last whole patch, and the memories, convolutions
        and keys of `block*`.
        """
        shapes: dict[str, tuple[int, ...]] = {
            "patch": (self.patch, self.inputs),
            "outlook": (self.reach, self.together),
        }
        for number, block in enumerate(cast("list[Block]", self.blocks)):
            shapes |= {f"block{number}.{name}": size for name, size in block.sizes().items()}
        return shapes

    def network(self, piece: Piece, before: State) -> tuple[Float[Tensor, "N K H V"], State]:
        """Compute what the network adds behind the last K rows, and its state after them."""
        if piece.inputs.shape[1] == 1:
            return self._single(piece, before)
        # Streams whose patches, and segments or chunks of patches, end at the same row go together.
        grid = cast(Block, self.blocks[0]).grid
        place = piece.age % (self.patch * grid)
        kinds = place.unique()
        if len(kinds) == 1:
            return self._aligned(piece.inputs, piece.age, before, piece.kept)
        groups = [(place == kind).nonzero().flatten() for kind in kinds]
        parts: list[tuple[Tensor, State]] = []
        for some in groups:
            own = {name: part[some] for name, part in before.items()}
            parts.append(self._aligned(piece.inputs[some], piece.age[some], own, piece.kept))
        order = torch.cat(groups).argsort()
        added = torch.cat([part for part, _ in parts])[order]
        names = parts[0][1]
        return added, {
            name: torch.cat([after[name] for _, after in parts])[order] for name in names
        }

    def _aligned(
        self, inputs: Float[Tensor, "N L X"], age: Int[Tensor, " N"], before: State, kept: int
    ) -> tuple[Float[Tensor, "N K H V"], State]:
        """Do so for streams whose patches end at the same rows.

        Args:
            inputs: the rows, 0 before a stream begins.
            age: rows since each stream began, after the last of these.
            before: the state before them.
            kept: K.
        """
        rows = inputs.shape[1]
        reach = torch.cat([before["patch"], inputs], 1)
        after: State = {"patch": reach[:, rows:]}
        left = int(age[0]) % self.patch
        # As many patches as the stream has that gets most; what comes before another begins is 0.
        count = int((age // self.patch - before["count"].amax(1) // self.patch).max())
        outlooks = before["outlook"].unsqueeze(1)
        if count:
            stop = self.patch + rows - left
            whole = reach[:, stop - count * self.patch : stop]
            place = age[:, None] // self.patch + torch.arange(-count, 0, device=age.device)
            fresh, changed = self._tokens(whole.unflatten(1, (count, self.patch)), place, before)
            outlooks, after = torch.cat([outlooks, fresh], 1), after | changed
        else:
            after |= {name: part for name, part in before.items() if name.startswith("block")}
        after["outlook"] = outlooks[:, -1]
        # (N, 1 + T, V, P, H): what each outlook says of the next H rows, by its age
        ahead = outlooks.transpose(2, 3).unfold(3, self.horizon, 1)
        passed = count * self.patch + left + torch.arange(1 - kept, 1, device=age.device)
        # Rows before any of the streams begins have no outlook, not even an empty one.
        passed = passed.clamp(min=0)
        added = ahead[:, passed // self.patch, :, passed % self.patch]  # (K, N, V, H)
        return added.permute(1, 0, 3, 2), after

    def _single(self, piece: Piece, before: State) -> tuple[Float[Tensor, "N K H V"], State]:
        """Do so for one row, streams being at any place of their patches.

        All of them run wherever one patch is whole, and what those that are not gave is left out:
        so a stream gets the same bits in any company.
        """
        age, patch = piece.age, torch.cat([before["patch"][:, 1:], piece.inputs], 1)
        after = {name: part for name, part in before.items() if name.startswith("block")}
        after |= {"patch": patch, "outlook": before["outlook"]}
        passed = age % self.patch
        complete = (passed == 0) & (age > 0)
        if complete.any():
            place = (age // self.patch - 1).clamp(min=0).unsqueeze(1)
            outlooks, changed = self._tokens(patch.unsqueeze(1), place, before)
            for name, part in (changed | {"outlook": outlooks[:, 0]}).items():
                whole = complete.view(-1, *(1 for _ in part.shape[1:]))
                after[name] = torch.where(whole, part, before[name])
        ahead = after["outlook"].transpose(1, 2).unfold(2, self.horizon, 1)  # (N, V, P, H)
        added = ahead[torch.arange(len(age), device=age.device), :, passed]
        return added.transpose(1, 2).unsqueeze(1)[:, : piece.kept], after

    def _tokens(
        self, patches: Float[Tensor, "N T P X"], place: Int[Tensor, "N T"], before: State
    ) -> tuple[Float[Tensor, "N T H1 V"], State]:
        """Take whole patches in, and say what comes after each.

        Args:
            patches: the rows of each.
            place: patches of the stream before each; below 0 where the stream has not begun.
            before: the state before the first of them.
        """
        live = patches[..., self.together : 2 * self.together].flatten(2).any(2)
        known, after = Tokens.at(place, live), State()
        tokens = self.embed(patches.flatten(2))
        for number, block in enumerate(self.blocks):
            prefix = f"block{number}."
            tokens, changed = block(tokens, known, own_part(before, prefix))
            after |= {prefix + name: part for name, part in changed.items()}
        outlooks = known.kept(self.head(self.norm(tokens)))
        return outlooks.unflatten(2, (self.reach, self.together)), after


def _check(config: TitansConfig) -> None:
    """Refuse heads that the width cannot be shared out among."""
    if config.width % (2 * config.heads):
        raise UsageError(
            f"model.width = {config.width} gives {config.heads} heads no even width.",
            hint=f"Take a multiple of {2 * config.heads}.",
        )
