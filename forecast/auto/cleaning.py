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


def cleaned(values: Array, season: int) -> Cleaned:
    """Set outliers aside, and fill them and gaps from the season before or by a line.

    Args:
        values: (N, T), NaN where missing.
        season: rows of a season (s).
    """
    values = np.where(np.isfinite(values), values, np.nan)
    far = outliers(values)
    kept = np.where(far, np.nan, values)
    begins = starts(kept)
    inside = np.arange(values.shape[1])[None, :] >= begins[:, None]
    gaps = inside & ~np.isfinite(kept)
    filled = kept.copy()
    for row in np.flatnonzero(gaps.any(1)):
        filled[row, begins[row] :] = _fill(kept[row, begins[row] :], season)
    return Cleaned(filled, far, gaps & ~far)


def outliers(values: Array) -> NDArray[np.bool_]:
    """True where a value is far outside of nearly all others of its series, (N, T).

    Outside means eight times the width between the 5 % and 95 % quantiles from the median, for at
    most one row in a hundred (one row of a short series), and never a zero or a repeated value.
    """
    far = np.zeros(values.shape, dtype=bool)
    for row, one in enumerate(values):
        seen = one[np.isfinite(one)]
        if len(seen) < 8:
            continue
        if len(seen) < 40:  # one wild value must not widen its own yardstick
            low, middle, high = np.quantile(seen, (0.15, 0.5, 0.85))
        else:
            low, middle, high = np.quantile(seen, (0.05, 0.5, 0.95))
        width = high - low
        if width <= 0:
            continue
        with np.errstate(invalid="ignore"):
            wild = np.abs(one - middle) > _FAR * width
        if 0 < wild.sum() <= max(1, int(_RARE * len(seen))):
            far[row] = wild
    return far


def _fill(one: Array, season: int) -> Array:
    """Fill gaps of one series: short ones by a line, long ones from the season before."""
    seen = np.isfinite(one)
    rows = np.arange(len(one))
    line = np.interp(rows, rows[seen], one[seen])
    if season < 2:
        return line
    out = np.where(seen, one, np.nan)
    edges = np.diff(np.concatenate([[0], (~seen).astype(np.int8), [0]]))
    for begin, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        if (end - begin <= 3 and end < len(one)) or begin < season:
            out[begin:end] = line[begin:end]
            continue
        at = np.arange(begin, end)
        out[begin:end] = out[begin - season + (at - begin) % season]
    return out
