"""Calendars of climate models: years of 365, 366 or 360 days, and the standard one.

Instants of any calendar are counted in microseconds since its own 1970-01-01 and held as
`datetime64`, so that steps and gaps are differences whatever the calendar. Of all but the standard
one such a number is no date by itself: dates are read, written and taken apart here alone.

Letters: N instants.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from jaxtyping import Int

from forecast.errors import UsageError

STANDARD = "standard"
_SAME = {"standard", "gregorian", "proleptic_gregorian"}
_UNIT = "microseconds since 1970-01-01"
_TIME = r"(\d{1,2})(?::(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?)?"
_DATE = re.compile(rf"(\d{{1,4}})(?:-(\d{{1,2}})(?:-(\d{{1,2}})(?:[T ]{_TIME})?)?)?")


def from_cftime(dates: np.ndarray) -> tuple[np.ndarray, str]:
    """Take instants from objects of cftime; return them with the name of their calendar."""
    import cftime  # noqa: PLC0415

    calendar = str(dates[0].calendar)
    if calendar in _SAME:
        return np.array([date.isoformat() for date in dates], dtype="datetime64[us]"), STANDARD
    counts = cftime.date2num(dates, _UNIT, calendar=calendar)
    return np.asarray(counts, dtype=np.int64).astype("datetime64[us]"), calendar


def dates_of(times: np.ndarray, calendar: str) -> Any:
    """Return instants as a file has them: `datetime64[ns]`, or objects of cftime."""
    if calendar == STANDARD:
        return times.astype("datetime64[ns]")
    import cftime  # noqa: PLC0415

    return cftime.num2date(times.astype("datetime64[us]").astype(np.int64), _UNIT, calendar)


def years_and_days(times: np.ndarray, calendar: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take instants apart.

    Returns:
        (N,) years; (N,) months since year 0; (N,) microseconds since the year began.
    """
    if calendar == STANDARD:
        years = times.astype("datetime64[Y]")
        months = times.astype("datetime64[M]").astype(np.int64)
        return years.astype(np.int64) + 1970, months + 1970 * 12, (times - years).astype(np.int64)
    dates = np.atleast_1d(dates_of(times, calendar))
    years = np.array([date.year for date in dates])
    months = years * 12 + np.array([date.month for date in dates]) - 1
    day = np.array([date.dayofyr for date in dates]) - 1
    micros = times.astype(np.int64) % 86_400_000_000
    return years, months, day * 86_400_000_000 + micros


def month_starts(months: Int[np.ndarray, " N"], calendar: str) -> np.ndarray:
    """Return the first instant of months since year 0."""
    if calendar == STANDARD:
        return (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[us]")
    import cftime  # noqa: PLC0415

    dates = [cftime.datetime(m // 12, m % 12 + 1, 1, calendar=calendar) for m in months.tolist()]
    return from_cftime(np.array(dates))[0]


def text_of(time: np.datetime64, calendar: str) -> str:
    """Write an instant as an ISO date with its time, down to what it needs."""
    if calendar == STANDARD:
        return str(time)
    return str(dates_of(np.array(time), calendar).isoformat())


def instant_of(text: str, calendar: str, *, end: bool = False) -> np.datetime64:
    """Read an ISO date; with `end`, the first instant after the year, month, day or hour it names.

    Raises:
        UsageError: it is no date of the calendar.
    """
    hint = "Write it as 2015, 2015-07, 2015-07-31 or 2015-07-31T06."
    if calendar == STANDARD:
        try:
            coarse = np.datetime64(text)
        except ValueError as error:
            raise UsageError(f"{text!r} is no time.", hint=hint) from error
        return (coarse + 1 if end else coarse).astype("datetime64[us]")
    import cftime  # noqa: PLC0415

    found = _DATE.fullmatch(text)
    parts = [int(part) for part in found.groups()[:6] if part] if found else []
    rest = int((found.group(7) or "").ljust(6, "0")) if found else 0
    try:
        year, month, day, *clock = [*parts, *(1, 1)[len(parts) - 1 :]] if parts else [0, 0, 0]
        date = cftime.datetime(year, month, day, *clock, microsecond=rest, calendar=calendar)
    except (ValueError, IndexError) as error:
        raise UsageError(f"{text!r} is no time of the calendar {calendar}.", hint=hint) from error
    time = from_cftime(np.array([date]))[0][0]
    if not end:
        return time
    if len(parts) <= 2:
        step = 12 if len(parts) == 1 else 1
        return month_starts(np.array([year * 12 + month - 1 + step]), calendar)[0]
    unit = {3: "D", 4: "h", 5: "m", 6: "s"}[len(parts)]
    return time + np.timedelta64(1, "us" if rest else unit)
