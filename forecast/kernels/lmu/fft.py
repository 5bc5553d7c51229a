"""The Legendre memory as a convolution with its impulse response: the way of the published model.

Letters: N memories, T steps, d order, F frequencies.

Source: Chilkuri and Eliasmith, "Parallelizing Legendre Memory Unit Training", ICML 2021,
equation 26; the response to the initial memory, which it takes for 0, is added by chunks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from forecast.kernels.lmu import chunk
from forecast.kernels.lmu.system import System, impulse

# The most complex numbers that the product of spectra holds at once: 128 MB in single precision.
_MOST = 1 << 24


def memory(
    u: Float[Tensor, "N T"], initial: Float[Tensor, "N d"], systems: Sequence[System]
) -> Float[Tensor, "N T d"]:
    """Compute what `reference.memory` defines for equal steps."""
    steps = u.shape[1]
    spectrum = torch.fft.rfft(u, 2 * steps)  # (N, F)
    response = _response(systems[0], steps, u.dtype, u.device)  # (d, F)
    several = max(1, _MOST // spectrum.numel())
    parts = [
        torch.fft.irfft(spectrum.unsqueeze(1) * some, 2 * steps)[..., :steps]
        for some in response.split(several)
    ]
    driven = torch.cat(parts, 1).transpose(1, 2)
    return driven + chunk.memory(torch.zeros_like(u), initial, systems)


@functools.lru_cache(maxsize=16)
def _response(
    system: System, steps: int, dtype: torch.dtype, device: torch.device
) -> Complex[Tensor, "d F"]:
    spectrum = torch.fft.rfft(impulse(system, steps).T, 2 * steps)
    return spectrum.to(device, torch.complex128 if dtype == torch.float64 else torch.complex64)
