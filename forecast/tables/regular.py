"""Rows in any order to regular series: sorted, without repeats, on a grid without gaps.

What had to be done is told in full sentences; what cannot be done without guessing is refused with
the first row that stands in the way. Nothing here loops over rows or series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from forecast.errors import DataError
from forecast.tables.dialect import Cells
from forecast.tables.frequency import NEVER, Frequency
from forecast.tables.irregular import (
    MOST_MORE,
    MOST_TIMES,
    Rows,
    check_jumps,
    early_sunday,
    refuse_off_grid,
    report_gaps,
    step_of,
)
from forecast.tables.times import Stamps
from forecast.tables.zones import to_utc

Duplicates = Literal["refuse", "first", "last", "mean"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where each row of a file goes on the regular grid of its series.

    Attributes:
        times: `(N,)` datetime64[us] of the grid, series after series, as `Stamps.times`.
        offsets: `(S + 1,)` int64, the first grid row of each series, and N.
        step: the step between rows.
        frequency: its name, a pandas offset alias.
        zone: the zone on whose clock steps are counted; None for UTC and where none is known.
        first: `(S,)` the ordinal of each series' first row.
        phases: `(S,)` the phase of each series.
        order: `(n,)` rows of the file in the order of series and time.
        runs: `(D,)` where in `order` each distinct time begins.
        slots: `(D,)` the grid row of each distinct time.
        duplicates: what becomes of rows that share a time.
        notices: sentences on what was done.
    """

    times: np.ndarray
    offsets: np.ndarray
    step: Frequency
    frequency: str
    zone: str | None
    first: np.ndarray
    phases: np.ndarray
    order: np.ndarray
    runs: np.ndarray
    slots: np.ndarray
    duplicates: Duplicates
    notices: tuple[str, ...]

    def place(self, values: np.ndarray, empty: float) -> np.ndarray:
        """Put the values `(n, k)` of the file's rows on the grid `(N, k)`, `empty` in the gaps."""
        kept = self._distinct(values[self.order])
        if len(kept) == len(self.times):
            return kept
        placed = np.full((len(self.times), *values.shape[1:]), empty, values.dtype)
        placed[self.slots] = kept
        return placed

    def _distinct(self, values: np.ndarray) -> np.ndarray:
        if len(self.runs) == len(values):
            return values
        if self.duplicates == "last":
            return values[np.append(self.runs[1:], len(values)) - 1]
        if self.duplicates == "first" or not np.issubdtype(values.dtype, np.floating):
            return values[self.runs]
        observed = ~np.isnan(values)
        totals = np.add.reduceat(np.where(observed, values, 0.0), self.runs)
        counts = np.add.reduceat(observed.astype(np.int64), self.runs)
        return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def regularise(
    cells: Cells,
    column: str,
    stamps: Stamps,
    series: np.ndarray,
    ids: tuple[str, ...],
    *,
    expected: str | None = None,
    duplicates: Duplicates = "refuse",
    gaps_allowed: bool = True,
    whole: bool = True,
    recent: int | None = None,
) -> Grid:
    """Find the regular grid of each series and where on it each row stands.

    Args:
        cells: the table, for the lines that errors name.
        column: the column of times.
        stamps: its times.
        series: `(n,)` the number of each row's series; every series has a row.
        ids: the names of the series.
        expected: the frequency that is asked for; found in the times when None.
        duplicates: what becomes of rows of a series that share a time.
        gaps_allowed: whether rows may be missing.
        whole: whether these are all rows of each series; the last ones alone may be far apart.
        recent: rows behind the last long gap of a series from which those before it are left out,
            because a forecast rests on these alone; None keeps all.

    Raises:
        DataError: if the rows of a series do not stand on one regular grid.
        UsageError: if the frequency is unknown.
    """
    rows = Rows(cells=cells, column=column, stamps=stamps, series=series, ids=ids)
    order = _sort(rows)
    runs = _find_runs(rows, order, duplicates)
    rows.keep(order[runs])
    step = step_of(rows, expected)
    if recent is not None:
        order = _behind_long_gaps(rows, order, runs, step, recent)
        runs = np.flatnonzero(np.isin(order, rows.kept))
    zone = stamps.zone if step.on_local_clock else None
    ordinals, phases = step.split(rows.clock(step))
    sizes = np.diff(np.append(rows.starts, len(rows.kept)))
    off = (phases != np.repeat(phases[rows.starts], sizes)) | (phases == NEVER)
    if off.any():
        refuse_off_grid(rows, step, phases, expected)
    jumps = np.diff(ordinals)
    if not np.all(jumps[rows.inner] == 1):
        check_jumps(rows, step, jumps, expected, whole)
    jumps[~rows.inner] = 1
    slots = np.append(0, np.cumsum(jumps))
    offsets = np.append(slots[rows.starts], slots[-1] + 1).astype(np.int64)
    first, phases = ordinals[rows.starts], phases[rows.starts]
    if len(rows.kept) == offsets[-1]:
        times = stamps.times[rows.kept]
    else:
        report_gaps(rows, step, jumps, gaps_allowed)
        sizes = np.diff(offsets)
        counted = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], sizes)
        times = to_utc(step.join(counted, np.repeat(phases, sizes)), zone)
    return Grid(
        times=times,
        offsets=offsets,
        step=step,
        frequency=rows.alias(step),
        zone=zone,
        first=first,
        phases=phases,
        order=order,
        runs=runs,
        slots=slots,
        duplicates=duplicates,
        notices=tuple(rows.notices),
    )


def align(grid: Grid, ids: tuple[str, ...], file: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay series side by side on one grid, from the first time of all to the last.

    Returns:
        The times `(T,)`, and the row `(N,)` and the column `(N,)` that each row of the grid gets.

    Raises:
        DataError: if two series never share a time, or nearly all would be missing.
    """
    apart = grid.phases != grid.phases[0]
    if apart.any():
        raise DataError(
            f"Series {ids[0]!r} and {ids[int(apart.argmax())]!r} never share a time: both step by "
            f"{grid.frequency}, but shifted against each other.",
            file=file,
            hint="Read them as separate series (data.joint = false), or shift their times.",
        )
    sizes = np.diff(grid.offsets)
    start = grid.first - grid.first.min()
    length = int((start + sizes).max())
    if length * len(ids) > MOST_TIMES * len(grid.slots) + MOST_MORE:
        raise DataError(
            f"Side by side, {len(ids):,} series of {len(grid.slots):,} rows fill {length:,} times, "
            "and nearly all cells would be missing.",
            file=file,
            hint="Read them as separate series (data.joint = false), or cut them to one period.",
        )
    rows = np.arange(len(grid.times)) + np.repeat(start - grid.offsets[:-1], sizes)
    times = grid.step.join(grid.first.min() + np.arange(length), grid.phases[0])
    return to_utc(times, grid.zone), rows, np.repeat(np.arange(len(ids)), sizes)


def _sort(rows: Rows) -> np.ndarray:
    """Return the rows in the order of series and time, telling of rows that run back in time."""
    times, series = rows.stamps.times, rows.series
    order = np.arange(len(times))
    if np.any(series[1:] < series[:-1]):
        order = np.argsort(series, kind="stable")
        times, series = times[order], series[order]
    back = (times[1:] < times[:-1]) & (series[1:] == series[:-1])
    if not back.any():
        return order
    first = int(order[1:][back].min())
    rows.notices.append(
        f"The rows were sorted by time: {np.count_nonzero(back):,} of {len(times):,} come before "
        f"the one above them in the file, the first on row {rows.line(first)}."
    )
    return order[np.lexsort((times, series))]


def _behind_long_gaps(
    rows: Rows, order: np.ndarray, runs: np.ndarray, step: Frequency, recent: int
) -> np.ndarray:
    """Leave out rows before the last long gap of a series that has `recent` rows behind it."""
    ordinals, _ = step.split(rows.clock(step))
    long = np.flatnonzero(rows.inner & (np.diff(ordinals) > MOST_MORE)) + 1
    if not len(long):
        return order
    ends = np.append(rows.starts[1:], len(rows.kept))
    keep, gone = np.ones(len(rows.kept), bool), 0
    for begin, end in zip(rows.starts, ends, strict=True):
        cuts = long[(long > begin) & (long < end)]
        if len(cuts) and end - cuts[-1] >= recent:
            keep[begin : cuts[-1]] = False
            gone += 1
    if not gone:
        return order
    rows.notices.append(
        f"{gone:,} of {len(ends):,} series have a gap of more than {MOST_MORE:,} rows long before "
        f"their last ones; the {np.count_nonzero(~keep):,} rows before it are not read."
    )
    counts = np.diff(np.append(runs, len(order)))
    rows.keep(rows.kept[keep])
    return order[np.repeat(keep, counts)]


def _find_runs(rows: Rows, order: np.ndarray, duplicates: Duplicates) -> np.ndarray:
    """Return where each distinct time of a series begins."""
    times, series = rows.stamps.times[order], rows.series[order]
    again = np.append(False, (times[1:] == times[:-1]) & (series[1:] == series[:-1]))
    if not again.any():
        return np.arange(len(times))
    repeated = order[again]
    row = int(repeated.min())
    if duplicates == "refuse":
        hint = "Keep the first, the last or the mean of such rows: --set data.duplicates=mean."
        if rows.stamps.zone is None and np.all(early_sunday(rows.stamps.clock[repeated])):
            hint = (
                "They stand early on a Sunday, when clocks are set back: if so, name the zone "
                "(--timezone Europe/Berlin, for example)."
            )
        rows.refuse(
            f"The time {rows.named(row)} is there again; of {len(times):,} rows {len(repeated):,} "
            "repeat an earlier time.",
            row,
            hint,
        )
    rows.notices.append(
        f"Of rows that share a time the {duplicates} was kept: {len(repeated):,} repeat an earlier "
        f"time, the first on row {rows.line(row)}."
    )
    return np.flatnonzero(~again)
