"""The gate of a SwiGLU layer with its dropout: `drop(SiLU(g) * v)` in one pass over memory.

The two products before it are one, whose biases a matrix product adds at no cost; the one after it
is the layer's. Dropout bits are a hash of seed and place, the same ones in every form, so that no
mask is ever stored.

Letters: n rows, F gate width, W = 2 F.
"""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from forecast.kernels import dispatch
from forecast.kernels.dispatch import Choice, Operation

BACKENDS = {
    "reference": "forecast.kernels.gated.reference",
    "tiled": "forecast.kernels.gated.tiled",
    "triton": "forecast.kernels.gated.triton",
}


def gated(
    both: Float[Tensor, "*n W"], *, dropout: float = 0.0, backend: str = "auto"
) -> Float[Tensor, "*n F"]:
    """Compute `drop(SiLU(g) * v)` of `both`, which holds g and behind it v.

    Args:
        both: gates and values of each row.
        dropout: probability of zeroing an element (the caller passes 0 in evaluation); it is
            rounded to a multiple of 2**-16.
        backend: a name of `BACKENDS`, or `auto`.

    Raises:
        UsageError: a named backend cannot run here.
    """
    form = OPERATION.resolve(backend, both.device, both.dtype)
    # One draw of torch's generator a call: saving its state is enough to resume.
    seed = int(torch.randint(2**62, ())) if dropout else 0
    return form.gated(both, dropout=dropout, seed=seed)


def choose(device: torch.device, dtype: torch.dtype) -> Choice:
    """Choose the form that `auto` runs."""
    if device.type != "cuda":
        return Choice("tiled", "its tiles stay in the processor's cache")
    why = "one pass over memory; checked against the reference once"
    return dispatch.triton_or("tiled", device, _obstacle("triton", device, dtype), why)


def _obstacle(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    return dispatch.triton_obstacle(device, dtype) if backend == "triton" else ""


@functools.cache
def self_check(device: torch.device, dtype: torch.dtype) -> str:
    """Hold the Triton form to the reference on this device; an empty string when it agrees."""
    both = torch.randn(65, 2 * 130, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    trial, exact = (
        functools.partial(dispatch.form(BACKENDS, name).gated, dropout=0.3, seed=1 << 40)
        for name in ("triton", "reference")
    )
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    return dispatch.disagreement(trial, exact, (both,), tolerance)


OPERATION = Operation(
    name="gated",
    backends=BACKENDS,
    fallback="tiled",
    choose=choose,
    obstacle=_obstacle,
    check=self_check,
    calls={"gated": {}},
)
explain = OPERATION.explain
