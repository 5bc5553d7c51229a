"""The scan between chunks of a Legendre memory as one Triton kernel.

The two matrix products of `chunk` are large and left to torch; the scan between them is a chain of
small ones, each a launch of its own in plain torch. Here a program owns some memories and carries
them from chunk to chunk in registers, in float32.

Letters: N memories, K chunks, d order.
"""

# Kernel bodies are Triton's language in Python's syntax: a type checker cannot read them.
# pyright: basic, reportArgumentType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.attention.triton import load, numerics, store
from forecast.kernels.lmu.chunk import chunked
from forecast.kernels.lmu.system import System

# Memories to a program: no more, as there are few of them and the chain is long.
ROWS = 16


@triton.jit
def _scan(drive, initial, power, states, count, chunks, order, WIDTH: tl.constexpr,
          ROWS: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < count
    column = tl.arange(0, WIDTH)
    matrix = load(power, column, order, WIDTH, UPCAST, column < order)
    state = load(initial, row, order, WIDTH, UPCAST, inside)
    store(states, row.to(tl.int64) * chunks, order, WIDTH, state, inside)
    for chunk in range(chunks - 1):
        change = load(drive, row.to(tl.int64) * (chunks - 1) + chunk, order, WIDTH, UPCAST, inside)
        state = tl.dot(state, matrix, change, input_precision=PRECISION)
        store(states, row.to(tl.int64) * chunks + chunk + 1, order, WIDTH, state, inside)


def memory(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], systems: Sequence[System]
) -> Float[Tensor, "N T d"]:
    """Compute what `reference.memory` defines for equal steps, in float32."""
    return chunked(u, initial, systems[0], scan)


def scan(
    drive: Float[Tensor, "N K1 d"], initial: Float[Tensor, "N d"], power: Float[Tensor, "d d"]
) -> Float[Tensor, "N K d"]:
    """Compute what `chunk.scan` does."""
    count, steps, order = drive.shape
    states = initial.new_empty(count, steps + 1, order)
    _scan[(triton.cdiv(count, ROWS),)](
        drive.contiguous(), initial.contiguous(), power.contiguous(), states, count, steps + 1,
        order, WIDTH=max(16, triton.next_power_of_2(order)), ROWS=ROWS, **numerics(),
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return states
