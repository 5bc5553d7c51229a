"""A form in logarithms: a multiplicative season and growth in per cent become additive.

Letters: N series, T rows, K origins, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, Form, State


@dataclass(frozen=True)
class Log:
    """Fit and forecast `log(y)` of positive series; NaN for a series that is not positive.

    Attributes:
        form: what forecasts the logarithms.
    """

    form: Form

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return f"log-{self.form.name}"

    def fit(self, values: Array, horizon: int) -> State:
        """Learn from the logarithms."""
        return self.form.fit(_log(values), horizon)

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H); at most ten times the largest value before the origin."""
        ahead = np.exp(np.minimum(self.form.forecast(state, _log(values), origins, horizon), 600))
        positive = np.nan_to_num(values[:, : min(origins)], nan=1.0).min(1, initial=1.0) > 0
        top = np.stack(
            [np.nan_to_num(values[:, :o], nan=0.0).max(1, initial=0.0) for o in origins], axis=1
        )
        ahead = np.minimum(ahead, 10 * top[..., None])
        return np.where(positive[:, None, None], ahead, np.nan)


def _log(values: Array) -> Array:
    """Logarithm of positive values; others count as the smallest positive one of their series."""
    positive = np.where(values > 0, values, np.inf)
    least = positive.min(1, keepdims=True)
    least = np.where(np.isfinite(least), least, 1.0)
    return np.where(np.isfinite(values), np.log(np.maximum(values, least)), np.nan)
