"""PredFormer: frames cut into patches, mixed over space and over time by gated attention blocks.

Source: Tang et al., "PredFormer: Transformers Are Effective Spatial-Temporal Predictive Learners",
arXiv 2410.04733, section 3, and the authors' code where the paper is silent: the position table
over time and space together, the third norm of a block, the orders inside a patch. Beyond both, for
few data: a forecast may be a correction to simple ones (`base`), and calendar, places and the
simple forecasts may be inputs; with those switched off this is the published network.

Longitude is not taken for a circle: cells at the seam see each other by attention alone.

Letters: B batch, L lookback, H horizon, C channels, Y X rows and columns, p patch side,
N patches of a frame, D width, E = D / heads, F calendar features, R references.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from forecast.batch import Forecast, GridBatch, GridSpec
from forecast.errors import UsageError
from forecast.kernels.attention import attention
from forecast.kernels.gated import gated
from forecast.layers import Dropout
from forecast.models.grid_baselines import last_frame, rules, squared_cells

Variant = Literal[
    "full", "fac_st", "fac_ts", "binary_ts", "binary_st",
    "triplet_tst", "triplet_sts", "quad_tsst", "quad_stts",
]  # fmt: skip
# Adam moves every weight about as far in a step; the few of a blend may go so many times further,
# for they are to be found before the network learns what is left over.
_PACE = 30.0
# Tokens, what to add to, and by how much.
_Layer = Callable[[Tensor, Tensor, float], Tensor]
# The blocks of one layer, by what their tokens see: Space, Time, or both at once, in Full. A
# factorised network is one layer of two stacks.
ORDERS: dict[Variant, str] = {
    "full": "F",
    "fac_st": "ST",
    "fac_ts": "TS",
    "binary_ts": "TS",
    "binary_st": "ST",
    "triplet_tst": "TST",
    "triplet_sts": "STS",
    "quad_tsst": "TSST",
    "quad_stts": "STTS",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredFormerConfig:
    """Config of PredFormer: its size and the order of its blocks.

    Attributes:
        variant: which axes the blocks mix, in which order.
        blocks: number of blocks; a multiple of those in a layer of the variant.
        patch: p, side of a square patch of cells; the grid is padded where it does not divide it.
        width: D, size of a token; a multiple of `heads`.
        heads: number of attention heads.
        gate: width of the gated layer.
        attention_dropout: probability of zeroing an element of an attention layer's output.
        dropout: the same for both ends of the gated layer.
        path_dropout: probability of skipping a layer for a sample.
        head: how a horizon other than the lookback is met: `rollout` forecasts L frames and feeds
            them back, `direct` maps L steps to H by a matrix.
        base: what the network corrects: nothing, the last frame (`persistence`), or a sum of all
            simple forecasts with weights learnt for each lead and channel (`blend`).
        use: names of the references that `base` and `references` take; empty takes all.
        window_norm: measure every window from the mean of its last frame.
        calendar: tell each step its own calendar and that of the frame it forecasts.
        references: show each step the references for both frames.
        places: tell each patch where it lies.
        recompute: keep no inner results of a block for the backward pass, and compute them again.
    """

    variant: Variant = "triplet_sts"
    blocks: Annotated[int, Field(ge=1)] = 6
    patch: Annotated[int, Field(ge=1)] = 4
    width: Annotated[int, Field(ge=2)] = 256
    heads: Annotated[int, Field(ge=1)] = 8
    gate: Annotated[int, Field(ge=1)] = 1024
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    path_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    head: Literal["rollout", "direct"] = "rollout"
    base: Literal["none", "persistence", "blend"] = "none"
    use: tuple[str, ...] = ()
    window_norm: bool = False
    calendar: bool = False
    references: bool = False
    places: bool = False
    recompute: bool = False


class Block(nn.Module):
    """Attend along one axis, then gate each token, each with a norm before and skipped at random.

    With `closing` the stream of tokens itself is normed at the end.
    """

    def __init__(self, config: PredFormerConfig, axis: str, closing: bool) -> None:
        super().__init__()
        width = config.width
        self.axis, self.heads = axis, config.heads
        self.path_dropout = config.path_dropout
        self.gate_dropout = config.dropout
        self.norm_attention = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width)
        self.norm_gated = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * config.gate)
        self.contract = nn.Linear(config.gate, width)
        self.norm_out = nn.LayerNorm(width) if closing else nn.Identity()
        self.drop_attention = Dropout(config.attention_dropout)
        self.drop_gated = Dropout(config.dropout)
        for layer in (self.project_in, self.project_out, self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        for layer in (self.project_out, self.expand, self.contract):
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "B L N D"]) -> Float[Tensor, "B L N D"]:
        """Mix tokens along the block's axis."""
        tokens = self._add(tokens, self._attend)
        tokens = self._add(tokens, self._gate)
        return self.norm_out(tokens)

    def _add(self, tokens: Tensor, layer: _Layer) -> Tensor:
        """Add what a layer makes of the tokens, for the samples that do not skip it."""
        if not self.training or self.path_dropout == 0.0:
            return layer(tokens, tokens, 1.0)
        kept = (torch.rand(len(tokens)) >= self.path_dropout).nonzero()[:, 0]
        scale = 1 / (1 - self.path_dropout)
        if not len(kept):
            return tokens
        if len(kept) == len(tokens):
            return layer(tokens, tokens, scale)
        # Skipped samples cost nothing.
        kept = kept.to(tokens.device)
        chosen = tokens[kept]
        return tokens.index_copy(0, kept, layer(chosen, chosen, scale))

    def _attend(self, tokens: Tensor, residual: Tensor, scale: float) -> Tensor:
        batch, length, patches, width = tokens.shape
        # Heads lie next to tokens of the axis that is not mixed, so each form is a view.
        shape = {
            "S": (batch * length, patches, self.heads, -1),
            "T": (batch, length, patches * self.heads, width // self.heads),
            "F": (batch, length * patches, self.heads, -1),
        }[self.axis]
        normed = self.norm_attention(tokens)
        query, key, value = (
            nn.functional.linear(normed, weight).view(shape).transpose(1, 2)
            for weight in self.project_in.weight.chunk(3)
        )
        mixed = attention(query, key, value).transpose(1, 2).reshape(tokens.shape)
        return _scaled_sum(residual, self.drop_attention(self.project_out(mixed)), scale)

    def _gate(self, tokens: Tensor, residual: Tensor, scale: float) -> Tensor:
        both = self.expand(self.norm_gated(tokens))
        inner = gated(both, dropout=self.gate_dropout if self.training else 0.0)
        return _scaled_sum(residual, self.drop_gated(self.contract(inner)), scale)


class PredFormer(nn.Module):
    """Forecast the frames of a grid that follow those of a window."""

    positions: Float[Tensor, "L N D"]

    def __init__(self, config: PredFormerConfig, spec: GridSpec) -> None:
        super().__init__()
        _refuse(config, spec)
        self.config, self.spec = config, spec
        patch, width = config.patch, config.width
        self.grid = (math.ceil(spec.rows / patch), math.ceil(spec.columns / patch))
        patches = self.grid[0] * self.grid[1]
        self.embed = nn.Linear(patch**2 * spec.channels, width)
        positions = position_table(spec.lookback, patches, width)
        self.register_buffer("positions", positions, persistent=False)
        used = config.use or spec.references
        self.used = [spec.references.index(name) for name in used]
        extra = 2 * len(used) * spec.channels if config.references else 0
        self.embed_references = nn.Linear(patch**2 * extra, width, bias=False) if extra else None
        features = 2 * spec.calendar if config.calendar else 0
        self.embed_calendar = nn.Linear(features, width, bias=False) if features else None
        maps = spec.places if config.places else 0
        self.embed_places = nn.Linear(patch**2 * maps, width, bias=False) if maps else None
        order = ORDERS[config.variant]
        stacks = config.variant.startswith("fac")
        per_letter = config.blocks // len(order) if stacks else 1
        axes = "".join(letter * per_letter for letter in order) * (
            1 if stacks else config.blocks // len(order)
        )
        # Factorised and full networks norm the stream once at the end of a stack.
        closings = [
            not (stacks or config.variant == "full") or axes[place : place + 2] != axis * 2
            for place, axis in enumerate(axes)
        ]
        self.blocks = nn.ModuleList(
            Block(config, axis, closing) for axis, closing in zip(axes, closings, strict=True)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, spec.channels * patch**2)
        direct = config.head == "direct" and spec.horizon != spec.lookback
        self.lengthen = nn.Linear(spec.lookback, spec.horizon) if direct else None
        if config.base != "none":
            # Start as the base alone.
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.blend = None
        if config.base == "blend":
            count = 1 + 2 * len(used)
            start = torch.full((count, spec.horizon, spec.channels), 1 / count / _PACE)
            self.blend = nn.Parameter(start)

    def forward(self, batch: GridBatch) -> Forecast:
        """Forecast (B, H, C, Y, X) in the scaled space of the batch."""
        horizon = self.spec.horizon
        length = self.spec.lookback if self.lengthen is None else horizon
        level = None
        if self.config.window_norm:
            level = last_frame(batch).mean((2, 3), keepdim=True)[:, None]  # (B, 1, C, 1, 1)
            batch = _lowered(batch, level)
        base = self._base(batch)
        frames, found = batch.frames, list[Tensor]()
        for start in range(0, horizon, length):
            frames = self._step(batch, frames, start)[:, : horizon - start]
            if base is not None:
                frames = frames + base[:, start : start + length]
            found.append(frames)
        values = torch.cat(found, dim=1) if len(found) > 1 else frames
        return Forecast(values=values if level is None else values + level)

    def loss(self, batch: GridBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the squared errors over observed cells, and count those."""
        return squared_cells(self(batch), batch)

    def _step(self, batch: GridBatch, frames: Tensor, start: int) -> Float[Tensor, "B L C Y X"]:
        """Forecast the L frames after `frames`, which end `start` frames into the horizon."""
        tokens = self.embed(self._patches(frames)) + self.positions  # (B, L, N, D)
        if self.embed_references is not None:
            assert batch.references is not None
            used = batch.references[:, self.used].movedim(1, 2)  # (B, L + H, R, C, Y, X)
            pairs = self._pairs(used, start)  # (B, L, 2, R, C, Y, X)
            tokens = tokens + self.embed_references(self._patches(pairs.flatten(2, 4)))
        if self.embed_calendar is not None:
            assert batch.calendar is not None
            assert batch.future_calendar is not None
            calendar = torch.cat([batch.calendar, batch.future_calendar], dim=1)
            marked = self.embed_calendar(self._pairs(calendar, start).flatten(2))  # (B, L, D)
            tokens = tokens + marked[:, :, None]
        if self.embed_places is not None:
            assert batch.coordinates is not None
            tokens = tokens + self.embed_places(self._patches(batch.coordinates[None, None]))
        for block in self.blocks:
            if self.config.recompute and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        # In float32: a thousandth of a deviation counts in a temperature.
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = self.norm(tokens.float())
            if self.lengthen is not None:
                tokens = self.lengthen(tokens.movedim(1, -1)).movedim(-1, 1)
            return self._frames(self.head(tokens))

    def _base(self, batch: GridBatch) -> Tensor | None:
        horizon = self.spec.horizon
        if self.config.base == "none":
            return None
        if self.blend is None:
            return last_frame(batch)[:, None].expand(-1, horizon, -1, -1, -1)
        made = rules(batch, horizon, self.used)
        return torch.einsum("brhcyx,rhc->bhcyx", made, self.blend * _PACE)

    def _pairs(self, steps: Tensor, start: int) -> Tensor:
        """Encode each of L input steps by its own entry and that of the frame it forecasts.

        Steps beyond the horizon take the last entry.
        """
        lookback = self.spec.lookback
        own = torch.arange(start, start + lookback, device=steps.device)
        # Of a horizon that one matrix maps to, the targets are spread over the input steps.
        ahead = own + lookback
        if self.lengthen is not None:
            spread = torch.linspace(0, self.spec.horizon - 1, lookback, device=steps.device)
            ahead = lookback + spread.round().long()
        ahead = ahead.clamp(max=steps.shape[1] - 1)
        return torch.stack([steps[:, own], steps[:, ahead]], dim=2)

    def _patches(self, frames: Float[Tensor, "B L C Y X"]) -> Float[Tensor, "B L N ppC"]:
        patch, (rows, columns) = self.config.patch, self.grid
        below, right = rows * patch - frames.shape[-2], columns * patch - frames.shape[-1]
        if below or right:
            frames = nn.functional.pad(frames, (0, right, 0, below))
        batch, length, channels = frames.shape[:3]
        cut = frames.reshape(batch, length, channels, rows, patch, columns, patch)
        return cut.permute(0, 1, 3, 5, 4, 6, 2).reshape(batch, length, rows * columns, -1)

    def _frames(self, patches: Float[Tensor, "B L N Cpp"]) -> Float[Tensor, "B L C Y X"]:
        patch, (rows, columns) = self.config.patch, self.grid
        batch, length = patches.shape[:2]
        cut = patches.view(batch, length, rows, columns, self.spec.channels, patch, patch)
        frames = cut.permute(0, 1, 4, 2, 5, 3, 6)
        frames = frames.reshape(batch, length, self.spec.channels, rows * patch, columns * patch)
        return frames[..., : self.spec.rows, : self.spec.columns]


def position_table(steps: int, patches: int, width: int) -> Float[Tensor, "L N D"]:
    """Make the sinusoids of all tokens, counted frame after frame.

    `sin(q / 10000^(2 floor(i/2) / D))` for even i, the cosine of the same for odd i.
    """
    token = torch.arange(steps * patches, dtype=torch.float64)[:, None]
    index = torch.arange(width)
    angle = token / 10_000 ** (2 * (index // 2).double() / width)
    table = torch.where(index % 2 == 0, angle.sin(), angle.cos())
    return table.float().view(steps, patches, width)


def multiplications(config: PredFormerConfig, spec: GridSpec) -> int:
    """Count the multiply-adds of matrix products in one forecast of one sample."""
    patch, width = config.patch, config.width
    frames = spec.lookback
    patches = math.ceil(spec.rows / patch) * math.ceil(spec.columns / patch)
    tokens = frames * patches
    linear = tokens * (4 * width**2 + 3 * width * config.gate)
    seen = {"S": patches, "T": frames, "F": tokens}
    order = ORDERS[config.variant]
    each = config.blocks // len(order)
    mixing = sum(each * 2 * tokens * seen[axis] * width for axis in order)
    ends = 2 * tokens * patch**2 * spec.channels * width
    rounds = 1 if config.head == "direct" else math.ceil(spec.horizon / frames)
    return rounds * (config.blocks * linear + mixing + ends)


def _lowered(batch: GridBatch, level: Float[Tensor, "B 1 C 1 1"]) -> GridBatch:
    """Measure frames and references from a level; missing cells stay 0."""
    frames, references = batch.frames - level, batch.references
    if batch.mask is not None:
        frames = frames * batch.mask
    if references is not None:
        references = references - level[:, None]
    return replace(batch, frames=frames, references=references)


def _scaled_sum(residual: Tensor, branch: Tensor, scale: float) -> Tensor:
    return torch.add(residual, branch, alpha=scale)


def _refuse(config: PredFormerConfig, spec: GridSpec) -> None:
    order = ORDERS[config.variant]
    if config.blocks % len(order):
        raise UsageError(
            f"model.blocks = {config.blocks} is no multiple of the {len(order)} blocks in a layer "
            f"of {config.variant}.",
            hint=f"Take {math.ceil(config.blocks / len(order)) * len(order)}.",
        )
    if config.width % config.heads:
        raise UsageError(
            f"model.width = {config.width} is not a multiple of model.heads = {config.heads}.",
            hint="Choose a width that the number of heads divides.",
        )
    for name in config.use:
        if name not in spec.references:
            raise UsageError(
                f"model.use names {name!r}, and the data bring along "
                f"{', '.join(spec.references) or 'no references'}.",
                hint="Add it to data.references, or leave it out of model.use.",
            )
    if config.calendar and not spec.calendar:
        raise UsageError(
            "model.calendar is true, and the frames have no dates.",
            hint="Leave out model.calendar, or bring files with a time axis.",
        )
