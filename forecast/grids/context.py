"""Later files for a model already trained: held to its own, scored, or forecast from.

Letters: N frames, C channels, Y X rows and columns, L lookback, H horizon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forecast.batch import GridBatch, GridSpec
from forecast.catalogue.weatherbench import other_name
from forecast.errors import DataError
from forecast.grids.data import GridData, build, located
from forecast.grids.files import Header
from forecast.grids.header import GridHeader
from forecast.grids.reading import Grid, places, read
from forecast.grids.section import GridSection
from forecast.grids.times import Clock
from forecast.grids.windows import GridScaler, GridWindows


@dataclass(frozen=True, kw_only=True, slots=True)
class GridContext:
    """The last frames of a grid and the instants that follow.

    Attributes:
        batch: one window without a target.
        times: (H,) instants of the forecast [us].
        last: the last known instant.
        scaler: how frames are scaled.
        observed: (C, Y, X) cells with a value in the training frames or in these; None are all.
        header: where and how forecasts are to be written.
        clock: the step.
        notices: sentences for the user.
    """

    batch: GridBatch
    times: np.ndarray
    last: np.datetime64
    scaler: GridScaler
    observed: Tensor | None
    header: Header
    clock: Clock
    notices: tuple[str, ...]

    def frames(self, values: Tensor) -> np.ndarray:
        """Bring scaled forecasts (1, H, C, Y, X) to the units of the data, (H, C, Y, X).

        A cell that was never observed, such as land in a field of the sea, is NaN.
        """
        frames = self.scaler.undo(values)[0].float()
        if self.observed is not None:
            frames = frames.masked_fill(~self.observed, torch.nan)
        return frames.cpu().numpy()


def as_test_set(
    header: GridHeader,
    arrays: Mapping[str, Tensor],
    spec: GridSpec,
    source: str | Path | Sequence[str | Path],
    device: torch.device | str = "cpu",
) -> GridData:
    """Make every frame of a file after the first lookback one to score, for a trained model."""
    section = section_of(header, source)
    grid = fitting(read(located(section.source), section), header, str(source))
    count = len(grid.times)
    data = build(
        grid, section, spec.lookback, spec.horizon, (0, 0, count), spec.references, device, arrays
    )
    if not len(data.windows("test")):
        raise DataError(
            f"The {count} frames hold no window of lookback {spec.lookback} and horizon "
            f"{spec.horizon}.",
            hint="Bring more frames; to forecast without scoring, use `forecast predict`.",
        )
    return data


def read_context(
    header: GridHeader,
    arrays: Mapping[str, Tensor],
    spec: GridSpec,
    source: str | Path | Sequence[str | Path],
    device: torch.device | str = "cpu",
) -> GridContext:
    """Read the last frames of a file, as a trained model needs them.

    Raises:
        DataError: the grid, its step or its units are not those of the training data, or too few
            frames are there.
    """
    section = section_of(header, source)
    grid = fitting(read(located(section.source), section), header, str(source))
    wanted = spec.context or spec.lookback
    if grid.clock.dated and len(grid.times) > wanted:
        # Read again from where the context starts, so that only that is held.
        start = grid.clock.text(grid.times[-wanted])
        grid = fitting(read(located(section.source), replace(section, first=start)), header, "")
    count = len(grid.times)
    if count < spec.lookback or grid.runs[-1] > count - spec.lookback:
        raise DataError(
            f"The last run without a gap has {count - grid.runs[-1]} frames, and the model looks "
            f"back over {spec.lookback}.",
            hint="Bring a longer file.",
            file=str(source),
        )
    data = build(
        grid, section, spec.lookback, spec.horizon, (0, 0, 0), spec.references, device, arrays
    )
    windows = GridWindows(
        frames=data.frames,
        origins=torch.tensor([count]),
        lookback=spec.lookback,
        horizon=spec.horizon,
    )
    return GridContext(
        batch=windows.batch(torch.tensor([0])),
        times=grid.clock.after(grid.times[-1], spec.horizon),
        last=grid.times[-1],
        scaler=data.scaler,
        observed=_observed(data, arrays, max(0, count - wanted)),
        header=grid.header,
        clock=grid.clock,
        notices=data.notices,
    )


def _observed(data: GridData, arrays: Mapping[str, Tensor], start: int) -> Tensor | None:
    """Find cells with a value in training frames, as far as the arrays tell, or from a row on."""
    if not data.frames.missing:
        return None
    seen = data.frames.observed(start, len(data.grid.times))
    for name, one in arrays.items():
        if name == "observed":
            seen |= one.to(seen.device)
        elif name.endswith(".counts") and one.shape[1:] == seen.shape:
            seen |= (one > 0).any(0).to(seen.device)
    return seen


def section_of(header: GridHeader, source: str | Path | Sequence[str | Path]) -> GridSection:
    """Read a later file as the training data were read."""
    options = asdict(header.options)
    # Variables by name, so that other fields of the file do no harm.
    if header.format in ("netcdf", "zarr"):
        options["variables"] = header.variables
    named = str(source) if isinstance(source, str | Path) else tuple(map(str, source))
    return GridSection(source=named, scaling=header.scaling, **options)


def fitting(grid: Grid, header: GridHeader, file: str) -> Grid:
    """Refuse a grid that a model trained on another cannot read.

    Raises:
        DataError: channels, places, units or the step differ.
    """
    stated = header.channels
    for want, have in zip(stated, grid.header.channels, strict=False):
        same = have.name in (want.name, other_name(want.name)) or want.level is not None
        if not same or have.level != want.level:
            raise DataError(
                f"The field {want.name!r} is {have.name!r} here.", file=file,
                hint="Give the fields the model was trained on, by name.",
            )  # fmt: skip
        if have.units != want.units:
            raise DataError(
                f"{have.name!r} is in {have.units or 'no unit'}, and the model was trained on "
                f"{want.units or 'no unit'}.",
                hint="Convert the file to the unit of the training data.",
                file=file,
            )
    if len(stated) != len(grid.header.channels):
        raise DataError(
            f"The file has {len(grid.header.channels)} fields and the model takes {len(stated)}: "
            + ", ".join(channel.name for channel in stated) + ".",
            hint="Give the fields the model was trained on.",
            file=file,
        )  # fmt: skip
    y, x = header.y, header.x
    if not header.placed_like(grid.header.mesh):
        raise DataError(
            f"The grid of {places(grid.header)} is not the one the model was trained on, "
            f"{len(y)} x {len(x)} from ({y[0]:g}, {x[0]:g}) to ({y[-1]:g}, {x[-1]:g}).",
            hint="Give the same cells.",
            file=file,
        )
    if grid.clock.calendar != header.calendar:
        raise DataError(
            f"The calendar is {grid.clock.calendar}, and that of the training data "
            f"{header.calendar}.",
            hint="Give frames in the calendar of the training data.",
            file=file,
        )
    if (grid.clock.step, grid.clock.months) != (header.step, header.months):
        raise DataError(
            f"The frames are {grid.clock.frequency} apart, those of the training data are not.",
            hint="Give frames with the step of the training data.",
            file=file,
        )
    return grid
