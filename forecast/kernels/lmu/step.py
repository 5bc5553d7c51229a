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
        m = torch.cat([m, u[:, place : place + 1]], 1) @ both
        memories.append(m)
    return torch.stack(memories, 1) if len(memories) > 1 else memories[0].unsqueeze(1)


@functools.lru_cache(maxsize=256)
def _both(system: System, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "d1 d"]:
    """Stack Abar and Bbar, transposed."""
    a, b = matrices(system)
    return torch.cat([a.T, b[None]]).to(device, dtype)
