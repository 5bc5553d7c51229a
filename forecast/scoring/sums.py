"""Sums of error measures over many batches of forecasts of series.

Everything is summed in float64 over all observed elements of all windows and divided once, so no
figure depends on the batch size. On standardised values the measures have no unit. What is summed
elementwise, and under which name, `measures.MEASURES` says.

Letters: B batch, H horizon, C variates, S series, Q quantiles, N levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.scoring.measures import (
    MEASURES,
    elementwise,
    interval_scores,
    masked_sum,
    pinball_losses,
    with_roots,
)


class ErrorSums:
    """Add up the errors of batches of forecasts, on standardised values and in units.

    Args:
        deviation: (S, C) what one standardised unit is worth, for each series and variate.
        mean: (S, C) what standardised 0 stands for; sMAPE needs it.
        naive: (S, C) absolute and squared error of the seasonal naive forecast inside the training
            rows, standardised; MASE and RMSSE need them.
    """

    def __init__(
        self,
        deviation: Float[Tensor, "S C"],
        mean: Float[Tensor, "S C"] | None = None,
        naive: tuple[Float[Tensor, "S C"], Float[Tensor, "S C"]] | None = None,
    ) -> None:
        self._deviation = deviation.double()
        self._mean = None if mean is None else mean.double()
        self._naive = naive
        self._squared: Tensor | None = None  # (H, C)
        self._absolute: Tensor | None = None
        self._count: Tensor | None = None
        self._squared_units = torch.zeros_like(self._deviation[0])
        self._absolute_units = torch.zeros_like(self._deviation[0])
        # Absolute errors, squared ones and their number, of each series.
        self._by_series = self._deviation.new_zeros(3, *self._deviation.shape)
        # Of every other elementwise error its sum over all observed elements.
        self._others = {
            name: function
            for name, function in elementwise("series").items()
            if name not in ("mse", "mae")
        }
        self._totals: dict[str, float] = {}
        self.windows = 0

    def add(
        self,
        prediction: Float[Tensor, "B H C"],
        truth: Float[Tensor, "B H C"],
        mask: Bool[Tensor, "B H C"] | None = None,
        series_id: Int[Tensor, " B"] | None = None,
    ) -> None:
        """Add one batch of standardised forecasts."""
        error = prediction.double() - truth.double()
        if mask is None:
            count = torch.full_like(error[0], error.shape[0])
        else:
            error = torch.where(mask, error, 0.0)
            count = mask.sum(0).double()
        squared, absolute = error.square(), error.abs()
        self._add_others(error, prediction.double(), truth.double(), mask, series_id)
        sums = squared.sum(0), absolute.sum(0), count
        if self._squared is None or self._absolute is None or self._count is None:
            self._squared, self._absolute, self._count = sums
        else:
            self._squared += sums[0]
            self._absolute += sums[1]
            self._count += sums[2]
        if self._deviation.shape[0] == 1:
            series_id = None
        if series_id is None:
            self._squared_units += sums[0].sum(0) * self._deviation[0].square()
            self._absolute_units += sums[1].sum(0) * self._deviation[0]
        else:
            worth = self._deviation[series_id]  # (B, C)
            self._squared_units += (squared.sum(1) * worth.square()).sum(0)
            self._absolute_units += (absolute.sum(1) * worth).sum(0)
        if self._naive is not None:
            observed = torch.ones_like(error) if mask is None else mask.double()
            parts = torch.stack([absolute, squared, observed]).sum(2)  # (3, B, C)
            if series_id is None:
                self._by_series[:, 0] += parts.sum(1)
            else:
                self._by_series.index_add_(1, series_id, parts)
        self.windows += error.shape[0]

    def _add_others(
        self,
        error: Tensor,
        prediction: Tensor,
        truth: Tensor,
        mask: Tensor | None,
        series_id: Tensor | None,
    ) -> None:
        scaled = error, prediction, truth
        units = None
        if self._mean is not None:
            worth, zero = self._deviation, self._mean
            if len(worth) > 1 and series_id is not None:
                worth, zero = worth[series_id, None], zero[series_id, None]
            units = error * worth, prediction * worth + zero, truth * worth + zero
        for name, function in self._others.items():
            values = scaled if MEASURES[name].unit == "scaled" else units
            if values is not None:
                total = masked_sum(function(*values), mask)
                self._totals[name] = self._totals.get(name, 0.0) + total

    def result(self, columns: tuple[str, ...]) -> dict[str, object]:
        """Divide the sums.

        Returns:
            The elementwise measures of series in `measures.MEASURES`: `mse`, `mae`, `rmse` on
            standardised values, `smape` on values in units; `mse_by_lead`, one figure for each step
            ahead; `units`, `mae` and `rmse` of each variate in units of the data; and how many
            `windows` and observed `values` were scored. `mase` and `rmsse` are means over all
            series and variates that have a scale. Figures without a single observation are None.
        """
        if self._squared is None or self._absolute is None or self._count is None:
            nothing = with_roots("series", {"mse": None, "mae": None})
            return {**nothing, "windows": 0, "values": 0}
        total = float(self._count.sum())
        means = {
            "mse": _quotient(float(self._squared.sum()), total),
            "mae": _quotient(float(self._absolute.sum()), total),
        }
        for name, amount in self._totals.items():
            means[name] = _quotient(MEASURES[name].factor * amount, total)
        by_variate = self._count.sum(0)
        return {
            **with_roots("series", means),
            **self._by_naive_error(),
            "windows": self.windows,
            "values": int(total),
            "mse_by_lead": [
                _quotient(float(squared), float(count))
                for squared, count in zip(self._squared.sum(1), self._count.sum(1), strict=True)
            ],
            "units": {
                name: {
                    "mae": _quotient(float(self._absolute_units[place]), float(by_variate[place])),
                    "rmse": None
                    if not by_variate[place]
                    else math.sqrt(float(self._squared_units[place] / by_variate[place])),
                }
                for place, name in enumerate(columns)
            },
        }

    def _by_naive_error(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        if self._naive is not None:
            absolute, squared, count = self._by_series
            counts = (count > 0) & (self._naive[0] > 0)
            mase = (absolute / count / self._naive[0])[counts]
            rmsse = (squared / count / self._naive[1]).sqrt()[counts]
            found["mase"] = _quotient(float(mase.sum()), float(counts.sum()))
            found["rmsse"] = _quotient(float(rmsse.sum()), float(counts.sum()))
        return found


class QuantileSums:
    """Add up the pinball losses of batches of quantile forecasts, on standardised values.

    Args:
        quantiles: the Q levels.
    """

    def __init__(self, quantiles: Sequence[float]) -> None:
        self._quantiles = tuple(quantiles)
        self._losses = torch.zeros(len(self._quantiles), dtype=torch.float64)
        self._below = torch.zeros(len(self._quantiles), dtype=torch.float64)
        self._count = 0.0

    def add(
        self,
        prediction: Float[Tensor, "B H C Q"],
        truth: Float[Tensor, "B H C"],
        mask: Bool[Tensor, "B H C"] | None = None,
    ) -> None:
        """Add one batch of standardised quantiles."""
        for place, quantile in enumerate(self._quantiles):
            values = prediction[..., place]
            self._losses[place] += masked_sum(pinball_losses(values, truth, quantile), mask)
            self._below[place] += masked_sum((truth <= values).double(), mask)
        self._count += _number(truth, mask)

    def result(self) -> dict[str, object]:
        """Divide the sums.

        Returns:
            `crps` over all quantiles; and for each of them its `pinball` loss, and `below`, the
            share of truths at or below it, which is to be the quantile itself.
        """
        losses, below = self._losses.tolist(), self._below.tolist()
        return {
            "crps": _quotient(2 * sum(losses), self._count * len(losses)),
            "pinball": {
                f"{quantile:g}": _quotient(loss, self._count)
                for quantile, loss in zip(self._quantiles, losses, strict=True)
            },
            "below": {
                f"{quantile:g}": _quotient(share, self._count)
                for quantile, share in zip(self._quantiles, below, strict=True)
            },
        }


class IntervalSums:
    """Add up how intervals of several levels fare, on standardised values.

    Args:
        levels: N levels [%].
        shown: those of them that the result lists one by one.
    """

    def __init__(self, levels: Sequence[float], shown: Sequence[float]) -> None:
        self._levels, self._shown = tuple(levels), tuple(shown)
        # Widths, interval scores and pinball losses of both bounds, of each level.
        self._sums = torch.zeros(3, len(self._levels), dtype=torch.float64)
        self._hits: Tensor | None = None  # (N, H)
        self._count: Tensor | None = None  # (H,)

    def add(
        self,
        lower: Float[Tensor, "N B H C"],
        upper: Float[Tensor, "N B H C"],
        truth: Float[Tensor, "B H C"],
        mask: Bool[Tensor, "B H C"] | None = None,
    ) -> None:
        """Add one batch of standardised intervals; those without bounds count as unobserved."""
        # A variate that the validation part never showed has no intervals of any level.
        bounded = upper.isfinite().all(0)
        mask = bounded if mask is None else mask & bounded
        hits: list[Tensor] = []
        for place, level in enumerate(self._levels):
            low, high = lower[place], upper[place]
            hits.append((mask & (truth >= low) & (truth <= high)).sum((0, 2)).double())
            tail = (1 - level / 100) / 2
            pinballs = pinball_losses(low, truth, tail) + pinball_losses(high, truth, 1 - tail)
            parts = (high.double() - low.double(), interval_scores(low, high, truth, level))
            for row, values in enumerate((*parts, pinballs)):
                self._sums[row, place] += masked_sum(values, mask)
        count = mask.sum((0, 2)).double()
        if self._hits is None or self._count is None:
            self._hits, self._count = torch.stack(hits), count
        else:
            self._hits += torch.stack(hits)
            self._count += count

    def result(self) -> dict[str, object]:
        """Divide the sums.

        Returns:
            `crps` over the bounds of all levels as quantiles; and for each level that is shown
            `coverage`, `width`, `interval_score` and `coverage_by_lead`, one figure for each step
            ahead.
        """
        if self._hits is None or self._count is None:
            return {"crps": None, "levels": {}}
        total = float(self._count.sum())
        width, score, pinballs = self._sums.tolist()
        places = {level: self._levels.index(level) for level in self._shown}
        return {
            # Two quantiles a level, each counted with twice its pinball loss.
            "crps": _quotient(sum(pinballs), total * len(self._levels)),
            "levels": {
                f"{level:g}": {
                    "coverage": _quotient(float(self._hits[place].sum()), total),
                    "width": _quotient(width[place], total),
                    "interval_score": _quotient(score[place], total),
                    "coverage_by_lead": [
                        _quotient(float(hits), float(count))
                        for hits, count in zip(self._hits[place], self._count, strict=True)
                    ],
                }
                for level, place in places.items()
            },
        }


def _number(values: Tensor, mask: Tensor | None) -> float:
    return float(values.numel() if mask is None else mask.sum())


def _quotient(total: float, count: float) -> float | None:
    return total / count if count else None
