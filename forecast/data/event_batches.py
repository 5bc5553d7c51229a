"""Events as batches of queries: a window that ends strictly before the first time asked about.

`order` is chronological: a batch is a run of events, scored from what was known before the first of
them, and revealed afterwards.

Letters: E events, N nodes, W events of a window, B queries, K negatives of a query, L last values,
H horizon, S steps of a sequence of snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.batch import EventBatch
from forecast.data.event_history import EventHistory
from forecast.data.events import Events
from forecast.data.link_protocol import Split, rank_negatives


def window(
    events: Events, now: float, size: int, *, longest: float | None = None
) -> slice:
    """Find the last events strictly before a time, none of one time being left out alone.

    Args:
        events: in order of time.
        now: the time.
        size: events at least, where there are so many.
        longest: how far back the window may reach.
    """
    cut = int(torch.searchsorted(events.time, now))
    first = events.time[max(0, cut - size)] if cut else now
    first = int(torch.searchsorted(events.time, float(first)))
    if longest is not None:
        first = max(first, int(torch.searchsorted(events.time, now - longest)))
    return slice(min(first, cut), cut)


@dataclass(frozen=True, kw_only=True)
class LinkBatches:
    """Ask of each event which destination it has, among negatives.

    Attributes:
        events: all events, those to ask about and those before.
        history: of the same.
        numbers: the events to ask about, in order.
        destinations: nodes to draw from.
        window: W.
        negatives: fixed ones of each event, -1 filling up; else they are drawn.
        drawn: K, when they are drawn.
        batch_size: B of `batches`, whatever is asked for: it is a part of the task.
        longest: how far back a window may reach, in the unit of time.
        weights: hand on the weights of events.
    """

    events: Events
    history: EventHistory
    numbers: Int[Tensor, " n"]
    destinations: Int[Tensor, " d"]
    window: int
    negatives: Int[Tensor, "n K"] | None = None
    drawn: int = 20
    batch_size: int = 200
    longest: float | None = None
    weights: bool = False

    @property
    def lookback(self) -> int:
        """Tell W."""
        return self.window

    @property
    def horizon(self) -> int:
        """Tell H: the next event."""
        return 1

    @property
    def device(self) -> torch.device:
        """Tell where the events lie."""
        return self.events.time.device

    def __len__(self) -> int:
        return len(self.numbers)

    def order(self, epoch: int, seed: int) -> Int[Tensor, " n"]:
        """Keep the order of time in every epoch."""
        return torch.arange(len(self))

    def batch(self, index: Int[Tensor, " B"]) -> EventBatch:
        """Ask about the events with these places, all from before the first of them."""
        events, number = self.events, self.numbers[index]
        src, dst, time = events.src[number], events.dst[number], events.time[number]
        now = float(time[0])
        cut = int(torch.searchsorted(events.time, now))
        if self.negatives is None:
            # A draw that hits the true destination counts for nothing.
            pool = self.destinations
            others = pool[torch.randint(len(pool), (len(number), self.drawn))]
            mask = others != dst[:, None]
        else:
            others = self.negatives[index]
            mask = others >= 0
        candidates = torch.cat([dst[:, None], others], 1)
        wide = src[:, None].expand_as(candidates), time[:, None].expand_as(candidates)
        facts = self.history.facts(wide[0], candidates, wide[1], torch.full_like(candidates, cut))
        part = window(events, now, self.window, longest=self.longest)
        return EventBatch(
            src=events.src[part],
            dst=events.dst[part],
            time=events.time[part],
            now=now,
            query=src,
            query_time=time,
            weight=events.weight[part] if self.weights and events.weight is not None else None,
            features=None if events.features is None else events.features[part],
            candidates=candidates,
            candidate_mask=torch.cat([torch.ones_like(mask[:, :1]), mask], 1),
            facts=facts,
            truth=torch.zeros_like(src),
        )

    def batches(self, size: int) -> Iterator[EventBatch]:
        """Go through all events in order, `batch_size` at a time."""
        for index in torch.arange(len(self)).split(self.batch_size):
            yield self.batch(index)

    def every(self, step: int) -> LinkBatches:
        """Keep each `step`-th batch."""
        index = torch.arange(len(self))
        index = index[index // self.batch_size % step == 0]
        negatives = None if self.negatives is None else self.negatives[index]
        return replace(self, numbers=self.numbers[index], negatives=negatives)


def link_batches(
    events: Events,
    split: Split,
    part: str,
    *,
    window: int = 4096,
    unit: float = 1.0,
    drawn: int = 20,
    batch_size: int = 200,
    weights: bool = False,
) -> LinkBatches:
    """Make the batches of a part; those of validation and test have fixed negatives.

    Training starts at the first event with a quarter of a window behind it, and neither asks about
    nor sees the nodes that it must not meet.
    """
    numbers = split.part(part)
    asked = torch.arange(numbers.start, numbers.stop)
    negatives = None
    if part == "train":
        events = events.take(split.kept)
        asked = torch.arange(min(window // 4, len(events) // 2), len(events))
    else:
        negatives = rank_negatives(events, numbers)
    history = EventHistory(events.src, events.dst, events.time, nodes=events.nodes, unit=unit)
    return LinkBatches(
        events=events,
        history=history,
        numbers=asked,
        destinations=torch.unique(events.dst),
        window=window,
        negatives=negatives,
        drawn=drawn,
        batch_size=batch_size,
        weights=weights,
    )
