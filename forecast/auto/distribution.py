"""Quantiles around a forecast from the misses of rolling origins.

A miss is scaled by its series, then by its lead; what is left has one shape, pooled over series,
origins and neighbouring leads. A forecast's quantiles are its value plus series scale times lead
profile times the shape's quantiles, whose median is 0: the forecast itself stays the median.

Letters: N series, O origins, H horizon, Q levels, J blocks of leads.
Source: the pooled residual bootstrap of Hyndman and Athanasopoulos, section 5.5; the scale of
recent misses is the first-order form of online conformal scaling (Gibbs and Candes 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from forecast.auto.form import Array, mean_over

_ENOUGH = 100
_PER_BLOCK = 400
_SHRINK = 2.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """Scales and shape of the misses.

    Attributes:
        scale: (N,), the mean size of a series' miss.
        profile: (H,), size of a miss at each lead over that.
        shape: (J, Q), quantiles of the scaled misses by block of leads.
        ratio: mean miss over a series' naive step, for series that were never seen.
    """

    scale: Array
    profile: Array
    shape: Array
    ratio: float

    def around(self, forecast: Array, factor: Array) -> Array:
        """Quantiles (N, H, Q) around a forecast (N, H); `factor` (N,) multiplies the scale."""
        blocks, horizon = len(self.shape), forecast.shape[1]
        middle = (np.arange(blocks) + 0.5) * horizon / blocks - 0.5
        shape = np.stack(
            [np.interp(np.arange(horizon), middle, column) for column in self.shape.T], axis=1
        )
        width = (self.scale * factor)[:, None] * self.profile[:horizon]
        return forecast[..., None] + width[..., None] * shape[None]


def measure(misses: Array, steps: Array, levels: tuple[float, ...], apart: float) -> Distribution:
    """Distribution of misses (N, O, H).

    Args:
        misses: truth minus forecast, NaN where unknown.
        steps: (N,), mean naive step of each series: what its scale is shrunk towards.
        levels: Q levels.
        apart: number of origins whose windows do not overlap; the evidence for a series' own scale.
    """
    horizon = misses.shape[2]
    size = mean_over(np.abs(misses).reshape(len(misses), -1), 1)
    steps = np.where(np.isfinite(steps) & (steps > 0), steps, np.nan)
    ratios = size / steps
    known = ratios[np.isfinite(ratios) & (ratios > 0)]
    ratio = float(np.median(known)) if len(known) else 1.0
    prior = np.where(np.isfinite(steps), ratio * steps, np.where(np.isfinite(size), size, 0.0))
    # Each series keeps its own scale as far as its origins allow.
    own = np.where(np.isfinite(size), size, prior)
    share = apart / (apart + _SHRINK)
    if len(known) < 8:
        share = 1.0
    scale = share * own + (1 - share) * prior
    scaled = misses / np.where(scale > 0, scale, np.nan)[:, None, None]
    profile = _profile(scaled)
    scaled = scaled / profile
    return Distribution(scale, profile, _shape(scaled, levels, horizon), ratio)


def _profile(scaled: Array) -> Array:
    """Mean size of scaled misses by lead, smoothed over neighbouring leads, (H,)."""
    horizon = scaled.shape[2]
    by_lead = mean_over(np.abs(scaled).reshape(-1, horizon), 0)
    seen = np.isfinite(by_lead)
    if not seen.any():
        return np.ones(horizon)
    leads = np.arange(horizon)
    by_lead = np.interp(leads, leads[seen], by_lead[seen])
    half = max(1, horizon // 16) if np.isfinite(scaled).sum() < 2000 * horizon else 0
    padded = np.concatenate([[0.0], np.cumsum(by_lead)])
    low = np.maximum(leads - np.minimum(half, leads), 0)
    high = np.minimum(leads + np.minimum(half, leads) + 1, horizon)
    smooth = (padded[high] - padded[low]) / (high - low)
    return np.maximum(smooth, 1e-3 * max(smooth.max(), 1e-300))


def _shape(scaled: Array, levels: tuple[float, ...], horizon: int) -> Array:
    """Quantiles (J, Q) of scaled misses, median 0; a Student-t by moments below 100 misses."""
    kept = scaled[np.isfinite(scaled)]
    at = np.asarray(levels)
    if len(kept) < _ENOUGH:
        return _student(kept, at)[None]
    blocks = int(np.clip(len(kept) // _PER_BLOCK, 1, min(8, horizon)))
    rows = []
    for block in range(blocks):
        part = scaled[..., block * horizon // blocks : (block + 1) * horizon // blocks]
        part = part[np.isfinite(part)]
        if len(part) < _ENOUGH:
            part = kept
        rows.append(np.quantile(part, at) - np.median(part))
    return np.stack(rows)


def _student(kept: Array, levels: Array) -> Array:
    """Quantiles of a Student-t with the misses' mean size and kurtosis; wider of few."""
    count = len(kept)
    size = float(np.abs(kept).mean()) if count else 1.0
    freedom = 5.0
    if count >= 20:
        square = float((kept**2).mean())
        excess = float((kept**4).mean()) / max(square**2, 1e-300) - 3.0
        freedom = float(np.clip(4.0 + 6.0 / max(excess, 0.1), 4.5, 30.0))
    law = stats.t(freedom)
    unit = float(law.expect(np.abs)) if count else 1.0
    widen = np.sqrt(1.0 + 1.0 / max(count, 1))
    return np.asarray(law.ppf(levels)) * (size / unit) * widen
