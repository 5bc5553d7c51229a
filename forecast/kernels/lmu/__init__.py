"""Legendre memory: the sliding window of a signal, compressed into a few numbers and kept up.

The memory m_t holds the coefficients of Legendre polynomials over the last theta steps. It is
linear in the input and does not depend on anything a network learns, so that all steps can be
computed at once, in pieces, or one by one: `m_t = Abar m_(t-1) + Bbar u_t`.

Letters: N memories, T steps, d order.

Source: Voelker, Kajic and Eliasmith, "Legendre Memory Units", NeurIPS 2019.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.errors import UsageError
from forecast.kernels import dispatch
from forecast.kernels.dispatch import Choice, Operation
from forecast.kernels.lmu.system import System, least_order, read_out

__all__ = ["BACKENDS", "System", "choose", "explain", "least_order", "memory", "read_out"]

BACKENDS = {
    "reference": "forecast.kernels.lmu.reference",
    "step": "forecast.kernels.lmu.step",
    "chunk": "forecast.kernels.lmu.chunk",
    "fft": "forecast.kernels.lmu.fft",
    "triton": "forecast.kernels.lmu.triton",
}
# Up to here the steps one by one cost less than their map from a chunk.
_FEW_STEPS = 3
# Beyond it the matrix of the scan no longer fits into the shared memory of smaller GPUs.
_WIDEST = 64
_IRREGULAR = "steps of different length need one product each"


def memory(
    u: Float[Tensor, "N T"],
    initial: Float[Tensor, "N d"] | None = None,
    *,
    order: int,
    window: int | float,
    dt: int | float | Float[Tensor, " T"] = 1.0,
    backend: str = "auto",
) -> Float[Tensor, "N T d"]:
    """Keep the last `window` steps of signals in memory, and return it after every step.

    The last memory is the state from which a later call goes on: however a signal is cut, the
    memories are the same up to rounding. In half precision the computation and the result are in
    float32, since a state must not be rounded at every step.

    Args:
        u: one signal for each memory; several channels are several memories.
        initial: the memory before the first step; None for zeros.
        order: d, coefficients kept; `least_order` says how many a pattern needs.
        window: theta, the length of the window [steps].
        dt: time until each input is replaced by the next [steps], one for all or one for each; a
            time of g equals the same input g times over.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: the arguments contradict each other, or a named backend cannot run here.
    """
    if order < 1 or window <= 0:
        raise UsageError(
            f"A memory of order {order} over {window} steps holds nothing.",
            hint="Give an order of at least 1 and a window above 0.",
        )
    count, steps = u.shape
    regular = not isinstance(dt, Tensor)
    times = [float(dt)] * steps if not isinstance(dt, Tensor) else dt.tolist()
    systems = [System(order, float(window), time) for time in times]
    if u.dtype in (torch.float16, torch.bfloat16):
        u = u.float()
    if initial is None:
        initial = u.new_zeros(count, order)
    form = OPERATION.resolve(backend, u.device, u.dtype, order=order, steps=steps, regular=regular)
    with torch.autocast(u.device.type, enabled=False):
        return form.memory(u, initial.to(u.dtype), systems)


def choose(
    device: torch.device,
    dtype: torch.dtype,
    *,
    order: int = 40,
    steps: int = 512,
    regular: bool = True,
) -> Choice:
    """Choose the form that `auto` runs."""
    if not regular:
        return Choice("step", _IRREGULAR)
    if steps <= _FEW_STEPS:
        return Choice("step", "so few steps are faster one by one")
    obstacle = _obstacle("triton", device, dtype, order=order, regular=regular)
    why = "the scan is one launch; checked against the reference once"
    return dispatch.triton_or("chunk", device, obstacle, why)


def _obstacle(
    backend: str, device: torch.device, dtype: torch.dtype, *, order: int, regular: bool, **_: Any
) -> str:
    if not regular and backend not in ("reference", "step"):
        return _IRREGULAR
    if backend != "triton":
        return ""
    if dtype == torch.float64:
        return "the kernel computes in float32"
    if order > _WIDEST:
        return f"the kernel holds memories of order {_WIDEST} at most, not {order}"
    return dispatch.triton_obstacle(device, torch.float32)


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    generator = torch.Generator().manual_seed(0)
    u, initial = (
        torch.randn(33, size, generator=generator).to(device, dtype) for size in (130, 40)
    )
    systems = [System(40, 168.0)] * 130
    fast, reference = (
        functools.partial(dispatch.form(BACKENDS, name).memory, systems=systems)
        for name in ("triton", "reference")
    )
    return dispatch.disagreement(fast, reference, (u, initial), 1e-4)


OPERATION = Operation(
    name="lmu",
    backends=BACKENDS,
    fallback="chunk",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={
        "lmu": {},
        "lmu, one step": {"steps": 1},
        "lmu, irregular steps": {"regular": False},
    },
)
explain = OPERATION.explain
