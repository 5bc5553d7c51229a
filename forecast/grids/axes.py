"""The axes of gridded variables: found by name and by CF attributes, in one order whatever theirs.

Letters: Y X rows and columns of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from forecast.errors import DataError

# What each axis is called, by its dimension's or coordinate's name, its `standard_name`, its
# `units` or its `axis`; all in lower case.
NAMES = {
    "time": {"time", "valid_time", "date", "datetime"},
    "y": {"lat", "latitude", "y", "rlat", "nav_lat", "row"},
    "x": {"lon", "longitude", "x", "rlon", "nav_lon", "column"},
    "level": {"level", "isobaricinhpa", "pressure_level", "plev", "lev", "pressure"},
    "member": {"number", "realization", "member", "ensemble"},
}
STANDARD_NAMES = {
    "time": {"time"},
    "y": {"latitude", "projection_y_coordinate", "grid_latitude"},
    "x": {"longitude", "projection_x_coordinate", "grid_longitude"},
    "level": {"air_pressure"},
    "member": {"realization"},
}
UNITS = {
    "y": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "x": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
    "level": {"hpa", "millibars", "millibar", "mbar"},
}
LETTERS = {"t": "time", "y": "y", "x": "x", "z": "level", "e": "member"}
ROUND = 360.0
# Coordinates that differ by less are the same.
NEAR = 1e-4


class Axis(NamedTuple):
    """Role of a dimension; `other` is none of the known ones."""

    role: str
    name: str
    size: int


def role_of(name: str, attributes: Mapping[str, Any], is_time: bool = False) -> str:
    """Return which axis a dimension is, from its name and its coordinate's attributes."""
    if is_time:
        return "time"
    standard = str(attributes.get("standard_name", "")).lower()
    units = str(attributes.get("units", "")).lower()
    for role, known in STANDARD_NAMES.items():
        if standard in known:
            return role
    for role, known in UNITS.items():
        if units in known:
            return role
    for role, known in NAMES.items():
        if name.lower() in known:
            return role
    return LETTERS.get(str(attributes.get("axis", "")).lower(), "other")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mesh:
    """Place the cells of a grid: which of a file's rows and columns, in which order, and where.

    Attributes:
        y: (Y,) coordinates of the rows, ascending; row numbers where the file has none.
        x: (X,) coordinates of the columns, ascending: eastwards from the first, beyond 360 where
            they cross the meridian at which the file's numbers begin again.
        rows: (Y,) rows of the file that they are.
        columns: (X,) columns of the file that they are.
        file_x: (X,) coordinates of the columns as the file has them, which may step back once.
        geographic: the coordinates are latitudes and longitudes in degrees.
        descending: the file's rows run from high to low.
        wraps: the columns go all the way round the globe.
    """

    y: np.ndarray
    x: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    file_x: np.ndarray
    geographic: bool
    descending: bool
    wraps: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Return Y and X."""
        return len(self.y), len(self.x)

    def same_as(self, other: Mesh) -> bool:
        """Whether two files have their cells in the same places."""
        return self.at(other.y, other.x)

    def at(self, y: np.ndarray, x: np.ndarray) -> bool:
        """Whether the cells are those of other rows and columns; 355 and -5 degrees are one."""
        if self.shape != (len(y), len(x)):
            return False
        apart = np.abs(self.x - x)
        if self.geographic:
            apart = np.abs((apart + ROUND / 2) % ROUND - ROUND / 2)
        return bool(np.all(np.abs(self.y - y) <= NEAR) and np.all(apart <= NEAR))

    def cut(self, block: np.ndarray) -> np.ndarray:
        """Take the cells out of the last two axes of a block that `window` was read of."""
        rows, columns = self.rows - self.rows.min(), self.columns
        if not self._in_pieces:
            columns = columns - columns.min()
        block = block[..., rows, :] if _reorders(rows, block.shape[-2]) else block
        return block[..., columns] if _reorders(columns, block.shape[-1]) else block

    @property
    def window(self) -> tuple[slice, slice]:
        """Return the smallest range of the file's rows and columns that holds the cells."""
        rows = slice(int(self.rows.min()), int(self.rows.max()) + 1)
        if self._in_pieces:
            return rows, slice(None)
        return rows, slice(int(self.columns.min()), int(self.columns.max()) + 1)

    @property
    def _in_pieces(self) -> bool:
        # A region across the meridian at which the file begins.
        return bool(np.any(np.diff(self.columns) < 0))


def mesh(
    y: np.ndarray,
    x: np.ndarray,
    *,
    geographic: bool,
    latitude: tuple[float, float] | None,
    longitude: tuple[float, float] | None,
    rows: tuple[int, int] | None,
    columns: tuple[int, int] | None,
    file: str,
) -> Mesh:
    """Choose the cells of a region.

    Args:
        y: the file's row coordinates.
        x: the file's column coordinates.
        geographic: they are latitudes and longitudes in degrees.
        latitude: south and north edge, both included [degrees].
        longitude: west and east edge, both included [degrees]; in 0..360 or -180..180 whatever the
            file has, and across the seam where west is the greater.
        rows: first row and the one after the last, counted from the lowest coordinate.
        columns: first column and the one after the last.
        file: named in messages.

    Raises:
        DataError: coordinates in disorder, or a region without a cell.
    """
    descending = len(y) > 1 and y[0] > y[-1]
    own_x = x
    # Columns that run across the seam of a circle step back once; from there on they go round.
    back = np.diff(x) < 0
    if geographic and np.sum(back) == 1 and x[-1] < x[0]:
        x = x + ROUND * np.concatenate([[False], np.cumsum(back) > 0])
    for name, values in (("row", -y if descending else y), ("column", x)):
        if np.any(np.diff(values) <= 0):
            raise DataError(
                f"The {name} coordinates are not in order.",
                hint="Sort the grid by its coordinates.",
                file=file,
            )
    # A step is what lies between neighbours; the whole circle has as many steps as columns.
    spacing = float(np.median(np.diff(x))) if len(x) > 1 else 0.0
    wraps = geographic and abs(spacing * len(x) - ROUND) < 0.5 * abs(spacing)
    row_places = np.arange(len(y))[::-1] if descending else np.arange(len(y))
    column_places = np.arange(len(x))
    if latitude is not None:
        row_places = row_places[(y[row_places] >= latitude[0]) & (y[row_places] <= latitude[1])]
    if longitude is not None:
        west, width = longitude[0], (longitude[1] - longitude[0]) % ROUND
        # From the western edge on eastwards, wherever the file begins.
        east_of_west = (x - west) % ROUND
        inside = np.flatnonzero(east_of_west <= (width or ROUND))
        column_places = inside[np.argsort(east_of_west[inside], kind="stable")]
        x = np.where(np.isin(np.arange(len(x)), inside), west + east_of_west, x)
    if rows is not None:
        row_places = row_places[rows[0] : rows[1]]
    if columns is not None:
        column_places = column_places[columns[0] : columns[1]]
    if not (len(row_places) and len(column_places)):
        raise DataError(
            f"The region holds no cell of the grid, which spans {_span(y)} by {_span(x)}.",
            hint="Widen latitude and longitude, or rows and columns, in the data section.",
            file=file,
        )
    chosen = x[column_places]
    return Mesh(
        y=y[row_places],
        x=chosen,
        rows=row_places,
        columns=column_places,
        file_x=own_x[column_places],
        geographic=geographic,
        descending=bool(descending),
        wraps=bool(wraps and len(column_places) == len(x)),
    )


def _reorders(places: np.ndarray, size: int) -> bool:
    return len(places) != size or not np.array_equal(places, np.arange(size))


def _span(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}"
