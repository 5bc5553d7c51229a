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

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.batch import SeriesBatch
from forecast.data.windows import Series

_PARTS = ("train", "val", "test")
# Positions of a whole part that one segment scores at most: their targets are what takes memory.
_LONGEST = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentBatch(SeriesBatch):
    """Hold segments: `past` is the segment, `target` the H rows that follow its last position.

    Attributes:
        scored: K; the last K positions of `past` are scored.
        counted: of these the last ones that count, where a segment has fewer.
    """

    scored: int
    counted: Int[Tensor, " B"] | None = None

    def truth(self) -> tuple[Float[Tensor, "B K H C"], Bool[Tensor, "B K H C"] | None]:
        """Give the targets of the scored positions, and which of them count.

        The targets are a view: what overlaps is not copied.
        """
        assert self.target is not None
        values, mask = self._dense(self.past, self.target), None
        if self.past_mask is not None:
            observed = self.target_mask
            if observed is None:
                observed = torch.ones_like(self.target, dtype=torch.bool)
            mask = self._dense(self.past_mask, observed)
        if self.counted is not None:
            place = torch.arange(self.scored, 0, -1, device=self.past.device)
            counts = (place <= self.counted[:, None])[..., None, None]
            mask = counts.expand_as(values) if mask is None else mask & counts
        return values, mask

    def _dense(self, past: Tensor, target: Tensor) -> Tensor:
        rows = torch.cat([past[:, past.shape[1] - self.scored + 1 :], target], 1)
        return rows.unfold(1, target.shape[1], 1).transpose(2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """Give the segments of one part by number, as batches.

    Attributes:
        series: the rows.
        origins: the row after the last position of each segment, ascending.
        starts: the first row of the series of each segment.
        counted: the scored positions of each segment that count, the last ones.
        warm_up: rows before the scored positions.
        scored: K.
        horizon: H [rows].
        stride: an epoch takes each `stride`-th segment.
    """

    series: Series
    origins: Int[Tensor, " W"]
    starts: Int[Tensor, " W"]
    counted: Int[Tensor, " W"]
    warm_up: int
    scored: int
    horizon: int
    stride: int = 1

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

    def batch(self, index: Int[Tensor, " B"]) -> SegmentBatch:
        """Gather the segments with these numbers."""
        origins, starts = self.origins[index, None], self.starts[index, None]
        rows = origins + torch.arange(-self.lookback, self.horizon, device=self.device)
        inside = rows >= starts  # (B, L + H)
        rows = rows.maximum(starts)
        values, calendar = self.series.values[rows], self.series.calendar
        mask = None if self.series.mask is None else self.series.mask[rows]
        if not inside.all():
            seen = inside[..., None].expand_as(values)
            mask = seen if mask is None else mask & seen
            values = values * seen
        times = None if calendar is None else calendar[rows]
        counted, series_id = self.counted[index], self.series.series_id
        past, future = slice(None, self.lookback), slice(self.lookback, None)
        return SegmentBatch(
            past=values[:, past],
            past_mask=None if mask is None else mask[:, past],
            past_time=None if times is None else times[:, past],
            future_time=None if times is None else times[:, future],
            target=values[:, future],
            target_mask=None if mask is None else mask[:, future],
            series_id=None if series_id is None else series_id[starts[:, 0]],
            scored=self.scored,
            counted=None if (counted == self.scored).all() else counted,
        )

    def batches(self, size: int) -> Iterator[SegmentBatch]:
        """Go through the segments of an epoch in order, `size` at a time."""
        numbers = torch.arange(0, self.origins.numel(), self.stride, device=self.device)
        for index in numbers.split(size):
            yield self.batch(index)

    def every(self, step: int) -> Segments:
        """Keep each `step`-th segment."""
        return replace(self, stride=self.stride * step)


def training_segments(
    series: Series,
    offsets: Int[np.ndarray, " S1"],
    borders: Int[np.ndarray, "S 3"],
    *,
    warm_up: int,
    scored: int,
    horizon: int,
    stride: int,
) -> Segments:
    """Cut the training parts into all segments there are, of which an epoch takes some.

    Args:
        series: the rows.
        offsets: the first row of each series, and N.
        borders: the end of the training, validation and test part in rows of the series.
        warm_up: rows before the scored positions; fewer at the start of a series.
        scored: K; a series with fewer positions gives one segment.
        horizon: H [rows].
        stride: rows between the segments of an epoch.
    """
    origins: list[np.ndarray] = []
    for start, border in zip(offsets[:-1], borders[:, 0], strict=True):
        last = start + border - horizon
        first = min(start + scored, last)
        origins.append(np.arange(first, last + 1) if last > start else np.empty(0, np.int64))
    sizes = [len(some) for some in origins]
    found = np.concatenate(origins).astype(np.int64)
    starts = np.repeat(offsets[:-1], sizes)
    return _segments(series, found, starts, found - starts, warm_up, scored, horizon, stride)


def whole_part(
    series: Series,
    offsets: Int[np.ndarray, " S1"],
    borders: Int[np.ndarray, "S 3"],
    part: str,
    *,
    warm_up: int,
    horizon: int,
) -> Segments:
    """Cover a part so that each of its origins is scored once, those that `windows` has and more.

    The origins of `windows` whose lookback is at hand are all there; a state needs no complete
    lookback, so the first rows of a series are forecast from too.

    Args:
        series: the rows.
        offsets: the first row of each series, and N.
        borders: the end of the training, validation and test part in rows of the series.
        part: `train`, `val` or `test`.
        warm_up: rows before the scored positions; fewer at the start of a series.
        horizon: H [rows].
    """
    number = _PARTS.index(part)
    begins = offsets[:-1] + np.maximum(borders[:, number - 1] if number else 0, 1)
    ends = offsets[:-1] + borders[:, number] - horizon + 1
    counts = np.maximum(ends - begins, 0)
    scored = int(min(counts.max(initial=1), _LONGEST)) or 1
    origins: list[np.ndarray] = []
    counted: list[np.ndarray] = []
    for end, count in zip(ends, counts, strict=True):
        # From the end, so that it is the first segment that has fewer.
        later = np.arange(0, count, scored)[::-1]
        origins.append(end - 1 - later)
        counted.append(np.minimum(count - later, scored))
    starts = np.repeat(offsets[:-1], [len(some) for some in origins])
    found, counts = (np.concatenate(part).astype(np.int64) for part in (origins, counted))
    return _segments(series, found, starts, counts, warm_up, scored, horizon, 1)


def _segments(
    series: Series,
    origins: np.ndarray,
    starts: np.ndarray,
    counted: np.ndarray,
    warm_up: int,
    scored: int,
    horizon: int,
    stride: int,
) -> Segments:
    device = series.values.device
    origins, starts, counted = (
        torch.from_numpy(np.ascontiguousarray(part, np.int64)).to(device)
        for part in (origins, starts, np.minimum(counted, scored))
    )
    return Segments(
        series=series,
        origins=origins,
        starts=starts,
        counted=counted,
        warm_up=warm_up,
        scored=scored,
        horizon=horizon,
        stride=stride,
    )
