"""Rules: persistence, seasonal naive, drift, the season's mean with level, and a season in a year.

Letters: N series, T rows, K origins, H horizon, s rows of a season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, State, last_values, mean_over, starts
from forecast.auto.in_context import level_forecast


@dataclass(frozen=True, kw_only=True)
class SeasonalNaive:
    """Repeat the last season; persistence with a season of one row."""

    season: int = 1

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"seasonal-naive-{self.season}" if self.season > 1 else "persistence"

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H); a position that was never seen repeats the last value."""
        at = np.asarray(origins)[:, None] - self.season + np.arange(horizon) % self.season
        ahead = np.where(at >= 0, values[:, np.maximum(at, 0)], np.nan)
        return np.where(np.isfinite(ahead), ahead, last_values(values, origins)[..., None])


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Continue the line from the first value to the last.

    Source: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", section 5.2.
    """

    name: str = "drift"

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        begins = starts(values)
        last = last_values(values, origins)
        first = values[np.arange(len(values)), np.minimum(begins, values.shape[1] - 1)]
        rows = np.asarray(origins)[None, :] - begins[:, None]
        slope = np.where(rows > 1, (last - first[:, None]) / np.maximum(rows - 1, 1), 0.0)
        return last[..., None] + slope[..., None] * np.arange(1, horizon + 1)


@dataclass(frozen=True, kw_only=True)
class SeasonMean:
    """Mean of the last seasons, position by position, moved towards the last season's level.

    Attributes:
        season: rows of a season (s).
        seasons: seasons that the mean is over.
        level: share of the last season's level.
    """

    season: int
    seasons: int = 8
    level: float = 0.5

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"season-mean-{self.season}-{self.seasons}"

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        rows = self.season * self.seasons
        ahead = [
            level_forecast(values[:, max(0, o - rows) : o], self.season, horizon, self.level)
            if o
            else np.full((len(values), horizon), np.nan)
            for o in origins
        ]
        return np.stack(ahead, axis=1)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean of the last rows.

    Attributes:
        rows: rows that the mean is over; 0 is all of them.
    """

    rows: int = 0

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"mean-{self.rows}" if self.rows else "mean"

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        means = [
            mean_over(values[:, max(0, o - self.rows) if self.rows else 0 : o], 1) for o in origins
        ]
        return np.repeat(np.stack(means, axis=1)[..., None], horizon, axis=-1)
