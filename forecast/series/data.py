"""From a source to windows: find, read, divide, scale, and put on the device once.

Letters: N rows of all series, S series, C variates, F calendar features, L lookback, H horizon.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.batch import Spec
from forecast.batch.windows import Series, Windows, origins
from forecast.catalogue import DATASETS, files
from forecast.catalogue.dataset import Dataset, Split
from forecast.errors import DataError, UsageError
from forecast.series.calendar import Marks, calendar_features, season_length
from forecast.series.covariates import Covariates
from forecast.series.scaling import Scaler, so_far
from forecast.tables import reading
from forecast.tables.filling import fill
from forecast.tables.reading import Table, TableOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesData:
    """A table ready for a model.

    Attributes:
        table: the table as read, in its own units.
        series: its rows in scaled space, on the device.
        scaler: how they were scaled.
        covariates: how what accompanies them became numbers.
        borders: (S, 3) end of the training, validation and test part in rows of each series.
        gap: rows between the validation and the test part of each series that neither has.
        spec: the shape of the task.
        notices: sentences for the user about what was found and done.
    """

    table: Table
    series: Series
    scaler: Scaler
    covariates: Covariates
    borders: np.ndarray
    gap: int = 0
    spec: Spec
    notices: tuple[str, ...]

    def windows(self, part: str) -> Windows:
        """Return the windows of `train`, `val` or `test`."""
        spec = self.spec
        found = origins(
            self.table.offsets, self.borders, part, spec.lookback, spec.horizon, self.gap
        )
        return Windows(
            series=self.series,
            origins=torch.from_numpy(found).to(self.series.values.device),
            lookback=self.spec.lookback,
            horizon=self.spec.horizon,
        )


def locate(source: str) -> Path:
    """Find the file that a data set's name or a path stands for."""
    known = DATASETS.get(source)
    return files.locate(known.files[0]) if isinstance(known, Dataset) else Path(source)


def load(
    table: Table,
    *,
    split: Sequence[float],
    gap: int = 0,
    lookback: int | None,
    horizon: int | None,
    season: int | None = None,
    marks: Marks = "auto",
    holidays: str | None = None,
    device: torch.device | str = "cpu",
    scaler: Scaler | None = None,
    covariates: Covariates | None = None,
    all_history: bool = False,
) -> SeriesData:
    """Divide and scale a table for training, the scaler fitted on training rows alone.

    Args:
        table: the rows.
        split: rows or fractions for train, validation and test.
        gap: rows between validation and test that neither part has.
        lookback: L; None takes four seasons.
        horizon: H; None takes one season.
        season: rows in one season; None derives it from the frequency.
        marks: calendar features.
        holidays: the region whose holidays are a covariate known in advance.
        device: where the rows go.
        scaler: that of a model already trained, to be used instead of fitting one.
        covariates: the same for what accompanies the variates.
        all_history: the model looks back beyond the lookback, over all that came before.

    Raises:
        DataError: no series is long enough for a single training window.
    """
    season = season or season_length(table.frequency)
    division = Split(train=split[0], val=split[1], test=split[2])
    lengths = np.diff(table.offsets)
    usual = usual_window(int(lengths.max()), division, season, gap)
    lookback, horizon = lookback or usual[0], horizon or usual[1]
    borders = np.array([division.borders(int(rows), gap) for rows in lengths], dtype=np.int64)
    longest = int(borders[:, 0].max())
    if longest < lookback + horizon:
        raise DataError(
            f"No series has the {lookback + horizon} training rows that one window of lookback "
            f"{lookback} and horizon {horizon} takes; the most any has is {longest}.",
            hint=f"Try --lookback {max(1, longest * 2 // 3)} --horizon {max(1, longest // 6)}, "
            "or bring a longer history.",
        )
    notices = list(table.notices)
    short = borders[:, 0] < lookback + horizon
    if short.any():
        names = [table.ids[place] for place in np.flatnonzero(short)]
        notices.append(
            f"{len(names)} of {len(table.ids)} series are too short for a training window and are "
            f"left out of training: {_some(names)}."
        )
    if scaler is None:
        scaler = Scaler.fit(table.values, table.offsets, borders[:, 0], table.ids)
    else:
        # Series without a scale are fitted on their own training rows, as in any training.
        scaler = replace(
            scaler.for_series(table.ids, _parts(table, borders[:, 0])), new=frozenset()
        )
    if covariates is None:
        covariates = Covariates.fit(table, borders[:, 0], holidays)
    else:
        covariates = covariates.for_series(table, table.offsets[:-1], borders[:, 0])
    series = resident(table, scaler, covariates, marks, carried=all_history).to(device)
    spec = Spec(
        lookback=lookback,
        horizon=horizon,
        variates=len(table.columns),
        calendar=calendar_features(table.times[:1], table.frequency, marks=marks).shape[1],
        past_covariates=sum(
            0 if part is None else part.shape[1] for part in (series.covariates, series.known)
        ),
        known_future=0 if series.known is None else series.known.shape[1],
        static=0 if series.static is None else series.static.shape[1],
        season=season,
        frequency=table.frequency,
        context=None if all_history else lookback,
    )
    return SeriesData(
        table=table,
        series=series,
        scaler=scaler,
        covariates=covariates,
        borders=borders,
        gap=gap,
        spec=spec,
        notices=tuple(notices),
    )


def usual_window(rows: int, division: Split, season: int, gap: int = 0) -> tuple[int, int]:
    """Choose lookback and horizon where they are not stated.

    Args:
        rows: of the longest series.
        division: of its rows.
        season: rows in one season.
        gap: rows between the validation and the test part.

    Returns:
        Four seasons and one, or less where the parts are too short for such windows.
    """
    train_end, val_end, _ = division.borders(rows, gap)
    horizon = max(1, min(season, val_end - train_end, train_end // 4))
    return max(1, min(4 * season, train_end - 2 * horizon)), horizon


def whole(
    table: Table,
    scaler: Scaler,
    covariates: Covariates,
    spec: Spec,
    marks: Marks,
    device: torch.device,
) -> SeriesData:
    """Make every row of a table after the first lookback a test row, for a model already trained.

    Raises:
        DataError: no series has lookback + horizon rows.
    """
    lengths = np.diff(table.offsets)
    if lengths.max() < spec.lookback + spec.horizon:
        raise DataError(
            f"No series has the {spec.lookback + spec.horizon} rows that scoring one forecast of "
            f"lookback {spec.lookback} and horizon {spec.horizon} takes; the most any has is "
            f"{lengths.max()}.",
            hint="Bring a longer table; to forecast without scoring, use `forecast predict`.",
        )
    if not np.isfinite(table.values).any():
        raise DataError(
            f"Not one of the {len(table.values):,} rows has a value to score a forecast on.",
            hint="Bring rows with values; to forecast without scoring, use `forecast predict`.",
        )
    borders = np.stack([np.zeros_like(lengths), np.zeros_like(lengths), lengths], axis=1)
    # Of a new series, the rows before its first origin; each later origin has its own scale.
    before = np.minimum(lengths, spec.lookback)
    own = scaler.for_series(table.ids, _parts(table, before))
    accompanying = covariates.for_series(table, table.offsets[:-1], before)
    carried = spec.context is None
    return SeriesData(
        table=table,
        series=resident(table, own, accompanying, marks, carried=carried).to(device),
        scaler=own,
        covariates=accompanying,
        borders=borders,
        spec=spec,
        notices=table.notices,
    )


def resident(
    table: Table, scaler: Scaler, covariates: Covariates, marks: Marks, *, carried: bool
) -> Series:
    """Scale a table and lay it out as tensors: missing cells 0 and masked.

    Args:
        table: the table.
        scaler: of its series.
        covariates: of its series.
        marks: calendar features.
        carried: the model carries a state. It reads each row once, when no later one is known.

    Raises:
        DataError: a scaled value is too large for float32.
    """
    scaled = scaler.apply(table.values, table.offsets)
    observed = np.isfinite(scaled)
    values = np.where(observed, scaled, 0.0)
    if np.abs(values).max(initial=0.0) > np.finfo(np.float32).max:
        raise DataError(
            "After scaling, values no longer fit into float32.",
            hint="Look for rows in the validation or test part that are out of all proportion.",
        )
    calendar = calendar_features(
        table.times, table.frequency, timezone=table.layout.timezone, marks=marks
    )
    past, known, static = (
        torch.from_numpy(part) if part.shape[1] else None
        for part in (covariates.past(table), covariates.known(table), covariates.of_series(table))
    )
    several = len(table.ids) > 1
    units = scaler.units()
    center, spread = _running(table, scaler) if carried and units is not None else (None, None)
    return Series(
        **_inputs(table, scaler, carried=carried),
        center=center,
        spread=spread,
        unit=None if units is None else torch.from_numpy(units.astype(np.float32)),
        values=torch.from_numpy(values.astype(np.float32)),
        mask=None if observed.all() else torch.from_numpy(observed),
        calendar=torch.from_numpy(calendar) if calendar.shape[1] else None,
        covariates=past,
        known=known,
        static=static,
        series_id=torch.from_numpy(np.repeat(np.arange(len(table.ids)), np.diff(table.offsets)))
        if several
        else None,
    )


def filled(table: Table, *, carried: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Fill the gaps of a table as a model reads them.

    Args:
        table: the table, whose layout says how.
        carried: the model carries a state: a line between two values is not known in time, and the
            last value is held instead, as in a stream.

    Returns:
        (N, C) values and the last row that each rests on, as `filling.fill` gives them.
    """
    how = table.layout.fill
    if how not in ("hold", "linear"):
        return table.values, None
    return fill(table.values, table.offsets, "hold" if carried else how)


def _inputs(table: Table, scaler: Scaler, *, carried: bool) -> dict[str, Tensor | None]:
    """Lay out what a model reads where it differs from what is observed."""
    values, rests_on = filled(table, carried=carried)
    if values is table.values:
        return {}
    scaled = scaler.apply(values, table.offsets)
    there = np.isfinite(scaled)
    return {
        "filled": torch.from_numpy(np.where(there, scaled, 0.0).astype(np.float32)),
        "readable": None if there.all() else torch.from_numpy(there),
        "rests_on": None if rests_on is None else torch.from_numpy(rests_on),
    }


def _running(table: Table, scaler: Scaler) -> tuple[Tensor, Tensor]:
    """Take (N, C) mean and deviation of the rows up to each of a new series, in scaled space."""
    center, spread = np.zeros_like(table.values), np.ones_like(table.values)
    for place, name in enumerate(table.ids):
        if name in scaler.new:
            rows = slice(*table.offsets[place : place + 2])
            center[rows], spread[rows] = so_far(
                table.values[rows], scaler.mean[place], scaler.deviation[place]
            )
    return torch.from_numpy(center.astype(np.float32)), torch.from_numpy(spread.astype(np.float32))


def continued(table: Table, rows: int, known: Float[np.ndarray, "S H K"]) -> Table:
    """Take the last rows of each series, and behind them the rows to be forecast, all missing.

    Args:
        table: the table.
        rows: how many rows of each series.
        known: what is known in advance of the rows to be forecast, as the table would hold it.
    """
    horizon = known.shape[1]

    def behind(part: np.ndarray, missing: float) -> np.ndarray:
        return np.pad(part, ((0, horizon), (0, 0)), constant_values=missing)

    values = table.values
    if table.layout.fill == "hold":
        # The first row that is kept holds what came before it; it is never a target.
        values = values.copy()
        firsts = np.maximum(table.offsets[:-1], table.offsets[1:] - rows)
        values[firsts] = filled(table, carried=True)[0][firsts]
    parts: list[Table] = []
    for place, (start, stop) in enumerate(itertools.pairwise(table.offsets)):
        kept = slice(max(start, stop - rows), stop)
        times = table.times[kept].astype("datetime64[us]")
        later = reading.future_times(times[-1], table.frequency, horizon, table.layout.timezone)
        parts.append(
            replace(
                table,
                times=np.concatenate([times, later]),
                values=behind(values[kept], np.nan),
                categories=behind(table.categories[kept], -1),
                past=behind(table.past[kept], np.nan),
                known=np.concatenate([table.known[kept], known[place]]),
                offsets=np.array([0, len(times) + horizon]),
            )
        )
    return replace(reading.join(parts), ids=table.ids, static=table.static)


def read(
    source: str,
    options: TableOptions,
    *,
    columns: tuple[str, ...] | None = None,
    frequency: str | None = None,
    levels: Mapping[str, tuple[str, ...]] | None = None,
    keep: int | None = None,
    leave_out: int = 0,
) -> Table:
    """Read the table of a known data set or a file, as the recipe's data section says.

    Args:
        source: name or path.
        options: how to read it.
        keep: rows of each series to keep, the last ones; None keeps all.
        leave_out: rows at the end of each series to leave out before that.
        columns: the variates that a trained model wants, by name.
        frequency: the frequency that a trained model wants.
        levels: the levels of categorical columns that a trained model knows.

    Raises:
        UsageError: no source is stated.
    """
    if not source:
        raise UsageError(
            "The recipe does not say which data: data.source is empty.",
            hint='Put source = "etth1" or a path under [data].',
        )
    table = reading.read(
        locate(source),
        options,
        columns=columns,
        frequency=frequency,
        levels=levels,
        name=source,
    )
    return reading.crop(table, keep, leave_out) if keep or leave_out else table


def _parts(table: Table, rows: np.ndarray) -> list[np.ndarray]:
    """Take the first rows of each series."""
    return [
        table.values[start : start + count]
        for start, count in zip(table.offsets[:-1], rows, strict=True)
    ]


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
