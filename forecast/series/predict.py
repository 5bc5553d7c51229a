"""From an artefact and a table to forecasts, in the layout and units of the table.

Nothing is fitted, and no truth is needed: the last rows of each series are the context, and the
artefact holds the rest.

Letters: S series, L lookback, H horizon, C variates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from forecast.batch import Forecast, SeriesBatch
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError, Failure, UsageError
from forecast.series import context as series_context
from forecast.series import data as series_data
from forecast.series import online_intervals
from forecast.series.forecaster import Forecaster
from forecast.series.intervals import Band, Method
from forecast.series.scaling import Scale, Scaler, by_own_rows, rounded, so_far
from forecast.tables import reading
from forecast.tables.columns import listed
from forecast.tables.formats import shown
from forecast.tables.reading import Table
from forecast.tables.zones import to_local


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """The forecasts of one table.

    Attributes:
        frame: forecasts in the layout, names and units of the input, with future timestamps.
        table: the table they were made from.
        series: number of series forecast.
        skipped: ids of series without a single observed value, which have no forecast.
        intervals: the method that made the intervals; None without any.
        notices: sentences for the user.
    """

    frame: pl.DataFrame
    table: Table
    series: int
    skipped: tuple[str, ...]
    intervals: Method | None
    notices: tuple[str, ...]


def predict(
    forecaster: Forecaster,
    source: str | Path | BinaryIO | pl.DataFrame,
    device: str = "auto",
    *,
    history: str | Path | BinaryIO | pl.DataFrame | None = None,
    future: str | Path | BinaryIO | pl.DataFrame | None = None,
    level: Sequence[float] | None = None,
    method: Method = "adaptive",
) -> pl.DataFrame:
    """Forecast the steps that follow the last row of every series.

    Args:
        forecaster: the forecaster.
        source: a file, a stream of CSV, or a frame, with the columns the model was trained on.
        device: where to run.
        history: rows before those of the source, for a model that carries a state.
        future: what is known in advance of the steps to forecast, if the source itself does not
            hold it in rows behind the last target.
        level: levels of prediction intervals [%]; None takes those of the model's own quantiles.
        method: how the intervals are calibrated, see `predict_table`.

    Returns:
        One row for each step, or each series and step, in the layout of the training table; the
        bounds of an interval of 90 % as `<column>-lo-90` and `<column>-hi-90`.

    Raises:
        ForecastError: the model or the table cannot be used.
    """
    table = series_context.read_context(forecaster, source)
    if history is not None:
        earlier = series_context.read_context(forecaster, history)
        table = series_context.after_history(forecaster, table, earlier)
    ahead = None if future is None else series_context.read_future(forecaster, future)
    predicted = predict_table(forecaster, table, device, future=ahead, level=level, method=method)
    return predicted.frame


def too_short(forecaster: Forecaster, table: Table) -> str:
    """Return how many series have fewer rows than the lookback; empty if none has."""
    lengths, lookback = np.diff(table.offsets), forecaster.spec.lookback
    short = int((lengths < lookback).sum())
    if not short:
        return ""
    return f"{short} of {len(lengths)} series have fewer rows than the lookback of {lookback}"


def without_failing(
    forecaster: Forecaster, table: Table, future: Table | None = None
) -> tuple[Table, tuple[Failure, ...]]:
    """Leave out the series whose covariates the model cannot take, so that the others go on.

    Args:
        forecaster: the forecaster.
        table: the history.
        future: what is known in advance, as `series_context.read_future` gives it.

    Returns:
        The table of the other series, and why the rest has no forecast.

    Raises:
        DataError: no series is left, or the only one fails.
    """
    kept: list[int] = []
    failed: list[Failure] = []
    first: DataError | None = None
    # By halves, so that a few that fail among thousands are found in a few looks.
    waiting = [(0, len(table.ids))]
    while waiting:
        start, stop = waiting.pop()
        some = table if stop - start == len(table.ids) else reading.pick(table, range(start, stop))
        try:
            _check_covariates(forecaster, some, future)
            kept += range(start, stop)
        except DataError as error:
            if stop - start == 1:
                first = first or error
                failed.append(Failure.of(table.ids[start], error))
                continue
            half = (start + stop) // 2
            waiting += [(half, stop), (start, half)]
    if not kept and first is not None:
        raise first
    return (reading.pick(table, kept) if failed else table), tuple(failed)


def _check_covariates(forecaster: Forecaster, table: Table, future: Table | None) -> None:
    """Refuse a table of which a series lacks what the model is to know of it.

    Raises:
        DataError: it names the series.
    """
    forecaster.covariates.of_series(table)
    if table.layout.known_future:
        series_context.known_ahead(table, _steps(forecaster, table), future)


def _steps(forecaster: Forecaster, table: Table) -> np.ndarray:
    """Return the times (S, H) to forecast."""
    spec = forecaster.spec
    last = series_context.last_times(table, 1)[:, 0]
    return np.stack(
        [
            reading.future_times(one, spec.frequency, spec.horizon, table.layout.timezone)
            for one in last
        ]
    )


@torch.no_grad()
def predict_table(
    forecaster: Forecaster,
    table: Table,
    device: str = "auto",
    *,
    future: Table | None = None,
    level: Sequence[float] | None = None,
    method: Method = "adaptive",
) -> Predicted:
    """Forecast every series of a table.

    A series shorter than the lookback is padded with missing cells in front; one that was not in
    the training data is scaled by its own context. Both are said in the notices.

    Args:
        forecaster: the forecaster.
        table: its history.
        device: where to run.
        future: what is known in advance, as `series_context.read_future` gives it.
        level: levels of prediction intervals [%]; None takes those of the model's own quantiles.
        method: `split` opens them as far as the validation part of the training data told;
            `adaptive` goes on from there with the misses on each series' own rows beyond the
            lookback, the last `intervals.MEMORY` at most.

    Raises:
        DataError: something that is to be known in advance is missing.
    """
    levels = online_intervals.levels(forecaster, level)
    place = choose_device(device)
    spec = forecaster.spec
    notices = list(table.notices)
    lengths = np.diff(table.offsets)
    rows = spec.context or max(spec.lookback, int(lengths.max()))  # L
    if not np.isfinite(table.values).any():
        raise DataError(
            f"Not one of the {len(table.values):,} rows has a value in {listed(table.columns)}.",
            hint="Bring rows with values: a forecast goes on from them.",
        )
    inputs, _ = series_data.filled(table, carried=spec.context is None)
    context = series_context.last_rows(table, inputs, rows, np.nan)  # (S, L, C)
    times = series_context.last_times(table, rows)  # (S, L)
    if short := too_short(forecaster, table):
        notices.append(f"{short}; what they lack counts as missing.")
    notices += _named_early(table, steps_ahead=spec.horizon)
    if new := forecaster.scaler.new_ids(table.ids):
        notices.append(
            f"{len(new)} of {len(lengths)} series were not in the training data and are scaled by "
            f"their own last {rows} rows, {new[0]!r} first."
        )
    seen = series_context.last_rows(table, table.values, rows, np.nan)
    scaler = forecaster.scaler.for_series(table.ids, list(seen))
    scaled = (context - scaler.mean[:, None]) / scaler.deviation[:, None]
    observed = np.isfinite(scaled)
    dead = np.logical_not(np.any(observed, axis=1))  # (S, C)
    past = torch.from_numpy(np.where(observed, scaled, 0.0).astype(np.float32))
    steps = _steps(forecaster, table)
    known = series_context.known_ahead(table, steps, future)
    # A new series is scaled by its context, its covariates as its variates.
    counts = np.minimum(lengths, rows)
    covariates = forecaster.covariates.for_series(table, table.offsets[1:] - counts, counts)
    past_inputs = np.concatenate([covariates.past(table), covariates.known(table)], axis=1)
    known_inputs, static = covariates.known_ahead(known, steps, table), covariates.of_series(table)
    batch = SeriesBatch(
        past=past,
        past_mask=None if observed.all() else torch.from_numpy(observed),
        past_time=series_context.calendar(forecaster, times),
        past_covariates=torch.from_numpy(series_context.last_rows(table, past_inputs, rows, 0.0))
        if past_inputs.shape[1]
        else None,
        known_future=torch.from_numpy(known_inputs) if known_inputs.shape[2] else None,
        static=torch.from_numpy(static) if static.shape[1] else None,
        future_time=series_context.calendar(forecaster, steps),
    )
    if spec.context is None:
        batch, scale = _by_rows_so_far(batch, seen, scaler)
    else:
        units = scaler.units()
        batch, scale = by_own_rows(batch, None if units is None else torch.from_numpy(units))
    forecast = _forward(forecaster, batch, place)
    columns = {"": forecast.point()}
    used: Method | None = None
    if levels:
        band = Band.of(forecast)
        recent = partial(
            online_intervals.recently_needed,
            forecaster,
            table,
            scaler,
            covariates,
            known,
            device=place,
        )
        opened, used = online_intervals.openings(forecaster, table, levels, method, recent)
        bounds = [band.bounds(some) for some in opened]
        names = [f"{some:g}" for some in levels]
        if forecast.quantiles:
            columns["-median"] = forecast.point()
        # From the lowest bound to the highest.
        for name, (lower, _) in reversed(list(zip(names, bounds, strict=True))):
            columns[f"-lo-{name}"] = lower
        for name, (_, upper) in zip(names, bounds, strict=True):
            columns[f"-hi-{name}"] = upper
    notices += _named_dead(table, dead)
    empty = np.all(dead, axis=1)
    skipped = tuple(table.ids[row] for row in np.flatnonzero(empty))
    kept = np.flatnonzero(~empty)
    frames: list[pl.DataFrame] = []
    for suffix, own_values in columns.items():
        scaled_values = own_values if scale is None else scale.undo(own_values.double())
        values = rounded(scaler.undo(scaled_values.double().numpy()), scaler.deviation)
        values[~np.isfinite(values) | dead[:, None]] = np.nan
        frame = reading.forecast_frame(
            table.layout, [table.ids[row] for row in kept], steps[kept], values[kept]
        )
        frames.append(frame.rename({name: name + suffix for name in table.layout.values}))
    return Predicted(
        frame=_beside(frames, table.layout.values, list(columns)),
        table=table,
        series=len(kept),
        skipped=skipped,
        intervals=used,
        notices=tuple(notices),
    )


def _by_rows_so_far(
    batch: SeriesBatch, values: Float[np.ndarray, "S L C"], scaler: Scaler
) -> tuple[SeriesBatch, Scale | None]:
    """Scale each row of a new series by the rows up to it, for a model that carries a state."""
    if not scaler.new:
        return batch, None
    center = torch.zeros(values.shape, dtype=torch.float64)
    spread = torch.ones_like(center)
    for place, name in enumerate(scaler.ids):
        if name in scaler.new:
            found = so_far(values[place], scaler.mean[place], scaler.deviation[place])
            center[place], spread[place] = map(torch.from_numpy, found)
    past = ((batch.past - center) / spread).float()
    if batch.past_mask is not None:
        past = torch.where(batch.past_mask, past, 0.0)
    return replace(batch, past=past), Scale(center[:, -1:], spread[:, -1:])


def _beside(
    frames: Sequence[pl.DataFrame], values: Sequence[str], suffixes: Sequence[str]
) -> pl.DataFrame:
    """Put the columns of values side by side: the forecasts, then the intervals of each."""
    names = [name + suffix for name in values for suffix in suffixes if suffix]
    taken = [name for name in names if name in frames[0].columns]
    if taken:
        raise UsageError(
            f"The intervals would be called {taken[0]!r}, as a column of the table is.",
            hint="Rename that column, and train again.",
        )
    whole = pl.concat(
        [frames[0], *(frame.select(frame.columns[-len(values) :]) for frame in frames[1:])],
        how="horizontal",
    )
    return whole.select([*frames[0].columns, *names])


def _forward(forecaster: Forecaster, batch: SeriesBatch, device: torch.device) -> Forecast:
    size = forecaster.batch_size
    model = forecaster.model.to(device)
    with memory_errors("predicting", size):
        parts: list[Forecast] = [
            model(_without_idle_mask(some).tiled().to(device)).first(len(some))
            for some in (batch.rows(start, start + size) for start in range(0, len(batch), size))
        ]
    values = torch.cat([part.values.cpu() for part in parts])
    return Forecast(values=values, quantiles=parts[0].quantiles)


def _without_idle_mask(batch: SeriesBatch) -> SeriesBatch:
    """Drop a mask that hides nothing, so that gaps in other batches change no bit of this one."""
    idle = batch.past_mask is not None and bool(batch.past_mask.all())
    return replace(batch, past_mask=None) if idle else batch


def _named_early(table: Table, steps_ahead: int) -> Sequence[str]:
    """Report series that end more than a horizon before the last row of all."""
    ends = table.times[table.offsets[1:] - 1]
    reached = np.array(
        [
            reading.future_times(end, table.frequency, steps_ahead, table.layout.timezone)[-1]
            for end in np.unique(ends)
        ]
    )[np.unique(ends, return_inverse=True)[1]]
    early = np.flatnonzero(reached < ends.max())
    if not len(early):
        return []
    first = early[np.argmin(ends[early])]
    shown_end, latest = (
        shown(to_local(time[None], table.layout.timezone)[0]) for time in (ends[first], ends.max())
    )
    return [
        f"{len(early):,} of {len(ends):,} series end early, and are forecast from where they end: "
        f"{table.ids[first]!r} at {shown_end}, others at {latest}."
    ]


def _named_dead(table: Table, dead: np.ndarray) -> Sequence[str]:
    partly = dead & ~np.all(dead, axis=1, keepdims=True)
    return [
        f"Column {table.columns[place]!r} has no observed value in the context; its forecast is "
        "left empty."
        for place in np.flatnonzero(partly.any(0))
    ]
