"""The Legendre memory in chunks: two matrix products for all of them, and a short scan between.

Within a chunk every memory is a linear map of the chunk's inputs and of the memory before it. So
one product gives what the inputs of each chunk add to its end, a scan carries the memory from chunk
to chunk, and a second product gives all memories of all chunks.

Zeros stand in the map where an input comes after a memory: a later input, as long as it is finite,
changes no bit of an earlier memory.

Letters: N memories, T steps, d order, K chunks, P steps in a chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.lmu.system import System, impulse, powers

# Work per step grows with the chunk, the number of sequential steps falls; flat between 16 and 64.
CHUNK = 32

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]


def memory(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], systems: Sequence[System]
) -> Float[Tensor, "N T d"]:
    """Compute what `reference.memory` defines for equal steps."""
    return chunked(u, initial, systems[0], scan)


def chunked(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], system: System, scan: Scan
) -> Float[Tensor, "N T d"]:
    """Compute the memory with a scan of one's own.

    Args:
        u: inputs.
        initial: the memory before the first.
        system: the system of every step.
        scan: `scan` or another form of it.
    """
    count, steps = u.shape
    size = min(CHUNK, steps)
    chunks = -(-steps // size)
    inside = _inside(system, size, u.dtype, u.device)
    inputs = torch.nn.functional.pad(u, (0, chunks * size - steps)).view(count, chunks, size)
    if chunks > 1:
        end = inside[:, -system.order :]
        drive = inputs[:, :-1] @ end[:size]
        starts: Tensor = _Scan.apply(drive, initial, end[size:], scan)  # pyright: ignore[reportAssignmentType]
    else:
        starts = initial.unsqueeze(1)
    memories = torch.cat([inputs, starts], -1) @ inside  # (N, K, P d)
    return memories.view(count, chunks * size, system.order)[:, :steps]


@functools.lru_cache(maxsize=64)
def _inside(
    system: System, size: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "inputs outputs"]:
    """Map a chunk's inputs (first P rows) and the memory before it (next d) to its P memories."""
    response = impulse(system, size)
    late = torch.arange(size)[None] - torch.arange(size)[:, None]  # (from input, to memory)
    inputs = torch.where(late[..., None] >= 0, response[late.clamp(min=0)], 0.0)
    state = powers(system, size).permute(2, 0, 1)  # (from, step, to)
    return torch.cat([inputs, state]).flatten(1).to(device, dtype)


def scan(
    drive: Float[Tensor, "N K1 d"], initial: Float[Tensor, "N d"], power: Float[Tensor, "d d"]
) -> Float[Tensor, "N K d"]:
    """Compute `s_0, ..., s_(K-1)` of `s_(k+1) = s_k power + drive_k`, s_0 being `initial`."""
    state, states = initial, [initial]
    for change in drive.unbind(1):
        state = torch.addmm(change, state, power)
        states.append(state)
    return torch.stack(states, 1)


class _Scan(torch.autograd.Function):
    """Differentiate a scan by scanning backwards: the adjoint has the same form."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, initial: Tensor, power: Tensor, scan: Scan) -> Tensor:
        ctx.power, ctx.scan = power, scan
        return scan(drive, initial, power)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        backwards = grads[0].flip(1)
        costates = ctx.scan(backwards[:, 1:], backwards[:, 0], ctx.power.T).flip(1)
        return costates[:, 1:], costates[:, 0], None, None
