"""The time axis of a grid: its step, its gaps, its calendar, and the instants that follow it.

Letters: N frames, F calendar features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from forecast.errors import DataError
from forecast.grids.calendars import STANDARD, month_starts, text_of, years_and_days
from forecast.grids.climatology import DAY
from forecast.tables.frequency import Frequency, most_common

_SHORTEST_MONTH = 28 * DAY


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Where frames stand in time.

    Attributes:
        step: distance of neighbouring frames [us]; 0 for calendar months.
        months: calendar months in a step; 0 for a fixed one.
        dated: the frames have dates; without them the step is nominal and nothing follows a
            calendar.
        calendar: that of the dates, as CF names it.
    """

    step: int = 0
    months: int = 0
    dated: bool = True
    calendar: str = STANDARD

    @property
    def frequency(self) -> str:
        """Name the step as a pandas offset alias; empty without dates."""
        if not self.dated:
            return ""
        if self.months:
            return f"{self.months if self.months > 1 else ''}MS"
        return Frequency(unit="fixed", count=self.step).alias(np.datetime64(0, "us"))

    @property
    def per_day(self) -> int:
        """Return the frames in a day, at least 1."""
        return max(1, DAY // self.step) if self.step else 1

    @property
    def season(self) -> int:
        """Return the frames in a day, or in a year of months."""
        return max(1, 12 // self.months) if self.months else self.per_day

    def ordinals(self, times: np.ndarray) -> Int[np.ndarray, " N"]:
        """Count months, or microseconds: the unit in which `unit` is one step."""
        if self.months:
            return years_and_days(times, self.calendar)[1]
        return times.astype(np.int64)

    @property
    def unit(self) -> int:
        """Return a step in ordinals."""
        return self.months or self.step

    def after(self, last: np.datetime64, count: int) -> np.ndarray:
        """Return the `count` instants that follow `last`."""
        steps = np.arange(1, count + 1)
        if not self.months:
            return last + (steps * self.step).astype("timedelta64[us]")
        _, (month,), _ = years_and_days(np.array([last]), self.calendar)
        first = month_starts(np.array([month]), self.calendar)[0]
        # A stamp late in a long month must not run over into the one after a short month.
        within = min(
            (last - first).astype("timedelta64[us]"), np.timedelta64(_SHORTEST_MONTH - 1, "us")
        )
        return month_starts(month + steps * self.months, self.calendar) + within

    def text(self, time: np.datetime64) -> str:
        """Write an instant as an ISO date and time."""
        return text_of(time, self.calendar)

    def short(self, time: Any) -> str:
        """Write an instant without the fractions of its second."""
        return text_of(time.astype("datetime64[s]"), self.calendar)


def clock_of(times: np.ndarray, calendar: str = STANDARD) -> Clock:
    """Take the most common step, or calendar months where each frame is in a month of its own.

    Raises:
        DataError: a single frame has no step.
    """
    if len(times) < 2:
        raise DataError(
            "A single frame has no step in time.", hint="Give at least two frames, or more files."
        )
    steps = np.diff(times.astype(np.int64))
    months = np.diff(years_and_days(times, calendar)[1])
    if most_common(steps) >= _SHORTEST_MONTH and months.min() >= 1:
        return Clock(months=most_common(months), calendar=calendar)
    return Clock(step=most_common(steps), calendar=calendar)


def gaps(times: np.ndarray, clock: Clock) -> Int[np.ndarray, " G"]:
    """Return the rows that do not follow the one before by one step."""
    return np.flatnonzero(np.diff(clock.ordinals(times)) != clock.unit) + 1


def run_starts(count: int, breaks: np.ndarray) -> Int[np.ndarray, " N"]:
    """Return for each frame the first row of the run that it is in."""
    starts = np.zeros(count, dtype=np.int64)
    starts[breaks] = breaks
    return np.maximum.accumulate(starts)


def lag_rows(
    times: np.ndarray, known: int, clock: Clock, steps: int, *, count: int, horizon: int
) -> Int[np.ndarray, "N K"]:
    """Return for each instant the rows of the `count` frames `steps` apart before it, or -1.

    The first of them is at least `horizon` steps back, so that a forecast never refers to what it
    is of, and it is one of the `known` first frames or further back still.
    """
    ordinals = clock.ordinals(times)
    lag = steps * clock.unit
    wanted = ordinals - -(-horizon // steps) * lag
    late = np.maximum(0, wanted - ordinals[known - 1])
    wanted = (wanted - -(-late // lag) * lag)[:, None] - np.arange(count) * lag
    rows = np.searchsorted(ordinals[:known], wanted).clip(max=known - 1)
    return np.where(ordinals[rows] == wanted, rows, -1)


def calendar(times: np.ndarray, clock: Clock) -> Float[np.ndarray, "N F"]:
    """Return time of day (two harmonics), weekday, weekend and time of year, finest steps first.

    Each is a sine and a cosine but the weekend, which is 0 or 1. Steps of a day leave out the time
    of day, and longer ones the weekday too, which calendars of climate models have none of. Times
    are taken as they stand.
    """
    stamps = times.astype(np.int64)
    days = times.astype("datetime64[D]")
    weekday = (days.astype(np.int64) + 3) % 7
    phases: list[np.ndarray] = []
    features: list[np.ndarray] = []
    if clock.step and clock.step < DAY:
        phases += [stamps % DAY / DAY, stamps % DAY / DAY * 2]
    if clock.step and clock.step <= DAY and clock.calendar == STANDARD:
        phases.append(weekday / 7)
        features.append((weekday >= 5).astype(np.float64))
    phases.append(years_and_days(times, clock.calendar)[2] / (366 * DAY))
    for phase in phases:
        features += [np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)]
    return np.stack(features, axis=1).astype(np.float32)
