"""Missing cells of regular series: held, drawn through, or left as they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int


def fill(
    values: Float[np.ndarray, "N C"],
    offsets: Int[np.ndarray, " S1"],
    how: Literal["hold", "linear"],
) -> Float[np.ndarray, "N C"]:
    """Fill missing cells from those of the same series and variate.

    Args:
        values: NaN where a cell is missing.
        offsets: the first row of each series, and N.
        how: `hold` repeats the last value, so that what comes before the first stays missing;
            `linear` draws a line between two values, so that neither end is filled.
    """
    observed = ~np.isnan(values)
    if observed.all():
        return values
    sizes = np.diff(offsets)
    rows = np.arange(len(values))[:, None]
    start = np.repeat(offsets[:-1], sizes)[:, None]
    before = np.maximum.accumulate(np.where(observed, rows, -1), axis=0)
    known = before >= start
    held = np.take_along_axis(values, np.maximum(before, 0), axis=0)
    if how == "hold":
        return np.where(known, held, np.nan)
    end = np.repeat(offsets[1:], sizes)[:, None]
    backwards = np.where(observed, rows, len(values))[::-1]
    after = np.minimum.accumulate(backwards, axis=0)[::-1]
    known &= after < end
    coming = np.take_along_axis(values, np.minimum(after, len(values) - 1), axis=0)
    share = (rows - before) / np.maximum(after - before, 1)
    return np.where(observed, values, np.where(known, held + (coming - held) * share, np.nan))
