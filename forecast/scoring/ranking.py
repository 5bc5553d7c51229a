"""Scores of forecasts on graphs: links ranked, destinations weighed, sensors measured.

Conventions:
    rank: 1 + negatives above + half of those that tie; a scorer that gives one value to all is in
        the middle, not at the top.
    AP, AUC: over all scores of a part pooled, equal scores counted together.
    NDCG@k: gains are the true values, discounted by log2 of the place + 1; of equal scores each
        place is shared by all.
    not finite: a score that is NaN or +inf is the worst: a positive is last, a negative is above
        it. Minus infinity is a score, that of a rule which knows nothing of a pair.
    masked: sensors report 0 where they report nothing; such cells count nowhere.

Letters: n queries, K candidates, H horizon, C sensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from forecast.batch import EventBatch, Forecast, Scores, SeriesBatch
from forecast.scoring.measures import (
    MEASURES,
    elementwise,
    hit,
    of_kind,
    reciprocal_rank,
    with_roots,
)


def ranks(
    positive: Float[Tensor, " n"],
    negatives: Float[Tensor, "n K"],
    mask: Bool[Tensor, "n K"] | None = None,
) -> Float[Tensor, " n"]:
    """Rank each positive among its negatives, those that `mask` calls False left out."""
    # Not `negatives > positive`, which is False of NaN on either side.
    broken = positive.isnan() | positive.isposinf()
    above = ~(negatives <= positive[:, None]) | broken[:, None]
    equal = (negatives == positive[:, None]) & ~above
    if mask is not None:
        above, equal = above & mask, equal & mask
    return 1 + above.sum(1).double() + 0.5 * equal.sum(1).double()


def link_ranks(scores: Float[Tensor, "n K"], batch: EventBatch) -> Float[Tensor, " n"]:
    """Rank the true candidate of each query of links among those that count for ranks."""
    truth, mask = batch.truth, batch.candidate_mask
    assert truth is not None
    assert not truth.is_floating_point()
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.clone()
    mask.scatter_(1, truth[:, None], False)
    if batch.pair is not None:
        mask.scatter_(1, batch.pair[:, None], False)
    return ranks(scores.gather(1, truth[:, None])[:, 0], scores, mask)


def mean_reciprocal_rank(places: Float[Tensor, " n"]) -> float:
    """Average 1 / rank."""
    return float(reciprocal_rank(places).mean())


def hits(places: Float[Tensor, " n"], at: int = 10) -> float:
    """Return the share of ranks up to `at`."""
    return float(hit(places, at).mean())


def _counts(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Count positives and all down to each different score, the highest first."""
    scores = torch.where(
        scores.isnan() | scores.isposinf(), torch.where(truth, -math.inf, math.inf), scores
    )
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
    """Return the chance that a positive is above a negative, ties counted half."""
    positives, count = _counts(scores, truth)
    zero = positives.new_zeros(1)
    hit = torch.cat([zero, positives / positives[-1]])
    false = count - positives
    miss = torch.cat([zero, false / false[-1]])
    return float(torch.trapezoid(hit, miss))


def ndcg(scores: Float[Tensor, "n K"], truth: Float[Tensor, "n K"], at: int = 10) -> float:
    """Weigh the true values at the first places against the best order; rows of zeros are left out.

    A row with a score that is NaN or infinite above gains nothing.

    Source: Järvelin and Kekäläinen, ACM TOIS 20, 2002; ties as in McSherry and Najork, ECIR 2008.
    """
    truth = truth[:, : scores.shape[1]].double()
    at = min(at, scores.shape[1])
    # weights of places; a tie takes the mean weight of the places it covers
    weights = torch.zeros(scores.shape[1], dtype=torch.float64)
    weights[:at] = 1 / torch.arange(2, at + 2, dtype=torch.float64).log2()
    cumulated = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
    ordered = ~(scores.isnan() | scores.isposinf()).any(1)
    scores = torch.where(ordered[:, None], scores, 0.0)
    ascending = (-scores).sort(1).values.contiguous()
    first = torch.searchsorted(ascending, (-scores).contiguous())
    last = torch.searchsorted(ascending, (-scores).contiguous(), right=True)
    share = (cumulated[last] - cumulated[first]) / (last - first)
    best = (truth.sort(1, descending=True).values * weights).sum(1)
    counted = best > 0
    gained = (truth * share).sum(1) * ordered
    return float((gained[counted] / best[counted]).mean())


def masked_errors(
    prediction: Float[Tensor, "n H C"], truth: Float[Tensor, "n H C"], *, least: float = 1e-3
) -> dict[str, Float[Tensor, " H"]]:
    """Return MAE, RMSE [unit of the data] and MAPE [%] for each lead; cells of 0 count nowhere.

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


class LinkSums:
    """Collect the ranks of true links, batch by batch, and their scores beside those of pairs."""

    def __init__(self) -> None:
        self._ranks: list[Tensor] = []
        self._true: list[Tensor] = []
        self._false: list[Tensor] = []

    def add(self, answer: Scores, batch: EventBatch) -> None:
        """Add the scores of one batch."""
        scores, truth = answer.values, batch.truth
        assert truth is not None
        self._ranks.append(link_ranks(scores, batch).cpu())
        if batch.pair is not None:
            self._true.append(scores.gather(1, truth[:, None])[:, 0].double().cpu())
            self._false.append(scores.gather(1, batch.pair[:, None])[:, 0].double().cpu())

    def result(self) -> dict[str, object]:
        """Means over ranks, such as `mrr`, the number of `queries`, and `ap` and `auc`."""
        places = torch.cat(self._ranks) if self._ranks else torch.empty(0)
        if not len(places):
            return {"mrr": None, "queries": 0}
        result: dict[str, object] = {
            name: float(row.of_rank(places).mean()) * row.factor
            for name, row in of_kind("graph").items()
            if row.of_rank
        }
        result["queries"] = len(places)
        if self._true:
            true, false = torch.cat(self._true), torch.cat(self._false)
            scores = torch.cat([true, false])
            positive = torch.arange(len(scores)) < len(true)
            result["ap"] = average_precision(scores, positive)
            result["auc"] = area_under_curve(scores, positive)
        return result


class ShareSums:
    """Add up how well destinations are put in order by their shares."""

    def __init__(self) -> None:
        self._gain, self._queries = 0.0, 0

    def add(self, answer: Scores, batch: EventBatch) -> None:
        """Add the scores of one batch."""
        truth = batch.truth
        assert truth is not None
        if len(batch):
            self._gain += ndcg(answer.values, truth) * len(batch)
            self._queries += len(batch)

    def result(self) -> dict[str, object]:
        """Return `ndcg_at_10` and the number of `queries`."""
        gain = self._gain / self._queries if self._queries else None
        return {"ndcg_at_10": gain, "queries": self._queries}


class ValueSums:
    """Add up the errors of values of nodes, in their unit, lead by lead.

    Args:
        undo: brings scaled values back to their unit.
        least: a smaller truth has no part in MAPE.
    """

    def __init__(self, undo: Callable[[Tensor], Tensor], *, least: float = 1e-3) -> None:
        self._undo, self._least = undo, least
        self._errors = elementwise("graph")
        self._sums: dict[str, Tensor] = {}
        self.windows = 0

    def add(self, answer: Forecast, batch: EventBatch | SeriesBatch) -> None:
        """Add one batch of scaled forecasts."""
        mask = None
        if isinstance(batch, SeriesBatch):
            assert batch.target is not None
            target, mask = batch.target, batch.target_mask
        else:
            assert batch.truth is not None
            target = batch.truth.T[None]  # (1, H, N)
        truth, prediction = self._undo(target).double(), self._undo(answer.values).double()
        error = prediction - truth
        seen = torch.ones_like(error) if mask is None else mask.double()
        large = seen * (truth.abs() >= self._least)
        sums = {"count": seen, "large": large}
        for name, function in self._errors.items():
            if _counted(name) == "large":
                sums[name] = function(error, prediction, torch.where(large > 0, truth, 1.0)) * large
            else:
                sums[name] = function(error, prediction, truth) * seen
        for name, cells in sums.items():
            amount = cells.sum((0, 2)).cpu()
            self._sums[name] = self._sums[name] + amount if name in self._sums else amount
        self.windows += len(error)

    def result(self) -> dict[str, object]:
        """Return `mae`, `rmse` and `mape` [%], overall and by lead, `windows` and `values`."""
        if not self.windows:
            nothing = with_roots("graph", dict.fromkeys(self._errors))
            return {**nothing, "windows": 0, "values": 0}
        sums = self._sums
        means: dict[str, float | None] = {}
        by_lead: dict[str, list[float]] = {}
        for name in self._errors:
            factor, count = MEASURES[name].factor, sums[_counted(name)]
            by_lead[name] = (factor * sums[name] / count.clamp(min=1)).tolist()
            means[name] = factor * float(sums[name].sum() / count.sum().clamp(min=1))
        result: dict[str, object] = {"windows": self.windows, "values": int(sums["count"].sum())}
        for name, whole in with_roots("graph", means).items():
            root_of = MEASURES[name].root_of
            leads = by_lead[root_of or name]
            result[name] = whole
            result[f"{name}_by_lead"] = [math.sqrt(one) for one in leads] if root_of else leads
        return result


def _counted(measure: str) -> str:
    """Cells that a measure is the mean over: a percentage needs a truth that is not near 0."""
    return "large" if MEASURES[measure].unit == "percent" else "count"
