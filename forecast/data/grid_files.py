"""Files of gridded data as frames (time, channel, row, column), whatever their axes' order.

NetCDF (classic and 4) and Zarr (v2 and v3, a folder or a zip) are read through xarray, frames in
HDF5 with a `date` for each, as TaxiBJ has them, and bare arrays (`.npy`, `.npz`) directly. A file
is opened for its header, and again when its frames are read in blocks; it is never held whole.

Letters: N frames, C channels, Y X rows and columns, V windows of L + H frames.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from forecast.data.grid_axes import Axis, Mesh, mesh, role_of
from forecast.errors import DataError, UsageError, nearest

# Values read at a time, in bytes of float32.
_BLOCK = 32 << 20
_DAY = np.timedelta64(86_400_000_000, "us")

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


def open_grid(path: Path, options: GridOptions) -> GridFile:
    """Tell a file's format from its content and read its header.

    Raises:
        DataError: it is none of the formats, damaged, or lacks what the options ask for.
    """
    if path.is_dir():
        if not any((path / name).exists() for name in (".zgroup", "zarr.json")):
            raise DataError(
                "The folder is no Zarr store.", hint="Give the files in it, as folder/*.nc.",
                file=str(path),
            )  # fmt: skip
        return _CoordinateFile.open(path, "zarr", options)
    with _reading(path), path.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"PK"):
        with _reading(path), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if all(name.endswith(".npy") for name in names):
            return _ArrayFile.open(path, options)
        return _CoordinateFile.open(path, "zarr", options)
    if magic.startswith(b"\x93NUMPY"):
        return _ArrayFile.open(path, options)
    if magic.startswith(b"\x89HDF"):
        import h5py  # noqa: PLC0415

        with _reading(path), h5py.File(path) as file:
            slots = {"data", "date"} <= set(file)
        if slots:
            return _SlotFile.open(path, options)
    elif not magic.startswith(b"CDF"):
        raise DataError(
            "The file is neither NetCDF, HDF5, Zarr, npy nor npz.",
            hint="Convert it to NetCDF, with ncdump or xarray for example.",
            file=str(path),
        )
    return _CoordinateFile.open(path, "netcdf", options)


@dataclass(frozen=True, kw_only=True, slots=True)
class _CoordinateFile:
    """Read NetCDF and Zarr: variables with named dimensions and coordinates."""

    path: Path
    header: Header
    options: GridOptions
    rows: slice

    @classmethod
    def open(cls, path: Path, kind: Format, options: GridOptions) -> _CoordinateFile:
        with _dataset(path, kind) as dataset:
            variables = _choose(dataset, options, path)
            axes = _axes(dataset, variables[0])
            time, y, x = (
                next(axis for axis in axes if axis.role == role) for role in ("time", "y", "x")
            )
            times = _times(dataset, time, path)
            rows = time_range(times, options)
            channels = [
                channel for name in variables for channel in _channels(dataset, name, options, path)
            ]
            header = Header(
                format=kind,
                times=times[rows],
                frames=len(times[rows]),
                channels=tuple(channels),
                mesh=_mesh(dataset, y, x, options, path),
                names={axis.role: axis.name for axis in axes if axis.role != "other"},
            )
        return cls(path=path, header=header, options=options, rows=rows)

    def blocks(self) -> Iterator[np.ndarray]:
        cells = self.header.mesh.window
        with _dataset(self.path, self.header.format) as dataset:
            fields = {
                name: _by_role(dataset, name, self.options.member)
                for name in dict.fromkeys(channel.variable for channel in self.header.channels)
            }
            size = _block_rows(self.header)
            for start in range(self.rows.start, self.rows.stop, size):
                rows = slice(start, min(start + size, self.rows.stop))
                with _reading(self.path):
                    block = [
                        self._field(fields[channel.variable], channel, rows, cells)
                        for channel in self.header.channels
                    ]
                yield np.stack(block, axis=1)

    def _field(self, field: Any, channel: Channel, rows: slice, cells: tuple[slice, slice]) -> Any:
        if "level" in field.dims:
            place = np.flatnonzero(field["level"].values == channel.level)[0]
            field = field.isel(level=int(place))
        field = field.isel(time=rows, y=cells[0], x=cells[1]).transpose("time", "y", "x")
        return self.header.mesh.cut(np.asarray(field.values, dtype=np.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class _SlotFile:
    """Read HDF5 with `data` (N, C, Y, X) and `date` (N,) as YYYYMMDDSS, its complete days alone."""

    path: Path
    header: Header
    options: GridOptions
    kept: np.ndarray

    @classmethod
    def open(cls, path: Path, options: GridOptions) -> _SlotFile:
        import h5py  # noqa: PLC0415

        with _reading(path), h5py.File(path) as file:
            shape = file["data"].shape  # pyright: ignore[reportAttributeAccessIssue]
            dates = np.asarray(file["date"]).astype("S10")  # pyright: ignore[reportArgumentType]
        if len(shape) != 4 or len(dates) != shape[0]:
            raise DataError(
                f"data has the shape {shape} and date {dates.shape}; expected are "
                "(frames, channels, rows, columns) and (frames,).",
                file=str(path),
            )
        times, per_day = _slot_times(dates, options.slots_per_day, path)
        days, counts = np.unique(times.astype("datetime64[D]"), return_counts=True)
        kept = np.isin(times.astype("datetime64[D]"), days[counts == per_day])
        kept = np.flatnonzero(kept)
        if not len(kept):
            raise DataError(
                f"No day of the file has all of its {per_day} slots.",
                hint="State another number with data.slots_per_day.",
                file=str(path),
            )
        kept = kept[time_range(times[kept], options)]
        names = ("inflow", "outflow") if shape[1] == 2 else tuple(map(str, range(shape[1])))
        header = Header(
            format="slots",
            times=times[kept],
            frames=len(kept),
            channels=tuple(Channel(name=name, variable=name, units="1") for name in names),
            mesh=_bare_mesh(shape[2], shape[3], options, path),
            names={"time": "date", "channel": "data"},
        )
        return cls(path=path, header=header, options=options, kept=kept)

    def blocks(self) -> Iterator[np.ndarray]:
        import h5py  # noqa: PLC0415

        rows, columns = self.header.mesh.window
        with _reading(self.path), h5py.File(self.path) as file:
            for part in _parts(self.kept, _block_rows(self.header)):
                # One range, of which the frames of incomplete days are thrown away.
                span = slice(int(part[0]), int(part[-1]) + 1)
                block = np.asarray(file["data"][span, :, rows, columns], dtype=np.float32)  # pyright: ignore
                yield _valued(self.header.mesh.cut(block[part - part[0]]), self.options)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ArrayFile:
    """Read `.npy` and `.npz`: one array of frames, or the windows of a video benchmark.

    Windows that overlap as those of a sliding window do are put together to the frames they were
    cut from; others stay sequences of their own.
    """

    path: Path
    header: Header
    options: GridOptions
    member: str
    order: Axes
    rows: slice

    @classmethod
    def open(cls, path: Path, options: GridOptions) -> _ArrayFile:
        with _reading(path):
            shapes = {name: _npy_header(path, name) for name in _npy_names(path)}
        if {"X_train", "Y_train", "X_test", "Y_test"} <= set(shapes):
            return cls._windows(path, options, shapes)
        member = "data" if "data" in shapes else next(iter(shapes))
        if len(shapes) > 1 and member != "data":
            raise DataError(
                f"The file holds {', '.join(sorted(shapes))}; expected is one array, `data`, or "
                "X_train, Y_train, X_test and Y_test.",
                hint="Write the frames as the array `data`.",
                file=str(path),
            )
        shape, _ = shapes[member]
        side = _sidecar(path)
        guesses: dict[int, Axes] = {
            3: ("time", "y", "x"),
            4: ("time", "channel", "y", "x"),
            5: ("sequence", "time", "channel", "y", "x"),
        }
        order = options.axes or tuple(side.get("axes", ())) or guesses.get(len(shape), ())
        if len(order) != len(shape) or {"time", "y", "x"} - set(order):
            raise DataError(
                f"An array of shape {shape} has not the axes {', '.join(order) or 'of a grid'}.",
                hint='State them: --set data.axes=["time", "channel", "y", "x"]',
                file=str(path),
            )
        sizes = dict(zip(order, shape, strict=True))
        length = sizes["time"]
        sequences = sizes.get("sequence")
        frames = length * (sequences or 1)
        times = None
        if "start" in side and sequences is None:
            step = np.timedelta64(round(float(side["step_hours"]) * 3.6e9), "us")
            times = np.datetime64(side["start"], "us") + step * np.arange(frames)
        rows = time_range(times, options) if times is not None else slice(0, frames)
        names = side.get("channels") or list(map(str, range(sizes.get("channel", 1))))
        units = side.get("units", "")
        header = Header(
            format="array",
            times=None if times is None else times[rows],
            frames=rows.stop - rows.start,
            starts=None if sequences is None else np.arange(frames) % length == 0,
            channels=tuple(Channel(name=name, variable=name, units=units) for name in names),
            mesh=_bare_mesh(sizes["y"], sizes["x"], options, path),
            names={axis: axis for axis in order},
        )
        return cls(
            path=path, header=header, options=options, member=member, order=order, rows=rows
        )

    @classmethod
    def _windows(
        cls, path: Path, options: GridOptions, shapes: dict[str, tuple[tuple[int, ...], np.dtype]]
    ) -> _ArrayFile:
        shape = shapes["X_train"][0]
        if any(len(found) != 5 or found[2:] != shape[2:] for found, _ in shapes.values()):
            raise DataError(
                "The windows differ in shape: "
                + ", ".join(f"{name} {found}" for name, (found, _) in shapes.items()),
                hint="All four have the axes window, time, channel, row, column.",
                file=str(path),
            )
        with _reading(path):
            starts = np.concatenate([new for _, new in _sliding(path)])
        header = Header(
            format="array",
            times=None,
            frames=len(starts),
            starts=starts,
            channels=tuple(Channel(name=str(n), variable=str(n)) for n in range(shape[2])),
            mesh=_bare_mesh(shape[3], shape[4], options, path),
            names={},
        )
        return cls(
            path=path, header=header, options=options, member="", order=(),
            rows=slice(0, len(starts)),
        )  # fmt: skip

    def blocks(self) -> Iterator[np.ndarray]:
        rows, columns = self.header.mesh.window
        with _reading(self.path):
            for block in self._raw():
                cut = self.header.mesh.cut(block[..., rows, columns].astype(np.float32))
                yield _valued(cut, self.options)

    def _raw(self) -> Iterator[np.ndarray]:
        if not self.member:
            yield from (frames for frames, _ in _sliding(self.path))
            return
        size = _block_rows(self.header)
        if self.order[0] == "time" and "sequence" not in self.order:
            place = self.rows.start
            axes = [self.order.index(axis) for axis in ("channel", "y", "x") if axis in self.order]
            for block in _npy_rows(self.path, self.member, size, self.rows):
                frames = block.transpose(0, *axes)
                yield frames if "channel" in self.order else frames[:, None]
                place += len(block)
            return
        # Frames that do not lie one behind the other: the array is mapped or, in an npz, read.
        array = _npy_mapped(self.path, self.member)
        places = {axis: place for place, axis in enumerate(self.order)}
        wanted = [axis for axis in ("sequence", "time", "channel", "y", "x") if axis in places]
        array = array.transpose([places[axis] for axis in wanted])
        if "channel" not in places:
            array = np.expand_dims(array, -3)
        length = array.shape[-4]
        for start in range(self.rows.start, self.rows.stop, size):
            number = np.arange(start, min(start + size, self.rows.stop))
            if "sequence" in places:
                yield array[number // length, number % length]
            else:
                yield array[number]


def time_range(times: np.ndarray, options: GridOptions) -> slice:
    """Give the rows from `first` to `last`.

    Raises:
        DataError: the times are not in ascending order.
        UsageError: one of the two is no time.
    """
    if np.any(np.diff(times.astype(np.int64)) <= 0):
        place = int(np.flatnonzero(np.diff(times.astype(np.int64)) <= 0)[0])
        raise DataError(
            f"The time axis is not in ascending order: {times[place + 1]} follows {times[place]}.",
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


def _choose(dataset: Any, options: GridOptions, path: Path) -> list[str]:
    gridded = [
        str(name)
        for name in dataset.data_vars
        if {"time", "y", "x"} <= {axis.role for axis in _axes(dataset, str(name))}
        and dataset[name].dtype.kind in "fiu"
    ]
    if not gridded:
        found = {
            str(dim): f"{role_of(str(dim), _attributes(dataset, str(dim)))} ({size})"
            for dim, size in dataset.sizes.items()
        }
        raise DataError(
            "No variable has a time, a row and a column axis; the axes found are "
            + (", ".join(f"{name}: {role}" for name, role in found.items()) or "none")
            + ".",
            hint="Give the coordinates CF attributes (units, standard_name) or the usual names: "
            "time, lat, lon.",
            file=str(path),
        )
    for name in gridded:
        strange = [axis.name for axis in _axes(dataset, name) if axis.role == "other"]
        strange = [dim for dim in strange if dataset.sizes[dim] > 1]
        if strange and (not options.variables or name in options.variables):
            raise DataError(
                f"The variable {name!r} has an axis {strange[0]!r} that is none of time, level, "
                "member, row and column.",
                hint="Take one place along it, and write that to a file of its own.",
                file=str(path),
            )
    return [_named(name, gridded, path) for name in options.variables] or gridded


def _named(name: str, known: Sequence[str], path: Path) -> str:
    # Known data sets give their variables one of two names; imported late, as it imports this.
    from forecast.data.weatherbench import other_name  # noqa: PLC0415

    for candidate in (name, other_name(name)):
        if candidate in known:
            return candidate
    raise DataError(f"There is no variable {name!r}.", hint=nearest(name, known), file=str(path))


def _axes(dataset: Any, name: str) -> list[Axis]:
    """Tell what each dimension of a variable is; of two that look alike the first one is."""
    axes: list[Axis] = []
    for dim in map(str, dataset[name].dims):
        is_time = dim in dataset.coords and dataset[dim].dtype.kind == "M"
        role = role_of(dim, _attributes(dataset, dim), is_time)
        if role in {axis.role for axis in axes}:
            role = "other"
        axes.append(Axis(role, dim, dataset.sizes[dim]))
    return axes


def _attributes(dataset: Any, dim: str) -> dict[str, Any]:
    return dict(dataset[dim].attrs) if dim in dataset.coords else {}


def _times(dataset: Any, axis: Axis, path: Path) -> np.ndarray:
    coordinate = dataset[axis.name] if axis.name in dataset.coords else None
    if coordinate is None or coordinate.dtype.kind != "M":
        units = "" if coordinate is None else coordinate.attrs.get("units", "")
        raise DataError(
            f"The axis {axis.name!r} holds no times that can be read"
            + (f"; its unit is {units!r}." if units else "."),
            hint="Give it a unit such as 'hours since 1900-01-01' and the calendar 'standard'.",
            file=str(path),
        )
    times = coordinate.values.astype("datetime64[us]")
    if np.isnat(times).any():
        raise DataError(f"The axis {axis.name!r} has times that are missing.", file=str(path))
    return times


def _channels(dataset: Any, name: str, options: GridOptions, path: Path) -> list[Channel]:
    units = str(dataset[name].attrs.get("units", ""))
    level = next((axis.name for axis in _axes(dataset, name) if axis.role == "level"), None)
    if level is None:
        return [Channel(name=name, variable=name, units=units)]
    there = [float(value) for value in dataset[level].values]
    missing = [value for value in options.levels if value not in there]
    if missing:
        raise DataError(
            f"{name!r} is not there on level {missing[0]:g}; its levels are "
            + ", ".join(f"{value:g}" for value in there) + ".",
            hint="Choose among these with data.levels.",
            file=str(path),
        )  # fmt: skip
    return [
        Channel(name=f"{name}_{value:g}", variable=name, level=value, units=units)
        for value in options.levels or there
    ]


def _mesh(dataset: Any, y: Axis, x: Axis, options: GridOptions, path: Path) -> Mesh:
    if y.name not in dataset.coords or x.name not in dataset.coords:
        return _bare_mesh(y.size, x.size, options, path)
    units = [str(dataset[axis.name].attrs.get("units", "")).lower() for axis in (y, x)]
    named = y.name.lower() in {"lat", "latitude"} and x.name.lower() in {"lon", "longitude"}
    return mesh(
        dataset[y.name].values.astype(float),
        dataset[x.name].values.astype(float),
        geographic=named or (units[0].startswith("degree") and units[1].startswith("degree")),
        latitude=options.latitude,
        longitude=options.longitude,
        rows=options.rows,
        columns=options.columns,
        file=str(path),
    )


def _bare_mesh(rows: int, columns: int, options: GridOptions, path: Path) -> Mesh:
    return mesh(
        np.arange(float(rows)), np.arange(float(columns)), geographic=False,
        latitude=None, longitude=None, rows=options.rows, columns=options.columns, file=str(path),
    )  # fmt: skip


def _by_role(dataset: Any, name: str, member: int) -> Any:
    """Give a variable whose dimensions bear the names of their roles."""
    axes = _axes(dataset, name)
    field = dataset[name]
    field = field.isel({axis.name: 0 for axis in axes if axis.role == "other"})
    ensemble = next((axis.name for axis in axes if axis.role == "member"), None)
    if ensemble is not None:
        field = field.isel({ensemble: min(member, dataset.sizes[ensemble] - 1)})
    renamed = {axis.name: axis.role for axis in axes if axis.role not in ("other", "member")}
    return field.rename({old: new for old, new in renamed.items() if old != new})


def _slot_times(
    dates: np.ndarray, slots_per_day: int | None, path: Path
) -> tuple[np.ndarray, int]:
    """Turn YYYYMMDDSS into instants; slots count from 0 for hours and from 1 for half hours."""
    text = dates.astype("U10")
    try:
        days = np.array([f"{d[:4]}-{d[4:6]}-{d[6:8]}" for d in text], dtype="datetime64[D]")
        slots = np.array([int(d[8:]) for d in text])
    except ValueError as error:
        raise DataError(
            "The dates are not of the form YYYYMMDDSS.", hint=f"The first is {text[0]!r}.",
            file=str(path),
        ) from error  # fmt: skip
    first = 0 if slots.min() == 0 else 1
    per_day = slots_per_day or (24 if first == 0 else 48 if slots.max() > 24 else 0)
    if not per_day or slots.max() - first >= per_day:
        raise DataError(
            f"The slots run from {slots.min()} to {slots.max()}, from which their number a day "
            "cannot be told." if not per_day else
            f"The slots run up to {slots.max()}, and a day has {per_day}.",
            hint="State it with data.slots_per_day.",
            file=str(path),
        )  # fmt: skip
    return days.astype("datetime64[us]") + (slots - first) * (_DAY // per_day), per_day


def _valued(block: np.ndarray, options: GridOptions) -> np.ndarray:
    if options.scale != 1.0 or options.offset != 0.0:
        block = block * np.float32(options.scale) + np.float32(options.offset)
    return np.maximum(np.rint(block), 0) if options.counts else block


def _block_rows(header: Header) -> int:
    return max(1, _BLOCK // (4 * len(header.channels) * int(np.prod(header.mesh.shape))))


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes its library raise into an error that names the file."""
    try:
        yield
    except (DataError, UsageError, FileNotFoundError):
        raise
    # The libraries raise whatever the damage leads them to, KeyError and ZeroDivisionError too.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"The file cannot be read: {reason}.",
            hint="It may be cut off or damaged; copy or fetch it again.",
            file=str(path),
        ) from error


@contextmanager
def _dataset(path: Path, kind: Format) -> Iterator[Any]:
    import xarray  # noqa: PLC0415

    with _reading(path):
        if kind == "zarr":
            import zarr  # noqa: PLC0415

            # A zip stays a zip: its members are read in place.
            store = str(path) if path.is_dir() else zarr.storage.ZipStore(path, mode="r")
            opened = xarray.open_dataset(store, engine="zarr", cache=False, chunks=None)  # pyright: ignore[reportArgumentType]
        else:
            with path.open("rb") as stream:
                engine = "scipy" if stream.read(3) == b"CDF" else "h5netcdf"
            opened = xarray.open_dataset(path, engine=engine, cache=False)
    with opened:
        yield opened


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    return json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}


def _npy_names(path: Path) -> list[str]:
    if path.suffix == ".npy" or not zipfile.is_zipfile(path):
        return [""]
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _npy_stream(path: Path, member: str) -> Iterator[tuple[Any, tuple[int, ...], np.dtype]]:
    """Open an array of a `.npy` or `.npz` behind its header, to be read from front to back."""
    with path.open("rb") as outer:
        inner = zipfile.ZipFile(outer).open(f"{member}.npy") if member else outer
        with inner as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(stream)
            if fortran or dtype.hasobject:
                raise DataError(
                    "The array is stored in Fortran order or holds objects.",
                    hint="Write it with numpy.save of an ascontiguousarray.",
                    file=str(path),
                )
            yield stream, shape, dtype


def _npy_header(path: Path, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with _npy_stream(path, member) as (_, shape, dtype):
        return shape, dtype


def _npy_rows(path: Path, member: str, size: int, rows: slice | None = None) -> Iterator[np.ndarray]:
    """Read an array along its first axis, `size` rows at a time."""
    with _npy_stream(path, member) as (stream, shape, dtype):
        rows = rows or slice(0, shape[0])
        width = int(np.prod(shape[1:])) * dtype.itemsize
        stream.seek(stream.tell() + rows.start * width)
        for start in range(rows.start, rows.stop, size):
            count = min(size, rows.stop - start)
            content = stream.read(count * width)
            if len(content) < count * width:
                raise DataError("The file ends before its array does.", file=str(path))
            yield np.frombuffer(content, dtype).reshape(count, *shape[1:])


def _npy_mapped(path: Path, member: str) -> np.ndarray:
    return np.load(path)[member] if member else np.load(path, mmap_mode="r")


def _sliding(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Put windows of X_train, Y_train, X_test, Y_test together to frames.

    Yields:
        Frames (n, C, Y, X), and which of them start a sequence of their own.
    """
    last: np.ndarray | None = None
    for part in ("train", "test"):
        shape, dtype = _npy_header(path, f"X_{part}")
        size = max(1, _BLOCK // max(1, int(np.prod(shape[1:])) * dtype.itemsize))
        pairs = zip(
            *(_npy_rows(path, f"{half}_{part}", size) for half in ("X", "Y")), strict=True
        )
        for block in pairs:
            frames: list[np.ndarray] = []
            starts: list[bool] = []
            for window in np.concatenate(block, axis=1):
                if last is not None and np.array_equal(window[:-1], last[1:]):
                    frames.append(window[-1:])
                    starts.append(False)
                else:
                    frames.append(window)
                    starts += [True] + [False] * (len(window) - 1)
                last = window
            yield np.concatenate(frames), np.array(starts)


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


def with_channels(header: Header, channels: tuple[Channel, ...]) -> Header:
    """Give a header other channels."""
    return replace(header, channels=channels)
