"""Dropout masks at a quarter of the random draws."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_mask(
    shape: torch.Size,
    probability: float,
    dtype: torch.dtype,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, float]:
    """Draw a mask that is 0 with `probability` and 1 elsewhere, and the scale that goes with it.

    On a CPU torch draws a word of its generator for every element. Here one 64-bit draw decides
    four elements at 16 bits each. The probability is thereby rounded to a multiple of 2**-16, and
    the scale is that of the rounded one, so the expectation is exact.
    """
    count = shape.numel()
    dropped = round(probability * 65536)
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[:count].view(shape)
    keep = torch.empty(shape, dtype=dtype, device=device)
    return torch.ge(bits, dropped - 32768, out=keep), 65536 / (65536 - dropped)
