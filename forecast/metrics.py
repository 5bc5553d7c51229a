"""Error measures, each a function of prediction, truth and mask; and their sums over many batches.

Everything is summed in float64 over all observed elements of all windows and divided once, so no
figure depends on the batch size. On standardised values the measures have no unit.

Letters: B batch, H horizon, C variates, S series.
"""

from __future__ import annotations

import math

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


METRICS = {"mse": mse, "mae": mae, "rmse": rmse, "wape": wape}


class ErrorSums:
    """Add up the errors of batches of forecasts, on standardised values and in units.

    Args:
        deviation: (S, C) what one standardised unit is worth, for each series and variate.
    """

    def __init__(self, deviation: Float[Tensor, "S C"]) -> None:
        self._deviation = deviation.double()
        self._squared: Tensor | None = None  # (H, C)
        self._absolute: Tensor | None = None
        self._count: Tensor | None = None
        self._squared_units = torch.zeros_like(self._deviation[0])
        self._absolute_units = torch.zeros_like(self._deviation[0])
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
        if series_id is None or self._deviation.shape[0] == 1:
            self._squared_units += sums[0].sum(0) * self._deviation[0].square()
            self._absolute_units += sums[1].sum(0) * self._deviation[0]
        else:
            worth = self._deviation[series_id]  # (B, C)
            self._squared_units += (squared.sum(1) * worth.square()).sum(0)
            self._absolute_units += (absolute.sum(1) * worth).sum(0)
        self.windows += error.shape[0]

    def result(self, columns: tuple[str, ...]) -> dict[str, object]:
        """Divide the sums.

        Returns:
            `mse`, `mae`, `rmse` on standardised values; `mse_by_lead`, one figure for each step
            ahead; `units`, `mae` and `rmse` of each variate in units of the data; and how many
            `windows` and observed `values` were scored. Figures without a single observation are
            None.
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


def _mean(values: Tensor, mask: Tensor | None) -> float:
    if mask is None:
        return float(values.mean())
    return float(torch.where(mask, values, 0.0).sum() / mask.sum())


def _quotient(total: float, count: float) -> float | None:
    return total / count if count else None
