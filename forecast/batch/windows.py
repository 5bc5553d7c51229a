"""Windows of series as index arithmetic over one resident tensor; no window ever crosses a border.

An *origin* is the row of the first target: its window reads rows `origin - L` to `origin - 1` and
is scored on rows `origin` to `origin + H - 1`.

Letters: N rows of all series, one series after the other; C variates, F calendar features,
P past covariates, K covariates known in advance, G static features, S series, L lookback,
H horizon, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from forecast.batch import SeriesBatch

_PART_NUMBERS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Hold all rows of a data set on one device, in scaled space, missing cells as 0.

    Attributes:
        values: the observed cells, which targets are taken from.
        mask: which cells are observed; None for all.
        filled: what a model reads where gaps are filled; None where it reads `values`.
        readable: which cells of `filled` hold something.
        rests_on: the last row that each filled cell rests on, hidden from origins up to it.
        center: the mean of the rows up to each, of series that have no scale of their training.
        spread: their deviation; 1, as `center` is 0, for other series.
        unit: of series without a scale of their training, 1 in the units of the data; else NaN.
    """

    values: Float[Tensor, "N C"]
    mask: Bool[Tensor, "N C"] | None = None
    filled: Float[Tensor, "N C"] | None = None
    readable: Bool[Tensor, "N C"] | None = None
    rests_on: Int[Tensor, "N C"] | None = None
    center: Float[Tensor, "N C"] | None = None
    spread: Float[Tensor, "N C"] | None = None
    unit: Float[Tensor, "S C"] | None = None
    calendar: Float[Tensor, "N F"] | None = None
    covariates: Float[Tensor, "N P"] | None = None
    known: Float[Tensor, "N K"] | None = None
    static: Float[Tensor, "S G"] | None = None
    series_id: Int[Tensor, " N"] | None = None

    @property
    def inputs(self) -> tuple[Float[Tensor, "N C"], Bool[Tensor, "N C"] | None]:
        """What a model reads of each row, and which cells hold something."""
        if self.filled is None:
            return self.values, self.mask
        return self.filled, self.readable

    def to(self, device: torch.device | str) -> Series:
        """Move every tensor to `device`."""
        return replace(
            self,
            **{
                name: value.to(device)
                for name in self.__slots__
                if isinstance(value := getattr(self, name), Tensor)
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Give the windows of one part by number, as batches.

    Attributes:
        series: the rows.
        origins: the first target row of each window, ascending.
        lookback: L [rows].
        horizon: H [rows].
    """

    series: Series
    origins: Int[Tensor, " W"]
    lookback: int
    horizon: int

    def __len__(self) -> int:
        return self.origins.numel()

    def order(self, epoch: int, seed: int) -> Int[Tensor, " W"]:
        """Permute the windows of a training epoch; epoch and seed alone decide the order."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(len(self), generator=generator)

    def batch(self, index: Int[Tensor, " B"]) -> SeriesBatch:
        """Gather the windows with these numbers: one gather for each part that the data have."""
        first = self.origins[index] - self.lookback
        inputs, readable = self.series.inputs
        past, _ = self._split(inputs, first)
        past_mask, _ = self._cut(readable, first)
        _, target = self._split(self.series.values, first)
        _, target_mask = self._cut(self.series.mask, first)
        if self.series.rests_on is not None:
            rests_on, _ = self._split(self.series.rests_on, first)
            known = rests_on < self.origins[index][:, None, None]
            past_mask = known if past_mask is None else past_mask & known
            past = torch.where(past_mask, past, 0.0)
        past_time, future_time = self._cut(self.series.calendar, first)
        past_covariates, _ = self._cut(self.series.covariates, first)
        past_known, known_future = self._cut(self.series.known, first)
        read = [part for part in (past_covariates, past_known) if part is not None]
        owner = None if self.series.series_id is None else self.series.series_id[first]
        static = self.series.static
        if static is not None:
            static = static[torch.zeros_like(first) if owner is None else owner]
        return SeriesBatch(
            past=past,
            past_mask=past_mask,
            past_time=past_time,
            future_time=future_time,
            past_covariates=torch.cat(read, dim=2) if read else None,
            known_future=known_future,
            static=static,
            target=target,
            target_mask=target_mask,
            series_id=owner,
        )

    @property
    def device(self) -> torch.device:
        """Tell where the rows lie."""
        return self.origins.device

    def every(self, step: int) -> Windows:
        """Keep each `step`-th window, the first one included."""
        return replace(self, origins=self.origins[::step])

    def batches(self, size: int) -> Iterator[SeriesBatch]:
        """Go through all windows in order, `size` at a time, the last batch included."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.batch(torch.arange(start, stop, device=self.device))

    def _cut(self, rows: Tensor | None, first: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if rows is None else self._split(rows, first)

    def _split(self, rows: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        # A strided view of all windows costs nothing; the gather copies just those asked for.
        windows = rows.unfold(0, self.lookback + self.horizon, 1)[first]  # (B, C, L + H)
        windows = windows.transpose(1, 2)
        return windows[:, : self.lookback], windows[:, self.lookback :]


def origins(
    offsets: np.ndarray,
    borders: np.ndarray,
    part: str,
    lookback: int,
    horizon: int,
    gap: int = 0,
) -> np.ndarray:
    """List the origins of one part.

    Targets lie fully inside the part; the lookback may reach back over its border into rows that
    came before it, never over the start of the series.

    Args:
        offsets: (S + 1,) first row of each series.
        borders: (S, 3) end of the training, validation and test part in rows of the series.
        part: `train`, `val` or `test`.
        lookback: L [rows].
        horizon: H [rows].
        gap: rows after the validation part that the test part leaves out in front.

    Returns:
        (W,) int64 rows, series after series; a series too short for a window gives none.
    """
    number = _PART_NUMBERS[part]
    found: list[np.ndarray] = []
    for start, border in zip(offsets[:-1], borders, strict=True):
        before = border[number - 1] + (gap if part == "test" else 0) if number else 0
        first = start + max(lookback, before)
        last = start + border[number] - horizon
        found.append(np.arange(first, max(first, last + 1), dtype=np.int64))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)
