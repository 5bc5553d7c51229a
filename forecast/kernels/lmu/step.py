"""The Legendre memory one step at a time: the form of streams, and of irregular steps.

Letters: N memories, T steps, d order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.lmu.system import System, matrices


def memory(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], systems: Sequence[System]
) -> Float[Tensor, "N T d"]:
    """Compute what `reference.memory` defines, each step being one matrix product."""
    memories: list[Tensor] = []
    m = initial
    for place, system in enumerate(systems):
        both = _both(system, u.dtype, u.device)
        drive = u[:, place : place + 1]
        if system.order == 1:
            # As a product of a matrix and a vector, rows would get other last bits by their place.
            m = torch.addcmul(m * both[0], drive, both[1])
        else:
            m = torch.cat([m, drive], 1) @ both
        memories.append(m)
    return torch.stack(memories, 1) if len(memories) > 1 else memories[0].unsqueeze(1)


@functools.lru_cache(maxsize=256)
def _both(system: System, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "d1 d"]:
    """Put Abar and Bbar on top of each other, transposed."""
    a, b = matrices(system)
    return torch.cat([a.T, b[None]]).to(device, dtype)
