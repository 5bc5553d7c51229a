"""Columns of a table: which is what, ids, variates, static and categorical columns.

A column is taken for numbers if more than half of its filled cells are numbers; every other filled
cell in it is then an error, so that nothing is lost in silence. Any other column is text, and left
out by name unless it is declared.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from forecast.errors import UsageError, nearest
from forecast.tables import formats
from forecast.tables.dialect import Cells
from forecast.tables.layout import TableOptions
from forecast.tables.numbers import MISSING, read_numbers, refuse_cells

# A column without a name here, and what pandas calls an index that had none.
UNNAMED = re.compile(r"column \d+|Unnamed: \d+|__index_level_\d+__")
TIME_NAMES = ("date", "time", "timestamp", "datetime", "ds")
# What the two ends of an event are called most often.
_ENDS = (("src", "dst"), ("source", "target"), ("user_id", "item_id"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """Which column of a table is what.

    Attributes:
        kind: whether the table is wide or long.
        time: the column of times.
        id: the column of ids of a long table.
        values: the columns of values; None takes every column of numbers.
        trained: whether a trained model asks for them, which needs no value in each.
    """

    kind: Literal["wide", "long"]
    time: str
    id: str | None
    values: tuple[str, ...] | None
    trained: bool


def find_roles(cells: Cells, options: TableOptions, columns: tuple[str, ...] | None) -> Roles:
    """Find the columns by what the options name, by the names that are usual, else by content.

    Args:
        cells: the table.
        options: how to read it.
        columns: the variates that a trained model wants.

    Raises:
        DataError: if a column is not there, or none holds times.
        UsageError: if the options contradict each other.
    """
    names = cells.frame.columns
    named = options.layout == "auto" and (options.id is not None or "unique_id" in names)
    kind = "long" if named or options.layout == "long" else "wide"
    if kind == "wide" and (options.joint or options.static or options.id is not None):
        raise UsageError(
            "An id, joint series and static columns belong to a long table, and this one is wide.",
            hint="Name the id column (data.id), or leave data.joint and data.static out.",
        )
    covariates = (
        *options.static,
        *options.categorical,
        *options.past_covariates,
        *options.known_future,
    )
    if options.joint and (covariates or len(options.target) > 1):
        raise UsageError(
            "A joint table has one value for each id and time: no covariate and no second value "
            "column.",
            hint="Read the series apart (data.joint = false), or leave these columns out.",
        )
    key = (options.id or "unique_id") if kind == "long" else None
    time = options.time or _find_time(cells, key, options)
    wanted = options.target if columns is None or options.joint else columns
    values = tuple(wanted) or (("y",) if kind == "long" and _one_y(cells, options) else None)
    _require(cells, [time, *([key] if key else []), *covariates])
    _require(cells, values or (), candidates=[name for name in names if name not in (time, key)])
    taken = Counter([time, key, *(values or ()), *covariates])
    twice = [column for column, count in taken.items() if count > 1]
    if twice:
        raise UsageError(
            f"The column {twice[0]!r} is named for two purposes at once.",
            hint="Give each of time, id, target and the covariates its own columns.",
        )
    trained = columns is not None and not options.joint
    return Roles(kind=kind, time=time, id=key, values=values, trained=trained)


def _one_y(cells: Cells, options: TableOptions) -> bool:
    """Whether values of a long table are the column `y`: it is there, or the id was not named."""
    return options.joint or options.id is None or "y" in cells.frame.columns


def likely_ids(cells: Cells, time: str, times: np.ndarray, most: int = 8) -> tuple[str, ...]:
    """Find the column, or the two columns, that tell rows of the same time apart.

    Args:
        cells: the table.
        time: the column of times.
        times: `(n,)` the times.
        most: columns that are looked at.

    Returns:
        The names; empty where there are none, or each row would be a series of its own.
    """
    frame = pl.DataFrame({"": times})
    for name in cells.frame.columns:
        column = cells.frame[name]
        if name == time or column.dtype.is_float() or column.dtype.is_nested():
            continue
        if (
            column.dtype.is_temporal()
            or column.null_count()
            or not 1 < column.n_unique() <= len(column) // 2
        ):
            continue
        # Numbers with a fraction are values.
        if column.dtype == pl.String and column.str.contains(r"^[+-]?\d*[.,]\d+$").any():
            continue
        frame = frame.with_columns(column.cast(pl.String).alias(name))
    names = frame.columns[1:]
    # Words before numbers: a shop, and not the number of things that it sold.
    words = [name for name in names if not frame[name].str.contains(r"^[+-]?\d+$").all()]
    ordered = [*words, *(name for name in names if name not in words)][:most]
    pairs = itertools.combinations(words[:most], 2)
    # Where nearly all rows share their time, a few that are there twice do not hide a column.
    repeated = int(frame[""].is_duplicated().sum())
    allowed = frame.height // 20 if 2 * repeated > frame.height else 0
    counts = {
        chosen: int(frame.select("", *chosen).is_duplicated().sum())
        for chosen in [*((name,) for name in ordered), *pairs]
    }
    fewest = min(counts.values(), default=frame.height)
    return next((one for one, count in counts.items() if count == fewest <= allowed), ())


def refuse_unnamed_ids(cells: Cells, time: str, times: np.ndarray) -> None:
    """Refuse a table with several rows for a time, if a column says whose they are.

    Raises:
        DataError: naming the column.
    """
    repeated = pl.Series(times).is_duplicated()
    if not repeated.any():
        return
    found = likely_ids(cells, time, times)
    if not found:
        return
    names = " and ".join(map(repr, found))
    hint = f"Name the column of ids: --id {found[0]}"
    if len(found) > 1:
        hint = f"Join the columns {names} into one, and name it: --id NAME"
    raise cells.error(
        f"Several rows have the same time; {names} tell{'s' * (len(found) == 1)} them apart, as in "
        "a long table with a row for each series and time.",
        row=repeated.arg_max(),
        column=time,
        hint=hint,
    )


def _find_time(cells: Cells, key: str | None, options: TableOptions) -> str:
    names = [name for name in cells.frame.columns if name != key]
    for name in names:
        if name.lower() in TIME_NAMES:
            return name
    for certain in (True, False):
        for name in names:
            column = cells.frame[name]
            if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
                return name
            filled = column.drop_nulls() if column.dtype == pl.String else column.head(0)
            if len(filled) and formats.is_time(filled[0], options.date_format, certain=certain):
                return name
    hint = "Name it (--time), and its format if it is unusual (--date-format)."
    lower = {name.lower() for name in names}
    if any({source, target} <= lower for source, target in _ENDS):
        hint += " Or are these events between nodes? Then add --model todyformer."
    raise cells.error(
        f"No column holds times; the columns are {', '.join(names)}.",
        hint=hint,
    )


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


def number_series(cells: Cells, key: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return for each row the number of its series, in the order of the ids, which are text.

    Returns:
        `(n,)` int64, and the ids; without a column of ids one that is empty.

    Raises:
        DataError: if an id is missing.
    """
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


def choose_series(
    cells: Cells,
    series: np.ndarray,
    ids: tuple[str, ...],
    wanted: tuple[str, ...],
) -> tuple[Cells, np.ndarray, tuple[str, ...], list[str]]:
    """Keep the rows of the ids that a trained model wants as its variates.

    Raises:
        DataError: if one of them has no row.
    """
    known = {name: number for number, name in enumerate(ids)}
    absent = [name for name in wanted if name not in known]
    if absent:
        raise cells.error(
            f"There are no rows of series {listed(absent)}, which the model forecasts together "
            "with the others.",
            hint=nearest(absent[0], ids) if len(absent) == 1 else "Add their rows.",
        )
    kept = tuple(sorted(wanted, key=known.__getitem__))
    if len(kept) == len(ids):
        return cells, series, ids, []
    extra = sorted(known.keys() - set(kept))
    notice = f"The model does not use series {listed(extra)}; their rows are ignored."
    numbers = np.full(len(ids), -1)
    numbers[[known[name] for name in kept]] = np.arange(len(kept))
    chosen = numbers[series] >= 0
    cells = replace(cells, frame=cells.frame.filter(chosen), lines=cells.lines[chosen])
    return cells, numbers[series][chosen], kept, [notice]


def read_values(
    cells: Cells, roles: Roles, options: TableOptions, decimal: str
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Read the variates: those that are wanted, or every column of numbers.

    Returns:
        Their C names, their numbers `(n, C)` with NaN for missing cells, and notices.

    Raises:
        DataError: if a cell among numbers is none, infinite or too large, or no column has any.
    """
    notices: list[str] = []
    declared = {
        roles.time,
        roles.id,
        *options.static,
        *options.categorical,
        *options.past_covariates,
        *options.known_future,
    }
    others = [name for name in cells.frame.columns if name not in declared]
    if roles.values is None:
        unnamed = [name for name in others if UNNAMED.fullmatch(name)]
        if unnamed:
            notices.append(_about(unnamed, "without a name in the header and left out"))
        candidates = [name for name in others if not UNNAMED.fullmatch(name)]
    else:
        candidates = list(roles.values)
        wanted = set(candidates)
        extra = [name for name in others if name not in wanted]
        if extra:
            why = "not used by the model" if roles.trained else "not among the target"
            notices.append(_about(extra, f"{why} and left out"))
    texts: list[str] = []
    found: dict[str, np.ndarray] = {}
    for name in candidates:
        numbers = read_numbers(cells, name, decimal=decimal, missing=options.missing)
        if roles.values is None and numbers.textual:
            texts.append(name)
            continue
        refuse_cells(cells, name, numbers, decimal)
        found[name] = numbers.values
        absent = np.isnan(numbers.values)
        if options.fill == "refuse" and absent.any():
            raise cells.error(
                f"The cell is missing, as {absent.sum():,} of {len(absent):,} of this column are; "
                "--fill refuse allows none.",
                row=int(absent.argmax()),
                column=name,
                hint="Add them, or fill them.",
            )
    if texts:
        notices.append(
            _about(texts, "not numbers and left out; declare as categorical what is needed")
        )
    empty = [name for name, values in found.items() if np.isnan(values).all()]
    if empty and roles.values is None:
        notices.append(_about(empty, "without a single value and left out"))
        found = {name: values for name, values in found.items() if name not in empty}
    elif empty and not roles.trained:
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
        notices.append(_about(constant, "constant: there is nothing in it to forecast"))
    return tuple(found), np.column_stack(list(found.values())), notices


def read_covariates(
    cells: Cells, names: Sequence[str], options: TableOptions, decimal: str
) -> np.ndarray:
    """Read columns of numbers that are no variates as `(n, k)`, NaN where a cell is missing.

    Raises:
        DataError: if a cell among them is no number.
    """
    read = np.empty((cells.frame.height, len(names)))
    for place, name in enumerate(names):
        numbers = read_numbers(cells, name, decimal=decimal, missing=options.missing)
        refuse_cells(cells, name, numbers, decimal)
        read[:, place] = numbers.values
    return read


def read_static(
    cells: Cells, series: np.ndarray, count: int, options: TableOptions, decimal: str
) -> dict[str, pl.Series]:
    """Read the columns that are constant within each series: numbers if all filled cells are.

    Raises:
        DataError: if one changes within a series.
    """
    first = np.full(count, -1)
    # The first row of each series: later assignments win, so the rows go in backwards.
    first[series[::-1]] = np.arange(len(series))[::-1]
    found: dict[str, pl.Series] = {}
    for name in options.static:
        numbers = read_numbers(cells, name, decimal=decimal, missing=options.missing)
        if len(numbers.bad):
            column = _words(cells, name, options.missing)
        else:
            refuse_cells(cells, name, numbers, decimal)
            column = pl.Series(numbers.values).fill_nan(None)
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
        found[name] = column.gather(first).alias(name)
    return found


def read_categories(
    cells: Cells, options: TableOptions, levels: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], np.ndarray]:
    """Code the cells of the categorical columns by their sorted levels, missing ones as -1.

    Returns:
        The levels of each column, and the codes `(n, k)`.

    Raises:
        DataError: if a trained model does not know a level.
    """
    known: dict[str, tuple[str, ...]] = {}
    codes = np.empty((cells.frame.height, len(options.categorical)), np.int32)
    for place, name in enumerate(options.categorical):
        words = _words(cells, name, options.missing)
        known[name] = levels.get(name) or tuple(words.drop_nulls().unique().sort())
        new = ~words.is_in(known[name]) & words.is_not_null()
        if new.any():
            row = new.arg_max() or 0
            raise cells.error(
                f"The level {words[row]!r} is new to the model, which knows {listed(known[name])}.",
                row=row,
                column=name,
                hint="Mend the cell, leave it empty, or train again.",
            )
        numbers = words.cast(pl.Enum(known[name])).to_physical().cast(pl.Int32).fill_null(-1)
        codes[:, place] = numbers.to_numpy()
    return known, codes


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


def _about(names: Sequence[str], what: str) -> str:
    several = len(names) > 1
    return f"The column{'s' * several} {listed(names)} {'are' if several else 'is'} {what}."


def listed(names: Sequence[str], most: int = 10) -> str:
    """Name several things, the first of many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown
