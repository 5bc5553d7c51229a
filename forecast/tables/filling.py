"""Missing cells of regular series, filled for a model to read; what is scored is never filled."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int


def fill(
    values: Float[np.ndarray, "N C"],
    offsets: Int[np.ndarray, " S1"],
    how: Literal["hold", "linear"],
) -> tuple[Float[np.ndarray, "N C"], Int[np.ndarray, "N C"] | None]:
    """Fill missing cells from those of the same series and variate.

    Args:
        values: NaN where a cell is missing.
        offsets: the first row of each series, and N.
        how: `hold` repeats the last value, so that what comes before the first stays missing;
            `linear` draws a line between two values, so that neither end is filled.

    Returns:
        The cells; and the last row that each rests on, itself but for those on a line. None where
        none rests on a later row. A forecast from before that row must not see the cell.
    """
    observed = ~np.isnan(values)
    if observed.all():
        return values, None
    sizes = np.diff(offsets)
    rows = np.arange(len(values))[:, None]
    start = np.repeat(offsets[:-1], sizes)[:, None]
    before = np.maximum.accumulate(np.where(observed, rows, -1), axis=0)
    known = before >= start
    held = np.take_along_axis(values, np.maximum(before, 0), axis=0)
    if how == "hold":
        return np.where(known, held, np.nan), None
    end = np.repeat(offsets[1:], sizes)[:, None]
    backwards = np.where(observed, rows, len(values))[::-1]
    after = np.minimum.accumulate(backwards, axis=0)[::-1]
    known &= after < end
    coming = np.take_along_axis(values, np.minimum(after, len(values) - 1), axis=0)
    share = (rows - before) / np.maximum(after - before, 1)
    drawn = np.where(known, held + (coming - held) * share, np.nan)
    return np.where(observed, values, drawn), np.where(known, after, rows).astype(np.int32)
