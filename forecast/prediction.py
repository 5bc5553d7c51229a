"""From an artefact and a table to forecasts, in the layout and units of the table.

Nothing is fitted, and no truth is needed: the last rows of each series are the context, and the
artefact holds the rest.

Letters: S series, L lookback, H horizon, C variates.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import torch
from torch import Tensor

from forecast import artefact, tracking
from forecast.artefact import Forecaster
from forecast.batch import SeriesBatch
from forecast.data import loading, tables
from forecast.data.calendar import calendar_features
from forecast.data.tables import Table
from forecast.device import choose_device, memory_errors

_SCHEMES = ("runs:", "models:", "mlflow-artifacts:")


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Hold the forecasts of one table.

    Attributes:
        frame: forecasts in the layout, names and units of the input, with future timestamps.
        table: the table they were made from.
        series: number of series forecast.
        skipped: ids of series without a single observed value, which have no forecast.
        notices: sentences for the user.
    """

    frame: pl.DataFrame
    table: Table
    series: int
    skipped: tuple[str, ...]
    notices: tuple[str, ...]


def load(model: str | Path) -> Forecaster:
    """Load a forecaster from its folder, from `runs:/...` or from `models:/name@alias`.

    Raises:
        NotFoundError: there is no such folder, run or registered model.
        DataError: the artefact is damaged.
    """
    text = str(model)
    folder = tracking.resolve(text) if text.startswith(_SCHEMES) else Path(text)
    return artefact.load(folder)


def predict(
    model: str | Path | Forecaster,
    source: str | Path | BinaryIO | pl.DataFrame,
    device: str = "auto",
) -> pl.DataFrame:
    """Forecast the steps that follow the last row of every series.

    Args:
        model: a forecaster, or where it is.
        source: a file, a stream of CSV, or a frame, with the columns the model was trained on.
        device: where to run.

    Returns:
        One row for each step, or each series and step, in the layout of the training table.

    Raises:
        ForecastError: the model or the table cannot be used.
    """
    forecaster = model if isinstance(model, Forecaster) else load(model)
    return predict_table(forecaster, read_context(forecaster, source), device).frame


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
    if isinstance(source, pl.DataFrame):
        # In the one format that keeps every type, so that there is one way to read.
        stream = io.BytesIO()
        source.write_parquet(stream)
        stream.seek(0)
        source = stream
    return tables.read(
        source,
        replace(forecaster.layout.options(), **(reading or {})),
        columns=forecaster.columns,
        frequency=forecaster.spec.frequency,
        levels=forecaster.layout.levels,
        name=name,
    )


@torch.no_grad()
def predict_table(forecaster: Forecaster, table: Table, device: str = "auto") -> Predicted:
    """Forecast every series of a table.

    A series shorter than the lookback is padded with missing cells in front; one that was not in
    the training data is scaled by its own context. Both are said in the notices.
    """
    place = choose_device(device)
    spec = forecaster.spec
    notices = list(table.notices)
    context = _last_rows(table, table.values, spec.lookback, np.nan)  # (S, L, C)
    times = _last_times(table, spec.lookback)  # (S, L)
    lengths = np.diff(table.offsets)
    if short := int((lengths < spec.lookback).sum()):
        notices.append(
            f"{short} of {len(lengths)} series have fewer rows than the lookback of "
            f"{spec.lookback}; what they lack counts as missing."
        )
    if new := forecaster.scaler.new_ids(table.ids):
        notices.append(
            f"{len(new)} of {len(lengths)} series were not in the training data and are scaled by "
            f"their own last {spec.lookback} rows, {new[0]!r} first."
        )
    scaler = forecaster.scaler.for_series(table.ids, list(context))
    scaled = (context - scaler.mean[:, None]) / scaler.deviation[:, None]
    observed = np.isfinite(scaled)
    dead = np.logical_not(np.any(observed, axis=1))  # (S, C)
    past = torch.from_numpy(np.where(observed, scaled, 0.0).astype(np.float32))
    future = np.stack(
        [
            tables.future_times(last, spec.frequency, spec.horizon, table.layout.timezone)
            for last in times[:, -1]
        ]
    )
    batch = SeriesBatch(
        past=past,
        past_mask=None if observed.all() else torch.from_numpy(observed),
        past_time=_calendar(forecaster, times),
        past_covariates=torch.from_numpy(
            _last_rows(table, loading.one_hot(table), spec.lookback, 0.0)
        )
        if table.layout.levels
        else None,
        future_time=_calendar(forecaster, future),
    )
    values = _forward(forecaster, batch, place)
    values = _rounded(scaler.undo(values), scaler.deviation)
    values[np.broadcast_to(dead[:, None], values.shape)] = np.nan
    notices += _named_dead(table, dead)
    empty = np.all(dead, axis=1)
    skipped = tuple(table.ids[row] for row in np.flatnonzero(empty))
    kept = np.flatnonzero(~empty)
    frame = tables.forecast_frame(
        table.layout, [table.ids[row] for row in kept], future[kept], values[kept]
    )
    return Predicted(
        frame=frame,
        table=table,
        series=len(kept),
        skipped=skipped,
        notices=tuple(notices),
    )


def predict_frame(forecaster: Forecaster, frame: pl.DataFrame) -> pl.DataFrame:
    """Forecast a frame in memory, as the model server does."""
    return predict(forecaster, frame)


def _last_rows(table: Table, rows: np.ndarray, lookback: int, missing: float) -> np.ndarray:
    """Take the last L rows of each series as (S, L, ...), padded in front with `missing`."""
    last = np.full((len(table.ids), lookback, rows.shape[1]), missing, dtype=rows.dtype)
    for place, (start, stop) in enumerate(itertools.pairwise(table.offsets)):
        count = min(lookback, stop - start)
        last[place, lookback - count :] = rows[stop - count : stop]
    return last


def _last_times(table: Table, lookback: int) -> np.ndarray:
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


def _calendar(forecaster: Forecaster, times: np.ndarray) -> Tensor | None:
    features = calendar_features(
        times.reshape(-1),
        forecaster.spec.frequency,
        timezone=forecaster.layout.timezone,
        marks=forecaster.recipe.data.marks,
    )
    if not features.shape[1]:
        return None
    return torch.from_numpy(features.reshape(*times.shape, -1))


def _forward(forecaster: Forecaster, batch: SeriesBatch, device: torch.device) -> np.ndarray:
    size = forecaster.recipe.train.batch_size * 8
    model = forecaster.model.to(device)
    parts: list[np.ndarray] = []
    with memory_errors("predicting", size):
        for start in range(0, len(batch), size):
            part = batch.rows(start, start + size).to(device)
            parts.append(model(part).values.double().cpu().numpy())
    return np.concatenate(parts)


def _rounded(values: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Round to a millionth of a deviation, about what float32 resolves: the rest is noise."""
    scale = 10.0 ** np.ceil(6 - np.log10(deviation))[:, None]
    return np.round(values * scale) / scale


def _named_dead(table: Table, dead: np.ndarray) -> Sequence[str]:
    partly = dead & ~np.all(dead, axis=1, keepdims=True)
    return [
        f"Column {table.columns[place]!r} has no observed value in the context; its forecast is "
        "left empty."
        for place in np.flatnonzero(partly.any(0))
    ]
