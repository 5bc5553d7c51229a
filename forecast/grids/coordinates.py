"""NetCDF (classic and 4) and Zarr (v2 and v3, a folder or a zip) as frames, through xarray.

Dimensions are found by name and by CF attributes and brought into one order, whatever theirs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forecast.catalogue.weatherbench import other_name
from forecast.errors import DataError, nearest
from forecast.grids.axes import Axis, Mesh, mesh, role_of
from forecast.grids.calendars import STANDARD, from_cftime
from forecast.grids.files import (
    Channel,
    Format,
    GridOptions,
    Header,
    bare_mesh,
    block_rows,
    reading,
    time_range,
)

# What a forecast takes over of a variable and of a coordinate, as CF has it.
_KEPT = ("standard_name", "long_name", "units", "positive", "axis", "cell_methods")


@dataclass(frozen=True, kw_only=True, slots=True)
class CoordinateFile:
    """Read NetCDF and Zarr: variables with named dimensions and coordinates."""

    path: Path
    header: Header
    options: GridOptions
    rows: slice

    @classmethod
    def open(cls, path: Path, kind: Format, options: GridOptions) -> CoordinateFile:
        """Read the header."""
        with _dataset(path, kind) as dataset:
            variables = _choose(dataset, options, path)
            for name in variables:
                _one_member(dataset, name, options, path)
            axes = _axes(dataset, variables[0])
            time, y, x = (
                next(axis for axis in axes if axis.role == role) for role in ("time", "y", "x")
            )
            times, calendar = _times(dataset, time, path)
            rows = time_range(times, options, calendar)
            channels = [
                channel for name in variables for channel in _channels(dataset, name, options, path)
            ]
            header = Header(
                format=kind,
                times=times[rows],
                calendar=calendar,
                frames=len(times[rows]),
                channels=tuple(channels),
                mesh=_mesh(dataset, y, x, options, path),
                names={axis.role: axis.name for axis in axes if axis.role != "other"},
                attributes=_cf_attributes(dataset, [*variables, *(axis.name for axis in axes)]),
            )
        return cls(path=path, header=header, options=options, rows=rows)

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all frames in order, a block at a time."""
        cells = self.header.mesh.window
        with _dataset(self.path, self.header.format) as dataset:
            fields = {
                name: _by_role(dataset, name, self.options.member)
                for name in dict.fromkeys(channel.variable for channel in self.header.channels)
            }
            size = self._block_rows(dataset)
            for start in range(self.rows.start // size * size, self.rows.stop, size):
                rows = slice(max(start, self.rows.start), min(start + size, self.rows.stop))
                with reading(self.path):
                    block = [
                        self._field(fields[channel.variable], channel, rows, cells)
                        for channel in self.header.channels
                    ]
                yield np.stack(block, axis=1)

    def _block_rows(self, dataset: Any) -> int:
        """Take whole chunks of the file, lest one be decompressed many times."""
        chunks = [
            dataset[channel.variable].encoding.get("preferred_chunks") or {}
            for channel in self.header.channels
        ]
        chunk = max(1, *(part.get(self.header.names["time"], 1) for part in chunks))
        return -(-block_rows(self.header) // chunk) * chunk

    def _field(self, field: Any, channel: Channel, rows: slice, cells: tuple[slice, slice]) -> Any:
        if "level" in field.dims:
            place = np.flatnonzero(field["level"].values == channel.level)[0]
            field = field.isel(level=int(place))
        field = field.isel(time=rows, y=cells[0], x=cells[1]).transpose("time", "y", "x")
        return self.header.mesh.cut(np.asarray(field.values, dtype=np.float32))


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
    for candidate in (name, other_name(name)):
        if candidate in known:
            return candidate
    raise DataError(f"There is no variable {name!r}.", hint=nearest(name, known), file=str(path))


def _axes(dataset: Any, name: str) -> list[Axis]:
    """Return what each dimension of a variable is; of two that look alike the first one is."""
    axes: list[Axis] = []
    for dim in map(str, dataset[name].dims):
        is_time = dim in dataset.coords and _has_dates(dataset[dim])
        role = role_of(dim, _attributes(dataset, dim), is_time)
        if role in {axis.role for axis in axes}:
            role = "other"
        axes.append(Axis(role, dim, dataset.sizes[dim]))
    return axes


def _attributes(dataset: Any, dim: str) -> dict[str, Any]:
    return dict(dataset[dim].attrs) if dim in dataset.coords else {}


def _has_dates(coordinate: Any) -> bool:
    """Whether a coordinate was decoded to dates, of numpy or, of other calendars, of cftime."""
    if coordinate.dtype.kind != "O" or not coordinate.size:
        return bool(coordinate.dtype.kind == "M")
    return hasattr(coordinate.values.flat[0], "dayofyr")


def _times(dataset: Any, axis: Axis, path: Path) -> tuple[np.ndarray, str]:
    """Read the instants of an axis, and the name of their calendar."""
    coordinate = dataset[axis.name] if axis.name in dataset.coords else None
    if coordinate is None or not _has_dates(coordinate):
        units = "" if coordinate is None else coordinate.attrs.get("units", "")
        raise DataError(
            f"The axis {axis.name!r} holds no times that can be read"
            + (f"; its unit is {units!r}." if units else "."),
            hint="Give it a unit such as 'hours since 1900-01-01' and the calendar 'standard'.",
            file=str(path),
        )
    if coordinate.dtype.kind == "O":
        return from_cftime(coordinate.values)
    times = coordinate.values.astype("datetime64[us]")
    if np.isnat(times).any():
        raise DataError(f"The axis {axis.name!r} has times that are missing.", file=str(path))
    return times, STANDARD


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
        return bare_mesh(y.size, x.size, options, path)
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


def _cf_attributes(dataset: Any, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Attributes of variables and coordinates that a forecast of them has too."""
    return {
        name: {key: str(dataset[name].attrs[key]) for key in _KEPT if key in dataset[name].attrs}
        for name in dict.fromkeys(names)
        if name in dataset.variables
    }


def _one_member(dataset: Any, name: str, options: GridOptions, path: Path) -> None:
    """Refuse to choose a member of an ensemble that nobody named.

    Raises:
        DataError: there are several and none is named, or the one named is not there.
    """
    axis = next((axis for axis in _axes(dataset, name) if axis.role == "member"), None)
    size = 1 if axis is None else axis.size
    if axis is not None and size > 1 and options.member is None:
        raise DataError(
            f"{name!r} is an ensemble of {size} members along {axis.name!r}, and a grid is one of "
            "them.",
            hint="Name it, counted from 0: --set data.member=0; or write each member to a file of "
            "its own.",
            file=str(path),
        )
    if (options.member or 0) >= size:
        raise DataError(
            f"{name!r} has {size} member{'s' * (size > 1)}, and data.member = {options.member}.",
            hint=f"Members count from 0 to {size - 1}.",
            file=str(path),
        )


def _by_role(dataset: Any, name: str, member: int | None) -> Any:
    """Rename the dimensions of a variable to their roles."""
    axes = _axes(dataset, name)
    field = dataset[name]
    field = field.isel({axis.name: 0 for axis in axes if axis.role == "other"})
    ensemble = next((axis.name for axis in axes if axis.role == "member"), None)
    if ensemble is not None:
        field = field.isel({ensemble: member or 0})
    renamed = {axis.name: axis.role for axis in axes if axis.role not in ("other", "member")}
    return field.rename({old: new for old, new in renamed.items() if old != new})


@contextmanager
def _dataset(path: Path, kind: Format) -> Generator[Any]:
    import xarray  # noqa: PLC0415

    with reading(path):
        if kind == "zarr":
            from zarr.storage import ZipStore  # noqa: PLC0415

            # A zip stays a zip: its members are read in place.
            store = str(path) if path.is_dir() else ZipStore(path, mode="r")
            opened = xarray.open_dataset(
                store,  # pyright: ignore[reportArgumentType]
                engine="zarr",
                cache=False,
                chunks=None,
                consolidated=False,
            )
        else:
            with path.open("rb") as stream:
                engine = "scipy" if stream.read(3) == b"CDF" else "h5netcdf"
            opened = xarray.open_dataset(path, engine=engine, cache=False)
    with opened:
        yield opened
