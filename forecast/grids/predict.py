"""From an artefact and gridded files to the frames that follow, as the files name and lay them out.

Letters: H horizon, C channels, Y X rows and columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from forecast.contracts import refuse_level
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError, UsageError
from forecast.grids import context as grid_context
from forecast.grids import output
from forecast.grids.axes import NEAR, ROUND
from forecast.grids.calendars import STANDARD, dates_of, instant_of
from forecast.grids.context import GridContext
from forecast.grids.forecaster import GridForecaster

if TYPE_CHECKING:
    import xarray


# Places that are closer are the same [degrees, or units of the axis].
_SAME = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPredicted:
    """One forecast.

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
        The same columns for the frames that follow, places as they were given.

    Raises:
        DataError: a column is missing, or a cell is none of the model's or there twice.
        UsageError: intervals are asked for.
    """
    refuse_level(level)
    header = forecaster.grid
    keys, fields = output.table_columns(header)
    missing = [name for name in (*keys, *fields) if name not in frame.columns]
    if missing:
        raise DataError(
            f"The table of cells has no column {missing[0]!r}.",
            hint=f"It takes {', '.join((*keys, *fields))}: a row for each cell of each frame.",
        )
    cells = frame.select(*keys, *fields).to_pandas()
    texts = cells[keys[0]]
    try:
        if header.calendar == STANDARD:
            cells[keys[0]] = texts.astype("datetime64[us]")
        else:
            stamps = [instant_of(str(text), header.calendar) for text in texts]
            cells[keys[0]] = dates_of(np.array(stamps, dtype="datetime64[us]"), header.calendar)
    except (ValueError, TypeError, UsageError) as error:
        raise DataError(
            f"The column {keys[0]!r} holds {texts.iloc[0]!r}, which is no time.",
            hint="Write times as 2024-03-01 06:00:00.",
        ) from error
    # Cells are put at the model's places, whatever the order and the round of theirs.
    given: dict[str, np.ndarray] = {}
    levels = tuple(dict.fromkeys(c.level for c in header.channels if c.level is not None))
    wanted = {keys[-2]: header.y[:: -1 if header.descending else 1], keys[-1]: header.x}
    wanted |= {keys[1]: levels} if levels else {}
    for name, places in wanted.items():
        found = cells[name].to_numpy(dtype=float)
        place = _places(found, np.array(places), name, header.geographic and name == keys[-1])
        given[name] = np.array(places)
        given[name][place] = found
        cells[name] = np.array(places)[place]
    if cells.duplicated(list(keys)).any():
        raise DataError(
            "The table of cells has one cell of one frame twice.", hint="Give each once."
        )
    grid = cells.set_index(list(keys)).to_xarray().reindex({n: list(w) for n, w in wanted.items()})
    for channel in header.channels:
        if channel.units:
            grid[channel.variable].attrs["units"] = channel.units
    # These are the model's cells already, of which no region is to be cut.
    options = replace(header.options, latitude=None, longitude=None, rows=None, columns=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.nc"
        grid.to_netcdf(path, engine="h5netcdf")
        made = predict(replace(forecaster, grid=replace(header, options=options)), path)
    answer = made.dataset()[list(fields)].assign_coords(given)
    table = answer.to_dataframe().reset_index()
    if header.calendar != STANDARD:
        table[keys[0]] = [date.isoformat(" ") for date in table[keys[0]]]
    return pl.DataFrame(pl.from_pandas(table[[*keys, *fields]]))


def _places(found: np.ndarray, places: np.ndarray, name: str, on_circle: bool) -> np.ndarray:
    """Find the number of the nearest place for each coordinate.

    Raises:
        DataError: a coordinate is none of the places.
    """
    apart = np.abs(found[:, None] - places)
    if on_circle:
        apart = np.abs((apart + ROUND / 2) % ROUND - ROUND / 2)
    nearest = apart.argmin(axis=1)
    off = apart[np.arange(len(found)), nearest] > NEAR
    if off.any():
        raise DataError(
            f"{name} = {found[off.argmax()]:g} is none of the {len(places)} places of the model, "
            f"{places[0]:g} to {places[-1]:g}.",
            hint="Give the cells that the model was trained on.",
        )
    return nearest
