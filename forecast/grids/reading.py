"""Gridded files put together: which format each has, one time axis over all, one grid.

Letters: N frames, C channels, Y X rows and columns.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from forecast.catalogue.grids import locate
from forecast.errors import DataError
from forecast.grids.arrays import ArrayFile, SlotFile
from forecast.grids.coordinates import CoordinateFile
from forecast.grids.files import GridFile, GridOptions, Header, reading, short
from forecast.grids.times import Clock, clock_of, gaps, run_starts
from forecast.grids.windows import Storage
from forecast.paths import home

# The nominal step of frames without dates [us].
_NOMINAL = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What is known of the frames of one or several files before they are read.

    Attributes:
        groups: files in time order, for each set of channels.
        header: of all of them together.
        times: (N,) instants [us]; nominal ones where the files have no dates.
        clock: their step.
        runs: (N,) first row of the run without a gap that each frame is in.
        notices: sentences for the user.
    """

    groups: tuple[tuple[GridFile, ...], ...]
    header: Header
    times: np.ndarray
    clock: Clock
    runs: np.ndarray
    notices: tuple[str, ...]

    def store(self, resident: int) -> Storage:
        """Read all frames once, block by block."""
        channels = self.header.channels
        shape = (len(self.times), len(channels), *self.header.mesh.shape)
        storage = Storage(shape, resident=resident, folder=home() / "cache")
        for row, channel, block in self._blocks():
            storage.put(row, channel, block)
        return storage

    def _blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        channel = 0
        for group in self.groups:
            row = 0
            for file in group:
                for block in file.blocks():
                    yield row, channel, block
                    row += len(block)
            channel += len(group[0].header.channels)


def read(source: str | Path | Sequence[str | Path], options: GridOptions) -> Grid:
    """Read the headers of all files and put their time axes together.

    Raises:
        NotFoundError: there is no such file.
        DataError: the files do not fit together, or frames are missing.
    """
    paths = locate(source)
    opened = [open_grid(path, options) for path in paths]
    opened = [file for file in opened if file.header.frames]
    if not opened:
        raise DataError(
            f"No frame lies from {options.first or 'the start'} to {options.last or 'the end'}.",
            hint="Change first and last in the data section.",
        )
    first = opened[0].header
    for file in opened[1:]:
        if not first.mesh.same_as(file.header.mesh):
            raise DataError(
                f"Its grid of {places(file.header)} differs from that of {opened[0].path.name}, "
                f"{places(first)}.",
                hint="Bring all files to one grid, or choose the common region with latitude and "
                "longitude.",
                file=str(file.path),
            )
    groups: dict[tuple[str, ...], list[GridFile]] = {}
    for file in opened:
        groups.setdefault(tuple(c.name for c in file.header.channels), []).append(file)
    if first.times is None:
        if len(opened) > 1:
            raise DataError(
                f"{len(opened)} files without dates cannot be put in order.",
                hint="Give one array, or files with a time axis.",
            )
        return _undated(opened[0], groups)
    ordered = tuple(tuple(sorted(group, key=_first_time)) for group in groups.values())
    times = _joined_times(ordered[0])
    for group in ordered[1:]:
        other = _joined_times(group)
        if not np.array_equal(times, other):
            raise DataError(
                f"{_variables(group)} has {len(other)} frames from {short(other[0])} to "
                f"{short(other[-1])}, and {_variables(ordered[0])} {len(times)} from "
                f"{short(times[0])} to {short(times[-1])}.",
                hint="Give all variables the same times, or choose the common ones with first and "
                "last.",
            )
    for file in opened[1:]:
        if file.header.calendar != first.calendar:
            raise DataError(
                f"Its calendar is {file.header.calendar}, that of {opened[0].path.name} "
                f"{first.calendar}.",
                hint="Give files of one calendar.",
                file=str(file.path),
            )
    clock = clock_of(times, first.calendar)
    breaks = gaps(times, clock)
    notices: list[str] = []
    if len(breaks):
        place = int(breaks[0])
        found = (
            f"The frames are {clock.frequency} apart, but {clock.short(times[place])} follows "
            f"{clock.short(times[place - 1])}"
            + (f", and there are {len(breaks) - 1} more such gaps." if len(breaks) > 1 else ".")
        )
        if options.gaps == "refuse":
            raise DataError(
                found,
                hint="Add the files or frames that are missing, or set data.gaps=split to forecast "
                "within the runs in between.",
            )
        notices.append(f"{found} No window reaches over a gap.")
    channels = tuple(channel for group in ordered for channel in group[0].header.channels)
    _refuse_mixed_units(ordered)
    return Grid(
        groups=ordered,
        header=replace(first, times=times, frames=len(times), channels=channels),
        times=times,
        clock=clock,
        runs=run_starts(len(times), breaks),
        notices=tuple(notices),
    )


def open_grid(path: Path, options: GridOptions) -> GridFile:
    """Recognise a file's format by its content and read its header.

    Raises:
        DataError: it is none of the formats, damaged, or lacks what the options ask for.
    """
    if path.is_dir():
        if not any((path / name).exists() for name in (".zgroup", "zarr.json")):
            raise DataError(
                "The folder is no Zarr store.", hint="Give the files in it, as folder/*.nc.",
                file=str(path),
            )  # fmt: skip
        return CoordinateFile.open(path, "zarr", options)
    with reading(path), path.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"PK"):
        with reading(path), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if all(name.endswith(".npy") for name in names):
            return ArrayFile.open(path, options)
        return CoordinateFile.open(path, "zarr", options)
    if magic.startswith(b"\x93NUMPY"):
        return ArrayFile.open(path, options)
    if magic.startswith(b"\x89HDF"):
        import h5py  # noqa: PLC0415

        with reading(path), h5py.File(path) as file:
            slots = {"data", "date"} <= set(file)
        if slots:
            return SlotFile.open(path, options)
    elif not magic.startswith(b"CDF"):
        raise DataError(
            "The file is neither NetCDF, HDF5, Zarr, npy nor npz.",
            hint="Convert it to NetCDF, with ncdump or xarray for example.",
            file=str(path),
        )
    return CoordinateFile.open(path, "netcdf", options)


def _undated(file: GridFile, groups: Mapping[tuple[str, ...], list[GridFile]]) -> Grid:
    header = file.header
    times = (np.arange(header.frames) * _NOMINAL).astype("datetime64[us]")
    breaks = np.flatnonzero(header.starts) if header.starts is not None else np.empty(0, np.int64)
    return Grid(
        groups=tuple(tuple(group) for group in groups.values()),
        header=header,
        times=times,
        clock=Clock(step=_NOMINAL, dated=False),
        runs=run_starts(header.frames, breaks),
        notices=("The frames have no dates: nothing follows a calendar.",),
    )


def _first_time(file: GridFile) -> np.datetime64:
    assert file.header.times is not None
    return file.header.times[0]


def _joined_times(group: Sequence[GridFile]) -> np.ndarray:
    for before, after in itertools.pairwise(group):
        assert before.header.times is not None
        if _first_time(after) <= before.header.times[-1]:
            raise DataError(
                f"It begins at {short(_first_time(after))}, before {before.path.name} ends at "
                f"{short(before.header.times[-1])}.",
                hint="Give each time once.",
                file=str(after.path),
            )
    return np.concatenate([file.header.times for file in group if file.header.times is not None])


def _refuse_mixed_units(groups: Sequence[Sequence[GridFile]]) -> None:
    for group in groups:
        for file in group[1:]:
            for own, first in zip(file.header.channels, group[0].header.channels, strict=True):
                if own.units != first.units:
                    raise DataError(
                        f"{own.name!r} is in {own.units!r}, and in {first.units!r} in "
                        f"{group[0].path.name}.",
                        hint="Convert the files to one unit.",
                        file=str(file.path),
                    )


def _variables(group: Sequence[GridFile]) -> str:
    return ", ".join(channel.name for channel in group[0].header.channels)


def places(header: Header) -> str:
    """Describe where a grid lies."""
    y, x = header.mesh.y, header.mesh.x
    return f"{len(y)} x {len(x)} cells from ({y[0]:g}, {x[0]:g}) to ({y[-1]:g}, {x[-1]:g})"
