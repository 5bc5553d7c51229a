"""The gates of a memory that learns: how much a token writes, how much is forgotten, how it moves.

Letters: B batch, H heads, T tokens, K key width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# With momentum eta a step acts 1 / (1 - eta) times over. At eight tenths of what that leaves,
# periodic keys make the memory overshoot; at half they do not, whatever eta is.
_SAFE = 0.5


class Gates(NamedTuple):
    """Gates as `memory` takes them; the last two are logarithms, never of rounded numbers.

    Attributes:
        write: theta, the size of a token's step.
        keep: log(1 - alpha), at most 0.
        momentum: log(eta), at most 0; None without momentum.
    """

    write: Float[Tensor, "B H T"]
    keep: Float[Tensor, "B H T"]
    momentum: Float[Tensor, "B H T"] | None


def gates(
    write: Float[Tensor, "B H T"],
    forget: Float[Tensor, "B H T"],
    momentum: Float[Tensor, "B H T"] | None,
) -> Gates:
    """Turn unbounded numbers into gates for which the memory of unit keys stays bounded.

    They are computed in float64 and then rounded. A processor computes the last few elements of a
    tensor in another way than the others, and a stream's gates would have other last bits by where
    it stands in a batch.
    """
    dtype = write.dtype
    size = torch.sigmoid(write.double())
    keep = torch.nn.functional.logsigmoid(-forget.double()).to(dtype)
    if momentum is None:
        return Gates(size.to(dtype), keep, None)
    rest = torch.sigmoid(-momentum.double())  # 1 - eta
    move = torch.nn.functional.logsigmoid(momentum.double())
    return Gates((_SAFE * size * rest).to(dtype), keep, move.to(dtype))


def unit(x: Float[Tensor, "*n K"]) -> Float[Tensor, "*n K"]:
    """Scale vectors to length 1; a vector of zeros stays one."""
    return torch.nn.functional.normalize(x, dim=-1, eps=1e-6)
