"""What frames come before and on average: references that forecasts are compared and built with.

A reference gives one frame for every time, known before the forecast is made: the frame a day or a
week before, the mean of the same time on the last days, or the mean over the training part of the
same time of day, time of the week, month, or time and day of the year.

Letters: N frames, M >= N instants (frames to come included), S slots, C channels, Y X cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from forecast.errors import UsageError, nearest
from forecast.grids.calendars import STANDARD, years_and_days

DAY = 86_400_000_000
# The frame that long before, and how many of them at that distance are averaged.
LAGS = {"day": ("day", 1), "3-day-mean": ("day", 3), "7-day-mean": ("day", 7),
        "week": ("week", 1), "year": ("year", 1)}  # fmt: skip
# Day-of-year means are smoothed by a Gaussian of this deviation, cut off at this distance [days].
# Source: Rasp et al., "WeatherBench 2", 2024, section 2.3, where the window is 61 days too.
_DEVIATION, _REACH = 10.0, 30


def _time_of_day(times: np.ndarray, per_day: int, calendar: str = STANDARD) -> np.ndarray:
    return times.astype(np.int64) % DAY // (DAY // per_day)


def _time_of_week(times: np.ndarray, per_day: int, calendar: str = STANDARD) -> np.ndarray:
    # 1970-01-01 was a Thursday.
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7
    return weekday * per_day + _time_of_day(times, per_day)


def _month_of_year(times: np.ndarray, per_day: int, calendar: str = STANDARD) -> np.ndarray:
    return years_and_days(times, calendar)[1] % 12


def _day_of_year(times: np.ndarray, per_day: int, calendar: str = STANDARD) -> np.ndarray:
    day = years_and_days(times, calendar)[2] // DAY
    return day * per_day + _time_of_day(times, per_day)


# What frames are averaged over: the slot of each time, and how many slots a day's frames make.
TABLES: dict[str, tuple[Callable[[np.ndarray, int, str], np.ndarray], Callable[[int], int]]] = {
    "time-of-day": (_time_of_day, lambda per_day: per_day),
    "time-of-week": (_time_of_week, lambda per_day: 7 * per_day),
    "month-of-year": (_month_of_year, lambda per_day: 12),
    "day-of-year": (_day_of_year, lambda per_day: 366 * per_day),
}
_SMOOTHED = "day-of-year"


def check_reference(name: str) -> None:
    """Refuse a reference that does not exist.

    Raises:
        UsageError: the name is unknown.
    """
    if name not in TABLES and name not in LAGS:
        known = [*LAGS, *TABLES]
        raise UsageError(
            f"{name!r} is no reference; allowed are {', '.join(known)}.", hint=nearest(name, known)
        )


def slots_of(
    name: str, times: np.ndarray, per_day: int, calendar: str = STANDARD
) -> Int[np.ndarray, " M"]:
    """Return the slot of each time in a table."""
    return TABLES[name][0](times, per_day, calendar)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """Refer to an earlier frame, or to the mean of some.

    Attributes:
        rows: (M, K) the rows of them for each instant, -1 where there is none.
    """

    name: str
    rows: Int[Tensor, "M K"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Refer to the mean of a slot, in scaled space.

    A training frame has the mean that it went into itself: within a slot that is one and the same
    frame, and tells nothing of which one is to be forecast. With the frame taken out it would tell
    all: what is left of the mean is the lower, the higher the frame.

    Attributes:
        slots: (M,) the slot of each instant.
        means: (S, C, Y, X).
        counts: frames in each mean, (S, 1, 1, 1) or, with missing cells, (S, C, Y, X).
    """

    name: str
    slots: Int[Tensor, " M"]
    means: Float[Tensor, "S C Y X"]
    counts: Tensor

    def frames(self, rows: Int[Tensor, "*n"]) -> Float[Tensor, "*n C Y X"]:
        """Return the mean for each row, a number of an instant."""
        return self.means[self.slots[rows]]


def fit_table(
    name: str,
    times: np.ndarray,
    per_day: int,
    blocks: Iterator[Float[Tensor, "n C Y X"]],
    device: torch.device,
    calendar: str = STANDARD,
) -> Table:
    """Average the frames of each slot.

    Args:
        name: a key of `TABLES`.
        times: (M,) instants.
        per_day: frames in a day, at least 1.
        blocks: the training frames in order, scaled, missing cells NaN.
        device: where the table goes.
        calendar: that of the instants.
    """
    slots = torch.from_numpy(slots_of(name, times, per_day, calendar)).to(device)
    size = TABLES[name][1](per_day)
    sums = counts = None
    row = 0
    for block in blocks:
        own = slots[row : row + len(block)]
        seen = ~block.isnan()
        if sums is None or counts is None:
            sums = torch.zeros(size, *block.shape[1:], device=device)
            counts = torch.zeros(size, *block.shape[1:], device=device)
        sums.index_add_(0, own, block.nan_to_num())
        counts.index_add_(0, own, seen.to(sums.dtype))
        row += len(block)
    assert sums is not None
    assert counts is not None
    if name == _SMOOTHED:
        sums, counts = _smooth(sums), _smooth(counts)
    means = torch.where(counts > 0, sums / counts.clamp(min=1e-6), 0.0)
    if bool((counts == counts[:, :1, :1, :1]).all()):
        counts = counts[:, :1, :1, :1].clone()
    return Table(name=name, slots=slots, means=means, counts=counts)


def _smooth(rows: Tensor) -> Tensor:
    """Spread each day's sums over its neighbours round the year."""
    distance = torch.arange(366, device=rows.device)
    distance = (distance[:, None] - distance).abs()
    distance = torch.minimum(distance, 366 - distance).to(rows.dtype)
    weights = torch.exp(-0.5 * (distance / _DEVIATION).square()) * (distance <= _REACH)
    return (weights @ rows.reshape(366, -1)).view_as(rows)


def lag_reach(name: str, steps: int, horizon: int) -> int:
    """Return the frames back to the earliest one that a lag refers to."""
    return steps * (-(-horizon // steps) + LAGS[name][1] - 1)


def lag_steps(name: str, step: int, months: int) -> int:
    """Return the frames in the day, week or year of a lag; 0 where the step does not divide it.

    Args:
        name: a key of `LAGS`.
        step: distance of frames [us], 0 for calendar months.
        months: months in a step, 0 for a fixed one.
    """
    span_name, _ = LAGS[name]
    if months:
        return 12 // months if span_name == "year" and 12 % months == 0 else 0
    span = {"day": DAY, "week": 7 * DAY, "year": 0}[span_name]
    return span // step if step and span % step == 0 else 0
