"""Croston and TSB: demand that is often zero.

Croston smooths the sizes of the demands and the rows between them; TSB smooths the sizes, and the
probability of a demand at every row, so that it falls while nothing sells.

Sources: Croston 1972, with the factor 1 - alpha / 2 of Syntetos and Boylan 2005; Teunter, Syntetos
and Babai 2011, eqs 2 and 3 (TSB). Letters: N series, R rows, K origins, H horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, State


@dataclass(frozen=True, kw_only=True)
class Intermittent:
    """Constant forecast of the mean demand per row.

    Attributes:
        method: `croston` or `tsb`.
        alpha: weight of the newest demand.
        rows: most rows that are read.
    """

    method: str = "tsb"
    alpha: float = 0.1
    rows: int = 1024

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        return self.method

    def fit(self, values: Array, horizon: int) -> State:
        """Nothing is learned beforehand."""
        return {}

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H)."""
        begin = max(0, min(origins) - self.rows)
        rates = self._rates(values[:, begin : max(origins)], [o - begin for o in origins])
        return np.repeat(rates[..., None], horizon, axis=-1)

    def _rates(self, past: Array, cuts: Sequence[int]) -> Array:
        """Demand per row after each cut, (N, K)."""
        count, rows = past.shape
        sold = np.isfinite(past) & (past != 0)
        share = sold.sum(1) / np.maximum(np.isfinite(past).sum(1), 1)
        first = np.where(sold.any(1), sold.argmax(1), 0)
        size = np.where(sold.any(1), past[np.arange(count), first] if rows else 0.0, 0.0)
        gap = 1.0 / np.maximum(share, 1e-9)
        chance, since = share.copy(), np.ones(count)
        rates = np.zeros((count, len(cuts)))
        for t in range(rows + 1):
            for k, cut in enumerate(cuts):
                if cut == t:
                    rates[:, k] = (
                        size * chance if self.method == "tsb" else (1 - self.alpha / 2) * size / gap
                    )
            if t == rows:
                break
            now, seen = sold[:, t], np.isfinite(past[:, t])
            size = np.where(now, size + self.alpha * (past[:, t] - size), size)
            gap = np.where(now, gap + self.alpha * (since - gap), gap)
            since = np.where(now, 1.0, since + seen)
            chance = np.where(seen, chance + self.alpha / 2 * (now - chance), chance)
        return rates
