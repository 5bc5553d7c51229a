"""The gate of SwiGLU, written as its formula: the specification of the faster forms.

Letters: n rows, F gate width, W = 2 F.

Source: Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202, equation 6. The dropout bits
are a hash of each pair's number: a multiplication and a shift, three times, with the odd constants
of xxHash32 (Collet). A second key is added half-way, so that two seeds whose counters overlap share
no bits; a seed becomes two keys by SplitMix64 (Steele et al., OOPSLA 2014, figure 17).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FIRST, SECOND, THIRD = -1640531535, -2048144777, -1028477379
# Dropout decides by this many bits.
LEVELS = 65536
_LONG = (1 << 64) - 1


def gated(both: Float[Tensor, "*n W"], *, dropout: float, seed: int) -> Float[Tensor, "*n F"]:
    """Compute `drop(g sigmoid(g) v)`."""
    gate, value = both.chunk(2, dim=-1)
    inner = gate * torch.sigmoid(gate) * value
    if not dropout:
        return inner
    dropped = threshold(dropout)
    return inner * keep(inner.shape, dropped, seed, inner.device) * (LEVELS / (LEVELS - dropped))


def threshold(dropout: float) -> int:
    """Round a probability to a number of `LEVELS`."""
    return round(dropout * LEVELS)


def keys(seed: int) -> tuple[int, int]:
    """Turn a seed into the two keys of the hash, as signed 32-bit numbers."""
    word = seed + 0x9E3779B97F4A7C15 & _LONG
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _LONG
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _LONG
    word ^= word >> 31
    return signed(word), signed(word >> 32)


def signed(number: int) -> int:
    """Wrap a number round to 32 bits."""
    return (number + 2**31) % 2**32 - 2**31


def keep(shape: torch.Size, dropped: int, seed: int, device: torch.device) -> Bool[Tensor, "*n F"]:
    """Decide for each element, by the hash of its pair's number, whether it is kept.

    Sums and products wrap round at 32 bits and all shifts but the last keep the sign, as they do
    for signed numbers in torch and Triton. Of two neighbours the first has the low 16 bits of the
    word and the second the high ones, and one is dropped when they are, signed, among the lowest.
    """
    number = torch.arange(shape.numel(), device=device)
    first, second = keys(seed)
    word = _wrapped(number // 2 * FIRST + first)
    word = word ^ (word >> 15)
    word = _wrapped(word * SECOND + second)
    word = word ^ (word >> 13)
    word = _wrapped(word * THIRD)
    word = word ^ (word >> 16 & 0xFFFF)
    bits = torch.where(number % 2 == 0, word << 48, word << 32) >> 48
    return (bits >= dropped - LEVELS // 2).view(shape)


def _wrapped(word: Tensor) -> Tensor:
    return word << 32 >> 32
