"""Standardisation: fitted on training rows, applied to everything, undone on forecasts.

A series without training rows has one rule, in evaluation, prediction and streams: it is scaled by
rows before the origin alone. A model that reads a window takes the rows of that window
(`by_own_rows`), one that carries a state all rows of the series so far (`running`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.batch import Forecast, SeriesBatch

# Below the resolution of a double a variate is constant, and its deviation is rounding noise.
_CONSTANT = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaler:
    """Scale each variate of each series by the mean and deviation of its training rows.

    Attributes:
        mean: (S, C) in the units of the data.
        deviation: (S, C) biased standard deviation; 1 where it would be 0.
        ids: S names of the series the rows of `mean` stand for.
        new: those of them that have no training rows.
    """

    mean: np.ndarray
    deviation: np.ndarray
    ids: tuple[str, ...]
    new: frozenset[str] = field(default_factory=frozenset[str])

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
        return Scaler(
            mean=np.stack(mean),
            deviation=np.stack(deviation),
            ids=tuple(ids),
            new=frozenset(ids) - frozenset(known),
        )

    def units(self) -> Float[np.ndarray, "S C"] | None:
        """Return 1 in the units of the data, scaled, for new series and NaN for others.

        None if no series is new.
        """
        if not self.new:
            return None
        unseen = np.array([name in self.new for name in self.ids])
        return np.where(unseen[:, None], 1 / self.deviation, np.nan)

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


class Scale(NamedTuple):
    """How samples were scaled: (B, 1, C) mean and deviation."""

    mean: Float[Tensor, "B 1 C"]
    deviation: Float[Tensor, "B 1 C"]

    def undo(self, values: Float[Tensor, "... B H C"]) -> Float[Tensor, "... B H C"]:
        """Bring values back to the space of the series."""
        return values * self.deviation.to(values) + self.mean.to(values)

    def undo_forecast(self, forecast: Forecast) -> Forecast:
        """Bring a forecast back, its quantiles too."""
        if not forecast.quantiles:
            return replace(forecast, values=self.undo(forecast.values))
        return replace(forecast, values=self.undo(forecast.values.movedim(-1, 0)).movedim(0, -1))


def by_own_rows(
    batch: SeriesBatch, unit: Float[Tensor, "B C"] | None
) -> tuple[SeriesBatch, Scale | None]:
    """Scale windows of new series by the mean and deviation of the rows in each of them.

    Args:
        batch: windows.
        unit: the deviation that stands in for that of constant rows; NaN for a window that is
            scaled already; None if all are.

    Returns:
        The windows with their targets, and how they were scaled.
    """
    if unit is None or bool(unit.isnan().all()):
        return batch, None
    past = batch.past.double()
    seen = torch.ones_like(past) if batch.past_mask is None else batch.past_mask.double()

    def total(values: Tensor) -> Tensor:
        # Row by row, so that no bit depends on the size of the batch.
        return values.cumsum(1)[:, -1:]

    count = total(seen).clamp(min=1)
    mean = total(past * seen) / count
    deviation = (total((past - mean).square() * seen) / count).sqrt()
    one = unit.double()[:, None]
    # As `Scaler` does, in units of the data.
    constant = deviation <= _CONSTANT * torch.maximum(mean.abs(), one)
    known = one.isnan()
    scale = Scale(
        mean=torch.where(known, 0.0, mean),
        deviation=torch.where(known, 1.0, torch.where(constant, one, deviation)),
    )

    def scaled(values: Tensor, mask: Tensor | None) -> Tensor:
        own = ((values - scale.mean) / scale.deviation).to(values.dtype)
        return own if mask is None else torch.where(mask, own, 0.0)

    target = None if batch.target is None else scaled(batch.target, batch.target_mask)
    own = replace(batch, past=scaled(batch.past, batch.past_mask), target=target)
    return own, scale


def running(
    values: Float[np.ndarray, "L C"],
) -> tuple[Float[np.ndarray, "L C"], Float[np.ndarray, "L C"]]:
    """Take the mean and deviation of the observed rows up to each row of a series.

    Args:
        values: in order of time, NaN where a cell is missing.

    Returns:
        Mean and deviation; NaN and 1 before the first observed cell.
    """
    observed = np.isfinite(values)
    first = np.take_along_axis(values, observed.argmax(0)[None], 0)[0]
    away = np.where(observed, values - first, 0.0)
    return moments(first, observed.cumsum(0), away.cumsum(0), np.square(away).cumsum(0))


def so_far(
    values: Float[np.ndarray, "L C"], mean: np.ndarray, deviation: np.ndarray
) -> tuple[Float[np.ndarray, "L C"], Float[np.ndarray, "L C"]]:
    """Take `running` mean and deviation in the space of a scaler with this mean and deviation."""
    center, spread = running(values)
    return np.where(np.isnan(center), 0.0, (center - mean) / deviation), spread / deviation


def moments(
    first: np.ndarray, count: np.ndarray, total: np.ndarray, square: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn sums over observed rows into their mean and deviation.

    Args:
        first: the first observed value, from which distances are taken; NaN before there is one.
        count: observed rows.
        total: sum of their distances.
        square: sum of the squared distances.
    """
    rows = np.maximum(count, 1)
    away = total / rows
    deviation = np.sqrt(np.maximum(square / rows - np.square(away), 0.0))
    mean = np.where(count > 0, first + away, np.nan)
    # What the subtraction leaves of equal numbers is noise as well.
    noise = np.maximum(_CONSTANT * np.fmax(np.abs(mean), 1.0), 1e-7 * np.abs(away))
    return mean, np.where(deviation <= noise, 1.0, deviation)


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
    constant = deviation <= _CONSTANT * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(constant, 1.0, deviation)
