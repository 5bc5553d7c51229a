"""Attention in tiles of bounded memory, in plain torch: dropout, windows, and chosen rows.

The weights of a tile are computed again in the backward pass, and its dropout mask is drawn again
from the same seed, so that memory is linear in the number of keys. Keys outside a tile's window
are never touched.

Letters: N planes (a head of a sample each), L queries, S keys, E head width.

Source of the recomputation: Dao et al., "FlashAttention", arXiv 2205.14135, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.kernels.attention.reference import visible
from forecast.kernels.dropout import keep_mask

# Scores held at a time (4 MB in float32): a tile and its gradient then stay in a core's cache.
TILE_SCORES = 1 << 20
TILE_QUERIES = 256


class Task(NamedTuple):
    """Arguments that are not differentiated: positions of the queries, masks, dropout."""

    rows: Int[Tensor, " L"] | Int[Tensor, "N L"]
    padding: Bool[Tensor, "N S"] | None
    causal: bool
    window: int | None
    dropout: float
    scale: float
    seed: int


def seed(dropout: float) -> int:
    """Draw a call's seed from torch's default generator, where there is dropout."""
    return int(torch.randint(2**62, ())) if dropout else 0


class Tile(NamedTuple):
    """A block of scores: some planes, some queries, a range of keys."""

    planes: slice
    queries: slice
    keys: slice
    bias: Float[Tensor, "n l s"] | Float[Tensor, "l s"] | None
    blind: Bool[Tensor, "n l 1"] | None
    keep: Float[Tensor, "n l s"] | None


def attention(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    *,
    causal: bool,
    window: int | None,
    key_padding: Bool[Tensor, "B S"] | None,
    dropout: float,
    scale: float,
) -> Float[Tensor, "B H L E"]:
    """Compute what `reference.attention` defines."""
    queries, keys = q.shape[2], k.shape[2]
    task = Task(
        rows=torch.arange(keys - queries, keys, device=q.device),
        padding=None if key_padding is None else key_padding.repeat_interleave(q.shape[1], 0),
        causal=causal,
        window=window,
        dropout=dropout,
        scale=scale,
        seed=seed(dropout),
    )
    planes = (x.flatten(0, 1) for x in (q, k, v))
    return _Tiled.apply(*planes, task).view(q.shape)  # pyright: ignore[reportReturnType]


def blocks(planes: int, queries: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """Cut planes x queries so that a block's scores against `keys` keys stay within the budget."""
    height = min(queries, TILE_QUERIES)
    depth = max(1, TILE_SCORES // (height * keys))
    for plane in range(0, planes, depth):
        for query in range(0, queries, height):
            yield (
                slice(plane, min(plane + depth, planes)),
                slice(query, min(query + height, queries)),
            )


def _tiles(q: Tensor, k: Tensor, task: Task) -> Iterator[Tile]:
    """Cut the scores into tiles, each with its masks; the same ones at every call."""
    keys = k.shape[1]
    columns = torch.arange(keys, device=q.device)
    shared = task.rows.ndim == 1
    generator = torch.Generator(q.device) if task.dropout else None
    for number, (some, part) in enumerate(blocks(q.shape[0], q.shape[1], keys)):
        span, seen, bias, blind, keep = slice(0, keys), None, None, None, None
        if task.causal or task.window is not None:
            rows = task.rows[part] if shared else task.rows[some, part]
            if shared:
                span = _span(int(rows[0]), int(rows[-1]), keys, task)
            seen = visible(rows, columns[span], task.causal, task.window)
        if task.padding is not None:
            present = ~task.padding[some, None, span]
            seen = present if seen is None else seen & present
            # Nothing but padding can hide a query's own position from it.
            blind = ~seen.any(-1, keepdim=True)
        if seen is not None:
            bias = torch.where(seen, 0.0, -torch.inf).to(q.dtype)
        if generator is not None:
            generator.manual_seed(task.seed + number)
            size = (some.stop - some.start, part.stop - part.start, span.stop - span.start)
            keep, rescale = keep_mask(
                torch.Size(size), task.dropout, q.dtype, device=q.device, generator=generator
            )
            keep *= rescale
        yield Tile(some, part, span, bias, blind, keep)


def _span(first: int, last: int, keys: int, task: Task) -> slice:
    """Return the range of keys that queries from position `first` to `last` may see."""
    reach = keys if task.window is None else task.window
    stop = last + 1 if task.causal else min(keys, last + reach)
    return slice(max(0, first - reach + 1), stop)


def _weights(q: Tensor, k: Tensor, tile: Tile) -> Tensor:
    scores = torch.bmm(q[tile.planes, tile.queries], k[tile.planes, tile.keys].mT)
    if tile.bias is not None:
        scores += tile.bias
    weights = scores.softmax(-1)
    return weights if tile.blind is None else weights.masked_fill_(tile.blind, 0.0)


def forward(q: Tensor, k: Tensor, v: Tensor, task: Task) -> Tensor:
    """Attend, plane by plane; all in float32 or float64."""
    q = q * task.scale
    out = torch.empty_like(q)
    for tile in _tiles(q, k, task):
        weights = _weights(q, k, tile)
        if tile.keep is not None:
            weights *= tile.keep
        out[tile.planes, tile.queries] = torch.bmm(weights, v[tile.planes, tile.keys])
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, task: Task
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `forward`."""
    q = q * task.scale
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    delta = (grad * out).sum(-1, keepdim=True)
    for tile in _tiles(q, k, task):
        planes, queries, keys = tile.planes, tile.queries, tile.keys
        weights = _weights(q, k, tile)
        slope = torch.bmm(grad[planes, queries], v[planes, keys].mT)
        kept = weights
        if tile.keep is not None:
            slope *= tile.keep
            kept = weights * tile.keep
        dv[planes, keys] += torch.bmm(kept.mT, grad[planes, queries])
        slope.sub_(delta[planes, queries]).mul_(weights)
        dq[planes, queries] = torch.bmm(slope, k[planes, keys])
        dk[planes, keys] += torch.bmm(slope.mT, q[planes, queries])
    return dq.mul_(task.scale), dk, dv


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Turn half precision into float32."""
    half = (torch.float16, torch.bfloat16)
    return tuple(x.float() if x.dtype in half else x for x in tensors)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, task: Task) -> Tensor:
        ctx.dtype, ctx.task = q.dtype, task
        q, k, v = widen(q, k, v)
        with torch.autocast(q.device.type, enabled=False):
            out = forward(q, k, v, task)
        ctx.save_for_backward(q, k, v, out)
        return out.to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            slopes = backward(grads[0].to(q.dtype), q, k, v, out, ctx.task)
        return *(x.to(ctx.dtype) for x in slopes), None
