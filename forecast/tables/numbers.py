"""Cells to numbers: decimal marks, missing cells, and what can be no number at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from forecast.tables.dialect import Cells

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?")
LARGEST = float(np.finfo(np.float32).max)

_COMMA = r"^\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*$"
_POINT = r"^\s*[+-]?\d*\.\d+(?:[eE][+-]?\d+)?\s*$"
_GROUPED = r"^\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*$"
# Thousands in groups: 1,234,567 and 1,234.5, or 1.234.567 and 1.234,5, or 1 234,5 and 1'234.5.
_THOUSANDS = (
    r"^[+-]?\d{1,3}(?:(?:,\d{3})+(?:\.\d+)?|(?:\.\d{3}){2,}(?:,\d+)?|(?:\.\d{3})+,\d+"
    r"|(?:[ '\x{a0}\x{202f}]\d{3})+(?:[.,]\d+)?)$"
)


# Both marks in one number say which of them is which: 1.226,32 or 1,226.32.
_BOTH = {
    ",": r"^\s*[+-]?\d{1,3}(?:\.\d{3})+,\d+\s*$",
    ".": r"^\s*[+-]?\d{1,3}(?:,\d{3})+\.\d+\s*$",
}
_WHOLE_GROUPS = {
    ",": r"^[+-]?\d{1,3}(?:\.\d{3})+$",
    ".": r"^[+-]?\d{1,3}(?:,\d{3})+$",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """What a column says as numbers.

    Attributes:
        values: `(n,)` float64, NaN where a cell is missing or no number.
        filled: how many cells are not missing.
        bad: `(m,)` the rows whose cell is filled and no number.
        grouped: the first of them that has separators between its thousands.
    """

    values: np.ndarray
    filled: int
    bad: np.ndarray
    grouped: int | None = None

    @property
    def textual(self) -> bool:
        """Return whether the column is text: at least half of its filled cells are no numbers.

        Thousands in groups are numbers, though none that are read.
        """
        return 0 < self.filled <= 2 * len(self.bad) and self.grouped is None


def decimal_mark(cells: Cells, named: str | None) -> str:
    """Return the decimal mark: a comma if it must be one somewhere and no number has a point.

    A number with both marks settles it; points that part thousands are then none.
    """
    if named is not None or not cells.commas:
        return named or "."
    text = cells.frame.select(pl.col(pl.String))
    comma = pl.all().str.contains(_COMMA) & ~pl.all().str.contains(_GROUPED)
    both, other = (_any(text, pl.all().str.contains(_BOTH[mark])) for mark in ",.")
    points = pl.all().str.contains(_POINT)
    if both and not other:
        points &= ~pl.all().str.contains(_WHOLE_GROUPS[","])
        return "." if _any(text, points) else ","
    return "," if _any(text, comma) and not _any(text, points) else "."


def _any(frame: pl.DataFrame, test: pl.Expr) -> bool:
    return frame.width > 0 and any(frame.select(test.any()).row(0))


def read_numbers(
    cells: Cells, name: str, *, decimal: str = ".", missing: Sequence[str] = ()
) -> Numbers:
    """Read a column as numbers, missing cells as NaN.

    Args:
        cells: the table.
        name: the column.
        decimal: the decimal mark.
        missing: further cells that mean missing; a number means every cell equal to it.
    """
    column = cells.frame[name]
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        numbers = _parse_text(column, decimal, (*MISSING, *missing))
    elif column.dtype.is_numeric():
        values = column.cast(pl.Float64).to_numpy(writable=True)
        numbers = Numbers(values=values, filled=_filled(values), bad=np.empty(0, np.int64))
    else:
        # Truth values, times, lists and bytes are no numbers; a column of nulls is a missing one.
        bad = np.flatnonzero(column.is_not_null().to_numpy())
        values = np.full(len(column), np.nan)
        numbers = Numbers(values=values, filled=len(bad), bad=bad)
    if missing:
        stand_ins = pl.Series(missing, dtype=pl.String).cast(pl.Float64, strict=False)
        numbers.values[np.isin(numbers.values, stand_ins.drop_nulls().to_numpy())] = np.nan
        numbers = replace(numbers, filled=_filled(numbers.values) + len(numbers.bad))
    return numbers


def _filled(values: np.ndarray) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _parse_text(column: pl.Series, decimal: str, missing: tuple[str, ...]) -> Numbers:
    parsed = _to_float(column, decimal)
    values = parsed.to_numpy(writable=True)
    bad, grouped = np.empty(0, np.int64), None
    if parsed.null_count() > column.null_count():
        rest = np.flatnonzero((parsed.is_null() & column.is_not_null()).to_numpy())
        texts = column.gather(rest).str.strip_chars()
        again = _to_float(_ungrouped(texts, decimal), decimal)
        values[rest] = again.to_numpy()
        unknown = again.is_null() & ~texts.is_in(missing)
        bad = rest[unknown.to_numpy()]
        thousands = (unknown & texts.str.contains(_THOUSANDS)).to_numpy()
        grouped = int(rest[thousands.argmax()]) if thousands.any() else None
    return Numbers(values=values, filled=_filled(values) + len(bad), bad=bad, grouped=grouped)


def _ungrouped(texts: pl.Series, decimal: str) -> pl.Series:
    """Take the marks between thousands out, if a number with both marks proves what they are."""
    both = texts.str.contains(_BOTH[decimal])
    # A decimal comma is never guessed while a number has a point: points are no fractions then.
    if decimal == "." and not both.any():
        return texts
    mark = "." if decimal == "," else ","
    grouped = (both | texts.str.contains(_WHOLE_GROUPS[decimal])).fill_null(value=False)
    return texts.set(grouped, None).fill_null(texts.str.replace_all(mark, "", literal=True))


def _to_float(texts: pl.Series, decimal: str) -> pl.Series:
    if decimal != ".":
        # A point in such a table separates thousands or is a mistake: no number either way.
        texts = texts.set(texts.str.contains(".", literal=True), None)
        texts = texts.str.replace(decimal, ".", literal=True)
    return texts.cast(pl.Float64, strict=False)


def refuse_cells(cells: Cells, name: str, numbers: Numbers, decimal: str) -> None:
    """Refuse a column of numbers for a cell that is none, infinite or too large.

    Raises:
        DataError: naming the first such row.
    """
    if numbers.grouped is not None:
        raise cells.error(
            f"The cell {cells.frame[name][numbers.grouped]!r} separates its thousands.",
            row=numbers.grouped,
            column=name,
            hint="Write numbers without separators between thousands; if the mark begins the "
            "fraction, name it: set data.decimal.",
        )
    if len(numbers.bad):
        row, count = int(numbers.bad[0]), len(numbers.bad)
        cell = cells.frame[name][row]
        marks = {".": "a point", ",": "a comma"}
        other = "," if decimal == "." else "."
        why = f" It has {marks[other]}, but the decimal mark of this table is {marks[decimal]}."
        if not re.fullmatch(rf"\s*[+-]?\d*[{other}]\d+\s*", str(cell)):
            why = ""
        raise cells.error(
            f"{cell!r} is not a number; of the {numbers.filled:,} filled cells of this column "
            f"{count:,} are not.{why}",
            row=row,
            column=name,
            hint="Mend the cell, name what means missing (data.missing), or declare the column "
            "categorical (data.categorical).",
        )
    huge = np.abs(numbers.values) > LARGEST
    if huge.any():
        row = int(huge.argmax())
        raise cells.error(
            f"{cells.frame[name][row]!r} is infinite or beyond the range of float32 (3.4e38); of "
            f"the {numbers.filled:,} filled cells of this column {np.count_nonzero(huge):,} are.",
            row=row,
            column=name,
            hint="Mend the cell, or leave it empty if the value is missing.",
        )
