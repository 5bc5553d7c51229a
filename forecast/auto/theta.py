"""Theta: the mean of a line and of exponential smoothing, on seasonally adjusted series.

The mean of theta line 0 (the linear trend) and theta line 2 (smoothed) equals simple exponential
smoothing with half the trend's slope as drift. The season is adjusted where the autocorrelation at
one season passes the 90 % test, by ratios to the moving average (differences where a value is not
positive).

Source: Assimakopoulos and Nikolopoulos 2000; Hyndman and Billah 2003, eq. 9 (the equivalence);
Makridakis et al. 2020 (the test, in the M4 benchmark's code).
Letters: N series, R rows, G settings, K origins, H horizon, s rows of a season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, State, mean_over

_ALPHA = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Theta:
    """Simple exponential smoothing with half the trend as drift.

    Attributes:
        season: rows of a season (s); 1 is none.
        rows: most rows that are read; 0 is 400, at least ten seasons.
    """

    season: int = 1
    rows: int = 0

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"theta-{self.season}"

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned beforehand."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        rows = self.rows or max(400, 10 * self.season)
        ahead = [self._one(values[:, max(0, o - rows) : o], horizon) for o in origins]
        return np.stack(ahead, axis=1)

    def _one(self, past: Array, horizon: int) -> Array:
        if past.shape[1] == 0:
            return np.full((len(past), horizon), np.nan)
        seen = np.isfinite(past)
        count = seen.sum(1)
        positive = np.where(seen, past, 1.0).min(1) > 0
        table = np.zeros((len(past), 1))
        season = self.season
        if season > 1:
            table = season_indices(past, season, positive) * is_seasonal(past, season)[:, None]
        place = (np.arange(past.shape[1] + horizon) - past.shape[1]) % table.shape[1]
        pattern = table[:, place]
        factor = np.where(positive[:, None], np.exp(pattern), 1.0)
        term = np.where(positive[:, None], 0.0, pattern)
        rows = past.shape[1]
        adjusted = past / factor[:, :rows] - term[:, :rows]
        slope = _slope(adjusted)
        level, alpha = _smooth(adjusted)
        # The smoothed line lags behind the trend by (1 - (1 - alpha)^n) / alpha rows.
        lag = (1 - (1 - alpha) ** count) / alpha
        ahead = level[:, None] + 0.5 * slope[:, None] * (np.arange(horizon) + lag[:, None])
        return (ahead + term[:, rows:]) * factor[:, rows:]


def _slope(past: Array) -> Array:
    """Least-squares slope of each series over its rows, (N,)."""
    seen = np.isfinite(past)
    time = np.where(seen, np.arange(past.shape[1], dtype=np.float64), np.nan)
    time = time - mean_over(time, 1)[:, None]
    centred = past - mean_over(past, 1)[:, None]
    below = np.where(seen, time**2, 0.0).sum(1)
    return np.where(seen, time * centred, 0.0).sum(1) / np.maximum(below, 1e-12)


def _smooth(past: Array) -> tuple[Array, Array]:
    """Smooth exponentially with the best alpha of a grid: last level and alpha, (N,)."""
    seen = np.isfinite(past)
    begins = np.where(seen.any(1), seen.argmax(1), past.shape[1] - 1)
    alpha = np.asarray(_ALPHA)[:, None]
    level = np.repeat(past[np.arange(len(past)), begins][None], len(_ALPHA), axis=0)
    square = np.zeros_like(level)
    for t in range(past.shape[1]):
        error = np.where(seen[:, t], past[:, t] - level, 0.0)
        level = level + alpha * error
        square += error * error
    best = square.argmin(0)
    return level[best, np.arange(len(past))], np.asarray(_ALPHA)[best]


def is_seasonal(past: Array, season: int) -> Array:
    """1 where the autocorrelation at one season passes the 90 % test, (N,)."""
    count = np.isfinite(past).sum(1)
    centred = np.nan_to_num(past - mean_over(past, 1)[:, None])
    square = np.maximum((centred**2).sum(1), 1e-300)
    lags = [
        (centred[:, k:] * centred[:, :-k]).sum(1) / square
        for k in range(1, min(season, past.shape[1] - 1) + 1)
    ]
    if len(lags) < season:
        return np.zeros(len(past))
    spread = 1 + 2 * sum((r**2 for r in lags[:-1]), np.zeros(len(past)))
    limit = 1.645 * np.sqrt(spread / np.maximum(count, 1))
    return ((np.abs(lags[-1]) > limit) & (count >= 3 * season)).astype(np.float64)


def season_indices(past: Array, season: int, positive: Array) -> Array:
    """Seasonal terms (N, s), in logarithms where `positive`; column 0 is the row after the past.

    Ratios (differences) of the rows to a centred moving average of one season, their means by
    position, centred on 0.
    """
    rows = past.shape[1]
    if rows < 2 * season + 1:
        return np.zeros((len(past), season))
    sums = np.cumsum(np.nan_to_num(past), axis=1)
    sums = np.concatenate([np.zeros((len(past), 1)), sums], axis=1)
    seen = np.cumsum(np.isfinite(past), axis=1)
    seen = np.concatenate([np.zeros((len(past), 1)), seen], axis=1)
    flat = (sums[:, season:] - sums[:, :-season]) / season
    flat = np.where(seen[:, season:] - seen[:, :-season] == season, flat, np.nan)
    half = season // 2
    if season % 2 == 0:
        flat = (flat[:, 1:] + flat[:, :-1]) / 2
    inner = past[:, half : half + flat.shape[1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(positive[:, None], np.log(inner / flat), inner - flat)
    ratio = np.where(np.isfinite(ratio), ratio, np.nan)
    place = (np.arange(flat.shape[1]) + half - rows) % season
    table = np.stack([mean_over(ratio[:, place == k], 1) for k in range(season)], axis=1)
    table = np.where(np.isfinite(table), table, 0.0)
    return table - table.mean(1, keepdims=True)
