"""Todyformer for sensors: every node is there in every patch, and the edges between them stay.

A patch is a few rows of a window and a token those rows of one sensor; messages run along the
static edges inside each patch, attention along the patches of each sensor. Nothing is ragged but
the edges, so all windows and patches share one pass over them. The forecast adds to a linear map of
the window, which starts as the best one for all sensors alike, or as persistence.

Source: as `forecast.models.todyformer.model`; the dense form is an addition to the paper, which has
events only.

Letters: B batch, L lookback, H horizon, N sensors, S patches, D width, A heads, e edges,
F calendar features, G = B S windows and patches together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from forecast.batch import EventSpec, Forecast, SeriesBatch
from forecast.errors import UsageError
from forecast.kernels.segment import attend, owners
from forecast.models.todyformer.blocks import DirectMap

Positive = Annotated[int, Field(ge=1)]

# Numbers on edges that are held at once.
_CELLS = 1 << 21
# Windows that are forecast at once, where nothing is learned from them.
_WINDOWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorTodyformerConfig:
    """Config of Todyformer for sensors.

    Attributes:
        width: D, numbers that stand for a token.
        depth: blocks, each of messages and attention.
        heads: A; they divide `width`.
        patch: rows of a patch; they divide the lookback.
        dropout: probability of zeroing an element of what a layer adds.
    """

    width: Positive = 32
    depth: Positive = 2
    heads: Positive = 4
    patch: Positive = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class SensorTodyformer(nn.Module):
    """Forecast all sensors of a graph together.

    Args:
        config: its size.
        spec: the shape of the task; its nodes are the sensors.
        src: where the edges come from.
        dst: where they go to.
        weight: their weights, above 0.
        start: the linear map of a window and 1 that forecasts start from; None starts from the last
            value.

    Raises:
        UsageError: a patch does not divide the lookback, or the heads the width.
    """

    source: Tensor
    offsets: Tensor
    edges: Tensor

    def __init__(
        self,
        config: SensorTodyformerConfig,
        spec: EventSpec,
        src: Int[Tensor, " e"],
        dst: Int[Tensor, " e"],
        weight: Float[Tensor, " e"],
        start: Float[Tensor, "L1 H"] | None = None,
    ) -> None:
        super().__init__()
        for whole, part, names in (
            (spec.lookback, config.patch, ("patch", "the lookback")),
            (config.width, config.heads, ("heads", "the width")),
        ):
            if whole % part:
                raise UsageError(
                    f"model.{names[0]} = {part} does not divide {names[1]}, which is {whole}.",
                    hint=f"Choose a divisor of {whole}.",
                )
        self.config, self.spec = config, spec
        nodes = torch.arange(spec.nodes)
        source, target = torch.cat([src, nodes]), torch.cat([dst, nodes])
        weights = torch.cat([weight, torch.ones(spec.nodes)]).clamp(min=1e-6)
        order = torch.argsort(target * spec.nodes + source)
        self.register_buffer("source", source[order])
        offsets = torch.searchsorted(target[order], torch.arange(spec.nodes + 1))
        self.register_buffer("offsets", offsets)
        self.register_buffer("edges", torch.stack([weights, weights.log()], 1)[order])
        width, patches = config.width, spec.lookback // config.patch
        self.embed = nn.Linear(2 * config.patch, width)
        self.node = nn.Parameter(torch.randn(spec.nodes, 1, width) * 0.1)
        self.position = nn.Parameter(torch.randn(patches, width) * 0.1)
        self.calendar = nn.Linear(spec.calendar, width) if spec.calendar else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(patches * width)
        self.head = nn.Linear(patches * width, spec.horizon)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.direct = DirectMap(spec.lookback, spec.horizon, start)

    def forward(self, batch: SeriesBatch) -> Forecast:
        """Forecast the rows behind a window."""
        if not torch.is_grad_enabled() and len(batch) > _WINDOWS:
            parts = [
                self(batch.rows(start, start + _WINDOWS)).values
                for start in range(0, len(batch), _WINDOWS)
            ]
            return Forecast(values=torch.cat(parts))
        past = batch.past.permute(2, 0, 1)  # (N, B, L)
        nodes, size, lookback = past.shape
        patches = lookback // self.config.patch
        last = past[..., -1:]
        rows = torch.stack([past, past - last], -1).view(nodes, size, patches, -1)
        x = self.embed(rows) + self.node[:, None] + self.position
        if self.calendar is not None and batch.past_time is not None:
            # the last row of a patch stands for its time
            x = x + self.calendar(batch.past_time[:, self.config.patch - 1 :: self.config.patch])
        for block in self.blocks:
            x = block(x, self.source, self.edges, self.offsets)
        values = self.direct(past) + self.head(self.norm(x.flatten(2)))
        return Forecast(values=values.permute(1, 2, 0))

    def loss(self, batch: SeriesBatch) -> tuple[Tensor, Tensor]:
        """Sum absolute errors over observed targets, and count them."""
        target = batch.target
        assert target is not None
        error = (self(batch).values - target).abs()
        if batch.target_mask is None:
            return error.sum(), error.new_tensor(error.numel(), dtype=torch.float64)
        return (error * batch.target_mask).sum(), batch.target_mask.sum().double()


class _Block(nn.Module):
    """Pass messages along the edges of a patch, then attend along a sensor's patches."""

    def __init__(self, config: SensorTodyformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.edge = nn.Linear(2, 2 * width)
        self.out = nn.Linear(width, width)
        self.skip = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.mixer = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.Dropout(config.dropout),
        )

    def forward(
        self,
        x: Float[Tensor, "N B S D"],
        source: Int[Tensor, " e"],
        edges: Float[Tensor, "e 2"],
        offsets: Int[Tensor, " N1"],
    ) -> Float[Tensor, "N B S D"]:
        shape, width = x.shape, x.shape[-1]
        flat = x.flatten(1, 2)  # (N, G, D)
        received = self._receive(flat, source, self.edge(edges), offsets)
        x = self.norm(functional.gelu(self.out(received) + self.skip(flat))).view(shape)
        rows = self.qkv(self.attention_norm(x)).flatten(0, 1)  # (N B, S, 3D)
        q, k, v = rows.view(*rows.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        mixed = self.mix(mixed.reshape(-1, shape[2], width)).view(shape)
        x = x + functional.dropout(mixed, self.dropout, self.training)
        return x + self.mixer(x)

    def _receive(
        self,
        x: Float[Tensor, "N G D"],
        source: Int[Tensor, " e"],
        code: Float[Tensor, "e D2"],
        offsets: Int[Tensor, " N1"],
    ) -> Float[Tensor, "N G D"]:
        """Sum the messages to each sensor, a few windows and patches at a time.

        There are many more edges than sensors: of what lies on edges nothing is kept for the
        backward pass but computed again.
        """
        query, key_value = self.query(x), self.key_value(x)
        target = owners(offsets)

        def messages(query: Tensor, key_value: Tensor, code: Tensor) -> Tensor:
            sent = key_value.index_select(0, source) + code[:, None]
            key, value = sent.view(*sent.shape[:2], 2, self.heads, -1).unbind(2)  # (e, g, A, E)
            asked = query.index_select(0, target).view_as(key)
            scores = (asked * key).sum(-1).flatten(1) / math.sqrt(key.shape[-1])
            # For the segments every window, patch and head is a head.
            return attend(scores, value.flatten(1, 2), offsets).view_as(query)

        step = max(1, _CELLS // code.numel())
        parts: list[Tensor] = []
        for each in zip(query.split(step, 1), key_value.split(step, 1), strict=True):
            if torch.is_grad_enabled():
                heard = checkpoint(
                    messages, *each, code, use_reentrant=False, preserve_rng_state=False
                )
                assert isinstance(heard, Tensor)
                parts.append(heard)
            else:
                parts.append(messages(*each, code))
        return torch.cat(parts, 1)
