"""Sums over all sliding windows of a panel, without visiting the windows.

The Gram matrix of every window of B rows, `G[i, j] = sum_p x[p + i] x[p + j]`, follows from its
first row, because shifting both indices by one drops one product and adds another:
`G[i+1, j+1] = G[i, j] - x[p0+i] x[p0+j] + x[p1+1+i] x[p1+1+j]`. That costs O(B T + B^2) a series
where the windows themselves would cost O(B^2 T), and is exact.

Letters: N series, T rows, B rows of a window.
"""

from __future__ import annotations

import numpy as np

from forecast.auto.form import Array, starts


def window_gram(values: Array, rows: int) -> tuple[Array, int]:
    """Gram matrix (B, B) of all windows of `rows` rows, summed over series, and their number.

    Args:
        values: (N, T), NaN before a series begins; a series shorter than B rows counts not at all.
        rows: rows of a window (B).
    """
    begins = starts(values)
    long_enough = values.shape[1] - begins >= rows
    kept, begins = values[long_enough], begins[long_enough]
    total = values.shape[1]
    if not len(kept):
        return np.zeros((rows, rows)), 0
    kept = np.where(np.isfinite(kept), kept, 0.0)
    windows = total - rows + 1
    first = _first_row(kept, rows, windows)
    head = kept[np.arange(len(kept))[:, None], begins[:, None] + np.arange(rows)]
    tail = kept[:, windows - 1 :]
    # Row i of the change is known before row i of the Gram matrix is: one product for all.
    gram = np.empty((rows, rows))
    gram[0] = first
    after = np.zeros((len(kept), rows))
    after[:, :-1] = tail[:, 1:]
    change = after.T @ after - head.T @ head
    for i in range(rows - 1):
        gram[i + 1, i + 1 :] = gram[i, i:-1] + change[i, i:-1]
    lower = np.tril_indices(rows, -1)
    gram[lower] = gram.T[lower]
    return gram, int((total - rows + 1 - begins).sum())


def _first_row(kept: Array, rows: int, windows: int) -> Array:
    """`sum_p x[p] x[p + j]` over series and windows, (B,)."""
    if windows < 128:
        ahead = np.lib.stride_tricks.sliding_window_view(kept, windows, axis=1)  # (N, B, P)
        return np.einsum("np,nbp->b", kept[:, :windows], ahead, optimize=False)
    first = np.zeros(rows)
    for one in kept:
        first += np.correlate(one, one[:windows], "valid")
    return first
