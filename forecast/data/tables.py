"""Any table to regular series: `read` is the way in, `write_table` the way out.

A table is wide (a column of times and one for each variate) or long (a row for each series and
time). Series are in the order of their ids, so that the order of rows in the file never matters.

Letters: n rows of the file, N rows of all series on their grids, S series, C variates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from forecast.data import dialect, time_formats, timestamps
from forecast.data.columns import (
    choose_series,
    find_roles,
    listed,
    number_series,
    read_categories,
    read_static,
    read_values,
)
from forecast.data.dialect import Cells
from forecast.data.filling import fill
from forecast.data.frequency import Frequency, future_times, past_times
from forecast.data.layout import Fill, Layout, TableOptions, forecast_frame, write_table
from forecast.data.numbers import decimal_mark
from forecast.data.regular import align, regularise
from forecast.errors import UsageError

__all__ = [
    "Layout",
    "Table",
    "TableOptions",
    "forecast_frame",
    "future_times",
    "past_times",
    "read",
    "write_table",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Hold series on regular grids.

    Attributes:
        times: `(N,)` datetime64[us], series after series, each on its regular grid; UTC where the
            zone is known, else as written.
        values: the cells, NaN where they are missing.
        offsets: the first row of each series, and N.
        ids: S ids; of a wide or joint table one that is empty.
        columns: C names of the variates; of a joint table the ids.
        frequency: the step as a pandas offset alias.
        layout: the form of the file.
        static: each static column with S rows, Float64 or String, null where it is missing.
        categories: the codes of the k categorical columns, in the order of `layout.levels`, which
            holds what they stand for; -1 is missing.
        notices: sentences on what was found and done.
        digest: sha256 of the file's bytes.
    """

    times: np.ndarray
    values: Float[np.ndarray, "N C"]
    offsets: Int[np.ndarray, " S1"]
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    frequency: str
    layout: Layout
    static: Mapping[str, pl.Series]
    categories: Int[np.ndarray, "N k"]
    notices: tuple[str, ...]
    digest: str


def read(
    source: str | Path | BinaryIO,
    options: TableOptions,
    *,
    columns: tuple[str, ...] | None = None,
    frequency: str | None = None,
    levels: Mapping[str, tuple[str, ...]] | None = None,
    name: str | None = None,
) -> Table:
    """Read a table of series.

    Args:
        source: the path of a file, or an open binary file.
        options: how to read it.
        columns: the variates that a trained model wants, in its order; they are found by name, and
            others are ignored. Of a joint table they are ids.
        frequency: the frequency that a trained model wants; with it a single row is enough.
        levels: the levels of the categorical columns that a trained model knows.
        name: what errors call the file; by default its path.

    Raises:
        NotFoundError: if there is no such file.
        DataError: if the table cannot be read as it is, naming row and column.
        UsageError: if the options contradict each other.
    """
    cells = dialect.load(source, delimiter=options.delimiter, encoding=options.encoding, name=name)
    _check_header(cells)
    roles = find_roles(cells, options, columns)
    series, ids = number_series(cells, roles.id)
    notices: list[str] = []
    if options.joint and columns is not None:
        cells, series, ids, told = choose_series(cells, series, ids, columns)
        notices += told
    stamps = timestamps.parse(
        cells,
        roles.time,
        date_format=options.date_format,
        timezone=options.timezone,
        series=series,
    )
    grid = regularise(
        cells,
        roles.time,
        stamps,
        series,
        ids,
        expected=_expected(frequency, options.frequency),
        duplicates=options.duplicates,
        gaps_allowed=options.fill != "refuse",
    )
    notices += [*stamps.notices, *grid.notices]
    decimal = decimal_mark(cells, options.decimal)
    names, numbers, told = read_values(cells, roles, options, decimal)
    notices += told
    static = read_static(cells, series, len(ids), options, decimal)
    known, codes = read_categories(cells, options, levels or {})
    times, offsets, variates = grid.times, grid.offsets, names
    values, codes = grid.place(numbers, np.nan), grid.place(codes, -1)
    if options.joint:
        variates = columns or ids
        times, rows, places = align(grid, ids, cells.file)
        place = {name: number for number, name in enumerate(variates)}
        joined = np.full((len(times), len(ids)), np.nan)
        joined[rows, np.array([place[name] for name in ids])[places]] = values[:, 0]
        values, codes = joined, np.empty((len(times), 0), np.int32)
        offsets, ids = np.array([0, len(times)]), ("",)
    values, told = _filled(values, offsets, variates, options.fill, cells)
    notices += told
    layout = Layout(
        kind=roles.kind,
        time=roles.time,
        id=roles.id,
        values=names,
        variates=variates,
        joint=options.joint,
        static=tuple(options.static),
        levels=known,
        time_kind=stamps.kind,
        time_format=stamps.form,
        timezone=stamps.zone,
        date_format=options.date_format,
        fill=options.fill,
        duplicates=options.duplicates,
        missing=tuple(options.missing),
        delimiter=cells.delimiter,
        decimal=decimal,
    )
    return Table(
        times=times,
        values=values,
        offsets=offsets,
        ids=ids,
        columns=variates,
        frequency=grid.frequency,
        layout=layout,
        static=static,
        categories=codes,
        notices=tuple(notices),
        digest=cells.digest,
    )


def _check_header(cells: Cells) -> None:
    names = cells.frame.columns
    if all(_is_number(name) or time_formats.is_time(name) for name in names):
        raise cells.error(
            f"There is no header: the first row holds only numbers and times ({names[0]!r}, ...).",
            hint="Put the names of the columns above the data.",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _expected(wanted: str | None, named: str | None) -> str | None:
    if wanted is None or named is None:
        return wanted or named
    if Frequency.parse(wanted) != Frequency.parse(named):
        raise UsageError(
            f"The frequency {named!r} is named, but the model has {wanted!r}.",
            hint="Leave data.frequency out, or train on that frequency.",
        )
    return wanted


def _filled(
    values: np.ndarray, offsets: np.ndarray, columns: tuple[str, ...], how: Fill, cells: Cells
) -> tuple[np.ndarray, list[str]]:
    """Fill missing cells, and say how many there were and are."""
    absent = np.isnan(values)
    if not absent.any():
        return values, []
    per_column = absent.sum(axis=0)
    shown = listed([name for name, count in zip(columns, per_column, strict=True) if count])
    told = f"Of {absent.size:,} cells {absent.sum():,} are missing, in {shown}"
    if how == "refuse":
        raise cells.error(f"{told}; --fill refuse allows none.", hint="Add them, or fill them.")
    if how == "none":
        return values, [f"{told}; they stay missing and are masked (--fill none)."]
    values = fill(values, offsets, how)
    left = int(np.isnan(values).sum())
    return values, [f"{told}; --fill {how} filled all but {left:,}."]
