"""Steps between rows: pandas' offset aliases as integer arithmetic on microseconds.

A frequency splits every instant into an ordinal, which counts steps, and a phase, which is what is
left. The rows of a regular series share one phase and have consecutive ordinals, so gaps, irregular
steps and future times are differences and sums, for calendar steps as for fixed ones. Instants are
`datetime64[us]`: UTC for steps below a day, the local clock for all others, so that a day stays a
day when the clocks change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forecast.errors import UsageError
from forecast.tables.zones import to_local, to_utc

DAY = 86_400_000_000
FIXED = {
    "W": 7 * DAY,
    "D": DAY,
    "h": 3_600_000_000,
    "min": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
Unit = Literal["fixed", "MS", "ME", "BMS", "BME", "B"]
# Each calendar alias: its unit, and how many of it make one step.
CALENDAR: dict[str, tuple[Unit, int]] = {
    "MS": ("MS", 1),
    "QS": ("MS", 3),
    "YS": ("MS", 12),
    "ME": ("ME", 1),
    "QE": ("ME", 3),
    "YE": ("ME", 12),
    "BMS": ("BMS", 1),
    "BME": ("BME", 1),
    "B": ("B", 1),
}
# What pandas called them before version 2.2.
FORMER = {
    "H": "h",
    "T": "min",
    "S": "s",
    "L": "ms",
    "U": "us",
    "M": "ME",
    "Q": "QE",
    "A": "YE",
    "Y": "YE",
    "BM": "BME",
    "d": "D",
}
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
EPOCH = np.datetime64("1970-01-01", "D")
ONE_DAY = np.timedelta64(1, "D")
# Longer than any month: the unit in which a phase counts whole months of a longer step.
SPAN = 32 * DAY
# No step is longer than this many days, or units of the calendar.
LONGEST = 100_000
# So few steps that the most common of them may be so by chance.
FEW = 20
# The phase of an instant on which a calendar step never falls.
NEVER = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Frequency:
    """How far one row is from the next.

    Attributes:
        unit: `fixed`, or what a calendar step is counted in: starts (MS) or ends (ME) of months, of
            months in business days (BMS, BME), or business days (B), Monday to Friday.
        count: how many of the unit; microseconds where it is fixed.
    """

    unit: Unit
    count: int

    @staticmethod
    def parse(alias: str) -> Frequency:
        """Read a pandas offset alias such as `h`, `15min`, `D`, `W-SUN`, `MS` or `2QS-JAN`.

        The anchor behind the hyphen says where in the week or year a series stands, which each
        series shows itself; it is checked and otherwise has no effect.

        Raises:
            UsageError: if the alias is unknown.
        """
        match = re.fullmatch(r"(\d{0,9})([A-Za-z]+)(?:-([A-Z]{3}))?", alias.strip())
        count, name, anchor = match.groups() if match else ("", "", None)
        name = FORMER.get(name, name)
        anchors = WEEKDAYS if name == "W" else MONTHS if name in {"QS", "YS", "QE", "YE"} else ()
        many = int(count or 1)
        unit, size = ("fixed", FIXED[name]) if name in FIXED else CALENDAR.get(name, ("fixed", 0))
        longest = LONGEST * DAY if unit == "fixed" else LONGEST
        if not 0 < many * size <= longest or (anchor is not None and anchor not in anchors):
            raise UsageError(
                f"The frequency {alias!r} is unknown; it is a pandas offset alias out of "
                f"{', '.join([*FIXED, *CALENDAR])}, with a number before it where it is several.",
                hint="Write h, 15min, D, W, MS or ME, for example.",
            )
        return Frequency(unit=unit, count=many * size)

    @property
    def on_local_clock(self) -> bool:
        """Return whether steps are counted on the local clock, which all from a day on are."""
        return self.unit != "fixed" or self.count % DAY == 0

    def alias(self, example: np.datetime64) -> str:
        """Name the frequency as pandas does, anchored on an instant of its own clock."""
        if self.unit == "fixed":
            name = next(name for name, size in FIXED.items() if self.count % size == 0)
            many, anchor = self.count // FIXED[name], ""
            if name == "W":
                # 1970-01-01 was a Thursday.
                anchor = WEEKDAYS[(int(example.astype("datetime64[D]").astype(np.int64)) + 3) % 7]
        else:
            month = int(example.astype("datetime64[M]").astype(np.int64)) % 12
            name, many, anchor = self._calendar_alias(month)
        return f"{many if many > 1 else ''}{name}{'-' * bool(anchor)}{anchor}"

    def _calendar_alias(self, month: int) -> tuple[str, int, str]:
        if self.unit not in {"MS", "ME"} or self.count % 3:
            return self.unit, self.count, ""
        end = self.unit == "ME"
        if self.count % 12 == 0:
            return ("YE" if end else "YS"), self.count // 12, MONTHS[month]
        # pandas names a quarter's start by January to March and its end by December to February.
        anchor = MONTHS[(month % 3 + 9 * (month % 3 == 2)) if end else month % 3]
        return ("QE" if end else "QS"), self.count // 3, anchor

    def split(self, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ordinal and phase of each instant, both int64; NEVER is no phase of the step."""
        if self.unit == "fixed":
            ordinals, phases = np.divmod(clock.astype(np.int64), self.count)
            return ordinals, phases
        days = clock.astype("datetime64[D]")
        if self.unit == "B":
            never = ~np.is_busday(days)
            units = np.busday_count(EPOCH, days)
            rest = (clock - days).astype(np.int64)
        else:
            months = clock.astype("datetime64[M]")
            units = months.astype(np.int64)
            rest = (clock - _anchor(months, self.unit)).astype(np.int64)
            # A month may be stamped on any day up to its 28th, which every month has.
            never = (rest < 0) | (rest >= (28 * DAY if self.unit == "MS" else DAY))
        ordinals, left = np.divmod(units, self.count)
        return ordinals, np.where(never, NEVER, left * SPAN + rest)

    def join(self, ordinals: np.ndarray, phases: np.ndarray | np.int64) -> np.ndarray:
        """Return the instants with these ordinals and phases."""
        if self.unit == "fixed":
            return (ordinals * self.count + phases).astype("datetime64[us]")
        left, rest = np.divmod(phases, SPAN)
        units = ordinals * self.count + left
        if self.unit == "B":
            days = np.busday_offset(EPOCH, units)
        else:
            days = _anchor(units.astype("datetime64[M]"), self.unit)
        return days.astype("datetime64[us]") + rest.astype("timedelta64[us]")


MONTHLY = tuple(Frequency(unit=unit, count=1) for unit in ("MS", "ME", "BMS", "BME"))


def infer(clock: np.ndarray, steps: np.ndarray) -> Frequency:
    """Take the most common step for the frequency, and a calendar step for what it is.

    Args:
        clock: `(N,)` distinct instants in order, series after series.
        steps: positive distances within the series [us], at least one.
    """
    step = _typical(clock, steps)
    if step >= 28 * DAY:
        fits = [(_share(clock, step), step) for step in MONTHLY]
        share, monthly = max(fits, key=lambda fit: fit[0])
        if share > 0.5:
            months = np.diff(monthly.split(clock)[0])
            return Frequency(unit=monthly.unit, count=most_common(months[months > 0]))
    if step == DAY and _skips_weekends(clock, steps):
        return Frequency(unit="B", count=1)
    return Frequency(unit="fixed", count=step)


def most_common(values: np.ndarray) -> int:
    """Return the most frequent integer, the smallest of several."""
    if np.count_nonzero(values == values[0]) * 2 > len(values):
        return int(values[0])
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _typical(clock: np.ndarray, steps: np.ndarray) -> int:
    """Return the most common step; of several, as among a few rows, the one most rows keep."""
    if len(steps) > FEW:
        return most_common(steps)
    sizes, counts = np.unique(steps, return_counts=True)
    tied = [int(size) for size in sizes[counts == counts.max()]]
    return max(tied, key=lambda size: _share(clock, Frequency(unit="fixed", count=size)))


def future_times(
    last: np.datetime64, frequency: str, horizon: int, timezone: str | None = None
) -> np.ndarray:
    """Return the `horizon` times that follow `last`.

    Args:
        last: the last time of a series, as `Table.times` holds it.
        frequency: a pandas offset alias.
        horizon: how many.
        timezone: the zone by whose clock days and longer steps are counted.

    Returns:
        `(horizon,)` datetime64[us]; UTC where the zone is known.

    Raises:
        UsageError: if the frequency is unknown.
    """
    return _steps(last, frequency, np.arange(1, horizon + 1), timezone)


def past_times(
    first: np.datetime64, frequency: str, count: int, timezone: str | None = None
) -> np.ndarray:
    """Return the `count` times that come before `first`, the counterpart of `future_times`."""
    return _steps(first, frequency, np.arange(-count, 0), timezone)


def _steps(
    origin: np.datetime64, frequency: str, counts: np.ndarray, timezone: str | None
) -> np.ndarray:
    step = Frequency.parse(frequency)
    zone = timezone if step.on_local_clock else None
    clock = to_local(np.array([origin], "datetime64[us]"), zone)
    ordinals, phases = step.split(clock)
    if phases[0] == NEVER:
        raise UsageError(
            f"The time {clock[0]} is not one of the frequency {frequency}.",
            hint="Give a time of a series with this frequency.",
        )
    return to_utc(step.join(ordinals + counts, phases[0]), zone)


def _anchor(months: np.ndarray, unit: Unit) -> np.ndarray:
    """Return the day on which a calendar step falls in each month."""
    if unit == "MS":
        return months.astype("datetime64[D]")
    if unit == "BMS":
        return np.busday_offset(months.astype("datetime64[D]"), 0, roll="forward")
    last = (months + 1).astype("datetime64[D]") - ONE_DAY
    return last if unit == "ME" else np.busday_offset(last, 0, roll="backward")


def _share(clock: np.ndarray, step: Frequency) -> float:
    """Return how much of the series stands on one phase of the step."""
    phases = step.split(clock)[1]
    phases = phases[phases != NEVER]
    if not len(phases):
        return 0.0
    return float(np.count_nonzero(phases == most_common(phases)) / len(clock))


def _skips_weekends(clock: np.ndarray, steps: np.ndarray) -> bool:
    days = clock.astype("datetime64[D]")
    return bool(np.all(np.is_busday(days)) and np.any(steps == 3 * DAY))
