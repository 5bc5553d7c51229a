"""Files of gridded data as frames (time, channel, row, column): what all formats have in common.

A file is opened for its header, and again when its frames are read in blocks; it is never held
whole.

Letters: N frames, C channels, Y X rows and columns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from forecast.errors import DataError, UsageError
from forecast.grids.axes import Mesh, mesh

# Values read at a time, in bytes of float32.
BLOCK = 8 << 20
# How xarray begins to say that it knows no such unit or calendar.
_UNDECODED = "unable to decode time units "

Format = Literal["netcdf", "zarr", "slots", "array"]
Axes = tuple[Literal["time", "sequence", "channel", "y", "x"], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GridOptions:
    """Say how to read gridded files, and which part of them.

    Attributes:
        variables: names of the variables; empty takes all that have time, rows and columns. Short
            and long names of the ECMWF are understood for each other.
        levels: pressure levels of variables that have them [as in the file]; empty takes all.
        member: which member of an ensemble, counted from 0.
        latitude: southern and northern edge of a region [degrees].
        longitude: western and eastern edge [degrees].
        rows: the first row and the one after the last, from the lowest coordinate on.
        columns: the same for columns.
        first: nothing before this time is read, as `2015-01-01`.
        last: nothing after this time is read; a day, month or year is taken whole.
        gaps: `refuse` missing frames in the time axis, or let windows `split` there.
        slots_per_day: of files with a slot number in their dates; None tells it from the numbers.
        counts: the values are counts: rounded, and below zero set to it.
        axes: the axes of a bare array; empty guesses from their number.
        scale: what one unit of a bare array is worth.
        offset: what its zero stands for.
    """

    variables: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()
    member: int = 0
    latitude: tuple[float, float] | None = None
    longitude: tuple[float, float] | None = None
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    first: str = ""
    last: str = ""
    gaps: Literal["refuse", "split"] = "refuse"
    slots_per_day: int | None = None
    counts: bool = False
    axes: Axes = ()
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """Name one field of a frame.

    Attributes:
        name: of the channel, the variable's and its level's.
        variable: as the file calls it.
        level: on which it lies, None for a variable without levels.
        units: as the file states them.
    """

    name: str
    variable: str
    level: float | None = None
    units: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Say what a file holds.

    Attributes:
        format: the kind of file.
        times: (N,) instants [us] ascending, or None where the file has no dates.
        starts: (N,) whether a frame starts a sequence of its own; None leaves it to the times.
        channels: the fields of a frame.
        mesh: its cells.
        names: the file's name for each axis it has, in the file's order.
    """

    format: Format
    times: np.ndarray | None
    frames: int
    starts: np.ndarray | None = None
    channels: tuple[Channel, ...]
    mesh: Mesh
    names: dict[str, str]


@runtime_checkable
class GridFile(Protocol):
    """Describe a file whose header was read."""

    @property
    def path(self) -> Path:
        """Tell where it lies."""
        ...

    @property
    def header(self) -> Header:
        """Tell what it holds."""
        ...

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all frames in order, a block (n, C, Y, X) of float32 at a time, NaN missing."""
        ...


def time_range(times: np.ndarray, options: GridOptions) -> slice:
    """Give the rows from `first` to `last`.

    Raises:
        DataError: the times are not in ascending order.
        UsageError: one of the two is no time.
    """
    if np.any(np.diff(times.astype(np.int64)) <= 0):
        place = int(np.flatnonzero(np.diff(times.astype(np.int64)) <= 0)[0])
        raise DataError(
            f"The time axis is not in ascending order: {short(times[place + 1])} follows "
            f"{short(times[place])}.",
            hint="Sort the file by time and drop frames that are there twice.",
        )
    start, stop = 0, len(times)
    if options.first:
        start = int(np.searchsorted(times, instant(options.first)))
    if options.last:
        stop = int(np.searchsorted(times, instant(options.last, end=True)))
    return slice(start, max(start, stop))


def instant(text: str, *, end: bool = False) -> np.datetime64:
    """Read an ISO time; with `end`, the first instant after the day, month or year it names.

    Raises:
        UsageError: it is no time.
    """
    try:
        coarse = np.datetime64(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time.", hint="Write it as 2015, 2015-07, 2015-07-31 or 2015-07-31T06."
        ) from error
    return (coarse + 1 if end else coarse).astype("datetime64[us]")


def bare_mesh(rows: int, columns: int, options: GridOptions, path: Path) -> Mesh:
    """Place cells that have no coordinates by their numbers."""
    return mesh(
        np.arange(float(rows)), np.arange(float(columns)), geographic=False,
        latitude=None, longitude=None, rows=options.rows, columns=options.columns, file=str(path),
    )  # fmt: skip


def block_rows(header: Header) -> int:
    """Give the frames to read at a time."""
    return max(1, BLOCK // (4 * len(header.channels) * int(np.prod(header.mesh.shape))))


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn what a damaged file makes its library raise into an error that names the file."""
    try:
        yield
    except (DataError, UsageError, FileNotFoundError):
        raise
    # The libraries raise whatever the damage leads them to, KeyError and ZeroDivisionError too.
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        if reason.startswith(_UNDECODED):
            # What follows is advice to programmers.
            told = reason.removeprefix(_UNDECODED).partition(". ")[0]
            raise DataError(
                f"The times cannot be read: their unit is {told}.",
                hint="Give them a unit such as 'hours since 1900-01-01', and no calendar.",
                file=str(path),
            ) from error
        raise DataError(
            f"The file cannot be read: {reason}.",
            hint="It may be cut off or damaged; copy or fetch it again.",
            file=str(path),
        ) from error


def short(time: np.datetime64) -> str:
    """Write an instant without the fractions of its second."""
    return str(time.astype("datetime64[s]"))


def describe_header(header: Header) -> dict[str, Any]:
    """Lay out what later files must agree with, and forecasts are written by."""
    return {
        "format": header.format,
        "names": header.names,
        "channels": [
            {"name": c.name, "variable": c.variable, "level": c.level, "units": c.units}
            for c in header.channels
        ],
        "y": header.mesh.y.tolist(),
        "x": header.mesh.x.tolist(),
        "geographic": header.mesh.geographic,
        "descending": header.mesh.descending,
        "dated": header.times is not None,
    }
