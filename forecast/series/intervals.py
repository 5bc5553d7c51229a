"""Prediction intervals that hold what they promise, on top of any model: conformal prediction.

A forecast spans a family of intervals, one inside the other: round a point they widen evenly, round
quantiles with the distances of these. How far the family had to be opened to reach the truth is
the conformal score, the *reach*. Intervals of a level open it as far as that share of the reaches
on the validation part (`Calibration`, the split method), or as far as the misses of the forecasts
before tell (`Tracker`, the adaptive method). One number opens all, so intervals of two levels never
cross.

Source: Gupta, Kuchibhotla and Ramdas, "Nested conformal prediction and quantile out-of-bag ensemble
methods", Pattern Recognition 2022, arXiv 1910.10562, sections 2 and 3. On a point forecast the
reach is the absolute residual; on three quantiles it is the score of CQR-m (Sesia and Candès, Stat
2020, arXiv 1909.05433). The adaptive method is the quantile tracker of Angelopoulos, Candès and
Tibshirani, "Conformal PID Control for Time Series Prediction", NeurIPS 2023, arXiv 2307.16895,
equation 4: adaptive conformal inference that moves the threshold instead of its level.

Letters: B batch, H horizon, C variates, S series, K knots or grid levels, N levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.batch import Forecast, SeriesBatch
from forecast.batch.windows import Windows
from forecast.device import memory_errors
from forecast.errors import UsageError
from forecast.series import rolling_origin

Method = Literal["split", "adaptive"]
METHODS: tuple[Method, ...] = ("split", "adaptive")

# Levels whose quantiles an artefact keeps [%]; those between lie on a line between two of them.
GRID = (*(5.0 * number for number in range(1, 20)), 97.5, 98.0, 99.0, 99.5, 99.9)
# Share of the split threshold by which a miss moves the adaptive one. Twice as much follows the
# reaches faster and pays with wider intervals, half as much the other way round. Both numbers were
# chosen on validation parts; docs/coming-from.md has the comparison.
RATE = 0.0125
# Part of a move that follows the mean miss over all variates.
SHARED = 0.5
# Longest stretch of history that adaptive intervals are brought up to date on [origins].
MEMORY = 1_000
# Reaches kept at once while calibrating: 128 MB. Longer parts are thinned evenly.
_MOST_REACHES = 2**25
_BATCH = 256
_LEAST_SLOPE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """How the distance from the middle grows with the opening: in straight pieces.

    Attributes:
        starts: the opening at which each piece begins, the first one 0.
        lengths: how long it is; the last one has no end.
        slopes: distance that an opening of one adds in it.
    """

    starts: Float[Tensor, " K"]
    lengths: Float[Tensor, " K"]
    slopes: Float[Tensor, "... K"]

    @classmethod
    def through(cls, knots: Float[Tensor, " K"], distances: Float[Tensor, "... K"]) -> _Side:
        """Lay a line from the middle through rising distances at rising openings, and on."""
        starts = torch.cat([knots.new_zeros(1), knots[:-1]])
        lengths = knots - starts
        before = torch.cat([torch.zeros_like(distances[..., :1]), distances[..., :-1]], -1)
        slopes = ((distances - before) / lengths).clamp(min=_LEAST_SLOPE)
        lengths[-1] = torch.inf
        return cls(starts=starts, lengths=lengths, slopes=slopes)

    def distance(self, opening: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """Return the distance from the middle at an opening."""
        inside = (opening[..., None] - self.starts).clamp(min=0).minimum(self.lengths)
        return (self.slopes * inside).sum(-1)

    def opening(self, distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """Return the opening at a distance, the inverse of `distance`."""
        spans = self.slopes * self.lengths
        before = torch.cat([torch.zeros_like(spans[..., :1]), spans[..., :-1].cumsum(-1)], -1)
        inside = (distance[..., None] - before).clamp(min=0).minimum(spans)
        return (inside / self.slopes).sum(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The intervals that a forecast spans, in the space of the forecast."""

    middle: Float[Tensor, "B H C"]
    below: _Side
    above: _Side

    @classmethod
    def of(cls, forecast: Forecast) -> Band:
        """Span the intervals of a forecast.

        Quantiles are reached at openings in proportion to their normal scores, the outermost at 1.
        Where one side has none, it mirrors the other.
        """
        middle = forecast.point().float()
        levels = middle.new_tensor(forecast.quantiles).double()
        scores = torch.special.ndtri(levels).abs()
        sides: list[_Side] = []
        for chosen, order in ((levels < 0.5, -1), (levels > 0.5, 1)):
            if chosen.any():
                place = chosen.nonzero()[:, 0].sort(descending=order < 0).values
                distances = (forecast.values[..., place].float() - middle[..., None]).abs()
                sides.append(_Side.through((scores[place] / scores.max()).float(), distances))
        if not sides:
            even = middle.new_ones(1)
            sides = [_Side.through(even, even)]
        return cls(middle=middle, below=sides[0], above=sides[-1])

    def reach(self, truth: Float[Tensor, "B H C"]) -> Float[Tensor, "B H C"]:
        """Return how far the intervals have to open to hold the truth."""
        error = truth - self.middle
        return torch.where(
            error < 0, self.below.opening(-error), self.above.opening(error.clamp(min=0))
        )

    def needed(self, batch: SeriesBatch) -> Float[Tensor, "B H C"]:
        """Return how far they have to open for targets of a batch, NaN where none is observed."""
        assert batch.target is not None
        reach = self.reach(batch.target)
        mask = batch.target_mask
        return reach if mask is None else reach.masked_fill(~mask, torch.nan)

    def bounds(
        self, opening: Float[Tensor, "... H C"]
    ) -> tuple[Float[Tensor, "B H C"], Float[Tensor, "B H C"]]:
        """Return the lower and upper bounds of the intervals opened so far."""
        lower = self.middle - self.below.distance(opening)
        return lower, self.middle + self.above.distance(opening)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Keep quantiles of the reaches on the validation part, for each step and variate.

    Attributes:
        reaches: the `ceil((n + 1) level)`-th smallest of n reaches, for the levels of GRID;
            infinite where n is too small for the level.
    """

    reaches: Float[Tensor, "K H C"]

    @classmethod
    def of(cls, reaches: Float[Tensor, "W H C"]) -> Calibration:
        """Take the quantiles of all reaches; those of unobserved targets are NaN."""
        count = reaches.isfinite().sum(0)
        ordered = reaches.nan_to_num(nan=torch.inf).sort(0).values
        grid = torch.tensor(GRID, dtype=torch.float64, device=reaches.device) / 100
        # Just below, so that rounding does not lift a whole number to the next.
        rank = ((count + 1) * grid[:, None, None] - 1e-9).ceil().long()
        found = ordered.gather(0, (rank - 1).clamp(0, len(ordered) - 1))
        return cls(reaches=torch.where(rank > count, torch.inf, found))

    def to(self, device: torch.device | str) -> Calibration:
        """Move it to `device`."""
        return Calibration(reaches=self.reaches.to(device))

    @property
    def highest(self) -> float:
        """Return the highest level that the validation windows were enough for [%], else 0."""
        enough = self.reaches.isfinite().flatten(1).any(1).tolist()
        return max((level for level, some in zip(GRID, enough, strict=True) if some), default=0.0)

    def thresholds(self, levels: Sequence[float]) -> Float[Tensor, "N H C"]:
        """Return how far intervals of these levels [%] open.

        Raises:
            UsageError: a level is out of range, or asks for more validation windows than there
                were.
        """
        found: list[Tensor] = []
        for level in levels:
            if not 0 < level <= GRID[-1]:
                raise UsageError(
                    f"An interval cannot have a level of {level:g} %.",
                    hint=f"Choose one above 0 and at most {GRID[-1]:g}, such as 90.",
                )
            if level > self.highest:
                raise UsageError(
                    f"Intervals of {level:g} % take more windows than the validation part of the "
                    f"training data had: {round(100 / (100 - level)) - 1} at least.",
                    hint="Choose a lower level, or train with a longer validation part.",
                )
            upper = next(place for place, known in enumerate(GRID) if known >= level)
            high = self.reaches[upper]
            low, start = (self.reaches[upper - 1], GRID[upper - 1]) if upper else (high * 0, 0)
            share = (level - start) / (GRID[upper] - start)
            found.append(torch.where(high.isinf(), high, low.lerp(high, share)))
        return torch.stack(found)


@torch.no_grad()
def calibrate(model: nn.Module, windows: Windows) -> Calibration | None:
    """Measure the reaches of a model on windows that it was not trained on; None without any.

    The validation part also chose the best epoch, which makes the reaches a trifle too short. They
    are pooled over all series, in the scaled space in which series are alike.
    """
    if not len(windows):
        return None
    model.eval()
    first = windows.batch(torch.zeros(1, dtype=torch.long, device=windows.device))
    assert first.target is not None
    thinned = windows.every(max(1, round(len(windows) * first.target.numel() / _MOST_REACHES)))
    with memory_errors("calibrating", _BATCH):
        return Calibration.of(
            torch.cat(
                [
                    Band.of(forecast).needed(batch)
                    for forecast, batch, _ in rolling_origin.answers(model, thinned, _BATCH)
                ]
            )
        )


class Tracker:
    """Follow the misses of the forecasts of one origin after the other, row by row.

    After a forecast for the row just seen missed, the threshold of its step grows by
    `RATE (1 - alpha)` of its split threshold, and shrinks by `RATE alpha` after a hit: over time
    it misses in the share alpha that its level grants. Half of a move follows the variate's own
    miss, half the mean over all variates, since what has changed for one has often for all. A
    forecast h steps ahead is judged h rows later and not before.

    Args:
        calibration: where the thresholds start.
        levels: of the intervals [%], rising.
        series: S, series that are followed side by side.
    """

    def __init__(self, calibration: Calibration, levels: Sequence[float], series: int = 1) -> None:
        if list(levels) != sorted(levels):
            raise ValueError("levels must rise")
        start = calibration.thresholds(levels).movedim(0, 1)[:, :, None]  # (H, N, 1, C)
        # What is infinite, for want of validation targets, stays so.
        self._scale = start.masked_fill(start.isinf(), 0.0)
        self._threshold = start.repeat(1, 1, series, 1)  # (H, N, S, C)
        horizon = len(start)
        alpha = 1 - torch.tensor(levels, dtype=start.dtype, device=start.device) / 100
        self._alpha = alpha[:, None, None]
        self._steps = torch.arange(horizon, device=start.device)
        # What was issued at the last H origins, and what it turns out to have needed.
        self._issued = start.new_zeros(horizon, *self._threshold.shape)
        self._needed = start.new_full((horizon, horizon, series, start.shape[-1]), torch.nan)
        self._origin = 0

    def issue(self, needed: Float[Tensor, "S H C"]) -> Float[Tensor, "N S H C"]:
        """Return how far the intervals of the next origin open.

        Args:
            needed: how far they will turn out to have had to open, NaN where that never shows. It
                is put aside: the value of step h is looked at h origins later, when it is known.
        """
        horizon = len(self._steps)
        slots = (self._origin - 1 - self._steps) % horizon
        due = self._needed[slots, self._steps][:, None]  # (H, 1, S, C)
        judged = due.isfinite()
        missed = due > self._issued[slots, self._steps]
        error = torch.where(judged, missed.to(due.dtype) - self._alpha, 0.0)
        shared = error.sum(-1, keepdim=True) / judged.sum(-1, keepdim=True).clamp(min=1)
        self._threshold += RATE * self._scale * (error + SHARED * (shared - error))
        self._threshold.clamp_(min=0)
        # A wider level never opens less than a narrower one.
        thresholds = self._threshold.cummax(1).values
        slot = self._origin % horizon
        self._issued[slot], self._needed[slot] = thresholds, needed.movedim(0, 1)
        self._origin += 1
        return thresholds.movedim(0, 2)  # (N, S, H, C)
