"""Scores of quantile forecasts as functions of plain arrays.

Letters: N series, W windows, H horizon, Q quantile levels, T rows of history.
Every function skips truth that is not finite.

Sources: Hyndman and Koehler 2006 (MASE, sMAPE), Makridakis et al. 2020 (MSIS, RMSSE), Gneiting
and Raftery 2007 (quantile score, CRPS); WQL as in GluonTS, `mean_weighted_sum_quantile_loss`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVELS: tuple[float, ...] = tuple(round(0.05 * k, 2) for k in range(1, 20))
WQL_LEVELS: tuple[float, ...] = tuple(round(0.1 * k, 1) for k in range(1, 10))


def _ratio(above: float, below: float) -> float:
    """Quotient; NaN where nothing is to be divided by."""
    return float(above / below) if np.isfinite(below) and below > 0 else float("nan")


def _mean(values: Array) -> float:
    """Mean of the finite values; NaN of none."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def at_level(quantiles: Array, levels: tuple[float, ...], level: float) -> Array:
    """Quantile at one level, linear between neighbouring levels, (..., Q) -> (...)."""
    known = np.asarray(levels)
    right = int(np.clip(np.searchsorted(known, level - 1e-9), 0, len(levels) - 1))
    if abs(known[right] - level) < 1e-9 or right == 0:
        return quantiles[..., right]
    share = min(1.0, float((level - known[right - 1]) / (known[right] - known[right - 1])))
    return (1 - share) * quantiles[..., right - 1] + share * quantiles[..., right]


def pinball(truth: Array, forecast: Array, level: float) -> Array:
    """Quantile loss `2 max(q e, (q - 1) e)`, elementwise, e = truth - forecast."""
    error = truth - forecast
    return 2.0 * np.maximum(level * error, (level - 1.0) * error)


def wql(truth: Array, quantiles: Array, levels: tuple[float, ...] = LEVELS) -> float:
    """Weighted quantile loss: mean over .1 ... .9 of the summed loss over the summed |truth|.

    Args:
        truth: (..., H).
        quantiles: (..., H, Q), sorted here.
        levels: the Q levels.
    """
    seen = np.isfinite(truth)
    ordered = np.sort(quantiles, axis=-1)
    losses = [
        np.where(seen, pinball(truth, at_level(ordered, levels, q), q), 0.0).sum()
        for q in WQL_LEVELS
    ]
    return _ratio(float(np.mean(losses)), float(np.abs(truth[seen]).sum()))


def crps(truth: Array, quantiles: Array, levels: tuple[float, ...] = LEVELS) -> Array:
    """Continuous ranked probability score by the mean quantile loss over the levels, (...)."""
    ordered = np.sort(quantiles, axis=-1)
    return np.mean([pinball(truth, ordered[..., k], q) for k, q in enumerate(levels)], axis=0)


def seasonal_scale(history: Array, season: int, power: int = 1) -> Array:
    """Mean |y_t - y_{t-m}|^power over all rows of each series, (N, T) -> (N,); NaN where zero.

    Source: Hyndman and Koehler 2006, eq. 4; the season is 1 where the history is not longer.
    """
    lag = season if history.shape[1] > season else 1
    steps = np.abs(history[:, lag:] - history[:, :-lag]) ** power
    count = np.isfinite(steps).sum(1)
    scale = np.where(np.isfinite(steps), steps, 0.0).sum(1) / np.maximum(count, 1)
    return np.where((count > 0) & (scale > 0), scale, np.nan)


def mase(truth: Array, forecast: Array, scale: Array) -> float:
    """Mean |error| over the naive error of the history, averaged over windows and series.

    Args:
        truth: (N, H).
        forecast: (N, H), the median.
        scale: (N,) from `seasonal_scale`; NaN leaves the series out.
    """
    return _mean(mean_rows(np.abs(truth - forecast)) / scale)


def mean_rows(values: Array) -> Array:
    """Mean over the finite values of the last axis; NaN where there are none."""
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0).sum(-1)
    count = seen.sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def rmsse(truth: Array, forecast: Array, scale: Array) -> float:
    """Root of the mean squared error over the naive one (`seasonal_scale` with power 2)."""
    return _mean(np.sqrt(mean_rows((truth - forecast) ** 2) / scale))


def wape(truth: Array, forecast: Array) -> float:
    """Share of the summed |error| in the summed |truth|."""
    seen = np.isfinite(truth)
    return _ratio(float(np.abs(truth - forecast)[seen].sum()), float(np.abs(truth[seen]).sum()))


def smape(truth: Array, forecast: Array) -> float:
    """Mean of `2 |error| / (|truth| + |forecast|)`; 0 where both are zero."""
    size = np.abs(truth) + np.abs(forecast)
    part = np.divide(2.0 * np.abs(truth - forecast), size, out=np.zeros_like(size), where=size != 0)
    return _mean(np.where(np.isfinite(truth), part, np.nan))


def msis(
    truth: Array, low: Array, high: Array, scale: Array, coverage_level: float = 0.95
) -> float:
    """Mean scaled interval score of a central interval, over the naive error of the history."""
    factor = 2.0 / (1.0 - coverage_level)
    score = high - low + factor * (np.maximum(low - truth, 0) + np.maximum(truth - high, 0))
    return _mean(mean_rows(np.where(np.isfinite(truth), score, np.nan)) / scale)


def coverage(truth: Array, low: Array, high: Array) -> float:
    """Share of the truth inside [low, high]."""
    seen = np.isfinite(truth)
    inside = (truth >= low) & (truth <= high)
    return _ratio(float(inside[seen].sum()), float(seen.sum())) if seen.any() else float("nan")
