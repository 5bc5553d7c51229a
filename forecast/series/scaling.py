"""Standardisation: fitted on training rows, applied to everything, undone on forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaler:
    """Scale each variate of each series by the mean and deviation of its training rows.

    Attributes:
        mean: (S, C) in the units of the data.
        deviation: (S, C) biased standard deviation; 1 where it would be 0.
        ids: S names of the series the rows of `mean` stand for.
    """

    mean: np.ndarray
    deviation: np.ndarray
    ids: tuple[str, ...]

    @classmethod
    def fit(
        cls, values: np.ndarray, offsets: np.ndarray, ends: np.ndarray, ids: tuple[str, ...]
    ) -> Scaler:
        """Fit on the first `ends[s]` rows of each series, missing cells (NaN) left out.

        Args:
            values: (N, C) rows of all series, NaN where missing.
            offsets: (S + 1,) first row of each series.
            ends: (S,) counts of training rows.
            ids: S names.
        """
        starts = offsets[:-1]
        statistics = [
            _statistics(values[start : start + end])
            for start, end in zip(starts, ends, strict=True)
        ]
        return cls(
            mean=np.stack([mean for mean, _ in statistics]),
            deviation=np.stack([deviation for _, deviation in statistics]),
            ids=ids,
        )

    def for_series(self, ids: Sequence[str], contexts: Sequence[np.ndarray]) -> Scaler:
        """Pick the rows of the named series; a new series is fitted on its own context rows.

        Args:
            ids: names of the series to scale.
            contexts: one (rows, C) array for each of them, NaN where missing.
        """
        known = {name: row for row, name in enumerate(self.ids)}
        mean, deviation = [], []
        for name, context in zip(ids, contexts, strict=True):
            if name in known:
                mean.append(self.mean[known[name]])
                deviation.append(self.deviation[known[name]])
            else:
                own_mean, own_deviation = _statistics(context)
                mean.append(own_mean)
                deviation.append(own_deviation)
        return Scaler(mean=np.stack(mean), deviation=np.stack(deviation), ids=tuple(ids))

    def new_ids(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Name those of `ids` that were not there in training."""
        known = set(self.ids)
        return tuple(name for name in ids if name not in known)

    def apply(self, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Scale (N, C) rows; NaN stays NaN."""
        rows = np.diff(offsets)
        if len(self.ids) == 1:
            return (values - self.mean) / self.deviation
        mean, deviation = np.repeat(self.mean, rows, 0), np.repeat(self.deviation, rows, 0)
        return (values - mean) / deviation

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Bring (S, H, C) scaled forecasts, one per series, back to the units of the data."""
        return values * self.deviation[:, None] + self.mean[:, None]


def rounded(
    values: Float[np.ndarray, "B H C"], deviation: Float[np.ndarray, "B C"]
) -> Float[np.ndarray, "B H C"]:
    """Round to a millionth of a deviation, about what float32 resolves: the rest is noise."""
    scale = 10.0 ** np.ceil(6 - np.log10(deviation))[:, None]
    return np.round(values * scale) / scale


def _statistics(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    observed = np.isfinite(rows)
    count = np.maximum(observed.sum(0), 1)
    mean = np.where(observed, rows, 0.0).sum(0) / count
    variance = np.where(observed, rows - mean, 0.0) ** 2
    deviation = np.sqrt(variance.sum(0) / count)
    # Below the resolution of a double the variate is constant and its deviation is rounding noise.
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(constant, 1.0, deviation)
