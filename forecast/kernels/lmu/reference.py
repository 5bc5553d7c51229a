"""The Legendre memory as a recurrence, step by step: the specification of the faster forms.

Letters: N memories, T steps, d order.

Source: Voelker, Kajic and Eliasmith, "Legendre Memory Units", NeurIPS 2019, equation 4, with the
zero-order hold of `system`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels.lmu.system import System, matrices


def memory(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], systems: Sequence[System]
) -> Float[Tensor, "N T d"]:
    """Compute `m_t = Abar_t m_(t-1) + Bbar_t u_t`.

    Args:
        u: inputs.
        initial: m_0.
        systems: the system of each step, T of them; they differ where inputs come irregularly.
    """
    memories: list[Tensor] = []
    m = initial
    for value, system in zip(u.unbind(1), systems, strict=True):
        a, b = (matrix.to(u) for matrix in matrices(system))
        m = m @ a.T + value[:, None] * b
        memories.append(m)
    return torch.stack(memories, 1)
