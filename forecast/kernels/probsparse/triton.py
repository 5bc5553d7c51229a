"""ProbSparse attention in Triton: measure, running mean, and the rows of the fused attention.

The measure takes scores, their maximum and their mean over the keys in one pass and writes one
number for each query. The active queries are then rows of `attention.triton`, written into an
output that already holds the answers of the lazy ones.

Letters: N planes (a head of a sample each), L queries, S keys, E head width, U sampled keys.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from forecast.kernels.attention import triton as fused
from forecast.kernels.attention.tiled import seed
from forecast.kernels.probsparse import reference


@triton.jit
def _measure(q, k, sample, mean, out, scale, queries, keys, count, width, WIDTH: tl.constexpr,
             QUERIES: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr,
             SAMPLED: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    live = row < queries
    tile = fused.load(q + plane * queries * width, row, width, WIDTH, UPCAST, live)
    best = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    end = count
    if CAUSAL and not SAMPLED:
        end = tl.minimum(count, tl.program_id(0) * QUERIES + QUERIES)
    for start in range(0, end, KEYS):
        column = start + tl.arange(0, KEYS)
        key = column
        if SAMPLED:
            key = tl.load(sample + column, mask=column < count, other=0)
        k_tile = fused.load(k + plane * keys * width, key, width, WIDTH, UPCAST, column < count)
        scores = tl.dot(tile, tl.trans(k_tile), input_precision=PRECISION)
        seen = (column < count)[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= row[:, None])
        best = tl.maximum(best, tl.max(tl.where(seen, scores, -float("inf")), 1))
        if not SAMPLED:
            total += tl.sum(tl.where(seen, scores, 0.0), 1)
    if SAMPLED:
        if CAUSAL:
            own = fused.load(k + plane * keys * width, row, width, WIDTH, UPCAST, live)
            best = tl.maximum(best, tl.sum(tile.to(tl.float32) * own.to(tl.float32), 1))
            average = fused.load(mean + plane * keys * width, row, width, WIDTH, UPCAST, live)
        else:
            average = fused.load(mean + plane * width, row * 0, width, WIDTH, UPCAST, live)
        total = tl.sum(tile.to(tl.float32) * average.to(tl.float32), 1)
    elif CAUSAL:
        total = total / (row + 1)
    else:
        total = total / keys
    tl.store(out + plane * queries + row, (best - total) * scale, mask=live)


@triton.jit
def _running(x, out, length, width, WIDTH: tl.constexpr, ROWS: tl.constexpr,
             REVERSE: tl.constexpr):  # fmt: skip
    """Turn x into its running mean, or, in reverse, into that mean's gradient."""
    plane = tl.program_id(0).to(tl.int64)
    x += plane * length * width
    out += plane * length * width
    carry = tl.zeros((WIDTH,), tl.float32)
    tiles = tl.cdiv(length, ROWS)
    for step in range(tiles):
        first = (tiles - 1 - step if REVERSE else step) * ROWS
        row = first + tl.arange(0, ROWS)
        live = row < length
        tile = fused.load(x, row, width, WIDTH, True, live)
        if REVERSE:
            tile = tile / (row + 1)[:, None]
        sums = tl.cumsum(tile, 0, reverse=REVERSE) + carry[None, :]
        carry += tl.sum(tile, 0)
        if not REVERSE:
            sums = sums / (row + 1)[:, None]
        fused.store(out, row, width, WIDTH, sums, live)


# A sort on the device, where another selection would wait for it.
select = reference.select


def measure(
    q: Float[Tensor, "B H L E"],
    k: Float[Tensor, "B H S E"],
    *,
    sample: Int[Tensor, " U"] | None,
    causal: bool,
) -> Float[Tensor, "B H L"]:
    """Compute what `reference.measure` defines."""
    q, k = q.contiguous(), k.contiguous()
    out = q.new_empty(q.shape[:3], dtype=torch.float32)
    keys, width = k.shape[2:]
    # The mean over all keys is linear in them: one pass over k, not over the scores.
    mean = k
    if sample is not None:
        mean = running_mean(k.flatten(0, 1)) if causal else k.float().mean(2)
    # The largest tiles that stay within 128 registers.
    queries, columns = (16, 32) if q.dtype == torch.float32 else (32, 64)
    _measure[(triton.cdiv(q.shape[2], queries), q.shape[0] * q.shape[1])](
        q, k, k if sample is None else sample, mean, out, scale=1 / math.sqrt(width),
        queries=q.shape[2], keys=keys, count=keys if sample is None else sample.shape[0],
        width=width, WIDTH=max(16, triton.next_power_of_2(width)), QUERIES=queries, KEYS=columns,
        CAUSAL=causal, SAMPLED=sample is not None, **fused.numerics(), num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


def running_mean(x: Float[Tensor, "N S E"], reverse: bool = False) -> Float[Tensor, "N S E"]:
    """Average each row with those before it, in float32; in reverse, give that map's gradient."""
    out = torch.empty_like(x, dtype=torch.float32)
    planes, length, width = x.shape
    _running[(planes,)](
        x, out, length=length, width=width, WIDTH=triton.next_power_of_2(width), ROWS=32,
        REVERSE=reverse, num_warps=4,
    )  # fmt: skip
    return out


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
    task = fused.Task(
        rows=rows.flatten(0, 1).contiguous(),
        padding=None,
        heads=q.shape[1],
        causal=causal,
        window=None,
        dropout=dropout,
        scale=1 / math.sqrt(q.shape[3]),
        seed=seed(dropout),
    )
    planes = (x.contiguous().flatten(0, 1) for x in (q, k, v))
    return _Attend.apply(*planes, task).view(q.shape)  # pyright: ignore[reportReturnType]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, task: fused.Task) -> Tensor:
        if task.causal:
            out = running_mean(v).to(q.dtype)
        else:
            mean = v.float().mean(1, keepdim=True).to(q.dtype)
            out = mean.expand(q.shape).contiguous()
        logsumexp = fused.forward(q, k, v, out, task)
        ctx.task = task
        ctx.save_for_backward(q, k, v, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp = ctx.saved_tensors
        task: fused.Task = ctx.task
        assert task.rows is not None
        grad, dq = grads[0].contiguous(), torch.zeros_like(q)
        dk, dv = fused.backward(grad, q, k, v, out, logsumexp, dq, task)
        active = torch.zeros(q.shape[:2], dtype=torch.bool, device=q.device)
        active.scatter_(1, task.rows, True)
        idle = grad.masked_fill(active.unsqueeze(-1), 0.0)
        if task.causal:
            lazy = running_mean(idle, reverse=True)
        else:
            lazy = idle.float().sum(1, keepdim=True) / k.shape[1]
        return dq, dk, (dv + lazy).to(v.dtype), None
