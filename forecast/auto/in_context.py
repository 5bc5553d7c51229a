"""`in-context`: a season's mean and a ridge regression fitted on the last rows alone.

Nothing is learned beforehand; every forecast solves its own small regression over the rows before
it, all series pooled. `pretrain.md`'s closed form: the mean of three members, joined by persistence
where a backtest inside the context finds persistence better.

- `level`: the mean of the context's seasons, moved half-way to the last season's level.
- `ridge`: the next H rows minus the last value, from the last `lags` rows minus it.
- `rest`: the season's mean, plus `ridge` on what it leaves.

Source: Akyurek et al. 2023, arXiv 2211.15661 (in-context learners of linear tasks approach ridge).
Letters: N series, L context, H horizon, a lags, K origins, s season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, State, deviations, mean_over
from forecast.auto.gram import window_gram
from forecast.auto.ridge import contexts, reference_weight


@dataclass(frozen=True, kw_only=True)
class InContext:
    """Mean of `level`, `ridge` and `rest` over the last rows.

    Attributes:
        season: rows of a season (s).
        context: rows it reads (L); 0 is three horizons, at least 1,024.
        lags: rows that the regression reads (a).
        penalty: added to the Gram matrix's diagonal, of rows of deviation 1.
        level: share of the last season's level in the season's mean.
        backtest: let persistence join where it is better inside the context.
    """

    season: int
    context: int = 0
    lags: int = 96
    penalty: float = 1.0
    level: float = 0.5
    backtest: bool = True

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"in-context-{self.season}" + (f"-{self.context}" if self.context else "")

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned beforehand."""
        return {}

    def rows(self, horizon: int) -> int:
        """Rows of the context (L)."""
        return self.context or max(1024, 3 * horizon)

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H) from the rows before each origin."""
        ahead = [
            self._one(values[:, max(0, origin - self.rows(horizon)) : origin], horizon)
            for origin in origins
        ]
        return np.stack(ahead, axis=1)

    def _one(self, past: Array, horizon: int) -> Array:
        mean = self.members(past, horizon)
        if not self.backtest:
            return mean
        rows, season = past.shape[1], self.season
        scale = deviations(past)[:, None]
        errors = np.zeros(2)
        for k in range(4):
            cut = rows - horizon - k * season
            if cut < max(16, horizon, 2 * season):
                break
            truth = past[:, cut : cut + horizon]
            for i, ahead in enumerate(
                (self.members(past[:, :cut], horizon), past[:, cut - 1 : cut])
            ):
                error = ((truth - ahead) / scale) ** 2
                errors[i] += np.nansum(error)
        if errors[1] < errors[0]:
            return 0.5 * mean + 0.5 * past[:, -1:]
        return mean

    def members(self, past: Array, horizon: int) -> Array:
        """Mean of the three members over a context (N, L), (N, H)."""
        rows = past.shape[1]
        if rows == 0:
            return np.full((len(past), horizon), np.nan)
        if rows < 16:
            return np.repeat(past[:, -1:], horizon, axis=1)
        level = level_forecast(past, self.season, horizon, self.level)
        ridge = self._ridge(past, horizon)
        table = season_table(past, self.season)
        if table is None:
            return (level + ridge) / 2
        place = np.arange(rows + horizon) - rows
        profile = table[:, place % self.season]
        rest = self._ridge(past - profile[:, :rows], horizon) + profile[:, rows:]
        return (level + ridge + rest) / 3

    def _ridge(self, past: Array, horizon: int) -> Array:
        """Ridge in context, appended to itself where the horizon is too long for the context."""
        count, rows = past.shape
        lags = max(1, min(self.lags, (rows - horizon) // 3 if rows > horizon + 6 else rows // 4))
        step = min(horizon, max(1, rows - 2 * lags))
        scale = deviations(past)
        scaled = past / scale[:, None]
        gram, windows = window_gram(scaled - mean_over(scaled, 1)[:, None], lags + step)
        if windows == 0:
            return np.repeat(past[:, -1:], horizon, axis=1)
        weights = _solve(gram / windows, lags, self.penalty)
        made = np.empty((count, 0))
        now = contexts(scaled, [rows], lags)[:, 0]
        while made.shape[1] < horizon:
            last = now[:, -1:]
            ahead = (now - last) @ weights + last
            made = np.concatenate([made, ahead], axis=1)
            now = np.concatenate([now, ahead], axis=1)[:, -lags:]
        return made[:, :horizon] * scale[:, None]


def _solve(gram: Array, lags: int, penalty: float) -> Array:
    """Ridge weights (a, H) of windows minus their last value, penalty absolute."""
    weight = reference_weight(lags, 1, "last")
    past, cross = gram[:lags, :lags], gram[:lags, lags:]
    along = past @ weight
    square = float(weight @ along)
    left = past - along[None, :] - along[:, None] + square
    right = cross - along[:, None] - (weight @ cross)[None, :] + square
    left[np.diag_indices(lags)] += penalty
    return np.asarray(np.linalg.solve(left, right), dtype=np.float64)


def season_table(past: Array, season: int) -> Array | None:
    """Mean of each position of the season over the whole seasons of a context, (N, s).

    Position 0 is the row after the context. None where there are not two seasons.
    """
    seasons = past.shape[1] // season
    if seasons < 2 or season < 2:
        return None
    folded = past[:, past.shape[1] - seasons * season :].reshape(len(past), seasons, season)
    table = mean_over(folded, 1)
    return np.where(np.isfinite(table), table, mean_over(past, 1)[:, None])


def level_forecast(past: Array, season: int, horizon: int, level: float) -> Array:
    """Season's mean, moved by a share of how far the last season lies from it, (N, H)."""
    table = season_table(past, season)
    ahead = np.arange(horizon)
    rows = past.shape[1]
    if table is None:
        return past[:, rows - min(season, rows) :][:, ahead % min(season, rows)]
    shift = mean_over(past[:, -season:], 1) - table.mean(1)
    return table[:, ahead % season] + level * shift[:, None]
