"""What the columns of a table may be good for, as `forecast init` proposes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast.tables import dialect, times
from forecast.tables.columns import find_roles, likely_ids, number_series
from forecast.tables.layout import TableOptions
from forecast.tables.numbers import MISSING, read_numbers

# A column of more different words says something of single rows.
_MOST_LEVELS = 50
# How columns are called that say which days are holidays.
_HOLIDAYS = ("holiday", "feiertag", "ferie", "festivo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestions:
    """Columns of a table by what they may be good for.

    Attributes:
        id: the column of ids, where it was not named.
        target: values to forecast, where an id was found and none was named.
        static: constant within each series.
        categorical: words that change from row to row.
        past_covariates: further numbers.
        known_future: numbers that go on where the target has ended.
        holidays: whether a column is called like holidays.
    """

    id: str | None = None
    target: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    past_covariates: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()
    holidays: bool = False


def suggest(source: str, options: TableOptions) -> Suggestions:
    """Look at the columns of a table.

    Args:
        source: a path.
        options: how to read it.

    Raises:
        ForecastError: the table cannot be read.
    """
    cells = dialect.load(source, delimiter=options.delimiter, encoding=options.encoding)
    roles = find_roles(cells, options, None)
    stamps = times.parse(
        cells, roles.time, date_format=options.date_format, timezone=options.timezone
    )
    key = roles.id
    if key is None and pl.Series(stamps.times).is_duplicated().any():
        found = likely_ids(cells, roles.time, stamps.times)
        key = found[0] if len(found) == 1 else None
    if key is None:
        return Suggestions()
    series, _ = number_series(cells, key)
    stated = {roles.time, key, *options.target}
    for name in ("static", "categorical", "past_covariates", "known_future"):
        stated |= set(getattr(options, name))
    others = [name for name in cells.frame.columns if name not in stated]
    parts: dict[str, list[str]] = {"static": [], "categorical": [], "numbers": []}
    for name in others:
        column = cells.frame[name].cast(pl.String)
        column = column.set(column.str.strip_chars().is_in(MISSING), None)
        counts = pl.DataFrame({"series": series, "value": column}).group_by("series")
        textual = read_numbers(cells, name, decimal=options.decimal or ".").textual
        if (counts.agg(pl.col("value").n_unique())["value"] == 1).all():
            parts["static"].append(name)
        elif not textual:
            parts["numbers"].append(name)
        elif column.n_unique() <= _MOST_LEVELS:
            parts["categorical"].append(name)
    target = options.target or _target(parts["numbers"])
    rest = [name for name in parts["numbers"] if name not in target]
    known = _known_in_advance(cells, series, stamps.times, target, rest, options)
    return Suggestions(
        id=key if roles.id is None else None,
        target=() if options.target else target,
        static=tuple(parts["static"]),
        categorical=tuple(parts["categorical"]),
        past_covariates=tuple(name for name in rest if name not in known),
        known_future=known,
        holidays=any(word in name.lower() for name in others for word in _HOLIDAYS),
    )


def _target(numbers: Sequence[str]) -> tuple[str, ...]:
    """Take `y`, else the first column of numbers that is no flag."""
    if "y" in numbers:
        return ("y",)
    return tuple(numbers[:1])


def _known_in_advance(
    cells: dialect.Cells,
    series: np.ndarray,
    moments: np.ndarray,
    target: Sequence[str],
    names: Sequence[str],
    options: TableOptions,
) -> tuple[str, ...]:
    """Find columns with values behind the last target of their series."""

    def last(name: str) -> np.ndarray:
        numbers = read_numbers(cells, name, decimal=options.decimal or ".", missing=options.missing)
        there = ~np.isnan(numbers.values)
        there[numbers.bad] = True
        ends = np.full(int(series.max()) + 1, np.datetime64("NaT"), moments.dtype)
        order = np.argsort(moments[there], kind="stable")
        ends[series[there][order]] = moments[there][order]
        return ends

    if not target:
        return ()
    ends = last(target[0])
    return tuple(name for name in names if bool((last(name) > ends).any()))
