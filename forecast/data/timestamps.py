"""Text to times: one explicit format, found from one cell and then held to every row.

The rule for what needs no asking: the year stands first (ISO 8601 in its usual forms, `2020/1/31
0:00`, `20200131`). Any other numeric date is refused until its format is named, even where one cell
has a day above 12: the next file may not. Numbers are times only by the formats `epoch` and
`epoch_ms`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from forecast.data.dialect import Cells
from forecast.data.zones import aware, check_zone, strict_utc, to_local, to_utc
from forecast.errors import UsageError

TimeKind = Literal["text", "date", "datetime", "zoned", "epoch", "epoch_ms"]
EPOCHS: dict[str, int] = {"epoch": 1_000_000, "epoch_ms": 1_000}
# Outside of these years a time is a misread number.
EARLIEST, LATEST = np.datetime64("1000-01-01", "us"), np.datetime64("9999-12-31T23:59:59", "us")

_DATED = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})(?:\2(\d{1,2}))?)?")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?")
_COMPACT = re.compile(r"\d{8}(?:([T ]?)\d{4}(\d{2})?)?")
_SWAPPABLE = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4}|\d{2})(?:([T ])(\d.*))?")
_OFFSET = r"\s*(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)$"
# An offset follows a time of day; without one, -01 would be a part of the date.
_TIMED_OFFSET = r"[T ]\d[\d:.]*" + _OFFSET
_SEVERAL_OFFSETS = (
    "The times carry several offsets from UTC, so the local clock is not known: calendar and "
    "output are in UTC. Name the zone with --timezone to have them local."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamps:
    """Hold the times of the rows, in the order of the file.

    Attributes:
        clock: `(N,)` datetime64[us], what the local clock shows; without a zone, what is written.
        times: `(N,)` datetime64[us], UTC where the zone is known, else the same as `clock`.
        zone: the zone of the local clock, if known.
        kind: how a time is written: as text, as a typed date, datetime or datetime with its zone,
            or as a number.
        form: the format of text.
        notices: sentences on what could not be known.
    """

    clock: np.ndarray
    times: np.ndarray
    zone: str | None
    kind: TimeKind
    form: str | None = None
    notices: tuple[str, ...] = ()


def parse(
    cells: Cells,
    name: str,
    *,
    date_format: str | None = None,
    timezone: str | None = None,
    series: np.ndarray | None = None,
) -> Stamps:
    """Read a column of times.

    Args:
        cells: the table.
        name: the column.
        date_format: a strptime format, `epoch` or `epoch_ms`.
        timezone: the zone of naive times, and of the local clock where the times carry offsets.
        series: `(N,)` the series of each row, for the hour that is on the clock twice.

    Raises:
        DataError: if a cell is not a time, or its meaning is not certain.
        UsageError: if the zone or the format makes no sense.
    """
    if timezone is not None:
        check_zone(timezone)
    column = cells.frame[name]
    if column.dtype.is_integer() and date_format not in EPOCHS:
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
        return _text(cells, column, date_format, timezone, series)
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return _typed(cells, column, timezone, series)
    raise cells.error(
        f"The column of times holds {column.dtype}, which are not times.",
        column=name,
        hint="Name the column that holds the times: --time.",
    )


def is_time(text: str, date_format: str | None = None, *, certain: bool = True) -> bool:
    """Say whether a cell shows by itself, or by a format, that it is a time.

    Args:
        text: the cell.
        date_format: a strptime format that would do.
        certain: whether a date whose day and month could be swapped does not count.
    """
    text = text.strip()
    if date_format is not None and date_format not in EPOCHS:
        stem = re.sub(_OFFSET, "", text) if date_format.endswith("%z") else text
        form = date_format.removesuffix("%z").rstrip()
        return not np.isnat(_strptime(pl.Series([stem]), form)[0])
    if not certain and _SWAPPABLE.fullmatch(text):
        return True
    return not text.isdigit() and format_of(text) is not None


def format_of(text: str) -> str | None:
    """Return the format of a time that begins with its year, its offset left out, or None."""
    if re.search(_TIMED_OFFSET, text):
        text = re.sub(_OFFSET, "", text)
    if compact := _COMPACT.fullmatch(text):
        return "%Y%m%d" + (
            "" if compact[1] is None else f"{compact[1]}%H%M{'%S' if compact[2] else ''}"
        )
    dated = _DATED.match(text)
    if dated is None:
        return None
    _, mark, month, day = dated.groups()
    date = "%Y" + "".join(
        f"{mark}{_padded(code, part)}" for code, part in (("m", month), ("d", day)) if part
    )
    rest = text[dated.end() :]
    if not rest:
        return date
    clock = _CLOCK.fullmatch(rest[1:].lstrip())
    if day is None or rest[0] not in "T " or clock is None:
        return None
    hour, minute, second, fraction = clock.groups()
    parts = ((minute, ":%M"), (second, ":%S"), (fraction, "%.f"))
    return f"{date}{rest[0]}{_padded('H', hour)}" + "".join(code for part, code in parts if part)


def _padded(code: str, digits: str) -> str:
    return f"%{code}" if len(digits) == 2 else f"%-{code}"


def write(times: np.ndarray, kind: TimeKind, form: str | None, zone: str | None) -> pl.Series:
    """Write times in the way of the file whose `Stamps` had this kind, format and zone."""
    if kind in EPOCHS:
        whole, part = np.divmod(times.astype(np.int64), EPOCHS[kind])
        return pl.Series(whole + part / EPOCHS[kind] if part.any() else whole)
    if kind == "zoned" and zone is not None:
        return aware(times, zone)
    clock = pl.Series(to_local(times, zone))
    if kind == "date":
        return clock.cast(pl.Date)
    if kind != "text" or form is None:
        return clock
    if "%z" not in form and "%:z" not in form:
        return clock.dt.strftime(form)
    if zone is not None and zone[0] in "+-":
        return clock.dt.strftime(form.replace("%:z", zone).replace("%z", zone.replace(":", "")))
    return aware(times, zone or "UTC").dt.strftime(form)


def shown(time: np.datetime64) -> str:
    """Write a time for people, as short as it is exact."""
    text = str(time.astype("datetime64[us]")).replace("T", " ")
    return text.removesuffix(".000000").removesuffix(" 00:00:00")


def _epoch(cells: Cells, column: pl.Series, unit: str, timezone: str | None) -> Stamps:
    exact = column.cast(pl.Int64, strict=False)
    numbers = column.cast(pl.Float64, strict=False).to_numpy() * EPOCHS[unit]
    low, high = (float(limit.astype(np.int64)) for limit in (EARLIEST, LATEST))
    # Written so that NaN, which is not a number, fails too.
    bad = ~((numbers >= low) & (numbers <= high))
    if bad.any():
        row = int(bad.argmax())
        raise cells.error(
            f"{column[row]!r} is no time as {unit}, a number of "
            f"{'seconds' if unit == 'epoch' else 'milliseconds'} since 1970.",
            row=row,
            column=column.name,
            hint="Mend the cell, or name the right format: --date-format.",
        )
    whole = exact.fill_null(0).to_numpy() * EPOCHS[unit]
    counted = np.where(exact.is_null().to_numpy(), np.round(numbers).astype(np.int64), whole)
    times, zone = counted.astype("datetime64[us]"), timezone or "UTC"
    kind: TimeKind = "epoch" if unit == "epoch" else "epoch_ms"
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
) -> Stamps:
    form = date_format
    if date_format is None:
        pattern = _TIMED_OFFSET if re.search(_TIMED_OFFSET, column[0]) else None
    else:
        _check_format(date_format)
        pattern = _OFFSET if date_format.endswith("%z") else None
        form = date_format.removesuffix("%z").rstrip()
    if pattern is None:
        clock, form = _clock(cells, column, column, form)
        days = not re.search(r"%-?[HIklTRrXcs]", form)
        times = _localised(cells, column.name, clock, timezone, series, whole_days=days)
        return Stamps(clock=clock, times=times, zone=timezone, kind="text", form=form)
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


def _check_format(date_format: str) -> None:
    if not re.search(r"%[-_0]?[YyGFDcsx+]", date_format):
        raise UsageError(
            f"The date format {date_format!r} has no year.",
            hint="Write a strptime format such as %d/%m/%Y %H:%M, or epoch, or epoch_ms.",
        )
    if "%z" in date_format[:-2] or "%Z" in date_format:
        raise UsageError(
            f"In the date format {date_format!r} the offset must be %z and stand at the end.",
            hint="Move the offset to the end, or convert the times to UTC.",
        )


def _offsets(
    cells: Cells, column: pl.Series, pattern: str
) -> tuple[pl.Series, np.ndarray, str | None]:
    """Part the offsets from the times; the last result is their text if all have the same."""
    suffix = re.search(_OFFSET, column[0])
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
    return column.str.replace(_OFFSET, ""), minutes.to_numpy().astype("timedelta64[m]"), None


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
        form = date_format or format_of(sample)
        if form is None or form in forms:
            row = _first_unknown(stem, left, date_format)
            raise _not_understood(cells, column, row, date_format)
        forms.append(form)
        found = _strptime(pending, form)
        if date_format is None and form.startswith("%Y%m"):
            # Without marks between them, only the full number of digits tells the parts apart.
            found[(pending.str.len_bytes() != len(sample)).to_numpy()] = np.datetime64("NaT")
        known = ~np.isnat(found)
        clock[left[known]] = found[known]
        left = left[~known]
        pending = stem.gather(left)
    return clock, _as_written(stem, clock, max(forms, key=lambda form: form.count("%")))


def _as_written(stem: pl.Series, clock: np.ndarray, form: str) -> str:
    """Refine a format so that it also writes the shortest and the longest cell as they are."""
    sizes = stem.str.len_bytes()
    rows = [sizes.arg_min() or 0, sizes.arg_max() or 0]
    form = form.replace(".%f", "%.f")
    for fraction in ("%.f", "%.3f", "%.6f", "%.9f"):
        padded = form.replace("%.f", fraction)
        for refined in (padded, re.sub(r"%(?=[mdHI])", "%-", padded)):
            if write(clock[rows], "text", refined, None).to_list() == stem.gather(rows).to_list():
                return refined
    return form


def _strptime(texts: pl.Series, form: str) -> np.ndarray:
    form = form.replace(".%f", "%.f")
    if not re.search(r"%[-_0]?[dejDFcxsvuaA+]", form):
        if not re.search(r"%[-_0]?[mbBh]", form):
            texts, form = texts + "-01", form + "-%m"
        texts, form = texts + "-01", form + "-%d"
    if re.search(r"%-?H$", form):
        texts, form = texts + ":00", form + ":%M"
    try:
        found = texts.str.to_datetime(form, strict=False, time_unit="us").to_numpy().copy()
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            f"The date format {form!r} makes no sense.",
            hint="Write a strptime format such as %d/%m/%Y %H:%M, or epoch, or epoch_ms.",
        ) from error
    found[(found < EARLIEST) | (found > LATEST)] = np.datetime64("NaT")
    return found


def _first_unknown(stem: pl.Series, left: np.ndarray, date_format: str | None) -> int:
    """Return the first row that is no time by itself; some rows left may be, by another format."""
    for row in left[:1000]:
        form = date_format or format_of(stem[int(row)])
        if form is None or np.isnat(_strptime(stem[int(row) : int(row) + 1], form))[0]:
            return int(row)
    return int(left[0])


def _not_understood(
    cells: Cells, column: pl.Series, row: int, date_format: str | None
) -> Exception:
    text = column[row]
    if date_format is not None:
        message = f"The time {text!r} does not have the format {date_format!r}."
        hint = "Mend the cell, or name the right format: --date-format."
    elif _SWAPPABLE.fullmatch(text):
        message = f"In {text!r} day and month could be swapped."
        hint = f"Name the format: --date-format '{_proposal(column)}'."
    elif re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        message = f"The number {text!r} is no time by itself."
        hint = (
            "If it counts from 1970, name the unit: --date-format epoch (seconds) or epoch_ms; "
            "if another column holds the times, name it: --time."
        )
    elif format_of(text) is not None and not re.search(_TIMED_OFFSET, text):
        message = f"There is no such time as {text!r}."
        hint = "Mend the cell, or take the row out."
    elif re.search(_TIMED_OFFSET, text):
        message = f"The time {text!r} has an offset from UTC, others have none."
        hint = "Write all times with their offset, or all without."
    else:
        message = f"{text!r} is not a time that begins with its year."
        hint = (
            "Mend the cell, name its format (--date-format '%d %b %Y', for example), or name the "
            "column that holds the times: --time."
        )
    return cells.error(message, row=row, column=column.name, hint=hint)


def _proposal(column: pl.Series) -> str:
    """Propose the format of dates whose year stands last, by the column's highest numbers."""
    matches = [match for text in column if (match := _SWAPPABLE.fullmatch(text))]
    mark, year, separator, clock = matches[0].group(2, 4, 5, 6)
    month_first = (
        max(int(match[1]) for match in matches) <= 12 < max(int(match[3]) for match in matches)
    )
    date = mark.join(["%m", "%d"] if month_first else ["%d", "%m"])
    form = f"{date}{mark}{'%Y' if len(year) == 4 else '%y'}"
    if clock is None:
        return form
    colons = clock.count(":")
    twelve = re.search(r"[AaPp][Mm]$", clock)
    hour = "%I" if twelve else "%H"
    return f"{form}{separator}{hour}{':%M' * (colons > 0)}{':%S' * (colons > 1)}" + (
        " %p" if twelve else ""
    )


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
            f"There was no {shown(clock[row])} in {zone}: the clocks were set forward over it.",
            row=row,
            column=name,
            hint="If the times are in another zone, such as UTC, name that one: --timezone.",
        )
    second = _second_passes(clock, unclear, series)
    first[second] = strict_utc(clock[unclear[second]], zone, "latest")
    times[unclear] = first
    return times


def _second_passes(
    clock: np.ndarray, rows: np.ndarray, series: np.ndarray | None
) -> np.ndarray:
    """Say which of the rows, whose times the clock shows twice, stand for the second.

    Of two rows of a series the later one does. A row alone stands for the first, unless its series
    begins in that hour and goes on behind it: then only the second leaves no gap.
    """
    distances = np.diff(clock).astype(np.int64)
    backwards = np.count_nonzero(distances < 0) > np.count_nonzero(distances > 0)
    order = slice(None, None, -1 if backwards else 1)
    owner = np.zeros(len(clock), np.int64) if series is None else series
    table = pl.DataFrame({"series": owner, "clock": clock})
    span = table.group_by("series").agg(begin=pl.col("clock").min(), end=pl.col("clock").max())
    shown = table[rows][order].join(span, "series", how="left", maintain_order="left")
    one = ["series", "clock"]
    hour = pl.col("clock") < pl.col("begin") + pl.duration(hours=12)
    begins = hour & (pl.col("clock").min().over("series") == pl.col("begin"))
    goes_on = pl.col("clock").filter(hour).max().over("series") < pl.col("end")
    second = shown.select(
        ~pl.struct(one).is_first_distinct() | (begins & goes_on & (pl.len().over(one) == 1))
    )
    return second.to_series().to_numpy()[order]
