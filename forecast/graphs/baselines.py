"""Links and node values without learning: what a model of graphs must beat.

Each link rule scores a pair from what happened strictly before `cut` events: EdgeBank asks whether
the pair was ever, or lately, seen; recency how lately; the others rank within that. Values of nodes
are forecast by the last one, a moving average, the mean of a season's slot, or one linear map of a
window that all nodes share.

Source: EdgeBank is of Poursafaei et al., NeurIPS 2022, section 5.

Letters: n queries, B batch, L lookback, H horizon, C nodes, T training rows, S slots of a season.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from forecast.graphs.history import EventHistory

# (history, source, destination, events known, how long ago still counts as lately) -> score
LinkRule = Callable[[EventHistory, Tensor, Tensor, Tensor, float], Tensor]


def _lately(h: EventHistory, src: Tensor, dst: Tensor, cut: Tensor, lately: float) -> Tensor:
    now = h.time[(cut - 1).clamp(min=0)]
    return (h.pair(src, dst, cut)[0] >= now - lately).double()


def _recency_then(h: EventHistory, src: Tensor, dst: Tensor, cut: Tensor, lately: float) -> Tensor:
    return _then(h, h.pair(src, dst, cut)[0], h.into(dst, cut))


def _undirected(h: EventHistory, src: Tensor, dst: Tensor, cut: Tensor, lately: float) -> Tensor:
    both = h.pair(src, dst, cut)[0].maximum(h.pair(dst, src, cut)[0])
    return _then(h, both, h.into(dst, cut))


def _then(h: EventHistory, seen: Tensor, last: Tensor) -> Tensor:
    """Put all pairs that were seen above the rest, which are in the order of `last`."""
    span = float(h.time[-1] - h.time[0]) + 1.0
    return torch.where(seen == -math.inf, last - span, seen)


LINK_RULES: dict[str, LinkRule] = {
    "edgebank": lambda h, src, dst, cut, lately: (h.pair(src, dst, cut)[1] > 0).double(),
    "edgebank-lately": _lately,
    "pair-count": lambda h, src, dst, cut, lately: h.pair(src, dst, cut)[1].double(),
    "recency": lambda h, src, dst, cut, lately: h.pair(src, dst, cut)[0],
    "destination-recency": lambda h, src, dst, cut, lately: h.into(dst, cut),
    "recency-then-destination": _recency_then,
    "undirected-recency-then-destination": _undirected,
}


def score_links(
    rule: str,
    history: EventHistory,
    src: Int[Tensor, "*n"],
    dst: Int[Tensor, "*n"],
    cut: Int[Tensor, "*n"],
    *,
    lately: float = math.inf,
) -> Float[Tensor, "*n"]:
    """Score pairs by a rule of `LINK_RULES`.

    Args:
        rule: its name.
        history: all events; those from number `cut` on are not looked at.
        src: sources.
        dst: destinations.
        cut: events known, for each query.
        lately: how long ago an event still counts for `edgebank-lately`.
    """
    return LINK_RULES[rule](history, src, dst, cut, lately)


def persistence(past: Float[Tensor, "B L C"], horizon: int) -> Float[Tensor, "B H C"]:
    """Repeat the last value."""
    return past[:, -1:].expand(-1, horizon, -1)


def moving_average(
    past: Float[Tensor, "B L C"], horizon: int, *, steps: int
) -> Float[Tensor, "B H C"]:
    """Repeat the mean of the last steps."""
    return past[:, -steps:].mean(1, keepdim=True).expand(-1, horizon, -1)


def slot_means(
    train: Float[Tensor, "T C"], slots: Int[Tensor, " T"], *, season: int
) -> Float[Tensor, "S C"]:
    """Average training rows by their slot in a season; a slot without rows has the mean of all.

    Args:
        train: rows, NaN where nothing was observed; a column of NaN has the mean of all others.
        slots: of each row.
        season: S, slots in a season.
    """
    seen, zeros = ~train.isnan(), train.new_zeros(season, train.shape[1])
    sums = zeros.index_add(0, slots, train.nan_to_num())
    counts = zeros.index_add(0, slots, seen.to(train.dtype))
    every = train.nanmean(0)
    every = torch.where(every.isnan(), train.nanmean().nan_to_num(), every)
    return torch.where(counts > 0, sums / counts.clamp(min=1), every)


def fit_pooled(
    past: Float[Tensor, "B L C"],
    target: Float[Tensor, "B H C"],
    mask: Bool[Tensor, "B H C"] | None = None,
) -> Float[Tensor, "L1 H"]:
    """Fit one linear map from a node's window to its next values, the same for all nodes.

    Least squares with a constant; windows with a missing target are left out.
    """
    rows, wanted = (part.transpose(1, 2).flatten(0, 1).double() for part in (past, target))
    rows = functional.pad(rows, (0, 1), value=1.0)
    if mask is not None:
        complete = mask.transpose(1, 2).flatten(0, 1).all(1)
        rows, wanted = rows[complete], wanted[complete]
    gram = rows.T @ rows
    # As much as rounding wants where a window's values are all alike.
    gram += torch.eye(len(gram), dtype=gram.dtype) * 1e-9 * gram.diagonal().mean()
    return torch.linalg.solve(gram, rows.T @ wanted).float()


def pooled(past: Float[Tensor, "B L C"], weights: Float[Tensor, "L1 H"]) -> Float[Tensor, "B H C"]:
    """Forecast by the map of `fit_pooled`."""
    return torch.einsum("blc,lh->bhc", past, weights[:-1]) + weights[-1][:, None]
