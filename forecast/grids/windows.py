"""Windows of grids as index arithmetic over one array of frames, resident or memory-mapped.

Frames are kept as they came, as 16-bit integers where they are whole numbers, and scaled when they
are gathered. An *origin* is the row of the first target; a window lies within one run of frames
without a gap.

Letters: N frames, M >= N instants (frames to come included), C channels, Y X cells, F calendar
features, L lookback, H horizon, B batch, W windows, R references.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.batch import GridBatch
from forecast.errors import DataError
from forecast.grids.climatology import Lag, Table
from forecast.grids.section import Scaling

# Stands for a missing cell in 16 bits.
_MISSING = -32768
# Cells that a batch of evaluation gathers at most; sums do not depend on it.
_MOST_CELLS = 1 << 20
# Frames scaled at a time when statistics are taken.
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class GridScaler:
    """Scale each channel, or each of its cells, by statistics of training frames.

    Attributes:
        mean: (C, 1, 1) or (C, Y, X), what scaled 0 stands for.
        deviation: the same, what one scaled unit is worth; never 0.
    """

    mean: Float[Tensor, "C Y X"]
    deviation: Float[Tensor, "C Y X"]

    def apply(self, frames: Tensor) -> Tensor:
        """Scale frames (..., C, Y, X)."""
        return (frames - self.mean) / self.deviation

    def undo(self, frames: Tensor) -> Tensor:
        """Bring scaled frames back to the units of the data."""
        return frames * self.deviation + self.mean

    def to(self, device: torch.device | str) -> GridScaler:
        """Move the statistics to `device`."""
        return GridScaler(mean=self.mean.to(device), deviation=self.deviation.to(device))


class Storage:
    """Take in blocks of frames, in as few bytes as they need.

    Whole numbers go into 16 bits until one comes that does not fit. What exceeds `resident` bytes
    lies in a file of this process's own, which the system maps and the process leaves no trace of.

    Args:
        shape: N, C, Y, X.
        resident: bytes that may be held in memory.
        folder: for the file.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], *, resident: int, folder: Path | None = None
    ) -> None:
        self._shape, self._resident, self._folder = shape, resident, folder
        self._values: Tensor | None = None
        self._hash = hashlib.sha256()
        self.missing = False

    def put(self, row: int, channel: int, block: np.ndarray) -> None:
        """Put a block (n, c, Y, X) of float32, NaN missing, at a row and channel."""
        if np.isinf(block).any():
            raise DataError(
                "The frames hold infinite values.",
                hint="State them as missing: _FillValue or NaN.",
            )
        self._hash.update(np.ascontiguousarray(block).tobytes())
        absent = np.isnan(block)
        some_absent = bool(absent.any())
        self.missing |= some_absent
        whole = np.where(absent, 0, block) if some_absent else block
        fits = bool(np.all(np.rint(whole) == whole) and np.abs(whole).max(initial=0) < -_MISSING)
        if self._values is None:
            self._values = self._allocate(torch.int16 if fits else torch.float32)
        if not fits and self._values.dtype == torch.int16:
            self._values = self._widened(self._values)
        if self._values.dtype == torch.int16:
            block = np.where(absent, _MISSING, block).astype(np.int16)
        place = self._values[row : row + len(block), channel : channel + block.shape[1]]
        place.copy_(torch.from_numpy(np.ascontiguousarray(block)))

    def values(self) -> Tensor:
        """Return the frames (N, C, Y, X)."""
        return self._allocate(torch.float32) if self._values is None else self._values

    def digest(self) -> str:
        """Name the content by a hash, whatever file it came from."""
        return self._hash.hexdigest()

    def _allocate(self, dtype: torch.dtype) -> Tensor:
        count = int(np.prod(self._shape))
        if count * dtype.itemsize <= self._resident:
            return torch.empty(self._shape, dtype=dtype)
        folder = self._folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix="frames-")
        os.close(handle)
        try:
            mapped = torch.from_file(name, shared=True, size=count, dtype=dtype)
        finally:
            # The mapping keeps the bytes; nothing is left behind when the process ends.
            os.unlink(name)
        return mapped.view(self._shape)

    def _widened(self, values: Tensor) -> Tensor:
        wide = self._allocate(torch.float32)
        for start in range(0, len(values), 256):
            wide[start : start + 256] = _decoded(values[start : start + 256])
        return wide


def _decoded(values: Tensor) -> Tensor:
    """Return stored frames as float32, missing cells as NaN."""
    if values.dtype == torch.float32:
        return values
    return values.float().masked_fill_(values == _MISSING, torch.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """All frames of a data set.

    Attributes:
        values: frames in units of the data, float32 with NaN missing or int16.
        missing: there are missing cells.
        scaler: how they are scaled when gathered.
        calendar: (M, F) features of each instant.
        references: what is known of each instant beforehand.
        coordinates: (G, Y, X) where each cell lies.
        device: where batches go.
    """

    values: Tensor
    missing: bool
    scaler: GridScaler
    calendar: Float[Tensor, "M F"] | None
    references: tuple[Lag | Table, ...]
    coordinates: Float[Tensor, "G Y X"] | None
    device: torch.device

    def rescaled(self, scaler: GridScaler) -> Frames:
        """Scale frames, and the means beside them, by other statistics."""
        references = tuple(
            replace(one, means=scaler.apply(self.scaler.undo(one.means)))
            if isinstance(one, Table)
            else one
            for one in self.references
        )
        return replace(self, scaler=scaler, references=references)

    def scaled(self, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n C Y X"]:
        """Gather and scale frames, missing cells NaN."""
        index = rows.to(self.values.device).flatten()
        frames = _decoded(self.values.index_select(0, index)).to(self.device)
        return self.scaler.apply(frames.view(*rows.shape, *self.values.shape[1:]))

    def observed(self, start: int, stop: int) -> Bool[Tensor, "C Y X"]:
        """Cells with a value in any of the frames `start` to `stop`."""
        seen = torch.zeros(self.values.shape[1:], dtype=torch.bool, device=self.device)
        for block in self.blocks(stop, start):
            seen |= (~block.isnan()).any(0)
        return seen

    def blocks(self, stop: int, start: int = 0) -> Iterator[Float[Tensor, "n C Y X"]]:
        """Go through frames in order, scaled, missing cells NaN."""
        size = max(1, _CHUNK // self.values[0].numel())
        for first in range(start, stop, size):
            yield self.scaled(torch.arange(first, min(first + size, stop)))


@dataclass(frozen=True, kw_only=True, slots=True)
class GridWindows:
    """Windows of one part by number, as batches.

    Attributes:
        frames: all frames.
        origins: the first target row of each window, ascending.
        lookback: L [frames].
        horizon: H [frames].
    """

    frames: Frames
    origins: Int[Tensor, " W"]
    lookback: int
    horizon: int

    def __len__(self) -> int:
        return self.origins.numel()

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""
        return self.frames.device

    def order(self, epoch: int, seed: int) -> Int[Tensor, " W"]:
        """Permute the windows of a training epoch; epoch and seed alone decide the order."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(len(self), generator=generator)

    def every(self, step: int) -> GridWindows:
        """Keep each `step`-th window, the first one included."""
        return replace(self, origins=self.origins[::step])

    def batches(self, size: int) -> Iterator[GridBatch]:
        """Go through all windows in order, at most `size` at a time, and fewer on large grids."""
        cells = (self.lookback + self.horizon) * self.frames.values[0].numel()
        size = max(1, min(size, _MOST_CELLS // cells))
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self))))

    def batch(self, index: Int[Tensor, " B"]) -> GridBatch:
        """Gather the windows with these numbers; targets that are still to come are None."""
        lookback, frames = self.lookback, self.frames
        origins = self.origins[index.to(self.origins.device)]
        steps = torch.arange(-lookback, self.horizon, device=origins.device)
        rows = origins[:, None] + steps  # (B, L + H)
        known = bool(rows[:, -1].max() < len(frames.values))
        gathered = frames.scaled(rows if known else rows[:, :lookback])  # (B, L [+ H], C, Y, X)
        references = self._references(rows, gathered)
        mask = None
        if frames.missing:
            mask = ~gathered.isnan()
            gathered = gathered.nan_to_num(0.0)
        calendar = None
        if frames.calendar is not None:
            calendar = frames.calendar[rows.to(frames.calendar.device)]
        return GridBatch(
            frames=gathered[:, :lookback],
            mask=None if mask is None else mask[:, :lookback],
            calendar=None if calendar is None else calendar[:, :lookback],
            future_calendar=None if calendar is None else calendar[:, lookback:],
            references=references,
            coordinates=frames.coordinates,
            target=gathered[:, lookback:] if known else None,
            target_mask=None if mask is None or not known else mask[:, lookback:],
        )

    def _references(self, rows: Tensor, gathered: Tensor) -> Tensor | None:
        frames = self.frames
        if not frames.references:
            return None
        stand_in = gathered[:, self.lookback - 1 : self.lookback]
        found: list[Tensor] = []
        for reference in frames.references:
            if isinstance(reference, Table):
                said = reference.frames(rows.to(reference.slots.device))
            else:
                earlier = reference.rows[rows.to(reference.rows.device)]  # (B, L + H, K)
                said = frames.scaled(earlier.clamp(min=0))
                lacking = (earlier < 0)[..., None, None, None].to(said.device)
                said = said.masked_fill(lacking, torch.nan).nanmean(2)
                said = torch.where(said.isnan(), stand_in, said)
            found.append(said)
        return torch.stack(found, dim=1).nan_to_num(0.0)  # (B, R, L + H, C, Y, X)


def fit_scaler(frames: Frames, start: int, stop: int, scaling: Scaling) -> GridScaler:
    """Take the statistics of frames `start` to `stop`, of unscaled `frames`, in float64.

    `standard` is mean and biased deviation of a channel, `cell` those of each cell, `maximum` only
    divides by the largest value of all channels, for counts.

    Raises:
        DataError: nothing was observed there.
    """
    shape = frames.values.shape[1:]
    axes = (0,) if scaling == "cell" else (0, 2, 3)
    kept = shape if scaling == "cell" else (shape[0], 1, 1)
    total = torch.zeros(kept, dtype=torch.float64, device=frames.device)
    squares, count = torch.zeros_like(total), torch.zeros_like(total)
    highest = 0.0
    # Squares about the first frame's level, lest a mean far from 0 eat up the digits.
    level: Tensor | None = None
    for block in frames.blocks(stop, start):
        if scaling == "maximum":
            highest = max(highest, float(block.nan_to_num(0.0).max()))
        seen = ~block.isnan()
        if level is None:
            level = block[:1].nanmean().nan_to_num(0.0).double()
        moved = torch.where(seen, block.double() - level, 0.0)
        total += moved.sum(axes).view(kept)
        squares += moved.square().sum(axes).view(kept)
        count += seen.sum(axes).view(kept)
    if level is None or not bool(count.any()):
        raise DataError(
            "The training frames hold no observed value.",
            hint="Look at the fill value of the file.",
        )
    ones = torch.ones_like(total)
    if scaling == "none":
        mean, deviation = torch.zeros_like(total), ones
    elif scaling == "maximum":
        mean, deviation = torch.zeros_like(total), ones * (highest or 1.0)
    else:
        observed = count.clamp(min=1)
        mean = total / observed
        deviation = (squares / observed - mean.square()).clamp(min=0).sqrt()
        mean = torch.where(count > 0, mean + level, 0.0)
        # Below what float32 resolves the values are constant and the deviation is noise.
        deviation = torch.where(deviation > 1e-6 * mean.abs().clamp(min=1e-30), deviation, ones)
    return GridScaler(mean=mean.float(), deviation=deviation.float())


def grid_origins(
    runs: np.ndarray, first: int, stop: int, lookback: int, horizon: int, *, inside: bool = False
) -> Int[np.ndarray, " W"]:
    """List the origins of the part of rows `first` to `stop`.

    Targets lie fully inside the part, and no window reaches over a gap; the lookback may reach back
    over the part's border, unless `inside` keeps it in too.

    Args:
        runs: (N,) first row of the run of each frame.
        first: the first row of the part.
        stop: the row after its last.
        lookback: L [frames].
        horizon: H [frames].
        inside: keep the inputs in the part too.
    """
    earliest = first + lookback if inside else max(first, lookback)
    rows = np.arange(earliest, max(earliest, stop - horizon + 1), dtype=np.int64)
    return rows[runs[rows + horizon - 1] <= rows - lookback]
