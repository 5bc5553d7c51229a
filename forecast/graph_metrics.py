"""Scores of forecasts on graphs: links ranked, destinations weighed, sensors measured.

Conventions:
    rank: 1 + negatives above + half of those that tie; a scorer that gives one value to all is in
        the middle, not at the top.
    AP, AUC: over all scores of a part pooled, equal scores counted together.
    NDCG@k: gains are the true values, discounted by log2 of the place + 1; of equal scores each
        place is shared by all.
    masked: sensors report 0 where they report nothing; such cells count nowhere.

Letters: n queries, K candidates, H horizon, C sensors.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def ranks(
    positive: Float[Tensor, " n"],
    negatives: Float[Tensor, "n K"],
    mask: Bool[Tensor, "n K"] | None = None,
) -> Float[Tensor, " n"]:
    """Rank each positive among its negatives, those that `mask` calls False left out."""
    above, equal = negatives > positive[:, None], negatives == positive[:, None]
    if mask is not None:
        above, equal = above & mask, equal & mask
    return 1 + above.sum(1).double() + 0.5 * equal.sum(1).double()


def mean_reciprocal_rank(places: Float[Tensor, " n"]) -> float:
    """Average 1 / rank."""
    return float(places.double().reciprocal().mean())


def hits(places: Float[Tensor, " n"], at: int = 10) -> float:
    """Give the share of ranks up to `at`."""
    return float((places <= at).double().mean())


def _counts(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Count positives and all down to each different score, the highest first."""
    order = scores.argsort(descending=True)
    ranked = scores[order]
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])
    positives = truth[order].double().cumsum(0)[last]
    return positives, (last.nonzero().flatten() + 1).double()


def average_precision(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """Sum precision over the steps of recall."""
    positives, count = _counts(scores, truth)
    gained = torch.diff(positives, prepend=positives.new_zeros(1))
    return float((gained * positives / count).sum() / positives[-1])


def area_under_curve(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """Give the chance that a positive is above a negative, ties counted half."""
    positives, count = _counts(scores, truth)
    zero = positives.new_zeros(1)
    hit = torch.cat([zero, positives / positives[-1]])
    false = count - positives
    miss = torch.cat([zero, false / false[-1]])
    return float(torch.trapezoid(hit, miss))


def ndcg(scores: Float[Tensor, "n K"], truth: Float[Tensor, "n K"], at: int = 10) -> float:
    """Weigh the true values at the first places against the best order; rows of zeros are left out.

    Source: Järvelin and Kekäläinen, ACM TOIS 20, 2002; ties as in McSherry and Najork, ECIR 2008.
    """
    truth = truth[:, : scores.shape[1]].double()
    at = min(at, scores.shape[1])
    # weights of places; a tie takes the mean weight of the places it covers
    weights = torch.zeros(scores.shape[1], dtype=torch.float64)
    weights[:at] = 1 / torch.arange(2, at + 2, dtype=torch.float64).log2()
    cumulated = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
    ascending = (-scores).sort(1).values.contiguous()
    first = torch.searchsorted(ascending, (-scores).contiguous())
    last = torch.searchsorted(ascending, (-scores).contiguous(), right=True)
    share = (cumulated[last] - cumulated[first]) / (last - first)
    best = (truth.sort(1, descending=True).values * weights).sum(1)
    counted = best > 0
    return float(((truth * share).sum(1)[counted] / best[counted]).mean())


def masked_errors(
    prediction: Float[Tensor, "n H C"], truth: Float[Tensor, "n H C"], *, least: float = 1e-3
) -> dict[str, Float[Tensor, " H"]]:
    """Give MAE, RMSE [unit of the data] and MAPE [%] for each lead; cells of 0 count nowhere.

    Args:
        prediction: in the unit of the data.
        truth: the same; NaN or 0 where nothing was reported.
        least: a truth below it is nothing reported.
    """
    seen = truth.abs() >= least  # False for NaN
    truth = torch.where(seen, truth, 1.0).double()
    error = torch.where(seen, prediction.double() - truth, 0.0)
    count = seen.sum((0, 2)).clamp(min=1)
    return {
        "mae": error.abs().sum((0, 2)) / count,
        "rmse": (error.square().sum((0, 2)) / count).sqrt(),
        "mape": 100 * (error.abs() / truth.abs()).sum((0, 2)) / count,
    }
