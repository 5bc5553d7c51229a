"""Events as batches of queries: a window that ends strictly before the first time asked about.

`order` is chronological: a batch is a run of events, scored from what was known before the first of
them, and revealed afterwards.

Letters: E events, N nodes, W events of a window, B queries, K negatives of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.batch import EventBatch
from forecast.errors import UsageError
from forecast.graphs.events import Events
from forecast.graphs.history import EventHistory
from forecast.graphs.protocol import RANKED, EventSplit, pair_negatives, rank_negatives

# Past negatives are of this first part of what is known, as those of validation are of training.
_LONG_AGO = 0.8


def window(events: Events, now: float, size: int, *, longest: float | None = None) -> slice:
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
        pairs: the one that stands against each event for AP and AUC.
        drawn: K, when they are drawn.
        past: share of them that are past destinations of the source.
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
    pairs: Int[Tensor, " n"] | None = None
    drawn: int = 20
    past: float = 0.0
    batch_size: int = 200
    longest: float | None = None
    weights: bool = False

    @property
    def lookback(self) -> int:
        """Events of a window (W)."""
        return self.window

    @property
    def horizon(self) -> int:
        """H: the next event."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where the events lie."""
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
            others, prior = self._draw(src, cut)
            # A draw that hits the true destination counts for nothing.
            mask = others != dst[:, None]
        else:
            others, prior = self.negatives[index], None
            if self.pairs is not None:
                others = torch.cat([others, self.pairs[index][:, None]], 1)
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
            pair=None if self.pairs is None else torch.full_like(src, candidates.shape[1] - 1),
            facts=facts,
            prior=prior,
            truth=torch.zeros_like(src),
        )

    def _draw(self, src: Int[Tensor, " B"], cut: int) -> tuple[Tensor, Tensor]:
        """Draw negatives, and give the logarithm of how many of the protocol each stands for.

        Without that, few draws would make pairs that met look rarer among negatives than they are.
        """
        pool = self.destinations
        others = pool[torch.randint(len(pool), (len(src), self.drawn))]
        is_past = torch.zeros_like(others, dtype=torch.bool)
        stand = src.new_zeros(len(src))
        if past := round(self.past * self.drawn):
            # Whom a source met of late is as a rule whom it meets next: those are no negatives.
            met = torch.full_like(src, int(cut * _LONG_AGO))
            known, stand = self.history.draw_past(src, met, past)
            is_past[:, :past] = known >= 0
            others[:, :past] = torch.where(known >= 0, known, others[:, :past])
            stand = stand.clamp(max=round(self.past * RANKED))
        count = is_past.sum(1)
        weight = torch.where(
            is_past,
            (stand / count.clamp(min=1))[:, None],
            ((RANKED - stand) / (self.drawn - count).clamp(min=1))[:, None],
        )
        return others, torch.cat([torch.zeros(len(src), 1), weight.log()], 1)

    def batches(self, size: int) -> Iterator[EventBatch]:
        """Go through all events in order, `batch_size` at a time."""
        for index in torch.arange(len(self)).split(self.batch_size):
            yield self.batch(index)

    def every(self, step: int) -> LinkBatches:
        """Keep each `step`-th batch."""
        index = torch.arange(len(self))
        index = index[index // self.batch_size % step == 0]
        return replace(
            self,
            numbers=self.numbers[index],
            negatives=None if self.negatives is None else self.negatives[index],
            pairs=None if self.pairs is None else self.pairs[index],
        )


def link_batches(
    events: Events,
    split: EventSplit,
    part: str,
    *,
    window: int = 4096,
    unit: float = 1.0,
    drawn: int = 20,
    past: float = 0.0,
    batch_size: int = 200,
    longest: float | None = None,
    weights: bool = False,
) -> LinkBatches:
    """Make the batches of a part; those of validation and test have fixed negatives.

    Training starts at the first event with a quarter of a window behind it, and neither asks about
    nor sees the nodes that it must not meet. Its negatives are destinations of the whole training
    part, as those of the protocol are of the whole file: were they destinations seen before, one
    that was not would be the true one each time.
    """
    numbers = split.part(part)
    asked = torch.arange(numbers.start, numbers.stop)
    negatives = pairs = None
    if part == "train":
        events = events.take(split.kept)
        asked = torch.arange(min(window // 4, len(events) // 2), len(events))
    else:
        negatives, pairs = rank_negatives(events, numbers), pair_negatives(events, numbers)
    history = EventHistory(events.src, events.dst, events.time, nodes=events.nodes, unit=unit)
    return LinkBatches(
        events=events,
        history=history,
        numbers=asked,
        destinations=torch.unique(events.dst),
        window=window,
        negatives=negatives,
        pairs=pairs,
        drawn=drawn,
        past=past,
        batch_size=batch_size,
        longest=longest,
        weights=weights,
    )


@dataclass(frozen=True, kw_only=True)
class AffinityBatches:
    """Ask how each source's events of a period share out among destinations.

    Attributes:
        events: all events; their weights, or one each, are shared out.
        starts: the first times of the periods to ask about.
        period: length of a period.
        window: W.
        candidates: destinations among which a source's events are shared out.
        averaged: periods before that the prior averages.
    """

    events: Events
    starts: Float[Tensor, " n"]
    period: float
    window: int
    candidates: Int[Tensor, " K"]
    averaged: int = 7

    @property
    def lookback(self) -> int:
        """Events of a window (W)."""
        return self.window

    @property
    def horizon(self) -> int:
        """H: the next period."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where the events lie."""
        return self.events.time.device

    def __len__(self) -> int:
        return len(self.starts)

    def order(self, epoch: int, seed: int) -> Int[Tensor, " n"]:
        """Keep the order of time in every epoch."""
        return torch.arange(len(self))

    def batch(self, index: Int[Tensor, " one"]) -> EventBatch:
        """Ask about one period.

        Raises:
            UsageError: more than one period is asked for: each has a window of its own.
        """
        if len(index) != 1:
            raise UsageError(
                f"A batch of shares is one period, not {len(index)}.",
                hint="Set train.batch_size=1.",
            )
        now = float(self.starts[index[0]])
        coming = self._within(now, now + self.period)
        sources = torch.unique(self.events.src[coming])
        truth = self._amounts(sources, coming)
        # A source all of whose events lead elsewhere has nothing to share out.
        held = truth.sum(1) > 0
        sources, truth = sources[held], truth[held]
        return replace(self.ask(now, sources), truth=truth / truth.sum(1, keepdim=True))

    def ask(self, now: float, sources: Int[Tensor, " B"]) -> EventBatch:
        """Ask how the events of some sources will share out in the period from a time on.

        Args:
            now: the time.
            sources: the nodes, in any order.
        """
        part, events = window(self.events, now, self.window), self.events
        before = self._amounts(sources, self._within(now - self.averaged * self.period, now))
        return EventBatch(
            src=events.src[part],
            dst=events.dst[part],
            time=events.time[part],
            now=now,
            query=sources,
            query_time=torch.full((len(sources),), now, dtype=torch.float64),
            weight=None if events.weight is None else events.weight[part],
            features=None if events.features is None else events.features[part],
            candidates=self.candidates.expand(len(sources), -1),
            prior=(before / self.averaged).log1p(),
        )

    def batches(self, size: int) -> Iterator[EventBatch]:
        """Go through the periods in order."""
        for index in torch.arange(len(self)).split(1):
            yield self.batch(index)

    def every(self, step: int) -> AffinityBatches:
        """Keep each `step`-th period."""
        return replace(self, starts=self.starts[::step])

    def _within(self, first: float, end: float) -> slice:
        edges = torch.tensor([first, end], dtype=torch.float64)
        return slice(*torch.searchsorted(self.events.time, edges).tolist())

    def _amounts(self, sources: Int[Tensor, " B"], part: slice) -> Float[Tensor, "B K"]:
        events = self.events
        src, dst = events.src[part], events.dst[part]
        amounts = torch.zeros(len(sources), len(self.candidates))
        if not len(src) or not len(sources):
            return amounts
        ordered, order = sources.sort()
        row = order[torch.searchsorted(ordered, src).clamp(max=len(sources) - 1)]
        column = torch.searchsorted(self.candidates, dst).clamp(max=len(self.candidates) - 1)
        known = (sources[row] == src) & (self.candidates[column] == dst)
        weight = torch.ones(len(src)) if events.weight is None else events.weight[part]
        return amounts.index_put_((row[known], column[known]), weight[known], accumulate=True)
