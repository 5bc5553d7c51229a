"""Grids: from files to windows, scaled by training frames, with the simple forecasts beside them.

Letters: N frames, C channels, Y X rows and columns, L lookback, H horizon, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forecast.batch import GridSpec
from forecast.catalogue import DATASETS, GridDataset, grids
from forecast.catalogue.dataset import Split
from forecast.errors import DataError, UsageError
from forecast.grids.axes import ROUND
from forecast.grids.calendars import instant_of
from forecast.grids.climatology import LAGS, Table, lag_reach, lag_steps
from forecast.grids.files import GridOptions, Header
from forecast.grids.header import GridHeader
from forecast.grids.reading import Grid, read
from forecast.grids.references import far_lags, reference, reference_names
from forecast.grids.section import GridSection
from forecast.grids.times import calendar
from forecast.grids.windows import Frames, GridScaler, GridWindows, fit_scaler, grid_origins

_PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class GridData:
    """A grid ready for a model.

    Attributes:
        grid: what was read.
        frames: its frames, on the device.
        spec: the shape of the task.
        scaler: fitted on training frames.
        borders: the row after the last of train, validation and test.
        section: how it was read.
        digest: names the frames by their content.
        notices: sentences for the user.
    """

    grid: Grid
    frames: Frames
    spec: GridSpec
    scaler: GridScaler
    borders: tuple[int, int, int]
    section: GridSection
    digest: str
    notices: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the channels in order."""
        return tuple(channel.name for channel in self.grid.header.channels)

    @property
    def latitudes(self) -> Tensor | None:
        """Latitude of each row [degrees], or None where rows have none."""
        mesh = self.grid.header.mesh
        return torch.from_numpy(mesh.y) if mesh.geographic else None

    def windows(self, part: str) -> GridWindows:
        """Return the windows of `train`, `val` or `test`."""
        number = _PARTS.index(part)
        lookback, horizon = self.spec.lookback, self.spec.horizon
        if self.section.protocol == "openstl":
            origins = _openstl_origins(self, part)
        else:
            first = self.borders[number - 1] if number else 0
            first += self.section.gap if part == "test" else 0
            origins = grid_origins(
                self.grid.runs,
                first,
                self.borders[number],
                lookback,
                horizon,
                inside=self.section.inside,
            )
        return GridWindows(
            frames=self.frames_of(part),
            origins=torch.from_numpy(origins),
            lookback=lookback,
            horizon=horizon,
        )

    def frames_of(self, part: str) -> Frames:
        """Frames as a part has them: `openstl` by dates scales what it tests on by its own."""
        own = self.section.protocol == "openstl" and len(self.section.split) == 2
        return self.frames.rescaled(self._own_scaler()) if own and part != "train" else self.frames

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that forecasting with a model trained on this needs."""
        arrays = {"scaler.mean": self.scaler.mean, "scaler.deviation": self.scaler.deviation}
        for table in self.frames.references:
            if isinstance(table, Table):
                arrays[f"{table.name}.means"] = table.means
                arrays[f"{table.name}.counts"] = table.counts
        if self.frames.missing:
            arrays["observed"] = self.frames.observed(0, self.borders[0])
        return {name: tensor.cpu() for name, tensor in arrays.items()}

    @property
    def header(self) -> GridHeader:
        """What later files must agree with, and forecasts are written by."""
        options = GridOptions(
            **{f.name: getattr(self.section, f.name) for f in fields(GridOptions)}
        )
        header, clock = self.grid.header, self.grid.clock
        return GridHeader(
            format=header.format,
            names=header.names,
            channels=header.channels,
            y=tuple(header.mesh.y.tolist()),
            x=tuple(header.mesh.x.tolist()),
            geographic=header.mesh.geographic,
            descending=header.mesh.descending,
            dated=header.times is not None,
            protocol=self.section.protocol,
            scaling=self.section.resolved_scaling,
            step=clock.step,
            months=clock.months,
            calendar=clock.calendar,
            options=replace(options, first="", last=""),
        )

    def _own_scaler(self) -> GridScaler:
        """Take the statistics of the test part, as the published tables do."""
        bare = replace(self.frames, scaler=_unscaled(self.scaler))
        return fit_scaler(bare, self.borders[1], self.borders[2], self.section.resolved_scaling)


def load(
    section: GridSection,
    *,
    lookback: int | None,
    horizon: int | None,
    device: torch.device | str = "cpu",
    arrays: Mapping[str, Tensor] | None = None,
) -> GridData:
    """Read, divide and scale a grid for training, all statistics taken from training frames.

    Args:
        section: which data, and how.
        lookback: L; None takes half a day, or 12 frames.
        horizon: H; None takes L.
        device: where batches go.
        arrays: those of a model already trained, to be used instead of taking statistics.

    Raises:
        DataError: the files cannot be used, or no training window fits.
    """
    if not section.source:
        raise UsageError(
            "The recipe does not say which data: data.source is empty.",
            hint='Put source = "uk-t2m" or a path under [data].',
        )
    grid = read(located(section.source), section)
    lookback = lookback or 12
    horizon = horizon or lookback
    borders = borders_of(section, grid)
    data = build(
        grid,
        section,
        lookback,
        horizon,
        borders,
        reference_names(section, grid, borders[0]),
        device,
        arrays,
    )
    if not len(data.windows("train")):
        raise DataError(
            f"No run of frames in the training part, {borders[0]} frames long, holds a window of "
            f"lookback {lookback} and horizon {horizon}.",
            hint="Take a shorter --lookback and --horizon, or bring more frames.",
        )
    return data


def located(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find the files that the name of a data set, a path, a pattern or several of them stand for.

    Raises:
        NotFoundError: there are none.
    """
    if not isinstance(source, str | Path):
        return [path for one in source for path in located(one)]
    known = DATASETS.get(str(source))
    return known.paths() if isinstance(known, GridDataset) else grids.locate(source)


def build(
    grid: Grid,
    section: GridSection,
    lookback: int,
    horizon: int,
    borders: tuple[int, int, int],
    names: tuple[str, ...],
    device: torch.device | str,
    arrays: Mapping[str, Tensor] | None,
) -> GridData:
    """Read all frames, and lay them out with what scales them and stands beside them.

    Args:
        grid: what to read.
        section: how it was read.
        lookback: L.
        horizon: H.
        borders: the row after the last of train, validation and test.
        names: references to bring along.
        device: where batches go.
        arrays: statistics of a model already trained; None takes those of the training frames.
    """
    place = torch.device(device)
    storage = grid.store(section.resident_bytes)
    values = storage.values()
    header, clock, count = grid.header, grid.clock, len(grid.times)
    # A grid that fits lies on the device, once; on a GPU that is a quarter of its memory.
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        if values.numel() * values.element_size() < free // 4:
            values = values.to(place)
    times = np.concatenate([grid.times, clock.after(grid.times[-1], horizon)])
    ones = torch.ones(len(header.channels), 1, 1, device=place)
    frames = Frames(
        values=values,
        missing=storage.missing,
        scaler=GridScaler(mean=torch.zeros_like(ones), deviation=ones),
        calendar=torch.from_numpy(calendar(times, clock)).to(place) if clock.dated else None,
        references=(),
        coordinates=_coordinates(header).to(place),
        device=place,
    )
    if arrays is None:
        scaling = section.resolved_scaling
        # The published tables divide counts by the largest of all.
        everything = section.protocol == "openstl" and scaling == "maximum"
        scaler = fit_scaler(frames, 0, count if everything else borders[0], scaling)
    else:
        scaler = GridScaler(mean=arrays["scaler.mean"], deviation=arrays["scaler.deviation"])
        scaler = scaler.to(place)
    frames = replace(frames, scaler=scaler)
    references = tuple(
        reference(name, frames, times, clock, borders[0], arrays, horizon) for name in names
    )
    lags = [
        lag_reach(name, lag_steps(name, clock.step, clock.months), horizon)
        for name in names
        if name in LAGS
    ]
    notices = list(grid.notices)
    if arrays is None:
        notices += far_lags(names, clock, horizon)
    if section.protocol == "openstl":
        notices.append(
            "Protocol openstl: the validation part is the test part, so the epoch is chosen on it. "
            "For comparison with published tables only."
        )
    if values.element_size() * values.numel() > section.resident_bytes:
        notices.append("The frames exceed the memory allowed for them and are memory-mapped.")
    return GridData(
        grid=grid,
        frames=replace(frames, references=references),
        spec=GridSpec(
            lookback=lookback,
            horizon=horizon,
            channels=len(header.channels),
            rows=header.mesh.shape[0],
            columns=header.mesh.shape[1],
            calendar=0 if frames.calendar is None else frames.calendar.shape[1],
            references=names,
            places=len(_coordinates(header)),
            season=clock.season if clock.dated else 1,
            frequency=clock.frequency,
            # The window's own past is compared with the references too.
            context=lookback + max([0, *lags]),
        ),
        scaler=scaler,
        borders=borders,
        section=section,
        digest=storage.digest(),
        notices=tuple(notices),
    )


def borders_of(section: GridSection, grid: Grid) -> tuple[int, int, int]:
    """Return the row after the last of train, validation and test."""
    count, split = len(grid.times), section.split
    if len(split) == 2:
        if not grid.clock.dated:
            raise UsageError(
                "Frames without dates cannot be split by dates.",
                hint="Give fractions or counts: --set data.split=[0.7, 0.1, 0.2]",
            )
        val, test = (
            int(np.searchsorted(grid.times, instant_of(date, grid.clock.calendar)))
            for date in split
        )
        if not 0 < val < test < count:
            raise DataError(
                f"Validation from {split[0]} and test from {split[1]} leave a part empty: the "
                f"frames run from {grid.clock.short(grid.times[0])} to "
                f"{grid.clock.short(grid.times[-1])}.",
                hint="Change data.split.",
            )
        return val, test, count
    train, val, test = split
    if section.protocol == "openstl":
        # Windows are cut first and divided then; the frames are but those of the last ones.
        last = count - (test if isinstance(test, int) else round(test * count))
        return last, last, count
    return Split(train=train, val=val, test=test).borders(count, section.gap)


def _openstl_origins(data: GridData, part: str) -> np.ndarray:
    """List origins as OpenSTL does.

    By counts, all windows are cut first and the last `split[2]` of them are the test part. By
    dates, windows lie wholly inside a part and its last two are left out.
    """
    lookback, horizon = data.spec.lookback, data.spec.horizon
    split, runs, borders = data.section.split, data.grid.runs, data.borders
    if len(split) == 2:
        first, stop = (0, borders[0]) if part == "train" else (borders[1], borders[2])
        return grid_origins(runs, first, stop, lookback, horizon, inside=True)[:-2]
    everything = grid_origins(runs, 0, len(runs), lookback, horizon)
    test = split[2] if isinstance(split[2], int) else round(split[2] * len(everything))
    return everything[:-test] if part == "train" else everything[-test:]


def _coordinates(header: Header) -> Tensor:
    """Encode the place of each cell: by sines and cosines on the globe, else in [-1, 1]."""
    y, x = torch.from_numpy(header.mesh.y), torch.from_numpy(header.mesh.x)
    if header.mesh.geographic:
        parts = [torch.sin(torch.deg2rad(y)), torch.sin(x * 2 * torch.pi / ROUND),
                 torch.cos(x * 2 * torch.pi / ROUND)]  # fmt: skip
    else:
        parts = [torch.linspace(-1, 1, len(y)), torch.linspace(-1, 1, len(x))]
    shape = (len(y), len(x))
    rows = parts[0].view(-1, 1).expand(shape)
    return torch.stack([rows, *(part.expand(shape) for part in parts[1:])]).float()


def _unscaled(scaler: GridScaler) -> GridScaler:
    return GridScaler(
        mean=torch.zeros_like(scaler.mean), deviation=torch.ones_like(scaler.deviation)
    )
