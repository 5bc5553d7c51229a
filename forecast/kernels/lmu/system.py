"""The linear system behind a Legendre memory: its matrices, its impulse response, its read-out.

Everything is computed in float64 and cast last. Euler's method `I + A dt / theta` is not offered:
it is unstable as soon as theta is less than about five times the order.

Letters: d order, T steps.

Source: Voelker, Kajic and Eliasmith, "Legendre Memory Units", NeurIPS 2019, equations 1, 2 and 4;
zero-order hold from the exponential of the block matrix.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# A pattern of c cycles in the window wants an order of at least this many times c: below it the
# relative error of storing a sinusoid rises from thousandths to about one.
ORDER_PER_CYCLE = 4.6


class System(NamedTuple):
    """A discretised LMU: its order, window and step.

    Attributes:
        order: d, Legendre coefficients kept of the window.
        window: theta, its length [steps].
        step: time from one input to the next [steps]; an input holds until the next one comes.
    """

    order: int
    window: float
    step: float = 1.0


@functools.lru_cache(maxsize=256)
def matrices(system: System) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """Compute Abar and Bbar of `m_t = Abar m_(t-1) + Bbar u_t` in float64."""
    order, window, step = system
    row = np.arange(order, dtype=np.float64)[:, None]
    column = row.T
    signs = np.where(row < column, -1.0, (-1.0) ** (row - column + 1))
    block = np.zeros((order + 1, order + 1))
    block[:order, :order] = (2 * row + 1) * signs
    block[:order, order:] = (2 * row + 1) * (-1.0) ** row
    held = torch.linalg.matrix_exp(torch.from_numpy(block * (step / window)))
    return held[:order, :order].contiguous(), held[:order, order].contiguous()


@functools.lru_cache(maxsize=32)
def impulse(system: System, steps: int) -> Float[Tensor, "T d"]:
    """Compute `Abar^t Bbar` for t = 0 to T - 1 by doubling: few products, all exact."""
    power, column = matrices(system)
    response = column[None]
    while response.shape[0] < steps:
        response = torch.cat([response, response @ power.T])
        power = power @ power
    return response[:steps]


@functools.lru_cache(maxsize=32)
def powers(system: System, steps: int) -> Float[Tensor, "T d d"]:
    """Compute `Abar^t` for t = 1 to T."""
    power, _ = matrices(system)
    stack = power[None]
    while stack.shape[0] < steps:
        stack = torch.cat([stack, stack @ stack[-1]])
    return stack[:steps]


def read_out(
    memory: Float[Tensor, "*batch d"], delays: Float[Tensor, " K"]
) -> Float[Tensor, "*batch K"]:
    """Recall the input of some time ago, by Legendre polynomials.

    Args:
        memory: the memory now.
        delays: how long ago, as fractions of the window, from 0 (now) to 1.
    """
    points = (2 * delays.double().cpu() - 1).numpy()
    basis = np.polynomial.legendre.legvander(points, memory.shape[-1] - 1)
    return memory @ torch.from_numpy(basis).to(memory).T


def least_order(window: int | float, period: int | float) -> int:
    """Return the order that represents a pattern of this period [steps] over the window."""
    return math.ceil(ORDER_PER_CYCLE * window / period)
