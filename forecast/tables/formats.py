"""Formats of times: which one a cell shows by itself, and how to parse and write by one.

The rule for what needs no asking: the year stands first (ISO 8601 in its usual forms, `2020/1/31
0:00`, `20200131`, quarters as `2020Q1`). Any other numeric date needs a proof: a cell with a number
above 12 says which is the day, and is remembered for later files. Without one the format must be
named. Numbers are times only by the formats `epoch`, `epoch_ms` and `steps`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from forecast.errors import UsageError
from forecast.tables.zones import aware, to_local

TimeKind = Literal["text", "date", "datetime", "zoned", "epoch", "epoch_ms", "steps"]
# A step has no length of its own, and is taken for a day.
EPOCHS: dict[str, int] = {"epoch": 1_000_000, "epoch_ms": 1_000, "steps": 86_400_000_000}
COUNTED = {
    "epoch": "seconds since 1970",
    "epoch_ms": "milliseconds since 1970",
    "steps": "steps, below 2.9 million",
}
# Outside of these years a time is a misread number.
EARLIEST, LATEST = np.datetime64("1000-01-01", "us"), np.datetime64("9999-12-31T23:59:59", "us")

_DATED = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})(?:\2(\d{1,2}))?)?")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2})(\.\d{1,9})?)?)?")
_QUARTER = re.compile(r"\d{4}([- ]?)[Qq]([1-4])")
_COMPACT = re.compile(r"\d{8}(?:([T ]?)\d{4}(\d{2})?)?")
SWAPPABLE = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4}|\d{2})(?:([T ])(\d.*))?")
_TWO_NUMBERS = r"^(\d{1,2})[-/. ](\d{1,2})[-/. ]\d"
OFFSET = r"\s*(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)$"
# An offset follows a time of day; without one, -01 would be a part of the date.
TIMED_OFFSET = r"[T ]\d[\d:.]*" + OFFSET


def is_time(text: str, date_format: str | None = None, *, certain: bool = True) -> bool:
    """Return whether a cell shows by itself, or by a format, that it is a time.

    Args:
        text: the cell.
        date_format: a strptime format that would do.
        certain: whether a date whose day and month could be swapped does not count.
    """
    text = text.strip()
    if date_format is not None and date_format not in EPOCHS:
        stem = re.sub(OFFSET, "", text) if date_format.endswith("%z") else text
        form = date_format.removesuffix("%z").rstrip()
        return not np.isnat(strptime(pl.Series([stem]), form)[0])
    if not certain and SWAPPABLE.fullmatch(text):
        return True
    return not text.isdigit() and format_of(text) is not None


def format_of(text: str) -> str | None:
    """Return the format of a time that begins with its year, its offset left out, or None."""
    if re.search(TIMED_OFFSET, text):
        text = re.sub(OFFSET, "", text)
    if compact := _COMPACT.fullmatch(text):
        return "%Y%m%d" + (
            "" if compact[1] is None else f"{compact[1]}%H%M{'%S' if compact[2] else ''}"
        )
    if quarter := _QUARTER.fullmatch(text):
        return f"%Y{quarter[1]}{text[-2]}%q"
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


def check_format(date_format: str) -> None:
    """Refuse a format that cannot tell one time from another.

    Raises:
        UsageError: if it has no year, or an offset that is not at its end.
    """
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


def strptime(texts: pl.Series, named: str) -> np.ndarray:
    """Parse texts by a format, which may end with the year, the month or the hour.

    Returns:
        `(N,)` datetime64[us], NaT where a text has another format.

    Raises:
        UsageError: if the format makes no sense.
    """
    form = named.replace(".%f", "%.f")
    if "%q" in form:
        # The first month stands for its quarter.
        months = {
            f"{letter}{quarter}": f"M{3 * quarter - 2:02}"
            for letter in "Qq"
            for quarter in range(1, 5)
        }
        texts = texts.str.replace_many(months)
        form = re.sub("[Qq]%q", "M%m", form)
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
            f"The date format {named!r} makes no sense.",
            hint="Write a strptime format such as %d/%m/%Y %H:%M, or epoch, or epoch_ms.",
        ) from error
    found[(found < EARLIEST) | (found > LATEST)] = np.datetime64("NaT")
    return found


def as_written(stem: pl.Series, clock: np.ndarray, form: str) -> str:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """A format of dates whose year stands last, and the row that proves it."""

    form: str
    row: int


def proof(column: pl.Series) -> Proof | None:
    """Find which of two numbers is the day, by cells in which only one of them can be.

    Returns:
        None where no cell proves it, or two of them prove the opposite.
    """
    if not SWAPPABLE.fullmatch(column[0]):
        return None
    first, second = (
        column.str.extract(_TWO_NUMBERS, group).cast(pl.Int64, strict=False) > 12
        for group in (1, 2)
    )
    day_first, month_first = bool(first.any()), bool(second.any())
    if day_first == month_first:
        return None
    row = (first if day_first else second).arg_max() or 0
    return Proof(form=_year_last(column[0], month_first=month_first), row=row)


def proposal(column: pl.Series) -> str:
    """Propose the format of dates whose year stands last, by the column's highest numbers."""
    matches = [match for text in column.head(100_000) if (match := SWAPPABLE.fullmatch(text))]
    month_first = (
        max(int(match[1]) for match in matches) <= 12 < max(int(match[3]) for match in matches)
    )
    return _year_last(matches[0][0], month_first=month_first)


def _year_last(text: str, *, month_first: bool) -> str:
    """Return the format of a date such as `31.1.2020 0:00`."""
    match = SWAPPABLE.fullmatch(text)
    assert match is not None
    mark, year, separator, clock = match.group(2, 4, 5, 6)
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


def write(times: np.ndarray, kind: TimeKind, form: str | None, zone: str | None) -> pl.Series:
    """Write times as a column like that of a file with this kind, format and zone.

    Args:
        times: `(N,)` datetime64[us], UTC where the zone is known.
        kind: how a time is written.
        form: the format of text.
        zone: the zone of the local clock.
    """
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
    if "%q" in form:
        before, after = (clock.dt.strftime(part) for part in form.split("%q"))
        return before + clock.dt.quarter().cast(pl.String) + after
    if "%z" not in form and "%:z" not in form:
        return clock.dt.strftime(form)
    if zone is not None and zone[0] in "+-":
        return clock.dt.strftime(form.replace("%:z", zone).replace("%z", zone.replace(":", "")))
    return aware(times, zone or "UTC").dt.strftime(form)


def shown(time: np.datetime64) -> str:
    """Write a time for people, as short as it is exact."""
    text = str(time.astype("datetime64[us]")).replace("T", " ")
    return text.removesuffix(".000000").removesuffix(" 00:00:00")
