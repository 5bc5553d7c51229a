"""What was known of pairs and nodes strictly before a time, for any number of queries at once.

Events of one pair, or into or out of one node, are runs of a sorted array, so that the last one
before an event's number, and how many there are, is one binary search.

Letters: E events, N nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEVER = 1e9
DAY, HOUR = 86_400.0, 3_600.0
# Numbers that `EventHistory.facts` tells of a query.
FACTS = 17


@dataclass(frozen=True, slots=True)
class _Runs:
    """The numbers of events, group after group; a key is group (E + 1) + number."""

    groups: Int[Tensor, " K"]
    keys: Int[Tensor, " E"]
    span: int

    @classmethod
    def of(cls, group: Int[Tensor, " E"]) -> _Runs:
        groups, place = torch.unique(group, return_inverse=True)
        span = len(group) + 1
        return cls(groups, (place * span + torch.arange(len(group))).sort().values, span)

    def last(
        self, group: Int[Tensor, "*n"], cut: Int[Tensor, "*n"]
    ) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
        """Return the last event of a group among the first `cut` ones, or -1, and their number."""
        first, count = self.first(group, cut)
        number = self.keys[(first + count - 1).clamp(min=0)] % self.span
        return torch.where(count > 0, number, -1), count

    def first(
        self, group: Int[Tensor, "*n"], cut: Int[Tensor, "*n"]
    ) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
        """Return the place of a group's first event, and its events among the first `cut` ones."""
        place = torch.searchsorted(self.groups, group.contiguous()).clamp(max=len(self.groups) - 1)
        key = place * self.span
        first = torch.searchsorted(self.keys, key)
        return first, (torch.searchsorted(self.keys, (key + cut).contiguous()) - first) * (
            self.groups[place] == group
        )


class EventHistory:
    """Answer what the first `cut` events say of pairs and nodes.

    Args:
        src: where the events come from, in order of time.
        dst: where they go to.
        time: when.
        nodes: N; other numbers are of nodes never seen.
        unit: seconds in a unit of time; unitless times count in median steps between events.
    """

    def __init__(
        self,
        src: Int[Tensor, " E"],
        dst: Int[Tensor, " E"],
        time: Float[Tensor, " E"],
        *,
        nodes: int,
        unit: float = 1.0,
    ) -> None:
        self.src, self.dst, self.time, self.nodes, self.unit = src, dst, time, nodes, unit
        self._pairs = _Runs.of(src * nodes + dst)
        self._out, self._into = _Runs.of(src), _Runs.of(dst)
        # Events that are the first of their pair, so that a destination counts once.
        _, before = self.pair(src, dst, torch.arange(len(time)))
        self._meetings = (before == 0).nonzero().flatten()
        self._met = _Runs.of(src[self._meetings])

    def cut(self, time: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Count the events strictly before a time."""
        return torch.searchsorted(self.time, time.contiguous())

    def pair(
        self, src: Int[Tensor, "*n"], dst: Int[Tensor, "*n"], cut: Int[Tensor, "*n"]
    ) -> tuple[Float[Tensor, "*n"], Int[Tensor, "*n"]]:
        """Return the last time of an event from `src` to `dst`, or -inf, and their number."""
        inside = (src >= 0) & (dst >= 0) & (src < self.nodes) & (dst < self.nodes)
        number, count = self._pairs.last(torch.where(inside, src * self.nodes + dst, -1), cut)
        return self._when(number), count

    def into(self, node: Int[Tensor, "*n"], cut: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the last time of any event into a node, or -inf."""
        return self._when(self._into.last(node, cut)[0])

    def out_of(self, node: Int[Tensor, "*n"], cut: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return the last time of any event out of a node, or -inf."""
        return self._when(self._out.last(node, cut)[0])

    def draw_past(
        self, src: Int[Tensor, " n"], cut: Int[Tensor, " n"], count: int
    ) -> tuple[Int[Tensor, "n c"], Int[Tensor, " n"]]:
        """Draw different past destinations of each source, and tell how many it has.

        Of a destination drawn twice the second is -1, and so are all of a source without a past.
        """
        cut = torch.searchsorted(self._meetings, cut)
        first, known = self._met.first(src, cut)
        place = first[:, None] + (torch.rand(len(src), count) * known[:, None]).long()
        place = place.sort(1).values
        fresh = torch.ones_like(place, dtype=torch.bool)
        fresh[:, 1:] = place[:, 1:] != place[:, :-1]
        number = self._met.keys[place.clamp(max=len(self._meetings) - 1)] % self._met.span
        drawn = torch.where(fresh & (known[:, None] > 0), self.dst[self._meetings[number]], -1)
        return drawn, known

    def _when(self, number: Tensor) -> Tensor:
        times = self.time[number.clamp(min=0)]
        return torch.where(number >= 0, times, -math.inf)

    def facts(
        self,
        src: Int[Tensor, "*n"],
        dst: Int[Tensor, "*n"],
        time: Float[Tensor, "*n"],
        cut: Int[Tensor, "*n"],
    ) -> Float[Tensor, "*n 17"]:
        """Return what is known of a pair and its ends as numbers of moderate size.

        Of the time D since the last event from `src` to `dst`, back, into `dst` and out of it:
        log1p(D) / 10, whether there was none, 1 / (1 + D / day); the same of the later of the first
        two, by the hour; log1p of the counts there and back.
        """
        there, count_there = self.pair(src, dst, cut)
        back, count_back = self.pair(dst, src, cut)
        lasts = [there, back, self.into(dst, cut), self.out_of(dst, cut), there.maximum(back)]
        columns: list[Tensor] = []
        for last, scale in zip(lasts, (DAY, DAY, DAY, DAY, HOUR), strict=True):
            never = last == -math.inf
            since = ((time - last) * self.unit).clamp(0, NEVER)
            columns += [since.log1p() / 10, never.double(), 1 / (1 + since / scale)]
        columns += [count_there.double().log1p(), count_back.double().log1p()]
        return torch.stack(columns, -1).float()
