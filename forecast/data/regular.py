"""Rows in any order to regular series: sorted, without repeats, on a grid without gaps.

What had to be done is told in full sentences; what cannot be done without guessing is refused with
the first row that stands in the way. Nothing here loops over rows or series.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NoReturn

import numpy as np
import polars as pl

from forecast.data import time_formats
from forecast.data.dialect import Cells
from forecast.data.frequency import FIXED, NEVER, Frequency, infer
from forecast.data.timestamps import Stamps
from forecast.data.zones import to_utc
from forecast.errors import DataError

Duplicates = Literal["refuse", "first", "last", "mean"]
# A grid may hold this many times the rows of its file and this many more, so that one mistyped year
# does not fill the memory.
MOST_TIMES, MOST_MORE = 10, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Say where each row of a file goes on the regular grid of its series.

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

    Raises:
        DataError: if the rows of a series do not stand on one regular grid.
        UsageError: if the frequency is unknown.
    """
    rows = _Rows(cells=cells, column=column, stamps=stamps, series=series, ids=ids)
    order = _sort(rows)
    runs = _find_runs(rows, order, duplicates)
    rows.keep(order[runs])
    step = _step(rows, expected)
    zone = stamps.zone if step.on_local_clock else None
    ordinals, phases = step.split(rows.clock(step))
    sizes = np.diff(np.append(rows.starts, len(rows.kept)))
    off = (phases != np.repeat(phases[rows.starts], sizes)) | (phases == NEVER)
    if off.any():
        _refuse_off_grid(rows, step, phases, expected)
    jumps = np.diff(ordinals)
    if not np.all(jumps[rows.inner] == 1):
        _check_jumps(rows, step, jumps, expected, whole)
    jumps[~rows.inner] = 1
    slots = np.append(0, np.cumsum(jumps))
    offsets = np.append(slots[rows.starts], slots[-1] + 1).astype(np.int64)
    first, phases = ordinals[rows.starts], phases[rows.starts]
    if len(rows.kept) == offsets[-1]:
        times = stamps.times[rows.kept]
    else:
        _report_gaps(rows, step, jumps, gaps_allowed)
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


@dataclass(kw_only=True, slots=True)
class _Rows:
    """Hold the rows of a file on their way to the grid, and name them in what is told.

    Attributes:
        kept: `(D,)` the rows of the file, one for each distinct time, in the order of the grid.
        inner: `(D - 1,)` whether the next of them belongs to the same series.
        starts: `(S,)` where among them each series begins.
    """

    cells: Cells
    column: str
    stamps: Stamps
    series: np.ndarray
    ids: tuple[str, ...]
    kept: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    inner: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    notices: list[str] = field(default_factory=list[str])

    def keep(self, kept: np.ndarray) -> None:
        """Go on with these rows of the file."""
        owner = self.series[kept]
        self.kept, self.inner = kept, owner[1:] == owner[:-1]
        self.starts = np.flatnonzero(np.append(True, ~self.inner))

    def clock(self, step: Frequency) -> np.ndarray:
        """Return the times of the kept rows on the clock that counts the steps."""
        return (self.stamps.clock if step.on_local_clock else self.stamps.times)[self.kept]

    def alias(self, step: Frequency) -> str:
        """Name a step, anchored on the first row."""
        return step.alias(self.clock(step)[0])

    def line(self, row: int) -> int:
        """Return the file line of a row."""
        return int(self.cells.lines[row])

    def named(self, row: int) -> str:
        """Write the time of a row, and its series if there are several."""
        series = f" of series {self.ids[self.series[row]]!r}" if len(self.ids) > 1 else ""
        return time_formats.shown(self.stamps.clock[row]) + series

    def refuse(self, message: str, row: int, hint: str) -> NoReturn:
        """Raise the error for a row."""
        raise self.cells.error(message, row=row, column=self.column, hint=hint)


def _sort(rows: _Rows) -> np.ndarray:
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


def _find_runs(rows: _Rows, order: np.ndarray, duplicates: Duplicates) -> np.ndarray:
    """Return where each distinct time of a series begins."""
    times, series = rows.stamps.times[order], rows.series[order]
    again = np.append(False, (times[1:] == times[:-1]) & (series[1:] == series[:-1]))
    if not again.any():
        return np.arange(len(times))
    repeated = order[again]
    row = int(repeated.min())
    if duplicates == "refuse":
        hint = "Keep the first, the last or the mean of such rows: set data.duplicates."
        if rows.stamps.zone is None and np.all(_early_sunday(rows.stamps.clock[repeated])):
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


def _step(rows: _Rows, expected: str | None) -> Frequency:
    if expected is not None:
        return Frequency.parse(expected)
    found = _inferred(rows)
    if found is None:
        raise DataError(
            "No series has two rows, so the step between rows is not known.",
            file=rows.cells.file,
            hint="Name it: set data.frequency to h, D or MS, for example.",
        )
    return found


def _inferred(rows: _Rows) -> Frequency | None:
    """Find the step: on the local clock from a day on, else in the time that passes."""
    if not rows.inner.any():
        return None
    times, clock = rows.stamps.times[rows.kept], rows.stamps.clock[rows.kept]
    steps = np.diff(clock).astype(np.int64)[rows.inner]
    # A local clock stands still or runs back where it is set back.
    steps = steps[steps > 0]
    found = infer(clock, steps) if len(steps) else None
    if found is not None and (found.on_local_clock or rows.stamps.zone is None):
        return found
    return infer(times, np.diff(times).astype(np.int64)[rows.inner])


def _refuse_off_grid(
    rows: _Rows, step: Frequency, phases: np.ndarray, expected: str | None
) -> NoReturn:
    """Name the first row off the grid on which most rows of its series stand."""
    owner = rows.series[rows.kept]
    counted = pl.DataFrame({"series": owner, "phase": phases}).filter(pl.col("phase") != NEVER)
    usual = (
        counted.group_by("series", "phase")
        .len()
        .sort("len", "phase", descending=[True, False])
        .unique("series", keep="first", maintain_order=True)
    )
    most = np.full(len(rows.ids), NEVER)
    most[usual["series"].to_numpy()] = usual["phase"].to_numpy()
    off = (phases != most[owner]) | (phases == NEVER)
    count = np.count_nonzero(off)
    # Every other row is off the grid of an hour when the rows are half an hour apart.
    if expected is not None and 3 * count >= len(off) and _inferred(rows) != step:
        _refuse_frequency(rows, expected)
    row = int(rows.kept[off].min())
    hint = "Mend or drop these rows, or name the step that fits all: set data.frequency."
    if rows.stamps.notices or (rows.stamps.zone is None and not step.on_local_clock):
        hint += " If the clocks were set in between, name the zone: --timezone."
    rows.refuse(
        f"The time {rows.named(row)} is off the regular grid of frequency {rows.alias(step)} on "
        f"which most rows stand; {count:,} of {len(off):,} are.",
        row,
        hint,
    )


def _refuse_frequency(rows: _Rows, expected: str) -> NoReturn:
    found = _inferred(rows)
    if found is None or rows.alias(found) == expected:
        row = int(rows.kept[0])
        rows.refuse(
            f"The time {rows.named(row)} is not one of frequency {expected}.",
            row,
            f"Bring rows of frequency {expected}.",
        )
    raise DataError(
        f"The rows have the frequency {rows.alias(found)}, but {expected} is wanted.",
        file=rows.cells.file,
        column=rows.column,
        hint=f"Bring rows of frequency {expected}, or train on these.",
    )


def _check_jumps(
    rows: _Rows, step: Frequency, jumps: np.ndarray, expected: str | None, whole: bool
) -> None:
    """Tell gaps from another frequency, of which every step of a series is a multiple."""
    still = rows.inner & (jumps == 0)
    if still.any():
        row = int(rows.kept[1:][still].min())
        rows.refuse(
            f"The time {rows.named(row)} falls on the same step of frequency {rows.alias(step)} as "
            "another one.",
            row,
            "Mend or drop the row.",
        )
    if not whole:
        return
    if expected is not None and np.gcd.reduce(jumps[rows.inner]) > 1:
        _refuse_frequency(rows, expected)
    # A series of n rows has n - 1 steps within; the one behind it, to the next series, counts as 0.
    common = np.gcd.reduceat(np.append(np.where(rows.inner, jumps, 0), 0), rows.starts)
    steps = np.diff(np.append(rows.starts, len(rows.kept))) - 1
    other = np.flatnonzero((common > 1) & (steps > 1))
    if len(other):
        series = int(other[0])
        own = Frequency(unit=step.unit, count=step.count * int(common[series]))
        rows.refuse(
            f"Series {rows.ids[series]!r} has the frequency {rows.alias(own)}, most rows have "
            f"{rows.alias(step)}; {len(other):,} of {len(rows.ids):,} series differ so.",
            int(rows.kept[rows.starts[series]]),
            "Give series of another frequency a file of their own.",
        )


def _report_gaps(rows: _Rows, step: Frequency, jumps: np.ndarray, gaps_allowed: bool) -> None:
    missing = int((jumps - 1).sum())
    if missing > (MOST_TIMES - 1) * len(rows.kept) + MOST_MORE:
        row = int(rows.kept[jumps.argmax()])
        rows.refuse(
            f"{missing:,} rows would be missing between the {len(rows.kept):,} that are there, "
            f"most of them after {rows.named(row)}.",
            row,
            "Look for a mistyped time next to this row, or name the step: set data.frequency.",
        )
    gaps = np.flatnonzero(jumps > 1)
    row = int(rows.kept[gaps[0]])
    found = f"Rows are missing: {missing:,} in {len(gaps):,} gap{'s' * (len(gaps) > 1)}, "
    found += f"the first after row {rows.line(row)} ({rows.named(row)})"
    if not gaps_allowed:
        rows.refuse(f"{found}, and --fill refuse allows none.", row, "Add them, or fill them.")
    rows.notices.append(f"{found}; they were inserted without values.")
    if rows.stamps.zone is None and not step.on_local_clock:
        skipped = rows.stamps.clock[rows.kept[gaps]] + np.timedelta64(step.count, "us")
        hours = (jumps[gaps] - 1) * step.count == FIXED["h"]
        if np.all(hours & _early_sunday(skipped)):
            rows.notices.append(
                "An hour missing early on a Sunday looks like clocks being set forward: if the "
                "times are local, name their zone with --timezone."
            )


def _early_sunday(clock: np.ndarray) -> np.ndarray:
    """Say which times stand before four on a Sunday, when clocks are set forward or back."""
    days = clock.astype("datetime64[D]")
    hours = (clock - days).astype(np.int64) // FIXED["h"]
    return ((days.astype(np.int64) + 3) % 7 == 6) & (hours < 4)
