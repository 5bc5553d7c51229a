"""What every closed form of `auto` has in common: the protocol, and arithmetic on ragged panels.

A panel is (N, T): N series whose last row is the same, NaN before a series begins and nowhere else
(`cleaning.cleaned` fills the gaps). An *origin* o is a number of visible rows: a forecast from o
reads columns `[0, o)` alone, and forecasts rows o ... o + H - 1.

Letters: N series, T rows, K origins, H horizon, s rows of a season.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = dict[str, Array]


class Form(Protocol):
    """A forecaster with a closed form."""

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        ...

    def fit(self, values: Array, horizon: int) -> State:
        """Learn from all rows of a panel (N, T); arrays that `forecast` reads."""
        ...

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H) from each origin; NaN where a series is too short."""
        ...


def last_values(values: Array, origins: Sequence[int]) -> Array:
    """Last visible value of each series at each origin, (N, K); NaN where none."""
    at = np.asarray(origins) - 1
    return np.where(at >= 0, values[:, np.maximum(at, 0)], np.nan)


def starts(values: Array) -> NDArray[np.int64]:
    """Index of the first row of each series, (N,); T where a series is empty."""
    seen = np.isfinite(values)
    return np.where(seen.any(1), seen.argmax(1), values.shape[1])


def mean_over(values: Array, axis: int) -> Array:
    """Mean of the finite values along an axis; NaN of none, without a warning."""
    seen = np.isfinite(values)
    count = seen.sum(axis)
    total = np.where(seen, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def deviations(values: Array) -> Array:
    """Deviation of each series over its rows, (N,); 1 for a constant one."""
    centred = values - mean_over(values, 1)[:, None]
    spread = np.sqrt(mean_over(centred**2, 1))
    size = mean_over(np.abs(values), 1)
    return np.where(spread > 1e-9 * np.maximum(size, 1e-300), spread, 1.0)
