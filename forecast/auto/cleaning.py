"""A panel as forms want it: no gaps, no outliers, and the words for what was changed.

Letters: N series, T rows, s rows of a season.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forecast.auto.form import Array, starts

# Rows that lie so many times the middle nine tenths' width from the median are outliers,
_FAR = 8.0
# as long as no more than this share of a series does.
_RARE = 0.01
# Rows of a gap that repeat the last value.
_BRIEF = 3


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A panel without gaps and outliers.

    Attributes:
        values: (N, T), NaN before a series begins and nowhere else.
        outliers: (N, T), True where a value was set aside.
        filled: (N, T), True where no value was.
    """

    values: Array
    outliers: NDArray[np.bool_]
    filled: NDArray[np.bool_]


def cleaned(values: Array, season: int, known: int | None = None) -> Cleaned:
    """Set outliers aside, and fill them and gaps from the rows before.

    What becomes of a row depends on no later one, past the first `known`: a forecast from any
    origin after them reads the same rows, whatever follows.

    Args:
        values: (N, T), NaN where missing.
        season: rows of a season (s).
        known: rows that say what is usual; None is all.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    far = outliers(values, values.shape[1] if known is None else known)
    kept = np.where(far, np.nan, values)
    begins = starts(kept)
    inside = np.arange(values.shape[1])[None, :] >= begins[:, None]
    gaps = inside & ~np.isfinite(kept)
    filled = kept.copy()
    for row in np.flatnonzero(gaps.any(1)):
        filled[row, begins[row] :] = _fill(kept[row, begins[row] :], season)
    return Cleaned(filled, far, gaps & ~far)


def outliers(values: Array, known: int) -> NDArray[np.bool_]:
    """Find values far outside of nearly all others of their series, (N, T).

    Outside means eight times the width between the 5 % and 95 % quantiles of the known rows from
    their median, for at most one known row in a hundred (one row of a short series). Of three such
    rows in a row after the known ones, the third is believed: the level has moved.
    """
    begun = values[:, :known]
    count = np.isfinite(begun).sum(1)
    ordered = np.sort(begun, axis=1)  # NaN last
    # One wild value must not widen its own yardstick.
    edge = np.where(count < 40, 0.15, 0.05)
    each = np.arange(len(values))

    def quantile(share: Array) -> Array:
        """Value at a share of each series' known rows, (N,)."""
        at = np.round(share * np.maximum(count - 1, 0)).astype(np.int64)
        return ordered[each, at] if begun.shape[1] else np.full(len(values), np.nan)

    low, middle, high = quantile(edge), quantile(0 * edge + 0.5), quantile(1 - edge)
    width = high - low
    with np.errstate(invalid="ignore"):
        wild = np.abs(values - middle[:, None]) > _FAR * width[:, None]
    rare = wild[:, :known].sum(1) <= np.maximum(1, _RARE * count)
    wild &= (rare & (width > 0) & (count >= 8))[:, None]
    moved = np.zeros_like(wild)
    moved[:, 2:] = wild[:, 2:] & wild[:, 1:-1] & wild[:, :-2]
    moved[:, :known] = False
    return wild & ~moved


def _fill(one: Array, season: int) -> Array:
    """Fill gaps of one series: up to three rows by the last value, more by the season before."""
    out = one.copy()
    seen = np.isfinite(one)
    edges = np.diff(np.concatenate([[0], (~seen).astype(np.int8), [0]]))
    for begin, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        brief = begin + _BRIEF if begin >= season > 1 else end
        out[begin : min(end, brief)] = out[begin - 1]
        if end > brief:
            at = np.arange(brief, end)
            out[brief:end] = out[begin - season + (at - begin) % season]
    return out
