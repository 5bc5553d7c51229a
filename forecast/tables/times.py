"""Columns of times: one explicit format, found from one cell and then held to every row.

Times become UTC where their zone is known, by an offset in the cells or by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from forecast.tables import formats
from forecast.tables.dialect import Cells
from forecast.tables.formats import EARLIEST, EPOCHS, LATEST, TimeKind
from forecast.tables.zones import check_zone, strict_utc, to_local, to_utc

_SEVERAL_OFFSETS = (
    "The times carry several offsets from UTC, so the local clock is not known: calendar and "
    "output are in UTC. Name the zone with --timezone to have them local."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamps:
    """The times of the rows, in the order of the file.

    Attributes:
        clock: `(N,)` datetime64[us], what the local clock shows; without a zone, what is written.
        times: `(N,)` datetime64[us], UTC where the zone is known, else the same as `clock`.
        zone: the zone of the local clock, if known.
        kind: how a time is written: as text, as a typed date, datetime or datetime with its zone,
            or as a number.
        form: the format of text.
        proven: the format to read later files by, where the cells together prove the order of day
            and month that none shows alone.
        notices: sentences on what could not be known.
    """

    clock: np.ndarray
    times: np.ndarray
    zone: str | None
    kind: TimeKind
    form: str | None = None
    proven: str | None = None
    notices: tuple[str, ...] = ()


def parse(
    cells: Cells,
    name: str,
    *,
    date_format: str | None = None,
    timezone: str | None = None,
    series: np.ndarray | None = None,
    prove: bool = True,
) -> Stamps:
    """Read a column of times.

    Args:
        cells: the table.
        name: the column.
        date_format: a strptime format, `epoch` or `epoch_ms`.
        timezone: the zone of naive times, and of the local clock where the times carry offsets.
        series: `(N,)` the series of each row, for the hour that is on the clock twice.
        prove: whether cells together may prove the order of day and month. Of pieces of a table
            each might prove another one.

    Raises:
        DataError: if a cell is not a time, or its meaning is not certain.
        UsageError: if the zone or the format makes no sense.
    """
    if timezone is not None:
        check_zone(timezone)
    column = cells.frame[name]
    worded = isinstance(column.dtype, pl.Categorical | pl.Enum)
    if worded or (column.dtype.is_integer() and date_format not in EPOCHS):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        missing = column.is_null() | (column == "")
    else:
        missing = column.is_null()
    if missing.any():
        raise cells.error(
            f"The time is missing; of {len(missing):,} rows {missing.sum():,} have none.",
            row=missing.arg_max(),
            column=name,
            hint="Fill the time in or take the rows out.",
        )
    if date_format in EPOCHS:
        return _epoch(cells, column, date_format, timezone)
    if column.dtype == pl.String:
        return _text(cells, column, date_format, timezone, series, prove=prove)
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return _typed(cells, column, timezone, series)
    raise cells.error(
        f"The column of times holds {column.dtype}, which are not times.",
        column=name,
        hint="Name the column that holds the times: --time.",
    )


def _epoch(cells: Cells, column: pl.Series, unit: str, timezone: str | None) -> Stamps:
    exact = column.cast(pl.Int64, strict=False)
    numbers = column.cast(pl.Float64, strict=False).to_numpy() * EPOCHS[unit]
    low, high = (float(limit.astype(np.int64)) for limit in (EARLIEST, LATEST))
    # Written so that NaN, which is not a number, fails too.
    bad = ~((numbers >= low) & (numbers <= high))
    if bad.any():
        row = int(bad.argmax())
        raise cells.error(
            f"{column[row]!r} is no time as {unit}, a number of {formats.COUNTED[unit]}.",
            row=row,
            column=column.name,
            hint="Mend the cell, or name the right format: --date-format.",
        )
    whole = exact.fill_null(0).to_numpy() * EPOCHS[unit]
    counted = np.where(exact.is_null().to_numpy(), np.round(numbers).astype(np.int64), whole)
    times, zone = counted.astype("datetime64[us]"), timezone or "UTC"
    kind = cast(TimeKind, unit)
    return Stamps(clock=to_local(times, zone), times=times, zone=zone, kind=kind)


def _typed(
    cells: Cells, column: pl.Series, timezone: str | None, series: np.ndarray | None
) -> Stamps:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        zone = timezone or dtype.time_zone
        instants = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        times = _within(cells, column, instants.cast(pl.Datetime("us")).to_numpy())
        return Stamps(clock=to_local(times, zone), times=times, zone=zone, kind="zoned")
    kind: TimeKind = "date" if dtype == pl.Date else "datetime"
    clock = _within(cells, column, column.cast(pl.Datetime("us")).to_numpy())
    times = _localised(cells, column.name, clock, timezone, series, whole_days=kind == "date")
    return Stamps(clock=clock, times=times, zone=timezone, kind=kind)


def _within(cells: Cells, column: pl.Series, times: np.ndarray) -> np.ndarray:
    bad = (times < EARLIEST) | (times > LATEST)
    if bad.any():
        raise cells.error(
            "The time lies outside of the years 1000 to 9999.",
            row=int(bad.argmax()),
            column=column.name,
            hint="Mend it, or take the row out.",
        )
    return times


def _text(
    cells: Cells,
    column: pl.Series,
    date_format: str | None,
    timezone: str | None,
    series: np.ndarray | None,
    *,
    prove: bool,
) -> Stamps:
    form = date_format
    if date_format is None:
        pattern = formats.TIMED_OFFSET if re.search(formats.TIMED_OFFSET, column[0]) else None
    else:
        formats.check_format(date_format)
        pattern = formats.OFFSET if date_format.endswith("%z") else None
        form = date_format.removesuffix("%z").rstrip()
    if pattern is None:
        proof = formats.proof(column) if form is None and prove else None
        if proof is not None:
            form = proof.form
        clock, form = _clock(cells, column, column, form)
        days = not re.search(r"%-?[HIklTRrXcs]", form)
        times = _localised(cells, column.name, clock, timezone, series, whole_days=days)
        if proof is None:
            return Stamps(clock=clock, times=times, zone=timezone, kind="text", form=form)
        told = (
            f"The dates are read as {proof.form}: {column[proof.row]!r} on row "
            f"{int(cells.lines[proof.row])} can be no other."
        )
        return Stamps(
            clock=clock,
            times=times,
            zone=timezone,
            kind="text",
            form=form,
            proven=proof.form,
            notices=(told,),
        )
    stem, offsets, suffix = _offsets(cells, column, pattern)
    clock, form = _clock(cells, column, stem, form)
    times, own = clock - offsets, _zone_of(offsets[0])
    # The one offset of all rows is their zone; a named zone may change it with the season.
    if suffix is not None and timezone in (None, own):
        return Stamps(clock=clock, times=times, zone=own, kind="text", form=form + suffix)
    zone = timezone or "UTC"
    style = "%z" if re.search(r"[+-]\d{4}$", column[0]) else "%:z"
    return Stamps(
        clock=to_local(times, zone),
        times=times,
        zone=zone,
        kind="text",
        form=form + style,
        notices=() if timezone else (_SEVERAL_OFFSETS,),
    )


def _offsets(
    cells: Cells, column: pl.Series, pattern: str
) -> tuple[pl.Series, np.ndarray, str | None]:
    """Part the offsets from the times; the last result is their text if all have the same."""
    suffix = re.search(formats.OFFSET, column[0])
    if suffix and column.str.ends_with(suffix[0]).all():
        distance = np.full(len(column), _distance(cells, column, suffix[1]))
        return column.str.strip_suffix(suffix[0]), distance, suffix[0]
    texts = column.str.extract(pattern, 1)
    without = texts.is_null()
    if without.any():
        row = without.arg_max() or 0
        raise cells.error(
            f"The time {column[row]!r} has no offset from UTC, others have one.",
            row=row,
            column=column.name,
            hint="Write all times with their offset, or all without.",
        )
    known = {text: _distance(cells, column, text) for text in texts.unique()}
    minutes = texts.replace_strict(
        {text: int(distance.astype(np.int64)) for text, distance in known.items()},
        return_dtype=pl.Int64,
    )
    return column.str.replace(formats.OFFSET, ""), minutes.to_numpy().astype("timedelta64[m]"), None


def _distance(cells: Cells, column: pl.Series, text: str) -> np.timedelta64:
    """Return how far from UTC an offset such as `+01`, `-0330` or `Z` is."""
    if text in {"Z", "z", "UTC"}:
        return np.timedelta64(0, "m")
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    if minutes > 18 * 60:
        raise cells.error(
            f"The offset {text!r} is more than any clock is from UTC.",
            row=column.str.ends_with(text).arg_max(),
            column=column.name,
            hint="Mend the time.",
        )
    return np.timedelta64(-minutes if text[0] == "-" else minutes, "m")


def _zone_of(offset: np.timedelta64) -> str:
    minutes = int(offset.astype("timedelta64[m]").astype(np.int64))
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}" if minutes else "UTC"


def _clock(
    cells: Cells, column: pl.Series, stem: pl.Series, date_format: str | None
) -> tuple[np.ndarray, str]:
    """Parse every row, by the named format or by those that the cells themselves show.

    A column of ISO times may leave out what is zero, seconds or the time of day, so that it takes
    more than one format; the most detailed one is returned.
    """
    clock = np.full(len(stem), np.datetime64("NaT"), "datetime64[us]")
    left, pending = np.arange(len(stem)), stem
    forms: list[str] = []
    while len(left):
        # The shortest cell is the one that shows numbers without a leading zero.
        sample = pending[pending.str.len_bytes().arg_min() or 0]
        form = date_format or formats.format_of(sample)
        if form is None or form in forms:
            row = _first_unknown(stem, left, date_format)
            raise _not_understood(cells, column, row, date_format)
        forms.append(form)
        found = formats.strptime(pending, form)
        if date_format is None and form.startswith("%Y%m"):
            # Without marks between them, only the full number of digits tells the parts apart.
            found[(pending.str.len_bytes() != len(sample)).to_numpy()] = np.datetime64("NaT")
        known = ~np.isnat(found)
        clock[left[known]] = found[known]
        left = left[~known]
        pending = stem.gather(left)
    return clock, formats.as_written(stem, clock, max(forms, key=lambda form: form.count("%")))


def _first_unknown(stem: pl.Series, left: np.ndarray, date_format: str | None) -> int:
    """Return the first row that is no time by itself; some rows left may be, by another format."""
    for row in left[:1000]:
        form = date_format or formats.format_of(stem[int(row)])
        if form is None or np.isnat(formats.strptime(stem[int(row) : int(row) + 1], form))[0]:
            return int(row)
    return int(left[0])


def _not_understood(
    cells: Cells, column: pl.Series, row: int, date_format: str | None
) -> Exception:
    text = column[row]
    if date_format is not None:
        message = f"The time {text!r} does not have the format {date_format!r}."
        hint = "Mend the cell, or name the right format: --date-format."
    elif formats.SWAPPABLE.fullmatch(text):
        message = f"In {text!r} day and month could be swapped."
        hint = f"Name the format: --date-format '{formats.proposal(column)}'."
    elif re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        message = f"The number {text!r} is no time by itself."
        hint = (
            "If it counts from 1970, name the unit: --date-format epoch (seconds) or epoch_ms; "
            "if it numbers the rows (1, 2, 3, ...): --date-format steps; if another column holds "
            "the times, name it: --time."
        )
    elif formats.format_of(text) is not None and not re.search(formats.TIMED_OFFSET, text):
        message = f"There is no such time as {text!r}."
        hint = "Mend the cell, or take the row out."
    elif re.search(formats.TIMED_OFFSET, text):
        message = f"The time {text!r} has an offset from UTC, others have none."
        hint = "Write all times with their offset, or all without."
    else:
        message = f"{text!r} is not a time that begins with its year."
        hint = (
            "Mend the cell, name its format (--date-format '%d %b %Y', for example), or name the "
            "column that holds the times: --time."
        )
    return cells.error(message, row=row, column=column.name, hint=hint)


def _localised(
    cells: Cells,
    name: str,
    clock: np.ndarray,
    zone: str | None,
    series: np.ndarray | None,
    *,
    whole_days: bool,
) -> np.ndarray:
    """Turn the local clock into UTC; the hour that comes twice is told by its order in the file."""
    if zone is None:
        return clock
    if whole_days:
        # A day exists although its midnight may not.
        return to_utc(clock, zone)
    times = strict_utc(clock, zone, "null")
    unclear = np.flatnonzero(np.isnat(times))
    if not len(unclear):
        return times
    first = strict_utc(clock[unclear], zone, "earliest")
    absent = np.isnat(first)
    if absent.any():
        row = int(unclear[absent.argmax()])
        raise cells.error(
            f"There was no {formats.shown(clock[row])} in {zone}: the clocks were set forward "
            "over it.",
            row=row,
            column=name,
            hint="If the times are in another zone, such as UTC, name that one: --timezone.",
        )
    second = _second_passes(clock, unclear, series)
    first[second] = strict_utc(clock[unclear[second]], zone, "latest")
    times[unclear] = first
    return times


def _second_passes(clock: np.ndarray, rows: np.ndarray, series: np.ndarray | None) -> np.ndarray:
    """Return which of the rows, whose times the clock shows twice, stand for the second.

    Of two rows of a series the later one does. A row alone stands for the first, unless its series
    begins in that hour and goes on behind it: then only the second leaves no gap.
    """
    distances = np.diff(clock).astype(np.int64)
    backwards = np.count_nonzero(distances < 0) > np.count_nonzero(distances > 0)
    order = slice(None, None, -1 if backwards else 1)
    owner = np.zeros(len(clock), np.int64) if series is None else series
    table = pl.DataFrame({"series": owner, "clock": clock}).with_columns(
        begin=pl.col("clock").min().over("series"), end=pl.col("clock").max().over("series")
    )
    shown = table[rows][order]
    one = ["series", "clock"]
    hour = pl.col("clock") < pl.col("begin") + pl.duration(hours=12)
    begins = hour & (pl.col("clock").min().over("series") == pl.col("begin"))
    goes_on = pl.col("clock").filter(hour).max().over("series") < pl.col("end")
    second = shown.select(
        ~pl.struct(one).is_first_distinct() | (begins & goes_on & (pl.len().over(one) == 1))
    )
    return second.to_series().to_numpy()[order]
