"""Measures: the table of all that scores hold, and error measures as functions.

`MEASURES` is what sums, the choice of the best, printed tables, tracked figures and comparisons
read. A new measure is one row:

- The mean of an error of each element is the row alone, with `elementwise`: scores of its `kinds`
  hold it, runs track `test_NAME`, and `forecast compare --metric test_NAME` knows its direction.
- A mean over the ranks of links is the row alone too, with `of_rank`.
- Any other measure is a row without a function, and a sum of its own: a key of the `result` of
  `sums.ErrorSums`, `fields.GridErrorSums` or one of the sums in `ranking`.

Letters: B batch, Q quantiles, n queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Of error (prediction - truth, 0 where nothing was observed), prediction and truth, all float64.
Elementwise = Callable[[Tensor, Tensor, Tensor], Tensor]


def squared(error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """Squared error of each element."""
    return error.square()


def absolute(error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """Absolute error of each element."""
    return error.abs()


def symmetric(error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """|error| / (|prediction| + |truth|) of each element; 0 where both are 0."""
    size = prediction.abs() + truth.abs()
    return torch.where(size > 0, error.abs() / size, 0.0)


def percentage(error: Tensor, prediction: Tensor, truth: Tensor) -> Tensor:
    """|error| / |truth| of each element [%]."""
    return 100 * error.abs() / truth.abs()


def reciprocal_rank(ranks: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """1 / rank of each query."""
    return ranks.double().reciprocal()


def hit(ranks: Float[Tensor, " n"], at: int) -> Float[Tensor, " n"]:
    """1 for each query whose rank is at most `at`, else 0."""
    return (ranks <= at).double()


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One figure of scores.

    Attributes:
        title: heading of its column, without the unit.
        better: the less, the more, or the nearer to a nominal value the better.
        unit: `scaled`, of standardised values or their squares (of sensors, of intervals in units
            and in scores by column it is in units of the data); `data`; `percent`; `ratio`, a
            share or quotient without unit; `decibel`.
        kinds: kinds of data whose scores hold it.
        part: the part of the scores that holds it; empty for the scores themselves.
        elementwise: error of each element, whose mean it is: on standardised values where the unit
            is `scaled`, else on values in units of the data.
        of_rank: value of each rank, whose mean it is.
        factor: what that mean is multiplied by.
        root_of: the measure whose square root it is.
        primary: scores that hold it are compared by it; the first such row decides.
        beside: what a backtest shows beside it where it is primary.
    """

    title: str
    better: Literal["less", "more", "nominal"] = "less"
    unit: Literal["scaled", "data", "percent", "ratio", "decibel"] = "ratio"
    kinds: tuple[Literal["series", "grid", "graph"], ...] = ()
    part: Literal["", "quantiles", "intervals", "openstl", "area"] = ""
    elementwise: Elementwise | None = None
    of_rank: Callable[[Tensor], Tensor] | None = None
    factor: float = 1
    root_of: str = ""
    primary: bool = False
    beside: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Title of a column of a printed table."""
        return f"{self.title} %" if self.unit == "percent" else self.title


MEASURES: dict[str, Measure] = {
    "mse": Measure(
        title="MSE", unit="scaled", kinds=("series", "grid"), elementwise=squared,
        primary=True, beside=("mae",),
    ),
    "mae": Measure(
        title="MAE", unit="scaled", kinds=("series", "grid", "graph"), elementwise=absolute,
        primary=True,
    ),
    "rmse": Measure(
        title="RMSE", unit="scaled", kinds=("series", "grid", "graph"), root_of="mse"
    ),
    "smape": Measure(
        title="sMAPE", unit="percent", kinds=("series",), elementwise=symmetric, factor=200
    ),
    "mape": Measure(title="MAPE", unit="percent", kinds=("graph",), elementwise=percentage),
    "mase": Measure(title="MASE", kinds=("series",)),
    "rmsse": Measure(title="RMSSE", kinds=("series",)),
    "wape": Measure(title="WAPE", unit="percent", factor=100.0),
    "mrr": Measure(
        title="MRR", better="more", kinds=("graph",), of_rank=reciprocal_rank,
        primary=True, beside=("ap",),
    ),
    "hits_at_1": Measure(
        title="hits@1", better="more", kinds=("graph",), of_rank=lambda ranks: hit(ranks, 1)
    ),
    "hits_at_10": Measure(
        title="hits@10", better="more", kinds=("graph",), of_rank=lambda ranks: hit(ranks, 10)
    ),
    "ap": Measure(title="AP", better="more", kinds=("graph",)),
    "auc": Measure(title="AUC", better="more", kinds=("graph",)),
    "ndcg_at_10": Measure(title="NDCG@10", better="more", kinds=("graph",), primary=True),
    "pinball": Measure(title="pinball loss", unit="scaled", kinds=("series",), part="quantiles"),
    "crps": Measure(title="CRPS", unit="scaled", kinds=("series",), part="intervals"),
    "coverage": Measure(
        title="coverage", better="nominal", kinds=("series",), part="intervals"
    ),
    "width": Measure(title="width", unit="scaled", kinds=("series",), part="intervals"),
    "interval_score": Measure(
        title="interval score", unit="scaled", kinds=("series",), part="intervals"
    ),
    "psnr": Measure(
        title="PSNR", better="more", unit="decibel", kinds=("grid",), part="openstl"
    ),
    "ssim": Measure(title="SSIM", better="more", kinds=("grid",), part="openstl"),
    "ssim_range_2": Measure(
        title="SSIM of range 2", better="more", kinds=("grid",), part="openstl"
    ),
    "bias": Measure(title="bias", better="nominal", unit="data", kinds=("grid",), part="area"),
    "acc": Measure(title="ACC", better="more", kinds=("grid",), part="area"),
}  # fmt: skip


def of_kind(kind: str) -> dict[str, Measure]:
    """Rows of `MEASURES` that scores of a kind of data hold themselves, none of their parts."""
    return {name: row for name, row in MEASURES.items() if kind in row.kinds and not row.part}


def elementwise(kind: str) -> dict[str, Elementwise]:
    """Errors of each element that scores of a kind sum up, by the measure whose mean they have."""
    means = {row.root_of or name for name, row in of_kind(kind).items()}
    rows = ((name, row.elementwise) for name, row in MEASURES.items() if name in means)
    return {name: function for name, function in rows if function is not None}


def with_roots(kind: str, means: Mapping[str, float | None]) -> dict[str, float | None]:
    """Figures of a kind of data, of the means that there are, each with its root.

    Args:
        kind: `series`, `grid` or `graph`.
        means: mean of the elementwise errors of each measure; None without any observation.
    """
    found: dict[str, float | None] = {}
    for name, row in of_kind(kind).items():
        if (row.root_of or name) in means:
            value = means[row.root_of or name]
            found[name] = math.sqrt(value) if row.root_of and value is not None else value
    return found


def mse(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean squared error: sum of (prediction - truth)^2 / count, in squared units of the data."""
    return _mean(_errors(squared, prediction, truth), mask)


def mae(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean absolute error: sum of |prediction - truth| / count, in units of the data."""
    return _mean(_errors(absolute, prediction, truth), mask)


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
    return MEASURES["smape"].factor * _mean(_errors(symmetric, prediction, truth), mask)


def mase(
    prediction: Tensor, truth: Tensor, scale: float | Tensor, mask: Tensor | None = None
) -> float:
    """Mean absolute scaled error: the MAE over `scale`, no unit.

    The scale is the MAE of the seasonal naive forecast inside the training rows, mean of
    |y[t] - y[t - season]|. Source: Hyndman and Koehler, Int. J. Forecasting 2006.
    """
    return _mean(_errors(absolute, prediction, truth) / scale, mask)


def rmsse(
    prediction: Tensor, truth: Tensor, scale: float | Tensor, mask: Tensor | None = None
) -> float:
    """Root of the mean squared scaled error: root of the MSE over `scale`, no unit.

    The scale is the MSE of the seasonal naive forecast inside the training rows, mean of
    (y[t] - y[t - season])^2. Source: Makridakis et al., M5 competition, there with a season of 1.
    """
    return math.sqrt(_mean(_errors(squared, prediction, truth) / scale, mask))


def pinball(
    prediction: Tensor, truth: Tensor, quantile: float, mask: Tensor | None = None
) -> float:
    """Mean pinball loss: mean of max(q * error, (q - 1) * error), in units of the data.

    The error is truth - prediction and q the quantile. At the median it is half the MAE.
    """
    return _mean(pinball_losses(prediction, truth, quantile), mask)


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
    return _mean(interval_scores(lower, upper, truth, level), mask)


def pinball_losses(prediction: Tensor, truth: Tensor, quantile: float) -> Tensor:
    """Pinball loss of each element, in float64."""
    error = truth.double() - prediction.double()
    return torch.maximum(quantile * error, (quantile - 1) * error)


def interval_scores(lower: Tensor, upper: Tensor, truth: Tensor, level: float) -> Tensor:
    """Interval score of each element at a level [%], in float64."""
    lower, upper, truth = lower.double(), upper.double(), truth.double()
    outside = (lower - truth).clamp(min=0) + (truth - upper).clamp(min=0)
    return upper - lower + 2 / (1 - level / 100) * outside


def masked_sum(values: Tensor, mask: Tensor | None) -> float:
    """Sum of the values that a mask leaves."""
    return float(values.sum() if mask is None else torch.where(mask, values, 0.0).sum())


def _errors(function: Elementwise, prediction: Tensor, truth: Tensor) -> Tensor:
    prediction, truth = prediction.double(), truth.double()
    return function(prediction - truth, prediction, truth)


def _mean(values: Tensor, mask: Tensor | None) -> float:
    if mask is None:
        return float(values.mean())
    return masked_sum(values, mask) / float(mask.sum())
