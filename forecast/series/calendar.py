"""Calendar features: where in the hour, day, week and year a row stands, each in [-0.5, 0.5].

Source: the time marks of Informer (Zhou et al. 2021); specs by frequency in `MARKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float

from forecast.tables.frequency import DAY, FIXED, Frequency
from forecast.tables.zones import to_local

Marks = Literal["auto", "hourly", "daily", "none"]
HOURLY = ("hour", "weekday", "day", "day_of_year")
DAILY = ("weekday", "day", "day_of_year")


def calendar_features(
    times: np.ndarray, frequency: str, timezone: str | None = None, marks: Marks = "auto"
) -> Float[np.ndarray, "N F"]:
    """Return the calendar features of each time, as the local clock shows it.

    Args:
        times: `(N,)` datetime64, UTC where the zone is known.
        frequency: the step between rows as a pandas offset alias; `auto` marks follow it.
        timezone: the zone of the local clock; None takes the times as they are.
        marks: `auto`, or the hourly or daily features whatever the step, or none.

    Returns:
        `(N, F)` float32, the finest feature first.
    """
    chosen = _features(frequency, marks)
    clock = to_local(times.astype("datetime64[us]"), timezone)
    marked = np.empty((len(clock), len(chosen)), np.float32)
    if not chosen:
        return marked
    days = clock.astype("datetime64[D]")
    within = (clock - days).astype(np.int64)
    for place, name in enumerate(chosen):
        value, highest = FEATURES[name]
        marked[:, place] = value(days, within) / highest - 0.5
    return marked


def calendar_width(frequency: str, marks: Marks = "auto") -> int:
    """Return F, how many features there are."""
    return len(_features(frequency, marks))


def season_length(frequency: str) -> int:
    """Return the rows in the season to expect: a day, and for daily rows a week, beyond a year.

    Steps below a minute have the hour for their season and steps below a second the minute.
    """
    step = Frequency.parse(frequency)
    if step.unit == "B":
        return max(1, round(5 / step.count))
    if step.unit != "fixed":
        return max(1, round(12 / step.count))
    if step.count >= 7 * DAY:
        return max(1, round(52 * 7 * DAY / step.count))
    period = next(
        season
        for shortest, season in (
            (DAY, 7 * DAY),
            (FIXED["min"], DAY),
            (FIXED["s"], FIXED["h"]),
            (0, FIXED["min"]),
        )
        if step.count >= shortest
    )
    return max(1, round(period / step.count))


def _features(frequency: str, marks: Marks) -> tuple[str, ...]:
    if marks != "auto":
        return {"hourly": HOURLY, "daily": DAILY, "none": ()}[marks]
    step = Frequency.parse(frequency)
    if step.unit == "B":
        return DAILY
    if step.unit != "fixed":
        return ("month",) if step.count % 12 else ()
    if step.count >= 7 * DAY:
        return ("day", "week")
    if step.count >= DAY:
        return DAILY
    if step.count >= FIXED["h"]:
        return HOURLY
    return ("minute", *HOURLY) if step.count >= FIXED["min"] else ("second", "minute", *HOURLY)


def _day_of_year(days: np.ndarray) -> np.ndarray:
    return (days - days.astype("datetime64[Y]")).astype(np.int64)


def _week(days: np.ndarray) -> np.ndarray:
    # An ISO week belongs to the year of its Thursday.
    thursdays = days - (days.astype(np.int64) + 3) % 7 + 3
    return _day_of_year(thursdays) // 7


# Each feature: its value counted from 0, of the day and of the microseconds within it, and the
# highest value it takes.
FEATURES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], int]] = {
    "second": (lambda _, within: within // FIXED["s"] % 60, 59),
    "minute": (lambda _, within: within // FIXED["min"] % 60, 59),
    "hour": (lambda _, within: within // FIXED["h"], 23),
    "weekday": (lambda days, _: (days.astype(np.int64) + 3) % 7, 6),
    "day": (lambda days, _: (days - days.astype("datetime64[M]")).astype(np.int64), 30),
    "day_of_year": (lambda days, _: _day_of_year(days), 365),
    "week": (lambda days, _: _week(days), 52),
    "month": (lambda days, _: days.astype("datetime64[M]").astype(np.int64) % 12, 11),
}
