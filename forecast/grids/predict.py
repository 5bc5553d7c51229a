"""From an artefact and gridded files to the frames that follow, as the files name and lay them out.

Letters: H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from forecast.device import choose_device, memory_errors
from forecast.errors import DataError
from forecast.grids import context as grid_context
from forecast.grids import output
from forecast.grids.context import GridContext
from forecast.grids.forecaster import GridForecaster

if TYPE_CHECKING:
    import xarray


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


def predict_frame(forecaster: GridForecaster, frame: pl.DataFrame) -> pl.DataFrame:
    """Forecast cells in memory, as the model server does.

    Args:
        forecaster: of NetCDF or Zarr.
        frame: a row for each cell of each frame: its time and coordinates, by the names of the
            training files, and the fields.

    Returns:
        The same columns for the frames that follow.

    Raises:
        DataError: a column is missing.
    """
    keys, fields = output.table_columns(forecaster.grid)
    missing = [name for name in (*keys, *fields) if name not in frame.columns]
    if missing:
        raise DataError(
            f"The table of cells has no column {missing[0]!r}.",
            hint=f"It takes {', '.join((*keys, *fields))}: a row for each cell of each frame.",
        )
    cells = frame.select(*keys, *fields).to_pandas()
    cells[keys[0]] = cells[keys[0]].astype("datetime64[ns]")
    grid = cells.set_index(list(keys)).to_xarray()
    for channel in forecaster.grid["channels"]:
        if channel["units"]:
            grid[channel["variable"]].attrs["units"] = channel["units"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.nc"
        grid.to_netcdf(path, engine="h5netcdf")
        predicted = predict(forecaster, path)
    table = predicted.dataset()[list(fields)].to_dataframe().reset_index()
    return pl.from_pandas(table).select(*keys, *fields)
