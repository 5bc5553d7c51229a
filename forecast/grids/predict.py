"""From an artefact and gridded files to the frames that follow, as the files name and lay them out.

Letters: H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import torch
from jaxtyping import Float

from forecast.contracts import refuse_level
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError
from forecast.grids import context as grid_context
from forecast.grids import output
from forecast.grids.context import GridContext
from forecast.grids.forecaster import GridForecaster

if TYPE_CHECKING:
    import xarray


# Places that are closer are the same [degrees, or units of the axis].
_SAME = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPredicted:
    """Hold one forecast.

    Attributes:
        values: in the units of the data, NaN where a cell has never been observed.
        context: the last known frames, with where and how they are to be written.
        model: what the file names as its source.
    """

    values: Float[np.ndarray, "H C Y X"]
    context: GridContext
    model: str

    def dataset(self) -> xarray.Dataset:
        """Lay the forecast out in the names, units and orders of the file it goes on from."""
        context = self.context
        return output.dataset(self.values, context.times, context.last, context.header, self.model)

    def write(self, path: Path) -> None:
        """Write it as NetCDF, Zarr or TaxiBJ's HDF5, whole or not at all."""
        context = self.context
        output.write_forecast(
            path, self.values, context.times, context.last, context.header, model=self.model
        )


@torch.no_grad()
def predict(
    forecaster: GridForecaster, source: str | Path | Sequence[str | Path], device: str = "auto"
) -> GridPredicted:
    """Forecast the frames that follow the last one.

    Args:
        forecaster: the forecaster.
        source: a file, folder, pattern or known data set; or several, which make one grid.
        device: where to run.

    Raises:
        DataError: fields, cells, units or step are not those of the training data, or the frames
            are too few.
    """
    place = choose_device(device)
    context = grid_context.read_context(
        forecaster.grid, forecaster.statistics, forecaster.spec, source, place
    )
    model = forecaster.model.to(place)
    with memory_errors("predicting", 1):
        answer = model(context.batch)
    return GridPredicted(
        values=context.frames(answer.values),
        context=context,
        model=f"forecast {forecaster.recipe.model}",
    )


def predict_frame(
    forecaster: GridForecaster, frame: pl.DataFrame, *, level: Sequence[float] | None = None
) -> pl.DataFrame:
    """Forecast cells in memory, as the model server does.

    Args:
        forecaster: of NetCDF or Zarr.
        frame: a row for each cell of each frame: its time and coordinates, by the names of the
            training files, and the fields.
        level: of prediction intervals, which grids do not have.

    Returns:
        The same columns for the frames that follow.

    Raises:
        DataError: a column is missing, or a cell is there twice.
        UsageError: intervals are asked for.
    """
    refuse_level(level)
    keys, fields = output.table_columns(forecaster.grid)
    missing = [name for name in (*keys, *fields) if name not in frame.columns]
    if missing:
        raise DataError(
            f"The table of cells has no column {missing[0]!r}.",
            hint=f"It takes {', '.join((*keys, *fields))}: a row for each cell of each frame.",
        )
    grid = _gridded(frame.select(*keys, *fields), forecaster.grid, keys)
    for channel in forecaster.grid["channels"]:
        if channel["units"]:
            grid[channel["variable"]].attrs["units"] = channel["units"]
    # The cells are those that the model takes: what cut them out by number has been done.
    options = forecaster.grid["options"] | {"rows": None, "columns": None}
    own = replace(forecaster, grid={**forecaster.grid, "options": options})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.nc"
        grid.to_netcdf(path, engine="h5netcdf")
        predicted = predict(own, path)
    table = predicted.dataset()[list(fields)].to_dataframe().reset_index()
    return pl.from_pandas(table).select(*keys, *fields)


def _gridded(
    cells: pl.DataFrame, described: Mapping[str, Any], keys: Sequence[str]
) -> xarray.Dataset:
    """Lay cells out as frames, rows, columns and levels in the order of the training files.

    A table has no order of its own, and that of the numbers is not the files' where columns go
    across the meridian or levels fall.
    """
    time = keys[0]
    try:
        cells = cells.with_columns(pl.Series(time, pd.to_datetime(cells[time].to_list())))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The column {time!r} holds what is no time: {error}.",
            hint="Write 2024-03-01T00:00.",
        ) from error
    levels = [one["level"] for one in described["channels"] if one["level"] is not None]
    orders = dict(zip(keys[::-1], (described["x"], described["y"]), strict=False))
    if levels:
        orders[keys[1]] = list(dict.fromkeys(levels))
    for name, order in orders.items():
        places = np.asarray(order, dtype=float)
        try:
            stated = cells[name].cast(pl.Float64).to_numpy()
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"The column {name!r} holds what is no number: {error}.",
                hint="Send coordinates as numbers.",
            ) from error
        # Longitudes are the same a turn apart.
        turn = 360.0 if described["geographic"] and name == keys[-1] else np.inf
        apart = np.abs(stated[:, None] - places)
        apart = np.minimum(apart, np.abs(turn - apart))
        cells = cells.with_columns(pl.Series(name, places[apart.argmin(1)])).filter(
            pl.Series(apart.min(1) < _SAME)
        )
    if cells.select(keys).is_duplicated().any():
        raise DataError("A cell of a frame is there twice.", hint="Send each cell once.")
    grid = cells.to_pandas().set_index(list(keys)).to_xarray().reindex(orders)
    # A file states the sense of its rows; here they are sent by number.
    return grid.sortby(keys[-2], ascending=not described["descending"])
