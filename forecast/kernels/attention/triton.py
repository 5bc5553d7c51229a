"""Fused attention in Triton: causal, windowed, with key padding, dropout, or for chosen rows only.

Scores live in registers, a tile at a time, with a running maximum and sum (online softmax). The
backward pass computes them again from the log-sum-exp, once by query tiles for dq and once by key
tiles for dk and dv, so that every sum has one owner: no atomics, and two runs agree bit for bit.

With ROWS the queries are those of a sparse set: slot i of plane n is row `rows[n, i]`, ascending,
of q, out and dq, and only these rows are read or written.

Letters: N planes (a head of a sample each), L rows, R query slots, S keys, E head width.

Source: Dao, "FlashAttention-2", arXiv 2307.08691, section 3.1.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.kernels.attention.tiled import seed

LOG2E = tl.constexpr(1.4426950408889634)
# Queries, keys and pipeline stages by what a program owns and whether it is in float32: the
# largest that spill no register on any target that the tests compile for.
TILES = {
    ("queries", False): (64, 32, 2),
    ("queries", True): (32, 16, 2),
    ("keys", False): (32, 32, 3),
    ("keys", True): (32, 16, 2),
}


@triton.jit
def load(base, rows, width, WIDTH: tl.constexpr, UPCAST: tl.constexpr, inside):
    """Load rows of a contiguous (rows, width) matrix, 0 outside."""
    columns = tl.arange(0, WIDTH)
    offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
    x = tl.load(base + offsets, mask=inside[:, None] & (columns < width)[None, :], other=0.0)
    return x.to(tl.float32) if UPCAST else x


@triton.jit
def store(base, rows, width, WIDTH: tl.constexpr, value, inside):
    """Store rows of a contiguous (rows, width) matrix."""
    columns = tl.arange(0, WIDTH)
    offsets = rows.to(tl.int64)[:, None] * width + columns[None, :]
    mask = inside[:, None] & (columns < width)[None, :]
    tl.store(base + offsets, value.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _place(rows, plane, slot, live, slots, keys, ROWS: tl.constexpr):
    """Return the row that a query slot reads and writes, and its position among the keys."""
    row, position = slot, slot + keys - slots
    if ROWS:
        row = tl.load(rows + plane * slots + slot, mask=live, other=0)
        position = row
    return row, position


@triton.jit
def _reach(position, live, window, keys, KEYS: tl.constexpr, CAUSAL: tl.constexpr,
           WINDOW: tl.constexpr):  # fmt: skip
    """Return the range of keys that a tile of queries may see, its start a multiple of KEYS."""
    begin = 0
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, tl.max(tl.where(live, position, 0)) + 1)
    if WINDOW:
        first = tl.min(tl.where(live, position, keys))
        begin = tl.maximum(0, first - window + 1) // KEYS * KEYS
        if not CAUSAL:
            end = tl.minimum(keys, tl.max(tl.where(live, position, 0)) + window)
    return begin, end


@triton.jit
def _hide(scores, position, key, window, keys, padding, CAUSAL: tl.constexpr,
          WINDOW: tl.constexpr, PADDING: tl.constexpr):  # fmt: skip
    """Set the scores of hidden keys to -inf; `position` and `key` broadcast against them."""
    seen = key < keys
    if CAUSAL:
        seen = seen & (key <= position)
    if WINDOW:
        seen = seen & (tl.abs(position - key) < window)
    if PADDING:
        seen = seen & (tl.load(padding + key, mask=key < keys, other=1) == 0)
    return tl.where(seen, scores, -float("inf"))


@triton.jit
def _keep(seed, plane, slot, key, keys, dropout):
    """Draw the dropout mask of a tile: a function of seed, plane, slot and key alone."""
    return tl.rand(seed + plane, slot * keys + key) >= dropout


@triton.jit
def _forward(q, k, v, rows, padding, out, logsumexp, scale, dropout, seed, window, heads,
             length, slots, keys, width, WIDTH: tl.constexpr, QUERIES: tl.constexpr,
             KEYS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
             PADDING: tl.constexpr, ROWS: tl.constexpr, DROPOUT: tl.constexpr,
             PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    live = slot < slots
    row, position = _place(rows, plane, slot, live, slots, keys, ROWS)
    padding += plane // heads * keys
    queries = load(q + plane * length * width, row, width, WIDTH, UPCAST, live)
    begin, end = _reach(position, live, window, keys, KEYS, CAUSAL, WINDOW)
    peak = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, WIDTH), tl.float32)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        k_tile = load(k + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
        scores = tl.dot(queries, tl.trans(k_tile), input_precision=PRECISION) * (scale * LOG2E)
        scores = _hide(scores, position[:, None], key[None, :], window, keys, padding,
                       CAUSAL, WINDOW, PADDING)  # fmt: skip
        higher = tl.maximum(peak, tl.max(scores, 1))
        # While a row has seen nothing, any finite shift does.
        shift = tl.where(higher == -float("inf"), 0.0, higher)
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(peak - shift)
        total = total * fade + tl.sum(weights, 1)
        if DROPOUT:
            kept = _keep(seed, plane, slot[:, None], key[None, :], keys, dropout)
            weights = tl.where(kept, weights, 0.0)
        v_tile = load(v + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
        sums = sums * fade[:, None]
        sums = tl.dot(weights.to(v_tile.dtype), v_tile, sums, input_precision=PRECISION)
        peak = higher
    blind = total == 0.0
    total = tl.where(blind, 1.0, total)
    # +inf makes the weights of a row that sees nothing 0 in the backward pass too.
    level = tl.where(blind, float("inf"), peak + tl.log2(total))
    tl.store(logsumexp + plane * slots + slot, level, mask=live)
    sums = sums / (total * (1.0 - dropout))[:, None]
    store(out + plane * length * width, row, width, WIDTH, sums, live)


@triton.jit
def _backward_queries(q, k, v, rows, padding, out, grad, logsumexp, delta, dq, scale, dropout,
                      seed, window, heads, length, slots, keys, width, WIDTH: tl.constexpr,
                      QUERIES: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr,
                      WINDOW: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr,
                      DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
                      UPCAST: tl.constexpr):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    live = slot < slots
    row, position = _place(rows, plane, slot, live, slots, keys, ROWS)
    padding += plane // heads * keys
    queries = load(q + plane * length * width, row, width, WIDTH, UPCAST, live)
    slope = load(grad + plane * length * width, row, width, WIDTH, UPCAST, live)
    answer = load(out + plane * length * width, row, width, WIDTH, UPCAST, live)
    through = tl.sum(slope.to(tl.float32) * answer.to(tl.float32), 1)
    tl.store(delta + plane * slots + slot, through, mask=live)
    level = tl.load(logsumexp + plane * slots + slot, mask=live, other=float("inf"))
    begin, end = _reach(position, live, window, keys, KEYS, CAUSAL, WINDOW)
    sums = tl.zeros((QUERIES, WIDTH), tl.float32)
    for start in range(begin, end, KEYS):
        key = start + tl.arange(0, KEYS)
        k_tile = load(k + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
        scores = tl.dot(queries, tl.trans(k_tile), input_precision=PRECISION) * (scale * LOG2E)
        scores = _hide(scores, position[:, None], key[None, :], window, keys, padding,
                       CAUSAL, WINDOW, PADDING)  # fmt: skip
        weights = tl.exp2(scores - level[:, None])
        v_tile = load(v + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
        d_weights = tl.dot(slope, tl.trans(v_tile), input_precision=PRECISION)
        if DROPOUT:
            kept = _keep(seed, plane, slot[:, None], key[None, :], keys, dropout)
            d_weights = tl.where(kept, d_weights / (1.0 - dropout), 0.0)
        d_scores = weights * (d_weights - through[:, None])
        sums = tl.dot(d_scores.to(k_tile.dtype), k_tile, sums, input_precision=PRECISION)
    store(dq + plane * length * width, row, width, WIDTH, sums * scale, live)


@triton.jit
def _backward_keys(q, k, v, rows, padding, grad, logsumexp, delta, dk, dv, scale, dropout, seed,
                   window, heads, length, slots, keys, width, WIDTH: tl.constexpr,
                   QUERIES: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr,
                   WINDOW: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr,
                   DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
                   UPCAST: tl.constexpr):  # fmt: skip
    plane = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * KEYS
    key = start + tl.arange(0, KEYS)
    padding += plane // heads * keys
    k_tile = load(k + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
    v_tile = load(v + plane * keys * width, key, width, WIDTH, UPCAST, key < keys)
    begin, end = 0, slots
    if not ROWS:
        if CAUSAL:
            begin = tl.maximum(0, start - (keys - slots)) // QUERIES * QUERIES
        if WINDOW:
            end = tl.minimum(slots, tl.maximum(0, start + KEYS + window - 1 - (keys - slots)))
            if not CAUSAL:
                begin = tl.maximum(0, start - window + 1 - (keys - slots)) // QUERIES * QUERIES
    dk_sums = tl.zeros((KEYS, WIDTH), tl.float32)
    dv_sums = tl.zeros((KEYS, WIDTH), tl.float32)
    for first in range(begin, end, QUERIES):
        slot = first + tl.arange(0, QUERIES)
        live = slot < slots
        row, position = _place(rows, plane, slot, live, slots, keys, ROWS)
        queries = load(q + plane * length * width, row, width, WIDTH, UPCAST, live)
        slope = load(grad + plane * length * width, row, width, WIDTH, UPCAST, live)
        level = tl.load(logsumexp + plane * slots + slot, mask=live, other=float("inf"))
        through = tl.load(delta + plane * slots + slot, mask=live, other=0.0)
        scores = tl.dot(k_tile, tl.trans(queries), input_precision=PRECISION) * (scale * LOG2E)
        scores = _hide(scores, position[None, :], key[:, None], window, keys, padding,
                       CAUSAL, WINDOW, PADDING)  # fmt: skip
        weights = tl.exp2(scores - level[None, :])
        d_weights = tl.dot(v_tile, tl.trans(slope), input_precision=PRECISION)
        used = weights
        if DROPOUT:
            kept = _keep(seed, plane, slot[None, :], key[:, None], keys, dropout)
            used = tl.where(kept, weights / (1.0 - dropout), 0.0)
            d_weights = tl.where(kept, d_weights / (1.0 - dropout), 0.0)
        dv_sums = tl.dot(used.to(slope.dtype), slope, dv_sums, input_precision=PRECISION)
        d_scores = weights * (d_weights - through[None, :])
        dk_sums = tl.dot(d_scores.to(queries.dtype), queries, dk_sums, input_precision=PRECISION)
    store(dk + plane * keys * width, key, width, WIDTH, dk_sums * scale, key < keys)
    store(dv + plane * keys * width, key, width, WIDTH, dv_sums, key < keys)


class Task(NamedTuple):
    """Arguments that are not differentiated."""

    rows: Int[Tensor, "N R"] | None
    padding: Bool[Tensor, "B S"] | None
    heads: int
    causal: bool
    window: int | None
    dropout: float
    scale: float
    seed: int


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
    padding = None if key_padding is None else key_padding.contiguous()
    task = Task(None, padding, q.shape[1], causal, window, dropout, scale, seed(dropout))
    planes = (x.contiguous().flatten(0, 1) for x in (q, k, v))
    return _Fused.apply(*planes, task).view(q.shape)  # pyright: ignore[reportReturnType]


def forward(
    q: Float[Tensor, "N L E"],
    k: Float[Tensor, "N S E"],
    v: Float[Tensor, "N S E"],
    out: Float[Tensor, "N L E"],
    task: Task,
) -> Float[Tensor, "N R"]:
    """Write the rows of the task into `out`; all contiguous.

    Returns:
        The base-2 log-sum-exp of each query slot.
    """
    logsumexp = q.new_empty(q.shape[0], _slots(q, task), dtype=torch.float32)
    grid, sizes = _launch(q, k, task, owner="queries")
    _forward[grid](q, k, v, *_masks(q, task), out, logsumexp, **sizes)
    return logsumexp


def backward(
    grad: Float[Tensor, "N L E"],
    q: Float[Tensor, "N L E"],
    k: Float[Tensor, "N S E"],
    v: Float[Tensor, "N S E"],
    out: Float[Tensor, "N L E"],
    logsumexp: Float[Tensor, "N R"],
    dq: Float[Tensor, "N L E"],
    task: Task,
) -> tuple[Float[Tensor, "N S E"], Float[Tensor, "N S E"]]:
    """Write the rows of the task into `dq`, and give dk and dv; all contiguous."""
    dk, dv, delta = torch.empty_like(k), torch.empty_like(v), torch.empty_like(logsumexp)
    masks = _masks(q, task)
    grid, sizes = _launch(q, k, task, owner="queries")
    _backward_queries[grid](q, k, v, *masks, out, grad, logsumexp, delta, dq, **sizes)
    grid, sizes = _launch(q, k, task, owner="keys")
    _backward_keys[grid](q, k, v, *masks, grad, logsumexp, delta, dk, dv, **sizes)
    return dk, dv


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, task: Task) -> Tensor:
        out = torch.empty_like(q)
        logsumexp = forward(q, k, v, out, task)
        ctx.task = task
        ctx.save_for_backward(q, k, v, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp = ctx.saved_tensors
        dq = torch.empty_like(q)
        dk, dv = backward(grads[0].contiguous(), q, k, v, out, logsumexp, dq, ctx.task)
        return dq, dk, dv, None


def _slots(q: Tensor, task: Task) -> int:
    return q.shape[1] if task.rows is None else task.rows.shape[1]


def _masks(q: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    # A pointer that no branch reads still needs a tensor.
    padding = q if task.padding is None else task.padding.view(torch.uint8)
    return q if task.rows is None else task.rows, padding


def _launch(
    q: Tensor, k: Tensor, task: Task, *, owner: Literal["queries", "keys"]
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return grid and arguments of a kernel whose programs own tiles of queries or of keys."""
    planes, length, width = q.shape
    slots = _slots(q, task)
    queries, keys, stages = TILES[owner, q.dtype == torch.float32]
    items, tile = (slots, queries) if owner == "queries" else (k.shape[1], keys)
    sizes = {
        "scale": task.scale, "dropout": task.dropout, "seed": task.seed,
        "window": task.window or 0, "heads": task.heads, "length": length, "slots": slots,
        "keys": k.shape[1], "width": width, "WIDTH": max(16, triton.next_power_of_2(width)),
        "QUERIES": queries, "KEYS": keys, "CAUSAL": task.causal,
        "WINDOW": task.window is not None, "PADDING": task.padding is not None,
        "ROWS": task.rows is not None, "DROPOUT": task.dropout > 0, **numerics(),
        "num_warps": 4, "num_stages": stages,
    }  # fmt: skip
    return (triton.cdiv(items, tile), planes), sizes


def numerics() -> dict[str, Any]:
    """Return the arguments of every kernel of this package that multiplies matrices.

    Three TF32 products give float32 accuracy on tensor cores; one, where the caller allows TF32.
    Triton's interpreter has no bfloat16 product and gets its tiles in float32.
    """
    exact = torch.get_float32_matmul_precision() == "highest"
    return {
        "PRECISION": "tf32x3" if exact else "tf32",
        "UPCAST": triton.knobs.runtime.interpret,
    }
