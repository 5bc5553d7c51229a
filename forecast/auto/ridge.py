"""Ridge regression on long lookbacks, all series pooled, from one Gram matrix.

`Y = X W`, X the last a rows minus a reference r, Y the next H rows minus the same reference:
the last value, the mean of the last season, or the mean of the whole lookback. The reference is
linear in the window, `r = u'z`, so the Gram matrix of what is left follows from the raw one:
`P G P'` with `P = I - 1 u'`, whatever the lookback and the reference.

Source: Toner and Darlow 2024, "An Analysis of Linear Time Series Forecasting Models", arXiv
2403.14587 (ordinary least squares over all windows is the optimum of every linear forecaster).
Letters: N series, T rows, a lookback, B = a + H, H horizon, K origins, s season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecast.auto.form import Array, State, deviations, mean_over
from forecast.auto.gram import window_gram

REFERENCES = ("last", "season", "window")


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Direct linear forecast of all H rows from the last a.

    Attributes:
        lookback: rows it reads (a).
        season: rows that the reference `season` means.
        reference: what is taken from every window: `last`, `season` or `window`.
        penalty: share of the Gram matrix's mean diagonal that is added to it.
        scale: what a series is divided by before pooling: its deviation, or its seasonal step
            (`step`), which lets a series of small, regular seasons on a large trend count.
        own: a regression for each series instead of one for all.
        pull: share of a series' mean diagonal with which its weights are drawn to the common ones,
            with `own`; a random-effects prior in place of a penalty towards 0.
    """

    lookback: int
    season: int = 1
    reference: str = "last"
    penalty: float = 3e-3
    scale: str = "deviation"
    own: bool = False
    pull: float = 0.3

    @property
    def name(self) -> str:
        """Name in the leaderboard."""
        kind = f"-own-{self.pull:g}" if self.own else "-step" if self.scale == "step" else ""
        return f"ridge-{self.lookback}{kind}"

    def fit(self, values: Array, horizon: int) -> State:
        """Solve for W (a, H) over all windows of the panel; (N, a, H) with `own`."""
        scaled = _scaled(values, self.season if self.scale == "step" else 0)
        gram, count = window_gram(scaled, self.lookback + horizon)
        common = solve(gram, count, self.lookback, self.weight(), self.penalty)
        if not self.own:
            return {"weights": common}
        made = np.empty((len(scaled), *common.shape))
        for k in range(len(scaled)):
            gram, count = window_gram(scaled[k : k + 1], self.lookback + horizon)
            made[k] = solve(gram, count, self.lookback, self.weight(), self.pull, common)
        return {"weights": made}

    def weight(self) -> Array:
        """Weights u (a,) whose product with the lookback is the reference."""
        return reference_weight(self.lookback, self.season, self.reference)

    def forecast(self, state: State, values: Array, origins: Sequence[int], horizon: int) -> Array:
        """Forecast (N, K, H); rows before a series begins count as its first value."""
        weights = state["weights"]
        past = contexts(values, origins, self.lookback)  # (N, K, a)
        reference = past @ self.weight()
        ahead = (past - reference[..., None]) @ weights
        return ahead + reference[..., None]


def _scaled(values: Array, season: int) -> Array:
    """Series minus their means over their deviations, or over their seasonal steps, (N, T)."""
    seen = np.isfinite(values)
    mean = np.where(seen, values, 0.0).sum(1) / np.maximum(seen.sum(1), 1)
    scale = deviations(values)
    if 0 < season < values.shape[1]:
        steps = np.sqrt(mean_over((values[:, season:] - values[:, :-season]) ** 2, 1))
        scale = np.where(steps > 1e-3 * scale, steps, scale)
    return (values - mean[:, None]) / scale[:, None]


def reference_weight(lookback: int, season: int, reference: str) -> Array:
    """Weights (a,) that sum to 1, of the last row, of the last season's rows, or of all."""
    rows = {"last": 1, "season": min(season, lookback), "window": lookback}[reference]
    weight = np.zeros(lookback)
    weight[lookback - rows :] = 1.0 / rows
    return weight


def solve(
    gram: Array,
    count: int,
    lookback: int,
    weight: Array,
    penalty: float,
    centre: Array | None = None,
) -> Array:
    """Ridge weights (a, H) from the Gram matrix (B, B) of `count` windows.

    Args:
        gram: summed over windows.
        count: number of windows; the centre is returned of none.
        lookback: a.
        weight: reference u (a,).
        penalty: share of the mean diagonal.
        centre: what the penalty draws the weights to; zeros if None.
    """
    horizon = len(gram) - lookback
    if centre is None:
        centre = np.zeros((lookback, horizon))
    if count == 0:
        return centre
    past, cross = gram[:lookback, :lookback] / count, gram[:lookback, lookback:] / count
    along = past @ weight  # E[z u'z]
    square = float(weight @ along)
    # P G P' and P (C - G u 1') with P = I - 1 u', written out: no matrix product is needed.
    left = past - along[None, :] - along[:, None] + square
    crossed = weight @ cross
    right = cross - along[:, None] - crossed[None, :] + square
    diagonal = float(np.trace(left)) / lookback
    if diagonal <= 0:
        return centre
    added = penalty * diagonal + 1e-12
    left[np.diag_indices(lookback)] += added
    return np.asarray(np.linalg.solve(left, right + added * centre), dtype=np.float64)


def contexts(values: Array, origins: Sequence[int], rows: int) -> Array:
    """Last rows before each origin (N, K, a), filled backwards from a series' first value."""
    at = np.asarray(origins)[:, None] - rows + np.arange(rows)  # (K, a)
    past = np.where(at >= 0, values[:, np.maximum(at, 0)], np.nan)
    gone = ~np.isfinite(past)
    if gone.any():
        first = np.argmin(gone, axis=-1)
        filler = np.take_along_axis(past, first[..., None], axis=-1)
        past = np.where(gone, filler, past)
    return past
