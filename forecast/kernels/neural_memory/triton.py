"""The scan between chunks of the learning memory as Triton kernels, forward and backward.

The weights, the triangular systems and the answers are products of all chunks at once and left to
torch; the scan between them is a chain of small ones, each a launch of its own in plain torch. Here
a program owns some columns of the values, which do not know of each other, and carries memory and
momentum of its columns from chunk to chunk on the chip, in float32.

Letters: N planes (a head of a sample each), G chunks, C tokens of a chunk, K key width, V value
width, R rows of the state: K, and as many again with momentum.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.attention.triton import numerics
from forecast.kernels.neural_memory.chunk import Chunks, Scan, chunked
from forecast.kernels.neural_memory.reference import Gradient, State

# Columns of the values to a program, and tokens of a chunk: with more of either, registers spill.
COLUMNS = 16
TOKENS = 16


@triton.jit
def _place(rows, columns, height, width, stride):
    """Return the offsets of a block of a matrix, and the mask of those inside."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    return rows.to(tl.int64)[:, None] * stride + columns[None, :], inside


@triton.jit
def _load(base, rows, columns, height, width, stride):
    offsets, inside = _place(rows, columns, height, width, stride)
    return tl.load(base + offsets, mask=inside, other=0.0)


@triton.jit
def _store(base, rows, columns, height, width, stride, value):
    offsets, inside = _place(rows, columns, height, width, stride)
    tl.store(base + offsets, value, mask=inside)


@triton.jit
def _turned(base, rows, columns, height, width, stride):
    """Load a block of a matrix as its transpose: (columns, rows)."""
    inside = (rows < height)[None, :] & (columns < width)[:, None]
    offsets = rows.to(tl.int64)[None, :] * stride + columns[:, None]
    return tl.load(base + offsets, mask=inside, other=0.0)


@triton.jit
def _forward(inverse, values, predict, change, decay, states, errors, chunks, tokens, keys, width,
             MOMENTUM: tl.constexpr, PREDICT: tl.constexpr, SOLVE: tl.constexpr,
             TOKENS: tl.constexpr, KEYS: tl.constexpr, COLUMNS: tl.constexpr,
             PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Compute the errors of all chunks, and the states before each and after the last."""
    plane = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    token, key = tl.arange(0, TOKENS), tl.arange(0, KEYS)
    height = keys * (1 + MOMENTUM)
    here = states + plane * (chunks + 1) * height * width
    memory = _load(here, key, column, keys, width, width)
    if MOMENTUM:
        surprise = _load(here + keys * width, key, column, keys, width, width)
    for chunk in range(chunks):
        number = plane * chunks + chunk
        error = _load(values + number * tokens * width, token, column, tokens, width, width)
        wide = number * tokens * height
        if PREDICT:
            map = _load(predict + wide, token, key, tokens, keys, height)
            error -= tl.dot(map, memory, input_precision=PRECISION)
            if MOMENTUM:
                map = _load(predict + wide + keys, token, key, tokens, keys, height)
                error -= tl.dot(map, surprise, input_precision=PRECISION)
        if SOLVE:
            solve = _load(inverse + number * tokens * tokens, token, token, tokens, tokens, tokens)
            error = tl.dot(solve, error, input_precision=PRECISION)
        _store(errors + number * tokens * width, token, column, tokens, width, width, error)
        weights = decay + number * (1 + 2 * MOMENTUM)
        memory *= tl.load(weights)
        if MOMENTUM:
            memory += tl.load(weights + 1) * surprise
            surprise *= tl.load(weights + 2)
            map = _turned(change + wide + keys, token, key, tokens, keys, height)
            surprise += tl.dot(map, error, input_precision=PRECISION)
        map = _turned(change + wide, token, key, tokens, keys, height)
        memory += tl.dot(map, error, input_precision=PRECISION)
        here += height * width
        _store(here, key, column, keys, width, width, memory)
        if MOMENTUM:
            _store(here + keys * width, key, column, keys, width, width, surprise)


@triton.jit
def _backward(inverse, d_errors, predict, change, decay, d_states, d_values, total, chunks, tokens,
              keys, width, MOMENTUM: tl.constexpr, PREDICT: tl.constexpr, SOLVE: tl.constexpr,
              TOKENS: tl.constexpr, KEYS: tl.constexpr, COLUMNS: tl.constexpr,
              PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Compute the gradients of the values, and of the states along every path."""
    plane = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    token, key = tl.arange(0, TOKENS), tl.arange(0, KEYS)
    height = keys * (1 + MOMENTUM)
    here = (plane * (chunks + 1) + chunks) * height * width
    memory = _load(d_states + here, key, column, keys, width, width)
    _store(total + here, key, column, keys, width, width, memory)
    if MOMENTUM:
        below = here + keys * width
        surprise = _load(d_states + below, key, column, keys, width, width)
        _store(total + below, key, column, keys, width, width, surprise)
    for back in range(chunks):
        number = plane * chunks + chunks - 1 - back
        wide = number * tokens * height
        slope = _load(d_errors + number * tokens * width, token, column, tokens, width, width)
        map = _load(change + wide, token, key, tokens, keys, height)
        slope += tl.dot(map, memory, input_precision=PRECISION)
        if MOMENTUM:
            map = _load(change + wide + keys, token, key, tokens, keys, height)
            slope += tl.dot(map, surprise, input_precision=PRECISION)
        if SOLVE:
            map = _turned(inverse + number * tokens * tokens, token, token, tokens, tokens, tokens)
            slope = tl.dot(map, slope, input_precision=PRECISION)
        _store(d_values + number * tokens * width, token, column, tokens, width, width, slope)
        weights = decay + number * (1 + 2 * MOMENTUM)
        here -= height * width
        if MOMENTUM:
            below = here + keys * width
            surprise *= tl.load(weights + 2)
            surprise += tl.load(weights + 1) * memory
            surprise += _load(d_states + below, key, column, keys, width, width)
            if PREDICT:
                map = _turned(predict + wide + keys, token, key, tokens, keys, height)
                surprise -= tl.dot(map, slope, input_precision=PRECISION)
            _store(total + below, key, column, keys, width, width, surprise)
        memory *= tl.load(weights)
        memory += _load(d_states + here, key, column, keys, width, width)
        if PREDICT:
            map = _turned(predict + wide, token, key, tokens, keys, height)
            memory -= tl.dot(map, slope, input_precision=PRECISION)
        _store(total + here, key, column, keys, width, width, memory)


def memory(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    write: Float[Tensor, "B H T"],
    keep: Float[Tensor, "B H T"],
    momentum: Float[Tensor, "B H T"] | None,
    state: State,
    gradient: Gradient,
) -> tuple[Float[Tensor, "B H T V"], State]:
    """Compute what `reference.memory` defines, in float32."""
    assert gradient != "chunk"
    scan = Scan(forward, backward)
    return chunked(q, k, v, write, keep, momentum, state, gradient, scan, TOKENS)


def forward(
    chunks: Chunks, held: Float[Tensor, "N R V"]
) -> tuple[Float[Tensor, "N G C V"], Float[Tensor, "N G1 R V"]]:
    """Compute what `chunk.forward` does."""
    states = held.new_empty(len(held), chunks.values.shape[1] + 1, *held.shape[1:])
    states[:, 0] = held
    values, errors = chunks.values.contiguous(), chunks.values.new_empty(chunks.values.shape)
    grid, inputs, sizes = _launch(chunks)
    _forward[grid](values=values, states=states, errors=errors, **inputs, **sizes)
    return errors, states


def backward(
    chunks: Chunks, d_errors: Float[Tensor, "N G C V"], d_states: Float[Tensor, "N G1 R V"]
) -> tuple[Float[Tensor, "N G C V"], Float[Tensor, "N G1 R V"]]:
    """Compute what `chunk.backward` does."""
    d_values, total = d_errors.new_empty(d_errors.shape), d_states.new_empty(d_states.shape)
    grid, inputs, sizes = _launch(chunks)
    _backward[grid](
        d_errors=d_errors.contiguous(), d_states=d_states.contiguous(), d_values=d_values,
        total=total, **inputs, **sizes,
    )  # fmt: skip
    return d_values, total


def _launch(chunks: Chunks) -> tuple[tuple[int, int], dict[str, Tensor], dict[str, Any]]:
    """Return the grid, the inputs and the sizes that both kernels take."""
    inverse, values, predict, change, decay = chunks
    planes, count, tokens, width = values.shape
    momentum = decay.shape[2] > 1
    keys = change.shape[3] // (1 + momentum)
    # Where there is nothing to load, any pointer will do.
    given = {"inverse": inverse, "predict": predict, "change": change, "decay": decay}
    inputs = {name: (change if x is None else x).contiguous() for name, x in given.items()}
    sizes = {
        "chunks": count, "tokens": tokens, "keys": keys, "width": width,
        "MOMENTUM": int(momentum), "PREDICT": predict is not None, "SOLVE": inverse is not None,
        "TOKENS": max(16, triton.next_power_of_2(tokens)),
        "KEYS": max(16, triton.next_power_of_2(keys)), "COLUMNS": COLUMNS, **numerics(),
        "num_warps": 4, "num_stages": 1,
    }  # fmt: skip
    return (planes, triton.cdiv(width, COLUMNS)), inputs, sizes
