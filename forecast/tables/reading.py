"""Any table to regular series: `read` is the way in, `write_table` the way out.

A table is wide (a column of times and one for each variate) or long (a row for each series and
time). Series are in the order of their ids, so that the order of rows in the file never matters.

Letters: n rows of the file, N rows of all series on their grids, S series, C variates,
P past covariates, K covariates known in advance, M rows ahead.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from forecast.errors import DataError, UsageError
from forecast.tables import dialect, formats
from forecast.tables import times as timestamps
from forecast.tables.columns import (
    choose_series,
    find_roles,
    listed,
    number_series,
    read_categories,
    read_covariates,
    read_static,
    read_values,
    refuse_unnamed_ids,
)
from forecast.tables.dialect import Cells
from forecast.tables.filling import fill
from forecast.tables.frequency import Frequency, future_times, past_times
from forecast.tables.layout import Fill, Layout, TableOptions, forecast_frame, write_table
from forecast.tables.numbers import decimal_mark
from forecast.tables.regular import align, regularise

__all__ = [
    "Layout",
    "Table",
    "TableOptions",
    "forecast_frame",
    "future_times",
    "join",
    "past_times",
    "read",
    "write_table",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Series on regular grids.

    Attributes:
        times: `(N,)` datetime64[us], series after series, each on its regular grid; UTC where the
            zone is known, else as written.
        values: the cells as they are in the file, NaN where they are missing; `layout.fill` says
            what a model reads there.
        offsets: the first row of each series, and N.
        ids: S ids; of a wide or joint table one that is empty.
        columns: C names of the variates; of a joint table the ids.
        frequency: the step as a pandas offset alias.
        layout: the form of the file.
        static: each static column with S rows, Float64 or String, null where it is missing.
        categories: the codes of the k categorical columns, in the order of `layout.levels`, which
            holds what they stand for; -1 is missing.
        past: the past covariates, NaN where they are missing.
        known: the covariates known in advance, NaN where they are missing.
        ahead: the same for the rows behind the last target, series after series.
        ahead_offsets: the first row ahead of each series, and M.
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
    past: Float[np.ndarray, "N P"]
    known: Float[np.ndarray, "N K"]
    ahead: Float[np.ndarray, "M K"]
    ahead_offsets: Int[np.ndarray, " S1"]
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
    recent: int | None = None,
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
        recent: rows on which a forecast rests, see `regularise`.

    Raises:
        NotFoundError: if there is no such file.
        DataError: if the table cannot be read as it is, naming row and column.
        UsageError: if the options contradict each other.
    """
    cells = dialect.load(source, delimiter=options.delimiter, encoding=options.encoding, name=name)
    return from_cells(
        cells, options, columns=columns, frequency=frequency, levels=levels, recent=recent
    )


def from_cells(
    cells: Cells,
    options: TableOptions,
    *,
    columns: tuple[str, ...] | None = None,
    frequency: str | None = None,
    levels: Mapping[str, tuple[str, ...]] | None = None,
    whole: bool = True,
    recent: int | None = None,
) -> Table:
    """Understand the cells of a table; the other arguments are those of `read`.

    Args:
        cells: the table as it is written.
        options: how to read it.
        columns: the variates that a trained model wants.
        frequency: the frequency that a trained model wants.
        levels: the levels that a trained model knows.
        whole: whether these are all rows of each series. The last ones alone do not show that a
            series has another frequency: they may just be far apart.
        recent: rows on which a forecast rests.

    Raises:
        DataError: if the table cannot be read as it is, naming row and column.
        UsageError: if the options contradict each other.
    """
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
    if roles.id is None and options.duplicates == "refuse":
        refuse_unnamed_ids(cells, roles.time, stamps.times)
    grid = regularise(
        cells,
        roles.time,
        stamps,
        series,
        ids,
        expected=_expected(frequency, options.frequency),
        duplicates=options.duplicates,
        gaps_allowed=options.fill != "refuse",
        whole=whole,
        recent=recent,
    )
    notices += [*stamps.notices, *grid.notices]
    decimal = decimal_mark(cells, options.decimal)
    names, numbers, told = read_values(cells, roles, options, decimal)
    notices += told
    static = read_static(cells, series, len(ids), options, decimal)
    known, codes = read_categories(cells, options, levels or {})
    times, offsets, variates = grid.times, grid.offsets, names
    values, codes = grid.place(numbers, np.nan), grid.place(codes, -1)
    past, known_ahead = (
        grid.place(read_covariates(cells, columns_of, options, decimal), np.nan)
        for columns_of in (options.past_covariates, options.known_future)
    )
    if options.joint:
        variates = columns or ids
        times, rows, places = align(grid, ids, cells.file)
        place = {name: number for number, name in enumerate(variates)}
        joined = np.full((len(times), len(ids)), np.nan)
        joined[rows, np.array([place[name] for name in ids])[places]] = values[:, 0]
        values, codes = joined, np.empty((len(times), 0), np.int32)
        past = known_ahead = np.empty((len(times), 0))
        offsets, ids = np.array([0, len(times)]), ("",)
    behind = np.zeros(len(times), bool)
    ahead_offsets = np.zeros(len(ids) + 1, np.int64)
    if options.known_future:
        behind, offsets, ahead_offsets = _behind_last_target(values, offsets)
        times, values, codes, past = (part[~behind] for part in (times, values, codes, past))
    notices += _missing(values, offsets, variates, options.fill, cells)
    layout = Layout(
        kind=roles.kind,
        time=roles.time,
        id=roles.id,
        values=names,
        variates=variates,
        joint=options.joint,
        static=tuple(options.static),
        levels=known,
        past_covariates=tuple(options.past_covariates),
        known_future=tuple(options.known_future),
        time_kind=stamps.kind,
        time_format=stamps.form,
        timezone=stamps.zone,
        date_format=options.date_format or stamps.proven,
        fill=options.fill,
        duplicates=options.duplicates,
        missing=tuple(options.missing),
        delimiter=cells.delimiter,
        decimal=decimal,
        encoding=options.encoding,
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
        past=past,
        known=known_ahead[~behind],
        ahead=known_ahead[behind],
        ahead_offsets=ahead_offsets,
        notices=tuple(notices),
        digest=cells.digest,
    )


def join(parts: Sequence[Table]) -> Table:
    """Put tables of the same layout one after another; their notices are not kept."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def offsets(name: str) -> np.ndarray:
        sizes = np.concatenate([np.diff(getattr(part, name)) for part in parts])
        return np.concatenate([[0], np.cumsum(sizes)])

    rows = ("times", "values", "categories", "past", "known", "ahead")
    return replace(
        parts[0],
        **{name: joined(name) for name in rows},
        **{name: offsets(name) for name in ("offsets", "ahead_offsets")},
        ids=tuple(name for part in parts for name in part.ids),
        static={name: pl.concat([part.static[name] for part in parts]) for name in parts[0].static},
        notices=(),
    )


def pick(table: Table, series: Sequence[int] | np.ndarray) -> Table:
    """Take some series of a table, in this order."""

    def rows(offsets: np.ndarray) -> np.ndarray:
        spans = [np.arange(offsets[one], offsets[one + 1]) for one in series]
        return np.concatenate([np.empty(0, np.int64), *spans])

    def counts(offsets: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.diff(offsets)[list(series)])])

    here, ahead = rows(table.offsets), rows(table.ahead_offsets)
    parts = ("times", "values", "categories", "past", "known")
    return replace(
        table,
        **{name: getattr(table, name)[here] for name in parts},
        ahead=table.ahead[ahead],
        offsets=counts(table.offsets),
        ahead_offsets=counts(table.ahead_offsets),
        ids=tuple(table.ids[one] for one in series),
        static={name: column[list(series)] for name, column in table.static.items()},
    )


def crop(table: Table, keep: int | None, leave_out: int) -> Table:
    """Take a stretch of each series; nothing is known ahead of one that ends early.

    Args:
        table: the table.
        keep: rows to keep, the last ones; None keeps all.
        leave_out: rows at the end to leave out before that.

    Raises:
        DataError: a series has no row left.
    """
    ends = table.offsets[1:] - leave_out
    starts = table.offsets[:-1] if keep is None else np.maximum(table.offsets[:-1], ends - keep)
    if (short := ends <= starts).any():
        length = int(np.diff(table.offsets)[short][0])
        raise DataError(
            f"Leaving out the last {leave_out:,} rows leaves nothing of a series of {length:,}.",
            hint="Leave out fewer: --set data.leave_out=..., or bring a longer history.",
        )
    rows = np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])
    parts = ("times", "values", "categories", "past", "known")
    cropped = replace(
        table,
        **{name: getattr(table, name)[rows] for name in parts},
        offsets=np.concatenate([[0], np.cumsum(ends - starts)]),
    )
    if not leave_out:
        return cropped
    return replace(cropped, ahead=table.ahead[:0], ahead_offsets=np.zeros_like(table.ahead_offsets))


def _behind_last_target(
    values: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the rows behind the last target of each series: they only say what is known in advance.

    A series without a single target keeps all its rows.

    Returns:
        Which of the N rows they are, the offsets of the other rows, and the offsets of these.
    """
    filled = np.any(np.isfinite(values), axis=1)
    behind = np.zeros(len(values), bool)
    for start, stop in itertools.pairwise(offsets):
        targets = np.flatnonzero(filled[start:stop])
        if len(targets):
            behind[start + targets[-1] + 1 : stop] = True
    ahead_offsets = np.append(0, np.cumsum(behind))[offsets]
    return behind, offsets - ahead_offsets, ahead_offsets


def _check_header(cells: Cells) -> None:
    names = cells.frame.columns
    if all(_is_number(name) or formats.is_time(name) for name in names):
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


def _missing(
    values: np.ndarray, offsets: np.ndarray, columns: tuple[str, ...], how: Fill, cells: Cells
) -> list[str]:
    """Report missing cells, and how many of them a model reads filled."""
    absent = np.isnan(values)
    if not absent.any():
        return []
    per_column = absent.sum(axis=0)
    shown = listed([name for name, count in zip(columns, per_column, strict=True) if count])
    told = f"Of {absent.size:,} cells {absent.sum():,} are missing, in {shown}"
    if how == "refuse":
        raise cells.error(f"{told}; --fill refuse allows none.", hint="Add them, or fill them.")
    if how == "none":
        return [f"{told}; they stay missing and are masked (--fill none)."]
    filled, _ = fill(values, offsets, how)
    left = int(np.isnan(filled).sum())
    return [f"{told}; --fill {how} fills all but {left:,} as input, and no score counts them."]
