"""ProbSparse attention in plain torch, in tiles of bounded memory.

Letters: B batch, H heads, N = B H planes, L queries, S keys, E head width, U sampled keys,
u active queries.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.kernels.attention import tiled
from forecast.kernels.attention.reference import visible
from forecast.kernels.probsparse import reference


def measure(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    *,
    sample: Int[Tensor, " U"] | Int[Tensor, "L U"] | None,
    causal: bool,
) -> Float[Tensor, "B H L"]:
    """Compute what `reference.measure` defines."""
    shape = q.shape[:3]
    q, k = tiled.widen(q.flatten(0, 1), k.flatten(0, 1))
    with torch.autocast(q.device.type, enabled=False):
        if sample is not None and sample.ndim == 2:
            measured = _per_query(q, k, sample)
        elif causal:
            measured = _causal(q, k, sample)
        else:
            measured = _shared(q, k, sample)
    return measured.view(shape)


def _shared(q: Tensor, k: Tensor, sample: Tensor | None) -> Tensor:
    # The mean of the scores is the score of the mean key: one more row of the same product.
    chosen = k if sample is None else k.index_select(1, sample)
    chosen = torch.cat([chosen, k.mean(1, keepdim=True)], 1)
    out = q.new_empty(q.shape[:2])
    for planes, queries in tiled.blocks(q.shape[0], q.shape[1], chosen.shape[1]):
        scores = torch.bmm(chosen[planes], q[planes, queries].mT)  # (n, U + 1, l)
        out[planes, queries] = scores[:, :-1].amax(1) - scores[:, -1]
    return out.div_(math.sqrt(q.shape[-1]))


def _causal(q: Tensor, k: Tensor, sample: Tensor | None) -> Tensor:
    positions = torch.arange(k.shape[1], device=q.device)
    columns = positions if sample is None else sample.sort().values
    chosen = k if sample is None else k.index_select(1, columns)
    out = (q * k).sum(-1)
    for planes, queries in tiled.blocks(q.shape[0], q.shape[1], chosen.shape[1]):
        stop = int(torch.searchsorted(columns, queries.stop))
        if stop:
            scores = torch.bmm(q[planes, queries], chosen[planes, :stop].mT)
            seen = visible(positions[queries], columns[:stop], True, None)
            scores += torch.where(seen, 0.0, -torch.inf)
            out[planes, queries] = torch.maximum(out[planes, queries], scores.amax(-1))
    out -= (q * reference.lazy(k.unsqueeze(0), q.shape[1], causal=True).squeeze(0)).sum(-1)
    return out.div_(math.sqrt(q.shape[-1]))


def _per_query(q: Tensor, k: Tensor, sample: Tensor) -> Tensor:
    out = q.new_empty(q.shape[:2])
    for planes, queries in tiled.blocks(q.shape[0], q.shape[1], k.shape[1]):
        scores = torch.bmm(q[planes, queries], k[planes].mT)
        sampled = scores.gather(2, sample[queries].expand(scores.shape[0], -1, -1))
        out[planes, queries] = sampled.amax(-1) - sampled.sum(-1) / k.shape[1]
    return out


def select(measured: Float[Tensor, "B H L"], count: int) -> Int[Tensor, "B H u"]:
    """Compute what `reference.select` defines, without sorting all queries where it can."""
    values, rows = measured.topk(count, sorted=False)
    threshold = values.amin(-1, keepdim=True)
    # Equal measures at the last place, or NaN, need the rule for equals.
    if int((measured >= threshold).sum()) != values.numel():
        return reference.select(measured, count)
    return rows.sort().values


def attend(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    v: Float[Tensor, "B H S E"],
    rows: Int[Tensor, "B H u"],
    *,
    causal: bool,
    dropout: float,
) -> Float[Tensor, "B H L E"]:
    """Compute what `reference.attend` defines."""
    planes = (x.flatten(0, 1) for x in (q, k, v))
    task = tiled.Task(
        rows=rows.flatten(0, 1),
        padding=None,
        causal=causal,
        window=None,
        dropout=dropout,
        scale=1 / math.sqrt(q.shape[3]),
        seed=tiled.seed(dropout),
    )
    return _Attend.apply(*planes, task).view(q.shape)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, task: tiled.Task) -> Tensor:
        ctx.dtype, ctx.shape, ctx.task = q.dtype, q.shape, task
        planes, queries, width = q.shape
        starts = torch.arange(0, planes * queries, queries, device=q.device)
        index = (task.rows + starts.unsqueeze(-1)).flatten()
        active = q.reshape(-1, width).index_select(0, index).view(planes, -1, width)
        active, k, v = tiled.widen(active, k, v)
        with torch.autocast(q.device.type, enabled=False):
            attended = tiled.forward(active, k, v, task)
            out = reference.lazy(v.unsqueeze(0), queries, task.causal).squeeze(0).contiguous()
        out.view(-1, width).index_copy_(0, index, attended.view(-1, width))
        ctx.save_for_backward(active, k, v, attended, index)
        return out.to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        active, k, v, attended, index = ctx.saved_tensors
        task: tiled.Task = ctx.task
        _, queries, width = ctx.shape
        grad = grads[0].to(active.dtype, memory_format=torch.contiguous_format, copy=True)
        rows = grad.view(-1, width)
        with torch.autocast(grad.device.type, enabled=False):
            slope, dk, dv = tiled.backward(
                rows.index_select(0, index).view_as(active), active, k, v, attended, task
            )
            # What is left belongs to the lazy queries, which share the values alike.
            rows.index_fill_(0, index, 0.0)
            if task.causal:
                count = torch.arange(1, queries + 1, device=grad.device, dtype=grad.dtype)
                dv += (grad / count.unsqueeze(-1)).flip(1).cumsum_(1).flip(1)
            else:
                dv += grad.sum(1, keepdim=True).div_(k.shape[1])
            dq = grad.zero_()
            rows.index_copy_(0, index, slope.view(-1, width))
        return *(x.to(ctx.dtype) for x in (dq, dk, dv)), None
