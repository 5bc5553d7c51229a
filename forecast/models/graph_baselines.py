"""Links and node values without learning: what a model of graphs must beat.

Each link rule scores a pair from what happened strictly before `cut` events: EdgeBank asks whether
the pair was ever, or lately, seen; recency how lately; the others rank within that. Values of nodes
are forecast by the last one, a moving average, or the mean of the training part.

Source: EdgeBank is of Poursafaei et al., NeurIPS 2022, section 5.

Letters: n queries, B batch, L lookback, H horizon, C nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.data.event_history import EventHistory

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


def historical_mean(
    train: Float[Tensor, "T C"], slots: Int[Tensor, "B H"], *, season: int
) -> Float[Tensor, "B H C"]:
    """Give the mean of the training rows in the same slot of a season.

    Args:
        train: rows in order, the first of them in slot 0.
        slots: the slot of each row to forecast.
        season: slots in a season.
    """
    slot = torch.arange(len(train)) % season
    sums = train.new_zeros(season, train.shape[1]).index_add_(0, slot, train)
    counts = torch.bincount(slot, minlength=season).clamp(min=1)
    return (sums / counts[:, None])[slots]
