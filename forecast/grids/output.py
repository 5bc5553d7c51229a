"""Forecasts as files: NetCDF or Zarr with CF coordinates, or TaxiBJ's HDF5, whole or not at all.

Letters: H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from forecast import atomic
from forecast.errors import UsageError
from forecast.grids.calendars import dates_of
from forecast.grids.files import Header
from forecast.grids.header import GridHeader

if TYPE_CHECKING:
    import xarray

_SUFFIXES = (".nc", ".zarr", ".h5")
_GEOGRAPHIC = {
    "y": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "x": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}


def check_target(path: Path, *, slots: bool) -> None:
    """Refuse a place that forecasts cannot be written to, before anything is computed.

    Args:
        path: the place.
        slots: the data are counts with a day and the number of a slot.

    Raises:
        UsageError: the suffix is none of .nc, .zarr and .h5, or does not fit the data.
    """
    if path.suffix not in _SUFFIXES:
        raise UsageError(
            f"Forecasts of grids are written as {', '.join(_SUFFIXES)}, not {path.suffix or path}.",
            hint="Name the file forecast.nc, for example.",
        )
    if path.suffix == ".h5" and not slots:
        raise UsageError(
            "TaxiBJ's .h5 has room for counts with slot numbers only.",
            hint="Name the file forecast.nc or forecast.zarr.",
        )


def write_forecast(
    path: Path,
    values: Float[np.ndarray, "H C Y X"],
    times: np.ndarray,
    last: np.datetime64,
    header: Header,
    *,
    model: str = "",
) -> None:
    """Write a forecast in the names, units and orders of the file that it goes on from.

    Args:
        path: a `.nc` file, a `.zarr` folder, or `.h5` in TaxiBJ's layout.
        values: in the units of the data, NaN missing.
        times: (H,) instants [us].
        last: the last instant that was known.
        header: of the file.
        model: named as the source of the forecast.

    Raises:
        UsageError: as `check_target` does.
    """
    check_target(path, slots=header.format == "slots" and header.times is not None)
    if path.suffix == ".h5":
        _write_slots(path, values, times, header)
        return
    made = dataset(values, times, last, header, model)
    packing = {"zlib": True} if path.suffix == ".nc" else {}
    encoding: dict[str, dict[str, Any]] = {
        # No coordinate is ever missing, which CF asks them to say by having no fill value.
        **{str(name): {"_FillValue": None} for name in made.coords},
        **{str(name): {"_FillValue": np.float32(np.nan), **packing} for name in made.data_vars},
    }
    if path.suffix == ".nc":
        with atomic.replacing(path) as temporary:
            made.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
        return
    # A folder takes its place in one rename; an older one is moved out of the way first.
    holder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        made.to_zarr(holder / "new", mode="w", consolidated=True, zarr_format=2, encoding=encoding)
        if path.exists():
            path.rename(holder / "old")
        (holder / "new").rename(path)
    finally:
        shutil.rmtree(holder)


def table_columns(header: GridHeader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the columns of a table of cells: those that place a cell, time first, and its fields."""
    levels = any(channel.level is not None for channel in header.channels)
    roles = ("time", *(("level",) if levels else ()), "y", "x")
    return tuple(header.names.get(role, role) for role in roles), header.variables


def dataset(
    values: Float[np.ndarray, "H C Y X"],
    times: np.ndarray,
    last: np.datetime64,
    header: Header,
    model: str = "",
) -> xarray.Dataset:
    """Lay a forecast out with CF coordinates, `lead_time` and its reference time.

    Args:
        values: in the units of the data, NaN missing.
        times: (H,) instants [us].
        last: the last instant that was known.
        header: of the file it goes on from, whose names, units and orders are taken.
        model: named as the source of the forecast.
    """
    import xarray  # noqa: PLC0415

    names = {"time": "time", "y": "y", "x": "x", "level": "level"} | {
        role: name for role, name in header.names.items() if header.format in ("netcdf", "zarr")
    }
    mesh = header.mesh
    order = [
        role for role in (*header.names, "time", "y", "x") if role in ("time", "y", "x", "level")
    ]
    order = list(dict.fromkeys(order))
    if mesh.descending:
        values = values[:, :, ::-1]
    y = mesh.y[::-1] if mesh.descending else mesh.y
    fields: dict[str, Any] = {}
    levels: list[float] = []
    for variable in dict.fromkeys(channel.variable for channel in header.channels):
        places = [n for n, c in enumerate(header.channels) if c.variable == variable]
        stack = values[:, places].astype(np.float32)  # (H, levels, Y, X)
        own = [level for n in places if (level := header.channels[n].level) is not None]
        roles = ["time", "level", "y", "x"] if own else ["time", "y", "x"]
        levels = own or levels
        wanted = [role for role in order if role in roles]
        stack = stack if own else stack[:, 0]
        fields[variable] = (
            [names[role] for role in wanted],
            stack.transpose([roles.index(role) for role in wanted]),
            _attributes(header, variable, units=header.channels[places[0]].units),
        )
    axes: dict[str, tuple[np.ndarray, dict[str, str]]] = {
        "y": (y, _GEOGRAPHIC["y"] if mesh.geographic else {"axis": "Y"}),
        "x": (mesh.file_x, _GEOGRAPHIC["x"] if mesh.geographic else {"axis": "X"}),
    }
    if levels:
        axes["level"] = (np.array(levels), {"axis": "Z"})
    coordinates: dict[str, Any] = {
        names[role]: (names[role], places, stated | _attributes(header, names[role]))
        for role, (places, stated) in axes.items()
    }
    attributes = {"Conventions": "CF-1.11", "title": "Forecast"}
    if model:
        attributes["source"] = model
    if header.times is None:
        coordinates[names["time"]] = (names["time"], np.arange(1, len(values) + 1), {"axis": "T"})
        return xarray.Dataset(fields, coordinates, attributes)
    hours = (times - last).astype(np.int64) / 3.6e9
    coordinates |= {
        names["time"]: (
            names["time"], dates_of(times, header.calendar),
            _attributes(header, names["time"]) | {"standard_name": "time", "axis": "T"},
        ),
        "lead_time": (
            names["time"], hours,
            {"long_name": "time since the last known frame", "units": "h",
             "standard_name": "forecast_period"},
        ),
        "forecast_reference_time": (
            (), dates_of(np.array(last), header.calendar),
            {"standard_name": "forecast_reference_time"},
        ),
    }  # fmt: skip
    return xarray.Dataset(fields, coordinates, attributes)


def _attributes(header: Header, name: str, units: str = "") -> dict[str, str]:
    """CF attributes of a variable or a coordinate of the file."""
    return {**({"units": units} if units else {}), **header.attributes.get(name, {})}


def _write_slots(path: Path, values: np.ndarray, times: np.ndarray, header: Header) -> None:
    import h5py  # noqa: PLC0415

    with atomic.replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file["data"] = values.astype(np.float32)
        file["date"] = _slot_dates(times, header)


def _slot_dates(times: np.ndarray, header: Header) -> np.ndarray:
    """Write instants as the file does: half hours count from 01, hours from 00."""
    assert header.times is not None
    step = int(np.diff(header.times.astype(np.int64)).min())
    days = times.astype("datetime64[D]")
    slots = (times - days).astype(np.int64) // step + (step < 3_600_000_000)
    texts: Sequence[str] = [
        f"{str(day).replace('-', '')}{slot:02d}" for day, slot in zip(days, slots, strict=True)
    ]
    return np.array(texts, dtype="S10")
