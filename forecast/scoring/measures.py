"""Error measures, each a function of prediction, truth and mask; and their sums over many batches.

Everything is summed in float64 over all observed elements of all windows and divided once, so no
figure depends on the batch size. On standardised values the measures have no unit.

Letters: B batch, H horizon, C variates, S series, Q quantiles, N levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mse(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared error: sum of (prediction - truth)^2 / count, in squared units of the data."""
    return _mean((prediction.double() - truth.double()).square(), mask)


def mae(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean absolute error: sum of |prediction - truth| / count, in units of the data."""
    return _mean((prediction.double() - truth.double()).abs(), mask)


def rmse(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Root of the mean squared error over the whole set, in units of the data."""
    return math.sqrt(mse(prediction, truth, mask))


def wape(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Weighted absolute percentage error: sum of |prediction - truth| / sum of |truth|, no unit."""
    return mae(prediction, truth, mask) / _mean(truth.double().abs(), mask)


def smape(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Symmetric mean absolute percentage error: mean of 200 |error| / (|prediction| + |truth|) [%].

    Both zero count as no error. It means something in the units of the data alone, and little where
    these have no natural zero. Source: Makridakis, M4 competition.
    """
    error = (prediction.double() - truth.double()).abs()
    size = prediction.double().abs() + truth.double().abs()
    return 200 * _mean(torch.where(size > 0, error / size, 0.0), mask)


def mase(
    prediction: Tensor, truth: Tensor, scale: float | Tensor, mask: Tensor | None = None
) -> float:
    """Mean absolute scaled error: the MAE over `scale`, no unit.

    The scale is the MAE of the seasonal naive forecast inside the training rows, mean of
    |y[t] - y[t - season]|. Source: Hyndman and Koehler, Int. J. Forecasting 2006.
    """
    return _mean((prediction.double() - truth.double()).abs() / scale, mask)


def rmsse(
    prediction: Tensor, truth: Tensor, scale: float | Tensor, mask: Tensor | None = None
) -> float:
    """Root of the mean squared scaled error: root of the MSE over `scale`, no unit.

    The scale is the MSE of the seasonal naive forecast inside the training rows, mean of
    (y[t] - y[t - season])^2. Source: Makridakis et al., M5 competition, there with a season of 1.
    """
    return math.sqrt(_mean((prediction.double() - truth.double()).square() / scale, mask))


def pinball(
    prediction: Tensor, truth: Tensor, quantile: float, mask: Tensor | None = None
) -> float:
    """Mean pinball loss: mean of max(q * error, (q - 1) * error), in units of the data.

    The error is truth - prediction and q the quantile. At the median it is half the MAE.
    """
    return _mean(_pinballs(prediction, truth, quantile), mask)


def crps(
    prediction: Float[Tensor, "*B Q"],
    truth: Float[Tensor, "*B"],
    quantiles: Sequence[float],
    mask: Bool[Tensor, "*B"] | None = None,
) -> float:
    """Continuous ranked probability score: mean of twice the pinball loss, in units of the data.

    The CRPS is twice the integral of the pinball loss over all quantiles; the mean over Q of them
    is the midpoint rule when they are (k - 1/2) / Q, and an approximation otherwise. Of the median
    alone it is the MAE. Source: Gneiting and Raftery, JASA 2007, section 4.2.
    """
    losses = [
        pinball(prediction[..., place], truth, quantile, mask)
        for place, quantile in enumerate(quantiles)
    ]
    return 2 * sum(losses) / len(losses)


def coverage(lower: Tensor, upper: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Share of truths in their interval, the bounds included, no unit."""
    return _mean(((truth >= lower) & (truth <= upper)).double(), mask)


def interval_width(lower: Tensor, upper: Tensor, mask: Tensor | None = None) -> float:
    """Mean of upper - lower, in units of the data."""
    return _mean(upper.double() - lower.double(), mask)


def interval_score(
    lower: Tensor, upper: Tensor, truth: Tensor, level: float, mask: Tensor | None = None
) -> float:
    """Winkler's interval score: the width, and 2 / alpha times what a truth lies outside by.

    In units of the data; `level` is in percent, and alpha the share 1 - level / 100 of misses that
    it grants. Source: Gneiting and Raftery, JASA 2007, equation 43.
    """
    return _mean(_interval_scores(lower, upper, truth, level), mask)


METRICS = {"mse": mse, "mae": mae, "rmse": rmse, "wape": wape, "smape": smape}


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
        self._relative = 0.0
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
        if self._mean is not None:
            worth, zero = self._deviation, self._mean
            if series_id is not None:
                worth, zero = worth[series_id, None], zero[series_id, None]
            self._relative += _relative(
                absolute * worth, prediction.double() * worth + zero, truth.double() * worth + zero
            )
        self.windows += error.shape[0]

    def result(self, columns: tuple[str, ...]) -> dict[str, object]:
        """Divide the sums.

        Returns:
            `mse`, `mae`, `rmse` on standardised values; `mse_by_lead`, one figure for each step
            ahead; `units`, `mae` and `rmse` of each variate in units of the data; and how many
            `windows` and observed `values` were scored. `smape` is on values in units, `mase` and
            `rmsse` are means over all series and variates that have a scale. Figures without a
            single observation are None.
        """
        if self._squared is None or self._absolute is None or self._count is None:
            return {"mse": None, "mae": None, "rmse": None, "windows": 0, "values": 0}
        total = float(self._count.sum())
        mean_squared = _quotient(float(self._squared.sum()), total)
        by_variate = self._count.sum(0)
        return {
            "mse": mean_squared,
            "mae": _quotient(float(self._absolute.sum()), total),
            "rmse": None if mean_squared is None else math.sqrt(mean_squared),
            **self._scaled(total),
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

    def _scaled(self, total: float) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        if self._mean is not None:
            found["smape"] = _quotient(200 * self._relative, total)
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
            self._losses[place] += _total(_pinballs(values, truth, quantile), mask)
            self._below[place] += _total((truth <= values).double(), mask)
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
            pinballs = _pinballs(low, truth, tail) + _pinballs(high, truth, 1 - tail)
            parts = (high.double() - low.double(), _interval_scores(low, high, truth, level))
            for row, values in enumerate((*parts, pinballs)):
                self._sums[row, place] += _total(values, mask)
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


def _relative(error: Tensor, prediction: Tensor, truth: Tensor) -> float:
    size = prediction.abs() + truth.abs()
    return float(torch.where(size > 0, error / size, 0.0).sum())


def _pinballs(prediction: Tensor, truth: Tensor, quantile: float) -> Tensor:
    error = truth.double() - prediction.double()
    return torch.maximum(quantile * error, (quantile - 1) * error)


def _interval_scores(lower: Tensor, upper: Tensor, truth: Tensor, level: float) -> Tensor:
    lower, upper, truth = lower.double(), upper.double(), truth.double()
    outside = (lower - truth).clamp(min=0) + (truth - upper).clamp(min=0)
    return upper - lower + 2 / (1 - level / 100) * outside


def _mean(values: Tensor, mask: Tensor | None) -> float:
    if mask is None:
        return float(values.mean())
    return _total(values, mask) / float(mask.sum())


def _total(values: Tensor, mask: Tensor | None) -> float:
    return float(values.sum() if mask is None else torch.where(mask, values, 0.0).sum())


def _number(values: Tensor, mask: Tensor | None) -> float:
    return float(values.numel() if mask is None else mask.sum())


def _quotient(total: float, count: float) -> float | None:
    return total / count if count else None
