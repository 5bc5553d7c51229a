"""Exponential smoothing of all series at once: level, damped trend, additive season.

One recurrence runs over the rows with every series and every setting of a grid side by side; each
series keeps the setting with the smallest AICc of its one-step errors. In logarithms
(`transformed.Log`) the additive season is a multiplicative one.

    forecast   l + phi b + c                       (c: the position's seasonal term)
    level      l <- l + phi b + alpha e            (e: the one-step error)
    trend      b <- phi b + alpha beta e
    season     c <- c + gamma (1 - alpha) e

Source: Hyndman, Koehler, Ord and Snyder 2008, "Forecasting with Exponential Smoothing", eqs 2.10
and 2.11, ETS(A, Ad, A) in innovations form.
Letters: N series, T rows, G settings, K origins, H horizon, s rows of a season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from forecast.auto.form import Array, State, mean_over

_CHUNK = 512
_ALPHA = (0.03, 0.1, 0.2, 0.35, 0.55, 0.8, 0.98)
_TREND = ((0.0, 0.0), (0.05, 0.9), (0.2, 0.9), (0.05, 0.98), (0.2, 0.98))
_GAMMA = (0.02, 0.15, 0.4)


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Exponential smoothing with settings chosen per series.

    Attributes:
        season: rows of a season (s); 1 is none.
        trend: allow a damped trend.
        rows: most rows that the recurrence reads; 0 is 400, at least ten seasons.
    """

    season: int = 1
    trend: bool = True
    rows: int = 0

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"smoothing-{self.season}" + ("" if self.trend else "-level")

    def _rows(self) -> int:
        return self.rows or max(400, 10 * self.season)

    def _grid(self) -> Array:
        """List the settings (G, 5): alpha, beta, phi, gamma, number of parameters."""
        trends = _TREND if self.trend else _TREND[:1]
        grid = [(a, b, phi, 0.0, 2 + 3 * (b > 0)) for a, (b, phi) in product(_ALPHA, trends)]
        if self.season > 1:
            more = self.season + 1
            grid += [
                (a, b, phi, g, 2 + 3 * (b > 0) + more)
                for a, (b, phi), g in product(_ALPHA, trends, _GAMMA)
            ]
        return np.asarray(grid)

    def fit(self, values: Array, horizon: int) -> State:
        """Choose a setting for each series, (N, 5)."""
        past, grid = values[:, -self._rows() :], self._grid()
        rows = [self._choose(past[k : k + _CHUNK], grid) for k in range(0, len(past), _CHUNK)]
        return {"settings": np.concatenate(rows)}

    def _choose(self, past: Array, grid: Array) -> Array:
        count = np.isfinite(past).sum(1)
        best = np.full(len(past), np.inf)
        chosen = np.zeros((len(past), grid.shape[1]))
        for seasonal in (False, True):
            part = grid[(grid[:, 3] > 0) == seasonal]
            if not len(part):
                continue
            season = self.season if seasonal else 1
            _, square = _run(past, part[:, None, :4], season, [])
            degrees = count[None, :] - part[:, 4:5] - 1
            score = count * np.log(np.maximum(square, 1e-300)) + 2 * part[:, 4:5] * (
                count / np.maximum(degrees, 1e-9)
            )
            score = np.where((degrees > 0) | (part[:, 4:5] == part[0, 4]), score, np.inf)
            if seasonal:
                score = np.where(count >= 2 * season + 2, score, np.inf)
            pick = score.argmin(0)
            value = score[pick, np.arange(len(past))]
            better = value < best
            best = np.where(better, value, best)
            chosen[better] = part[pick[better]]
        return chosen

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        begin = max(0, min(origins) - self._rows())
        settings = state["settings"]
        if len(settings) != len(values):
            settings = self.fit(values[:, : min(origins)], horizon)["settings"]
        ahead = np.full((len(values), len(origins), horizon), np.nan)
        cuts = [o - begin for o in origins]
        for seasonal in (False, True):
            kept = np.flatnonzero((settings[:, 3] > 0) == seasonal)
            if not len(kept):
                continue
            season = self.season if seasonal else 1
            past = values[kept, begin : max(origins)]
            states, _ = _run(past, settings[None, kept, :4], season, cuts)
            for k, (level, slope, table) in enumerate(states):
                damp = np.cumsum(settings[kept, 2:3] ** np.arange(1, horizon + 1), axis=1)
                place = (cuts[k] + np.arange(horizon)) % season
                ahead[kept, k] = level[0][:, None] + damp * slope[0][:, None] + table[0][:, place]
        return ahead


def _run(
    past: Array, settings: Array, season: int, cuts: Sequence[int]
) -> tuple[list[tuple[Array, Array, Array]], Array]:
    """Run the recurrence; states after `cut` rows for each cut, and the mean squared error (G, N).

    Args:
        past: (N, R), NaN before a series begins.
        settings: alpha, beta, phi, gamma, (G, 1 or N, 4).
        season: rows of a season.
        cuts: numbers of rows, after which the states are kept.
    """
    count, rows = past.shape
    groups = len(settings)
    alpha, beta, phi, gamma = (np.broadcast_to(settings[..., k], (groups, count)) for k in range(4))
    begins = np.where(np.isfinite(past).any(1), np.isfinite(past).argmax(1), rows)
    level, table = _opening(past, begins, season)
    level = np.broadcast_to(level, (groups, count)).copy()
    table = np.broadcast_to(table, (groups, count, season)).copy()
    slope = np.zeros((groups, count))
    square, seen_rows = np.zeros((groups, count)), np.zeros(count)
    wanted = {cut: k for k, cut in enumerate(cuts)}
    states: list[tuple[Array, Array, Array]] = [(level, slope, table)] * len(cuts)
    settle = alpha * beta
    turn = gamma * (1 - alpha)
    for t in range(rows + 1):
        if t in wanted:
            states[wanted[t]] = (level.copy(), slope.copy(), table.copy())
        if t == rows:
            break
        seen = begins <= t
        place = t % season
        drift = level + phi * slope
        error = np.where(seen, past[:, t] - drift - table[:, :, place], 0.0)
        level = np.where(seen, drift + alpha * error, level)
        slope = np.where(seen, phi * slope + settle * error, slope)
        if season > 1:
            table[:, :, place] += turn * error
        square += error * error
        seen_rows += seen
    return states, square / np.maximum(seen_rows, 1)


def _opening(past: Array, begins: Array, season: int) -> tuple[Array, Array]:
    """First level (N,) and seasonal terms (N, s) from a series' first seasons."""
    count, rows = past.shape
    if season < 2:
        few = np.minimum(begins[:, None] + np.arange(4), rows - 1)
        level = mean_over(past[np.arange(count)[:, None], few], 1)
        return np.where(np.isfinite(level), level, 0.0), np.zeros((count, 1))
    at = begins[:, None] + np.arange(4 * season)  # four seasons at most
    inside = np.minimum(at, rows - 1)
    seen = np.where(at < rows, past[np.arange(count)[:, None], inside], np.nan)
    folded = seen.reshape(count, 4, season)
    whole = np.asarray(np.isfinite(folded).all(2))
    means = np.where(whole, mean_over(folded, 2), np.nan)
    table = mean_over(np.where(whole[..., None], folded - means[..., None], np.nan), 1)
    table = np.where(np.isfinite(table), table, 0.0)
    level = np.where(whole[:, 0], means[:, 0], mean_over(folded[:, 0], 1))
    # Column j of `table` is row begins + j: turned to the row's own position in the panel.
    place = (np.arange(season)[None, :] - begins[:, None]) % season
    turned = np.take_along_axis(table, place.astype(np.int64), axis=1)
    return np.where(np.isfinite(level), level, 0.0), turned
