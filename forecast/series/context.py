"""What a forecast of series rests on: the last rows of each series, and what is known in advance.

Tables are read the way the training table was, and cut to arrays of one length.

Letters: S series, L lookback, H horizon, C variates, K covariates known in advance.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.errors import DataError, UsageError
from forecast.models import MODELS
from forecast.series import rolling_origin
from forecast.series.calendar import calendar_features
from forecast.series.forecaster import Forecaster
from forecast.series.history import put_before
from forecast.tables import reading as tables
from forecast.tables.formats import shown
from forecast.tables.reading import Table
from forecast.tables.zones import to_local


def read_context(
    forecaster: Forecaster,
    source: str | Path | BinaryIO | pl.DataFrame,
    *,
    name: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Table:
    """Read a table the way the forecaster's own was read, its columns matched by name.

    Args:
        forecaster: the forecaster.
        source: a file, a stream of CSV, or a frame.
        name: what messages call the source.
        reading: fields of `TableOptions` in which this table differs from the training table.
    """
    return tables.read(
        _readable(source),
        replace(forecaster.layout.options(), **(reading or {})),
        columns=forecaster.columns,
        frequency=forecaster.spec.frequency,
        levels=forecaster.layout.levels,
        name=name,
        recent=forecaster.spec.lookback,
    )


def after_history(forecaster: Forecaster, table: Table, earlier: Table) -> Table:
    """Put history of any length before the rows of a table.

    Args:
        forecaster: the forecaster; its model reads the history once, in pieces, and remembers it.
        table: the rows to forecast from.
        earlier: the history, of which rows from the first one of the table on are left out.

    Raises:
        UsageError: the model forecasts from its last rows and carries no state.
        DataError: the two tables do not belong together.
    """
    if not rolling_origin.carries_state(forecaster.model):
        able = [name for name, info in MODELS.usable() if info.streams]
        raise UsageError(
            f"{forecaster.recipe.model} forecasts from the last {forecaster.spec.lookback} rows "
            "and carries no state: more history would change nothing.",
            hint="Leave --history out and put those rows into the table itself, or train "
            f"{' or '.join(able)}.",
        )
    return put_before(table, earlier)


def read_future(
    forecaster: Forecaster,
    source: str | Path | BinaryIO | pl.DataFrame,
    *,
    name: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Table:
    """Read a table of what is known in advance: times, ids of a long table, and those columns.

    Args:
        forecaster: the forecaster.
        source: a file, a stream of CSV, or a frame; it may hold earlier and later rows as well.
        name: what messages call the source.
        reading: fields of `TableOptions` in which this table differs from the training table.

    Returns:
        A table that has the covariates for its variates.

    Raises:
        UsageError: the forecaster knows nothing in advance.
    """
    known = forecaster.layout.known_future
    if not known:
        raise UsageError(
            "The model has no covariates that are known in advance.",
            hint="Leave the file of future values out, or train with data.known_future.",
        )
    options = replace(
        forecaster.layout.options(),
        target=known,
        static=(),
        categorical=(),
        past_covariates=(),
        known_future=(),
        **(reading or {}),
    )
    return tables.read(
        _readable(source),
        options,
        columns=known,
        frequency=forecaster.spec.frequency,
        name=name,
    )


def _readable(
    source: str | Path | BinaryIO | pl.DataFrame,
) -> str | Path | BinaryIO:
    if not isinstance(source, pl.DataFrame):
        return source
    # In the one format that keeps every type, so that there is one way to read.
    stream = io.BytesIO()
    source.write_parquet(stream)
    stream.seek(0)
    return stream


def known_ahead(
    table: Table, steps: np.ndarray, future: Table | None
) -> Float[np.ndarray, "S H K"]:
    """Find what is known in advance of the steps to forecast, in rows behind the last target.

    Args:
        table: the history, with the rows behind it.
        steps: (S, H) times to forecast.
        future: a table of its own for it, which is asked first.

    Raises:
        DataError: a value is missing.
    """
    columns = table.layout.known_future
    known = np.full((*steps.shape, len(columns)), np.nan)
    if not columns:
        return known
    rows = {} if future is None else {name: row for row, name in enumerate(future.ids)}
    for series, name in enumerate(table.ids):
        own = table.ahead[slice(*table.ahead_offsets[series : series + 2])][: steps.shape[1]]
        known[series, : len(own)] = own
        if future is not None and name in rows:
            here = slice(*future.offsets[rows[name] : rows[name] + 2])
            place = np.searchsorted(future.times[here], steps[series])
            place = np.minimum(place, here.stop - here.start - 1)
            there = future.times[here][place] == steps[series]
            known[series, there] = future.values[here][place[there]]
    missing = np.isnan(known)
    if missing.any():
        series, step, column = np.argwhere(missing)[0]
        local = to_local(steps[series, step : step + 1], table.layout.timezone)[0]
        of_series = f" of series {table.ids[series]!r}" if len(table.ids) > 1 else ""
        raise DataError(
            f"The column {columns[column]!r} is to be known in advance and has no value for "
            f"{shown(local)}{of_series}; a forecast takes it for all {steps.shape[1]} steps from "
            f"{shown(to_local(steps[series, :1], table.layout.timezone)[0])} on.",
            hint="Add rows with an empty target behind the last one, or a file of them: --future.",
        )
    return known


def last_rows(table: Table, rows: np.ndarray, lookback: int, missing: float) -> np.ndarray:
    """Take the last L rows of each series as (S, L, ...), padded in front with `missing`."""
    last = np.full((len(table.ids), lookback, rows.shape[1]), missing, dtype=rows.dtype)
    for place, (start, stop) in enumerate(itertools.pairwise(table.offsets)):
        count = min(lookback, stop - start)
        last[place, lookback - count :] = rows[stop - count : stop]
    return last


def last_times(table: Table, lookback: int) -> np.ndarray:
    """Take the times of the last L rows of each series as (S, L), going on backwards if need be."""
    times = np.empty((len(table.ids), lookback), dtype="datetime64[us]")
    for place, (start, stop) in enumerate(itertools.pairwise(table.offsets)):
        count = min(lookback, stop - start)
        times[place, lookback - count :] = table.times[stop - count : stop]
        if count < lookback:
            # The cells before the first row are missing; their calendar must be right all the same.
            times[place, : lookback - count] = tables.past_times(
                np.datetime64(table.times.item(int(start)), "us"),
                table.frequency,
                lookback - count,
                table.layout.timezone,
            )
    return times


def calendar(forecaster: Forecaster, times: np.ndarray) -> Tensor | None:
    """Return the calendar features of times, with one axis more; None if there are none."""
    features = calendar_features(
        times.reshape(-1),
        forecaster.spec.frequency,
        timezone=forecaster.layout.timezone,
        marks=forecaster.recipe.table.marks,
    )
    if not features.shape[1]:
        return None
    return torch.from_numpy(features.reshape(*times.shape, -1))
