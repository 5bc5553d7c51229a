"""Any table to regular series: `read` is the way in, `write_table` the way out.

A table is wide (a column of times and one for each variate) or long (a row for each series and
time). A column is taken for numbers if more than half of its filled cells are numbers; every other
filled cell in it is then an error, so that nothing is lost in silence. Any other column is text,
and left out by name unless it is declared. Series are in the order of their ids, so that the order
of rows in the file never matters.

Letters: n rows of the file, N rows of all series on their grids, S series, C variates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from forecast.data import dialect, timestamps
from forecast.data.dialect import Cells
from forecast.data.filling import fill
from forecast.data.frequency import Frequency, future_times
from forecast.data.layout import Layout, TableOptions, forecast_frame, write_table
from forecast.data.numbers import MISSING, decimal_mark, read_numbers, refuse_cells
from forecast.data.regular import align, regularise
from forecast.errors import UsageError, nearest

__all__ = [
    "Layout",
    "Table",
    "TableOptions",
    "forecast_frame",
    "future_times",
    "read",
    "write_table",
]

# A column without a name here, and what pandas calls an index that had none.
UNNAMED = re.compile(r"column \d+|Unnamed: \d+|__index_level_\d+__")
TIME_NAMES = ("date", "time", "timestamp", "datetime", "ds")


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
        static: S rows with a column for each static one, Float64 with NaN or String with null for
            what is missing.
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
    static: pl.DataFrame
    categories: Int[np.ndarray, "N k"]
    notices: tuple[str, ...]
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Roles:
    """Which column of a table is what; `values` is None where all numeric columns are variates."""

    kind: str
    time: str
    id: str | None
    values: tuple[str, ...] | None


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
    roles = _roles(cells, options, columns)
    notices: list[str] = []
    series, ids = _series(cells, roles.id)
    if options.joint and columns is not None:
        cells, series, ids = _choose(cells, series, ids, columns, notices)
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
    decimal = decimal_mark(cells, options.decimal)
    names, numbers = _values(cells, roles, options, columns, decimal, notices)
    static = _static(cells, series, len(ids), options, decimal)
    known, codes = _categories(cells, options, levels or {})
    times, offsets = grid.times, grid.offsets
    values, codes = grid.place(numbers, np.nan), grid.place(codes, -1)
    variates = names
    if options.joint:
        times, rows, places = align(grid, ids, cells.file)
        joined = np.full((len(times), len(ids)), np.nan)
        joined[rows, places] = values[:, 0]
        place = {name: number for number, name in enumerate(ids)}
        order = [place[name] for name in columns or ids]
        values, variates = joined[:, order], columns or ids
        codes, offsets, ids = np.empty((len(times), 0), np.int32), np.array([0, len(times)]), ("",)
    values, told = _filled(values, offsets, variates, options.fill)
    layout = Layout(
        kind="long" if roles.kind == "long" else "wide",
        time=roles.time,
        id=roles.id,
        values=names,
        variates=variates,
        joint=options.joint,
        static=options.static,
        levels=known,
        time_kind=stamps.kind,
        time_format=stamps.form,
        timezone=stamps.zone,
        date_format=options.date_format,
        fill=options.fill,
        duplicates=options.duplicates,
        missing=options.missing,
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
        notices=(*stamps.notices, *grid.notices, *notices, *told),
        digest=cells.digest,
    )


def _expected(wanted: str | None, named: str | None) -> str | None:
    if wanted is None or named is None:
        return wanted or named
    if Frequency.parse(wanted) != Frequency.parse(named):
        raise UsageError(
            f"The frequency {named!r} is named, but the model has {wanted!r}.",
            hint="Leave data.frequency out, or train on that frequency.",
        )
    return wanted


def _check_header(cells: Cells) -> None:
    names = cells.frame.columns
    if all(_is_number(name) or timestamps.is_time(name) for name in names):
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


def _roles(cells: Cells, options: TableOptions, columns: tuple[str, ...] | None) -> _Roles:
    names = cells.frame.columns
    named = options.layout == "auto" and (options.id is not None or "unique_id" in names)
    kind = "long" if named or options.layout == "long" else "wide"
    if kind == "wide" and (options.joint or options.static or options.id is not None):
        raise UsageError(
            "An id, joint series and static columns belong to a long table, and this one is wide.",
            hint="Name the id column (data.id), or leave data.joint and data.static out.",
        )
    if options.joint and (options.static or options.categorical or len(options.target) > 1):
        raise UsageError(
            "A joint table has one value for each id and time: no static, no categorical and no "
            "second value column.",
            hint="Read the series apart (data.joint = false), or leave these columns out.",
        )
    key = (options.id or "unique_id") if kind == "long" else None
    time = options.time or _find_time(cells, key, options)
    wanted = options.target if columns is None or options.joint else columns
    values = wanted or (("y",) if kind == "long" else None)
    _require(cells, [time, *([key] if key else []), *options.static, *options.categorical])
    others = [name for name in cells.frame.columns if name not in (time, key)]
    _require(cells, values or (), candidates=others)
    taken = Counter([time, key, *(values or ()), *options.static, *options.categorical])
    twice = [column for column, count in taken.items() if count > 1]
    if twice:
        raise UsageError(
            f"The column {twice[0]!r} is named for two purposes at once.",
            hint="Give each of time, id, target, static and categorical its own columns.",
        )
    return _Roles(kind=kind, time=time, id=key, values=values)


def _require(cells: Cells, wanted: Iterable[str], candidates: Sequence[str] = ()) -> None:
    names = cells.frame.columns
    known = set(names)
    absent = [column for column in wanted if column not in known]
    if not absent:
        return
    if len(absent) == 1:
        hint = nearest(absent[0], candidates or names)
    else:
        hint = f"The columns are {', '.join(names)}."
    raise cells.error(
        f"There is no column {', '.join(map(repr, absent))}.",
        hint=f"{hint} Columns are found by name.",
    )


def _find_time(cells: Cells, key: str | None, options: TableOptions) -> str:
    names = [name for name in cells.frame.columns if name != key]
    for name in names:
        if name.lower() in TIME_NAMES:
            return name
    for certain in (True, False):
        for name in names:
            column = cells.frame[name]
            if column.dtype.is_temporal():
                return name
            filled = column.drop_nulls() if column.dtype == pl.String else column.head(0)
            if len(filled) and timestamps.is_time(filled[0], options.date_format, certain=certain):
                return name
    raise cells.error(
        f"No column holds times; the columns are {', '.join(names)}.",
        hint="Name it (--time), and its format if it is unusual (--date-format).",
    )


def _series(cells: Cells, key: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Give each row the number of its series, in the order of the ids, which are text."""
    if key is None:
        return np.zeros(cells.frame.height, np.int64), ("",)
    column = cells.frame[key]
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise cells.error(
            f"The column of ids holds {column.dtype}, which is not text.",
            column=key,
            hint="Name the column that tells the series apart: data.id.",
        )
    column = column.cast(pl.String).str.strip_chars()
    blank = column.is_null() | (column == "")
    if blank.any():
        raise cells.error(
            f"The id is missing; of {len(blank):,} rows {blank.sum():,} have none.",
            row=blank.arg_max(),
            column=key,
            hint="Fill it in, or take the rows out.",
        )
    ids = column.unique().sort()
    return column.cast(pl.Enum(ids)).to_physical().to_numpy().astype(np.int64), tuple(ids)


def _choose(
    cells: Cells,
    series: np.ndarray,
    ids: tuple[str, ...],
    wanted: tuple[str, ...],
    notices: list[str],
) -> tuple[Cells, np.ndarray, tuple[str, ...]]:
    """Keep the rows of the ids that are wanted as variates."""
    known = {name: number for number, name in enumerate(ids)}
    absent = [name for name in wanted if name not in known]
    if absent:
        raise cells.error(
            f"There are no rows of series {_listed(absent)}, which the model forecasts together "
            "with the others.",
            hint=nearest(absent[0], ids) if len(absent) == 1 else "Add their rows.",
        )
    kept = tuple(sorted(wanted, key=known.__getitem__))
    if len(kept) == len(ids):
        return cells, series, ids
    extra = sorted(known.keys() - set(kept))
    notices.append(f"The model does not use series {_listed(extra)}; their rows are ignored.")
    numbers = np.full(len(ids), -1)
    numbers[[known[name] for name in kept]] = np.arange(len(kept))
    chosen = numbers[series] >= 0
    cells = replace(cells, frame=cells.frame.filter(chosen), lines=cells.lines[chosen])
    return cells, numbers[series][chosen], kept


def _values(
    cells: Cells,
    roles: _Roles,
    options: TableOptions,
    columns: tuple[str, ...] | None,
    decimal: str,
    notices: list[str],
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the variates: those that are wanted, or every column of numbers."""
    declared = {roles.time, roles.id, *options.static, *options.categorical}
    others = [name for name in cells.frame.columns if name not in declared]
    if roles.values is None:
        unnamed = [name for name in others if UNNAMED.fullmatch(name)]
        if unnamed:
            notices.append(_columns(unnamed, "without a name in the header and left out"))
        candidates = [name for name in others if not UNNAMED.fullmatch(name)]
    else:
        candidates = list(roles.values)
        extra = [name for name in others if name not in set(candidates)]
        if extra:
            why = "not used by the model" if columns is not None else "not among the target"
            notices.append(_columns(extra, f"{why} and left out"))
    texts: list[str] = []
    found: dict[str, np.ndarray] = {}
    for name in candidates:
        numbers = read_numbers(cells, name, decimal=decimal, missing=options.missing)
        if (
            roles.values is None
            and numbers.filled
            and not numbers.numeric
            and numbers.grouped is None
        ):
            texts.append(name)
        else:
            refuse_cells(cells, name, numbers, decimal)
            found[name] = numbers.values
    if texts:
        notices.append(
            _columns(texts, "not numbers and left out; declare as categorical what is needed")
        )
    empty = [name for name, values in found.items() if np.isnan(values).all()]
    if empty and roles.values is None:
        notices.append(_columns(empty, "without a single value and left out"))
        found = {name: values for name, values in found.items() if name not in empty}
    elif empty and columns is None:
        raise cells.error(
            "The column has no value at all.",
            column=empty[0],
            hint="Take it out of the target (--target), or bring its values.",
        )
    if not found:
        raise cells.error(
            f"No column holds numbers; the columns are {', '.join(cells.frame.columns)}.",
            hint="A table needs at least one column of numbers besides its times.",
        )
    constant = [
        name
        for name, values in found.items()
        if name not in empty and np.nanmin(values) == np.nanmax(values)
    ]
    if constant and cells.frame.height > 1:
        notices.append(_columns(constant, "constant: there is nothing in it to forecast"))
    return tuple(found), np.column_stack(list(found.values()))


def _static(
    cells: Cells, series: np.ndarray, count: int, options: TableOptions, decimal: str
) -> pl.DataFrame:
    """Read the columns that are constant within each series: numbers if all filled cells are."""
    first = np.full(count, -1)
    # The first row of each series: later assignments win, so the rows go in backwards.
    first[series[::-1]] = np.arange(len(series))[::-1]
    frame: dict[str, pl.Series] = {}
    for name in options.static:
        numbers = read_numbers(cells, name, decimal=decimal, missing=options.missing)
        if len(numbers.bad):
            column = _words(cells, name, options.missing)
            differs = column.ne_missing(column.gather(first[series]))
        else:
            refuse_cells(cells, name, numbers, decimal)
            column = pl.Series(numbers.values)
            differs = column.ne_missing(column.gather(first[series]))
        if differs.any():
            row = differs.arg_max() or 0
            raise cells.error(
                f"The column is declared static but changes within its series: here it is "
                f"{column[row]!r}, on row {cells.lines[first[series[row]]]} "
                f"{column[int(first[series[row]])]!r}.",
                row=row,
                column=name,
                hint="Take it out of data.static, or mend the cell.",
            )
        frame[name] = column.gather(first)
    return pl.DataFrame(frame) if frame else pl.DataFrame(height=count)


def _words(cells: Cells, name: str, missing: tuple[str, ...]) -> pl.Series:
    """Return a column as text without the blanks round it, null where it is missing."""
    column = cells.frame[name]
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise cells.error(
            f"The column holds {column.dtype}, which is not text.",
            column=name,
            hint="Leave it out of data.static and data.categorical.",
        )
    words = column.cast(pl.String).str.strip_chars()
    return words.set(words.is_in([*MISSING, *missing]), None)


def _categories(
    cells: Cells, options: TableOptions, levels: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], np.ndarray]:
    """Code the cells of the categorical columns by their sorted levels, missing ones as -1."""
    known: dict[str, tuple[str, ...]] = {}
    codes = np.empty((cells.frame.height, len(options.categorical)), np.int32)
    for place, name in enumerate(options.categorical):
        words = _words(cells, name, options.missing)
        known[name] = levels.get(name) or tuple(words.drop_nulls().unique().sort())
        new = ~words.is_in(known[name]) & words.is_not_null()
        if new.any():
            row = new.arg_max() or 0
            raise cells.error(
                f"The level {words[row]!r} is new to the model, which knows "
                f"{_listed(known[name])}.",
                row=row,
                column=name,
                hint="Mend the cell, leave it empty, or train again.",
            )
        numbers = words.cast(pl.Enum(known[name])).to_physical().cast(pl.Int32).fill_null(-1)
        codes[:, place] = numbers.to_numpy()
    return known, codes


def _filled(
    values: np.ndarray, offsets: np.ndarray, columns: tuple[str, ...], how: str
) -> tuple[np.ndarray, list[str]]:
    """Fill missing cells, and say how many there were and are."""
    absent = np.isnan(values)
    if not absent.any():
        return values, []
    per_column = absent.sum(axis=0)
    shown = _listed([name for name, count in zip(columns, per_column, strict=True) if count])
    told = f"Of {absent.size:,} cells {absent.sum():,} are missing, in {shown}"
    if how not in ("hold", "linear"):
        return values, [f"{told}; they stay missing and are masked (--fill none)."]
    values = fill(values, offsets, how)
    left = int(np.isnan(values).sum())
    return values, [f"{told}; --fill {how} filled all but {left:,}."]


def _columns(names: Sequence[str], what: str) -> str:
    several = len(names) > 1
    return f"The column{'s' * several} {_listed(names)} {'are' if several else 'is'} {what}."


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
