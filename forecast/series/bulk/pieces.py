"""A piece of a table, its times read and its series numbered, everything else as it is written.

Letters: n rows, C variates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast.errors import DataError, Failure
from forecast.series.bulk.sources import Reading
from forecast.tables import times as timestamps
from forecast.tables.columns import number_series
from forecast.tables.dialect import Cells
from forecast.tables.frequency import Frequency
from forecast.tables.numbers import read_numbers

# The ordinal of a time that cannot be read.
UNREADABLE = int(np.iinfo(np.int64).min)
# So many different times of one piece that cannot be read are no slips.
_MOST_SLIPS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows as they are written, and what is known of each.

    Attributes:
        frame: the columns that are wanted, without the ids.
        series: `(n,)` the number of its series.
        ordinals: `(n,)` its time in steps of the frequency since 1970.
        observed: `(n, C)` whether each value is there; C is 0 where that does not matter.
        lines: `(n,)` its line in its file.
        sources: `(n,)` the number of its file.
    """

    frame: pl.DataFrame
    series: np.ndarray
    ordinals: np.ndarray
    observed: np.ndarray
    lines: np.ndarray
    sources: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """Take the rows with these numbers."""
        return Rows(
            frame=self.frame[rows],
            series=self.series[rows],
            ordinals=self.ordinals[rows],
            observed=self.observed[rows],
            lines=self.lines[rows],
            sources=self.sources[rows],
        )

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """Put rows one after another.

        Raises:
            DataError: if they hold different things in a column.
        """
        try:
            frame = pl.concat([part.frame for part in parts], how="vertical_relaxed", rechunk=True)
        except pl.exceptions.PolarsError as error:
            raise mixed() from error
        return Rows(
            frame=frame,
            series=np.concatenate([part.series for part in parts]),
            ordinals=np.concatenate([part.ordinals for part in parts]),
            observed=np.concatenate([part.observed for part in parts]),
            lines=np.concatenate([part.lines for part in parts]),
            sources=np.concatenate([part.sources for part in parts]),
        )


def mixed() -> DataError:
    """Make the error for inputs that cannot be one table."""
    return DataError(
        "The inputs hold the same column in different ways: one as text and another with a type, "
        "for example.",
        hint="Bring all of them into one form, CSV or Parquet.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of a table.

    Attributes:
        rows: those whose time could be read; their series are numbered by `ids`.
        ids: the ids.
        failed: what is wrong with the first unreadable time of each series that has one, by id.
        zones: the zones of the times.
        examples: times as they are written: the first, the shortest, the longest.
        height: how many rows there are, the unreadable ones included.
        delimiter: that of the file.
        commas: whether a cell can hold a comma.
    """

    rows: Rows
    ids: list[str]
    failed: dict[str, Failure]
    zones: set[str | None]
    examples: pl.Series
    height: int
    delimiter: str
    commas: bool


def understand(cells: Cells, reading: Reading, step: Frequency, source: int) -> Piece:
    """Read the times of a piece, and number its series.

    Args:
        cells: the piece.
        reading: how to read it.
        step: the step of the series.
        source: the number of its file.

    Raises:
        DataError: if an id is missing, or hardly any time can be read.
    """
    key, time = reading.keys
    column = cells.frame[key]
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        number_series(cells, key)
    series, texts = _distinct(column if _worded(column) else column.cast(pl.String))
    ids = texts.str.strip_chars().to_list()
    if "" in ids or np.any(series < 0):
        # It says which one is missing.
        number_series(cells, key)
    # A time comes again in other series: each way to write one is read once.
    codes, times = _distinct(cells.frame[time])
    zones: set[str | None] = set()
    slips: list[str] = []
    known = _ordinals(times, cells.file, reading, step, zones, slips)
    # The number of a missing cell is -1, which finds what is put last.
    ordinals = np.append(known, UNREADABLE)[codes]
    rows = Rows(
        frame=cells.frame.drop(key),
        series=series,
        ordinals=ordinals,
        observed=_observed(cells, reading),
        lines=cells.lines,
        sources=np.full(cells.frame.height, source, np.int32),
    )
    failed: dict[str, Failure] = {}
    bad = np.flatnonzero(ordinals == UNREADABLE)
    if len(slips) > _MOST_SLIPS:
        raise _error(cells, int(bad[0]), reading)
    if len(bad):
        for row in bad[np.sort(np.unique(series[bad], return_index=True)[1])]:
            name = ids[series[row]]
            failed.setdefault(name, Failure.of(name, _error(cells, int(row), reading)))
        rows = rows.take(np.flatnonzero(ordinals != UNREADABLE))
        times = times.filter(pl.Series(known != UNREADABLE))
    return Piece(
        rows=rows,
        ids=ids,
        failed=failed,
        zones=zones,
        examples=_examples(rows.frame[time].head(1), times),
        height=cells.frame.height,
        delimiter=cells.delimiter,
        commas=cells.commas,
    )


def _worded(column: pl.Series) -> bool:
    return column.dtype == pl.String or isinstance(column.dtype, pl.Categorical | pl.Enum)


def _distinct(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Return the number of every cell's text, missing ones -1; a typed column is its own list."""
    if not _worded(column):
        return np.where(column.is_null().to_numpy(), -1, np.arange(len(column))), column
    if not isinstance(column.dtype, pl.Categorical):
        column = column.cast(pl.String).cast(pl.Categorical(pl.Categories.random()))
    physical = column.to_physical()
    missing = int(physical.max() or 0) + 1  # pyright: ignore[reportArgumentType]
    codes = physical.fill_null(missing).to_numpy()
    # Of several rows the last assignment wins, so they go in backwards: the first of each text.
    first = np.full(missing + 1, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    first[missing] = -1
    used = np.flatnonzero(first >= 0)
    places = np.full(missing + 1, -1)
    places[used] = np.arange(len(used))
    return places[codes], column.gather(first[used]).cast(pl.String)


def _ordinals(
    times: pl.Series,
    file: str,
    reading: Reading,
    step: Frequency,
    zones: set[str | None],
    slips: list[str],
) -> np.ndarray:
    """Read times; those that cannot be read, found by halving, become UNREADABLE and are noted."""
    if not len(times) or len(slips) > _MOST_SLIPS:
        return np.full(len(times), UNREADABLE)
    try:
        stamps = _parse(times, np.arange(1, len(times) + 1), file, reading)
    except DataError as error:
        if len(times) == 1:
            slips.append(error.message)
            return np.array([UNREADABLE])
        half = len(times) // 2
        return np.concatenate(
            [
                _ordinals(part, file, reading, step, zones, slips)
                for part in (times[:half], times[half:])
            ]
        )
    zones.add(stamps.zone)
    return step.split(stamps.clock if step.on_local_clock else stamps.times)[0]


def _parse(times: pl.Series, lines: np.ndarray, file: str, reading: Reading) -> timestamps.Stamps:
    return timestamps.parse(
        Cells(frame=times.to_frame(), lines=lines, file=file, digest=""),
        times.name,
        date_format=reading.options.date_format,
        timezone=reading.options.timezone,
        prove=False,
    )


def _error(cells: Cells, row: int, reading: Reading) -> DataError:
    """Return what is wrong with the time of a row."""
    _, time = reading.keys
    one = cells.frame[time][row : row + 1]
    try:
        _parse(one, cells.lines[row : row + 1], cells.file, reading)
    except DataError as error:
        return error
    raise AssertionError("a time that could not be read can be read by itself")


def _examples(first: pl.Series, times: pl.Series) -> pl.Series:
    if times.dtype != pl.String or not len(times):
        return first
    sizes = times.str.len_bytes()
    return pl.concat(
        [first.cast(pl.String), times.gather([sizes.arg_min() or 0, sizes.arg_max() or 0])]
    )


def _observed(cells: Cells, reading: Reading) -> np.ndarray:
    """Return which values are there, where it matters which is the last."""
    observed = np.ones((cells.frame.height, len(reading.columns)), np.bool_)
    if reading.options.fill not in ("hold", "linear") and not reading.options.known_future:
        return observed[:, :0]
    for place, name in enumerate(reading.columns):
        numbers = read_numbers(
            cells,
            name,
            decimal=reading.options.decimal or ".",
            missing=reading.options.missing,
        )
        observed[:, place] = ~np.isnan(numbers.values)
        observed[numbers.bad, place] = True
    return observed
