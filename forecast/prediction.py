"""From an artefact and a table to forecasts, in the layout and units of the table.

Nothing is fitted, and no truth is needed: the last rows of each series are the context, and the
artefact holds the rest.

Letters: S series, L lookback, H horizon, C variates, K covariates known in advance, N levels,
M origins of the recent past.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from forecast import artefact, grid_prediction, tracking
from forecast.artefact import AnyForecaster, Forecaster, GridForecaster
from forecast.batch import Forecast, SeriesBatch
from forecast.data import graph_context, loading, tables
from forecast.data.calendar import calendar_features
from forecast.data.covariates import Covariates
from forecast.data.history import put_before
from forecast.data.scaling import Scaler, rounded
from forecast.data.tables import Table
from forecast.data.time_formats import shown
from forecast.data.windows import Windows
from forecast.data.zones import to_local
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError, UsageError
from forecast.intervals import MEMORY, Band, Method, Tracker
from forecast.models import MODELS, replay

_SCHEMES = ("runs:", "models:", "mlflow-artifacts:")
# Windows of the recent past that adaptive intervals are brought up to date on, of all series.
_MOST_WINDOWS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Hold the forecasts of one table.

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


def load(model: str | Path) -> AnyForecaster:
    """Load a forecaster of any kind of data, from its folder, `runs:/...` or `models:/name@alias`.

    Raises:
        NotFoundError: there is no such folder, run or registered model.
        DataError: the artefact is damaged.
    """
    text = str(model)
    folder = tracking.resolve(text) if text.startswith(_SCHEMES) else Path(text)
    return artefact.load(folder)


def load_series(model: str | Path) -> Forecaster:
    """Load a forecaster of series.

    Raises:
        UsageError: it forecasts another kind of data.
        NotFoundError: as `load` does.
        DataError: as `load` does.
    """
    forecaster = load(model)
    if not isinstance(forecaster, Forecaster):
        raise UsageError(
            f"{model} holds {forecaster.recipe.model}, a forecaster of {forecaster.spec.kind}s, "
            "and tables of series are asked for here.",
            hint="Give it the files that it was trained on: forecast predict MODEL FILE --out ...",
        )
    return forecaster


def predict(
    model: str | Path | Forecaster,
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
        model: a forecaster, or where it is.
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
    forecaster = model if isinstance(model, Forecaster) else load_series(model)
    table = read_context(forecaster, source)
    if history is not None:
        table = after_history(forecaster, table, read_context(forecaster, history))
    ahead = None if future is None else read_future(forecaster, future)
    predicted = predict_table(forecaster, table, device, future=ahead, level=level, method=method)
    return predicted.frame


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
    if not replay.carries_state(forecaster.model):
        able = [name for name, info in MODELS.items() if info.streams]
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


def batch_size(forecaster: Forecaster) -> int:
    """Tell how many windows are forecast at once."""
    return forecaster.recipe.train.batch_size * 8


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
        future: what is known in advance, as `read_future` gives it.
        level: levels of prediction intervals [%]; None takes those of the model's own quantiles.
        method: `split` opens them as far as the validation part of the training data told;
            `adaptive` goes on from there with the misses on each series' own rows beyond the
            lookback, the last `intervals.MEMORY` at most.

    Raises:
        DataError: something that is to be known in advance is missing.
    """
    levels = _levels(forecaster, level)
    place = choose_device(device)
    spec = forecaster.spec
    notices = list(table.notices)
    lengths = np.diff(table.offsets)
    rows = spec.context or max(spec.lookback, int(lengths.max()))  # L
    context = _last_rows(table, table.values, rows, np.nan)  # (S, L, C)
    times = _last_times(table, rows)  # (S, L)
    if short := int((lengths < spec.lookback).sum()):
        notices.append(
            f"{short} of {len(lengths)} series have fewer rows than the lookback of "
            f"{spec.lookback}; what they lack counts as missing."
        )
    if new := forecaster.scaler.new_ids(table.ids):
        notices.append(
            f"{len(new)} of {len(lengths)} series were not in the training data and are scaled by "
            f"their own last {rows} rows, {new[0]!r} first."
        )
    scaler = forecaster.scaler.for_series(table.ids, list(context))
    scaled = (context - scaler.mean[:, None]) / scaler.deviation[:, None]
    observed = np.isfinite(scaled)
    dead = np.logical_not(np.any(observed, axis=1))  # (S, C)
    past = torch.from_numpy(np.where(observed, scaled, 0.0).astype(np.float32))
    steps = np.stack(
        [
            tables.future_times(last, spec.frequency, spec.horizon, table.layout.timezone)
            for last in times[:, -1]
        ]
    )
    known = _known_ahead(table, steps, future)
    # A new series is scaled by its context, its covariates as its variates.
    counts = np.minimum(lengths, rows)
    covariates = forecaster.covariates.for_series(table, table.offsets[1:] - counts, counts)
    past_inputs = np.concatenate([covariates.past(table), covariates.known(table)], axis=1)
    known_inputs, static = covariates.known_ahead(known, steps, table), covariates.of_series(table)
    batch = SeriesBatch(
        past=past,
        past_mask=None if observed.all() else torch.from_numpy(observed),
        past_time=_calendar(forecaster, times),
        past_covariates=torch.from_numpy(_last_rows(table, past_inputs, rows, 0.0))
        if past_inputs.shape[1]
        else None,
        known_future=torch.from_numpy(known_inputs) if known_inputs.shape[2] else None,
        static=torch.from_numpy(static) if static.shape[1] else None,
        future_time=_calendar(forecaster, steps),
    )
    forecast = _forward(forecaster, batch, place)
    columns = {"": forecast.point()}
    used: Method | None = None
    if levels:
        band = Band.of(forecast)
        recent = partial(
            _recently_needed, forecaster, table, scaler, covariates, known, device=place
        )
        opened, used = _openings(forecaster, table, levels, method, recent)
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
    for suffix, scaled_values in columns.items():
        values = rounded(scaler.undo(scaled_values.double().numpy()), scaler.deviation)
        values[~np.isfinite(values) | dead[:, None]] = np.nan
        frame = tables.forecast_frame(
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


def predict_frame(forecaster: AnyForecaster, frame: pl.DataFrame) -> pl.DataFrame:
    """Forecast a frame in memory, as the model server does; of grids one with a row for a cell."""
    if isinstance(forecaster, Forecaster):
        return predict(forecaster, frame)
    if isinstance(forecaster, GridForecaster):
        return grid_prediction.predict_frame(forecaster, frame)
    return graph_context.predict_frame(
        forecaster.model,
        forecaster.graph,
        forecaster.statistics,
        forecaster.spec,
        frame,
        history=forecaster.history,
    )


def _levels(forecaster: Forecaster, wanted: Sequence[float] | None) -> tuple[float, ...]:
    """Say which levels the intervals have, in rising order."""
    if wanted is None:
        quantiles = getattr(forecaster.recipe.model_config, "quantiles", ())
        # Rounded, lest 1 - 2 * 0.05 be 90.00000000000001 %.
        own = {round(abs(100 - 200 * quantile), 9) for quantile in quantiles if quantile != 0.5}
        return tuple(sorted(own)) if forecaster.calibration is not None else ()
    if wanted and forecaster.calibration is None:
        raise UsageError(
            "This forecaster has no intervals: it was trained without a validation part to measure "
            "them on, or by a version of forecast that did not.",
            hint="Train again with a validation part (data.split), or leave the levels out.",
        )
    return tuple(sorted(set(map(float, wanted))))


def _openings(
    forecaster: Forecaster,
    table: Table,
    levels: Sequence[float],
    method: Method,
    recently_needed: Callable[[int], Float[Tensor, "M S H C"]],
) -> tuple[Float[Tensor, "N S H C"], Method]:
    """Say how far the intervals of each series open, and by which method that was found."""
    calibration = forecaster.calibration
    assert calibration is not None
    longest = int(np.diff(table.offsets).max()) - forecaster.spec.lookback
    if method == "split" or longest <= 0:
        return calibration.thresholds(levels)[:, None], "split"
    tracker = Tracker(calibration, levels, len(table.ids))
    count = min(longest, MEMORY, max(1, _MOST_WINDOWS // len(table.ids)))
    for needed in recently_needed(count):
        tracker.issue(needed)
    last = torch.full_like(calibration.reaches[:1], torch.nan).expand(len(table.ids), -1, -1)
    return tracker.issue(last), "adaptive"


def _recently_needed(
    forecaster: Forecaster,
    table: Table,
    scaler: Scaler,
    covariates: Covariates,
    known: Float[np.ndarray, "S H K"],
    count: int,
    device: torch.device,
) -> Float[Tensor, "M S H C"]:
    """Forecast from each of the last origins of each series: how far did intervals have to open.

    Returns:
        The last `count` origins before the end of the series, in order; NaN where a series has no
        such origin, or no row yet to compare with.
    """
    spec = forecaster.spec
    back = spec.context or max(spec.lookback, int(np.diff(table.offsets).max()))
    recent = loading.continued(table, back + count, known)
    rows = loading.resident(recent, scaler, covariates, forecaster.recipe.table.marks).to(device)
    ends = recent.offsets[1:] - spec.horizon
    origins = [
        np.arange(max(end - count, start + spec.lookback), end)
        for start, end in zip(recent.offsets, ends, strict=False)
    ]
    windows = Windows(
        series=rows,
        origins=torch.from_numpy(np.concatenate(origins)).to(device),
        lookback=spec.lookback,
        horizon=spec.horizon,
    )
    owners = np.repeat(np.arange(len(ends)), [len(some) for some in origins])
    places = np.concatenate([some - end + count for some, end in zip(origins, ends, strict=True)])
    found = torch.full((count, len(ends), spec.horizon, spec.variates), torch.nan)
    size = batch_size(forecaster)
    model, done = forecaster.model.to(device), 0
    with memory_errors("predicting", size):
        for forecast, batch in replay.answers(model, windows, size):
            here = slice(done, done + len(batch))
            found[places[here], owners[here]] = Band.of(forecast).needed(batch).cpu()
            done += len(batch)
    return found


def _known_ahead(
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
        marks=forecaster.recipe.table.marks,
    )
    if not features.shape[1]:
        return None
    return torch.from_numpy(features.reshape(*times.shape, -1))


def _forward(forecaster: Forecaster, batch: SeriesBatch, device: torch.device) -> Forecast:
    size = batch_size(forecaster)
    model = forecaster.model.to(device)
    with memory_errors("predicting", size):
        parts: list[Forecast] = [
            model(_without_idle_mask(batch.rows(start, start + size)).to(device))
            for start in range(0, len(batch), size)
        ]
    values = torch.cat([part.values.cpu() for part in parts])
    return Forecast(values=values, quantiles=parts[0].quantiles)


def _without_idle_mask(batch: SeriesBatch) -> SeriesBatch:
    """Drop a mask that hides nothing, so that gaps in other batches change no bit of this one."""
    idle = batch.past_mask is not None and bool(batch.past_mask.all())
    return replace(batch, past_mask=None) if idle else batch


def _named_dead(table: Table, dead: np.ndarray) -> Sequence[str]:
    partly = dead & ~np.all(dead, axis=1, keepdims=True)
    return [
        f"Column {table.columns[place]!r} has no observed value in the context; its forecast is "
        "left empty."
        for place in np.flatnonzero(partly.any(0))
    ]
