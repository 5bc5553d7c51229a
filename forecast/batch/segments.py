"""Segments of series for models that carry a state: forecasts from every position, not from one.

A segment is `warm_up` rows that only bring the state up, then `scored` positions, each of which is
scored on the `horizon` rows behind it. It is the counterpart of `windows`, with the same borders:
targets lie fully inside the part, the rows before them may reach back into an earlier one. Rows
before the start of a series are filled up as unobserved, so that short series take part too.

Letters: B batch, K scored positions, L = warm-up + K rows, H horizon, C variates, S series,
W segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.batch import SeriesBatch
from forecast.batch.windows import Series, Windows

# Targets that one segment of a whole part scores at most: their forecasts are what takes memory.
_MOST_TARGETS = 1 << 23


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentBatch(SeriesBatch):
    """Hold segments: `past` is the segment, `target` the H rows that follow its last position.

    Attributes:
        scored: K; the last K positions of `past` are scored.
        counted: which of them count; None for all.
        observed_past: `past` as targets have it, where a model reads something else.
        observed_mask: its mask.
        center: mean by which the row of each scored position was scaled; None for 0.
        spread: deviation by which it was.
        history: rows of `past`, the first, that only those segments have that carry a state.
        carrying: which segments these are; None for none.
    """

    scored: int
    counted: Bool[Tensor, "B K"] | None = None
    observed_past: Float[Tensor, "B L C"] | None = None
    observed_mask: Bool[Tensor, "B L C"] | None = None
    center: Float[Tensor, "B K C"] | None = None
    spread: Float[Tensor, "B K C"] | None = None
    history: int = 0
    carrying: Bool[Tensor, " B"] | None = None

    def truth(self) -> tuple[Float[Tensor, "B K H C"], Bool[Tensor, "B K H C"] | None]:
        """Give the targets of the scored positions, and which of them are observed and count.

        The targets are a view: what overlaps is not copied.
        """
        assert self.target is not None
        past, seen = self.past, self.past_mask
        if self.observed_past is not None:
            past, seen = self.observed_past, self.observed_mask
        values, mask = self._dense(past, self.target), None
        if seen is not None:
            observed = self.target_mask
            if observed is None:
                observed = torch.ones_like(self.target, dtype=torch.bool)
            mask = self._dense(seen, observed)
        if self.center is not None and self.spread is not None:
            values = (values - self.center[:, :, None]) / self.spread[:, :, None]
        if self.counted is not None:
            counted = self.counted[..., None, None]
            mask = counted.expand_as(values) if mask is None else mask & counted
        return values, mask

    def rows_from(
        self, first: int, end: int | None = None, which: Bool[Tensor, " B"] | None = None
    ) -> SeriesBatch:
        """Take some rows of `past`, of all segments or of `which`, without the targets."""
        some = slice(first, end)

        def cut(part: Tensor) -> Tensor:
            return part[:, some] if which is None else part[which, some]

        return SeriesBatch(
            past=cut(self.past),
            past_mask=None if self.past_mask is None else cut(self.past_mask),
            past_time=None if self.past_time is None else cut(self.past_time),
        )

    def _dense(self, past: Tensor, target: Tensor) -> Tensor:
        rows = torch.cat([past[:, past.shape[1] - self.scored + 1 :], target], 1)
        return rows.unfold(1, target.shape[1], 1).transpose(2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """Give the segments of one part by number, as batches.

    Attributes:
        series: the rows.
        chosen: the origins that count: True in the row after a position that is scored.
        origins: the row after the last position of each segment, ascending.
        starts: the first row of the series of each segment.
        warm_up: rows before the scored positions.
        scored: K.
        horizon: H [rows].
        stride: an epoch takes each `stride`-th segment.
        carried: most rows of history before the warm-up that half of the segments of a training
            epoch begin with, so that the state they meet is one that has been carried.
    """

    series: Series
    chosen: Bool[Tensor, " N"]
    origins: Int[Tensor, " W"]
    starts: Int[Tensor, " W"]
    warm_up: int
    scored: int
    horizon: int
    stride: int = 1
    carried: int = 0

    def __len__(self) -> int:
        """Tell the number of segments in an epoch."""
        return math.ceil(self.origins.numel() / self.stride)

    @property
    def lookback(self) -> int:
        """Tell L."""
        return self.warm_up + self.scored

    @property
    def device(self) -> torch.device:
        """Tell where the rows lie."""
        return self.origins.device

    def order(self, epoch: int, seed: int) -> Int[Tensor, " W"]:
        """Permute the segments of a training epoch; epoch and seed alone decide.

        They lie `stride` rows apart, from an offset drawn for the epoch, so that over the epochs
        the segments begin everywhere.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        offset = int(torch.randint(self.stride, (), generator=generator))
        order = torch.randperm(len(self), generator=generator) * self.stride + offset
        return order % self.origins.numel()

    def history(self, index: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Count the rows before the warm-up that training segments begin with.

        Half of them have all that the series has, up to `carried`; the other half none. Which half
        follows from the number alone, and changes with the offset of the epoch.
        """
        some = (index // self.stride + index % self.stride) % 2 == 1
        rows = self.origins[index] - self.starts[index] - self.lookback
        return rows.clamp(min=0, max=self.carried) * some

    def batch(self, index: Int[Tensor, " B"]) -> SegmentBatch:
        """Gather the segments with these numbers to train on, each with its history."""
        return self._gather(index, self.history(index) if self.carried else None)

    def _gather(self, index: Int[Tensor, " B"], history: Int[Tensor, " B"] | None) -> SegmentBatch:
        origins, starts = self.origins[index, None], self.starts[index, None]
        longest = int(history.max()) if history is not None and len(history) else 0
        lookback, warm_up = longest + self.lookback, longest + self.warm_up
        rows = origins + torch.arange(-lookback, self.horizon, device=self.device)
        if history is not None:
            # Of segments with less history than the longest, the rows before count as unobserved.
            starts = starts.maximum(origins - self.lookback - history[:, None])
        inside = rows >= starts  # (B, L + H)
        rows = rows.maximum(starts)
        series = self.series
        values, mask = _gathered(series.values, series.mask, rows, inside)
        # A position counts by the row after it, which is its origin.
        after = slice(warm_up + 1, lookback + 1)
        counted = self.chosen[rows[:, after]] & inside[:, warm_up:lookback]
        times = None if series.calendar is None else series.calendar[rows]
        past, future = slice(None, lookback), slice(lookback, None)
        batch = SegmentBatch(
            past=values[:, past],
            past_mask=None if mask is None else mask[:, past],
            past_time=None if times is None else times[:, past],
            future_time=None if times is None else times[:, future],
            target=values[:, future],
            target_mask=None if mask is None else mask[:, future],
            series_id=None if series.series_id is None else series.series_id[starts[:, 0]],
            scored=self.scored,
            counted=None if counted.all() else counted,
            history=longest,
            carrying=history > 0 if history is not None and longest else None,
        )
        if series.filled is None and series.center is None:
            return batch
        return self._with_inputs(batch, rows[:, past], inside[:, past])

    def _with_inputs(self, batch: SegmentBatch, rows: Tensor, inside: Tensor) -> SegmentBatch:
        """Replace what a model reads: gaps filled, and rows scaled by those up to each."""
        past, mask = _gathered(*self.series.inputs, rows, inside)
        center, spread = self.series.center, self.series.spread
        if center is not None and spread is not None:
            past = (past - center[rows]) / spread[rows]
            center, spread = (part[rows[:, -self.scored :]] for part in (center, spread))
            if mask is not None:
                past = torch.where(mask, past, 0.0)
        return replace(
            batch,
            past=past,
            past_mask=mask,
            observed_past=batch.past,
            observed_mask=batch.past_mask,
            center=center,
            spread=spread,
        )

    def batches(self, size: int) -> Iterator[SegmentBatch]:
        """Go through the segments of an epoch in order, about `size` scored positions at a time.

        None of them carries history: what is solved for or judged has its warm-up alone.
        """
        numbers = torch.arange(0, self.origins.numel(), self.stride, device=self.device)
        for index in numbers.split(max(1, size // self.scored)):
            yield self._gather(index, None)

    def every(self, step: int) -> Segments:
        """Keep each `step`-th segment."""
        return replace(self, stride=self.stride * step)


def segments(
    windows: Windows, *, warm_up: int, scored: int, stride: int, carried: int = 0
) -> Segments:
    """Cut the part that windows cover into segments to train on.

    There is one for every origin behind which it fits, and an epoch takes some of them.

    Args:
        windows: all windows of the part, in order.
        warm_up: rows before the scored positions; fewer at the start of a series.
        scored: K; a series with fewer origins gives one segment.
        stride: rows between the segments of an epoch.
        carried: most rows of history that half of the segments begin with.
    """
    found = [torch.arange(min(first + scored, end) - 1, end) for first, end in _runs(windows)]
    cut = _segments(windows, found, warm_up=warm_up, scored=scored, stride=stride)
    return replace(cut, carried=carried)


def histories(windows: Windows, *, warm_up: int | None) -> Segments:
    """Cover windows by segments that score each of their origins once, in the same order.

    Args:
        windows: windows of a part, in order.
        warm_up: rows of history before the first origin, fewer at the start of a series; None for
            all that any of the series has.
    """
    runs = _runs(windows)
    longest = max((end - first for first, end in runs), default=1)
    targets = windows.horizon * windows.series.values.shape[1]
    scored = min(longest, max(1, _MOST_TARGETS // targets))
    # From the end, so that the first segment is the one that has fewer origins than the others.
    found = [torch.arange(end - 1, first - 1, -scored).flip(0) for first, end in runs]
    return _segments(windows, found, warm_up=warm_up, scored=scored, stride=1)


def _runs(windows: Windows) -> list[tuple[int, int]]:
    """Give the first origin of each series, and the one after its last."""
    if not len(windows):
        return []
    origins, owners = windows.origins.cpu(), windows.series.series_id
    owner = torch.zeros_like(origins) if owners is None else owners[windows.origins].cpu()
    cuts = (owner.diff().nonzero().flatten() + 1).tolist()
    places = zip([0, *cuts], [*cuts, len(origins)], strict=True)
    return [(int(origins[first]), int(origins[end - 1]) + 1) for first, end in places]


def _segments(
    windows: Windows, origins: list[Tensor], *, warm_up: int | None, scored: int, stride: int
) -> Segments:
    series, device = windows.series, windows.device
    found = torch.cat([torch.empty(0, dtype=torch.int64), *origins]).to(device)
    starts = torch.zeros_like(found)
    if series.series_id is not None:
        owners = series.series_id.contiguous()
        starts = torch.searchsorted(owners, owners[found])
    if warm_up is None:
        warm_up = int((found - starts).max()) - scored if len(found) else 0
    chosen = torch.zeros(len(series.values), dtype=torch.bool, device=device)
    chosen[windows.origins] = True
    return Segments(
        series=series,
        chosen=chosen,
        origins=found,
        starts=starts,
        warm_up=warm_up,
        scored=scored,
        horizon=windows.horizon,
        stride=stride,
    )


def _gathered(
    values: Tensor, mask: Tensor | None, rows: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Take rows of each segment; those before the start of its series are missing."""
    values, mask = values[rows], None if mask is None else mask[rows]
    if not inside.all():
        seen = inside[..., None].expand_as(values)
        mask = seen if mask is None else mask & seen
        values = values * seen
    return values, mask
