"""Files of gridded data as frames (time, channel, row, column): what all formats have in common.

A file is opened for its header, and again when its frames are read in blocks; it is never held
whole.

Letters: N frames, C channels, Y X rows and columns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from forecast.errors import DataError, UsageError
from forecast.grids.axes import Mesh, mesh
from forecast.grids.calendars import STANDARD, instant_of, text_of

# Values read at a time, in bytes of float32.
BLOCK = 8 << 20
# How xarray begins to say that it knows no such unit or calendar.
_UNDECODED = "unable to decode time units "

Format = Literal["netcdf", "zarr", "slots", "array"]
Axes = tuple[Literal["time", "sequence", "channel", "y", "x"], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GridOptions:
    """How to read gridded files, and which part of them.

    Attributes:
        variables: names of the variables; empty takes all that have time, rows and columns. Short
            and long names of the ECMWF are understood for each other.
        levels: pressure levels of variables that have them [as in the file]; empty takes all.
        member: which member of an ensemble, counted from 0; None takes the only one.
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
    member: Annotated[int, Field(ge=0)] | None = None
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
    """What a file holds.

    Attributes:
        format: the kind of file.
        times: (N,) instants [us] ascending, or None where the file has no dates.
        calendar: that of its dates, as CF names it.
        starts: (N,) whether a frame starts a sequence of its own; None leaves it to the times.
        channels: the fields of a frame.
        mesh: its cells.
        names: the file's name for each axis it has, in the file's order.
        attributes: CF attributes of its variables and coordinates, by their names.
    """

    format: Format
    times: np.ndarray | None
    frames: int
    calendar: str = STANDARD
    starts: np.ndarray | None = None
    channels: tuple[Channel, ...]
    mesh: Mesh
    names: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict[str, Mapping[str, str]]
    )


@runtime_checkable
class GridFile(Protocol):
    """Describe a file whose header was read."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def header(self) -> Header:
        """What it holds."""
        ...

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all frames in order, a block (n, C, Y, X) of float32 at a time, NaN missing."""
        ...


def time_range(times: np.ndarray, options: GridOptions, calendar: str = STANDARD) -> slice:
    """Return the rows from `first` to `last`.

    Raises:
        DataError: the times are not in ascending order.
        UsageError: one of the two is no time.
    """
    if np.any(np.diff(times.astype(np.int64)) <= 0):
        place = int(np.flatnonzero(np.diff(times.astype(np.int64)) <= 0)[0])
        raise DataError(
            f"The time axis is not in ascending order: {short(times[place + 1], calendar)} follows "
            f"{short(times[place], calendar)}.",
            hint="Sort the file by time and drop frames that are there twice.",
        )
    start, stop = 0, len(times)
    if options.first:
        start = int(np.searchsorted(times, instant_of(options.first, calendar)))
    if options.last:
        stop = int(np.searchsorted(times, instant_of(options.last, calendar, end=True)))
    return slice(start, max(start, stop))


def bare_mesh(rows: int, columns: int, options: GridOptions, path: Path) -> Mesh:
    """Place cells that have no coordinates by their numbers."""
    return mesh(
        np.arange(float(rows)), np.arange(float(columns)), geographic=False,
        latitude=None, longitude=None, rows=options.rows, columns=options.columns, file=str(path),
    )  # fmt: skip


def block_rows(header: Header) -> int:
    """Return the frames to read at a time."""
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
                hint="Give them a unit such as 'hours since 1900-01-01'.",
                file=str(path),
            ) from error
        raise DataError(
            f"The file cannot be read: {reason}.",
            hint="It may be cut off or damaged; copy or fetch it again.",
            file=str(path),
        ) from error


def short(time: np.datetime64, calendar: str = STANDARD) -> str:
    """Write an instant without the fractions of its second."""
    return text_of(time.astype("datetime64[s]"), calendar)
