"""The simple forecasts that stand beside the frames of a grid, laid out over its times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from forecast.errors import UsageError
from forecast.grids.climatology import (
    LAGS,
    Lag,
    Table,
    check_reference,
    fit_table,
    lag_steps,
    slots_of,
)
from forecast.grids.reading import Grid
from forecast.grids.section import GridSection
from forecast.grids.times import Clock, lag_rows
from forecast.grids.windows import Frames

# A day-of-year mean needs several years, a week's mean several weeks of training frames.
_YEARS, _WEEKS = 3, 3
# So many days of training frames the recent means of the weather are worth.
_DAYS = {"day": 2, "3-day-mean": 7, "7-day-mean": 14}


def reference_names(section: GridSection, grid: Grid, fitted: int) -> tuple[str, ...]:
    """Return the references asked for, or those that the training frames are many enough for."""
    clock = grid.clock
    if section.references is not None:
        for name in section.references:
            check_reference(name)
            if not clock.dated or (name in LAGS and not lag_steps(name, clock.step, clock.months)):
                step = f"steps of {clock.frequency}" if clock.dated else "frames without dates"
                raise UsageError(
                    f"The reference {name!r} is no whole number of {step}.",
                    hint="Leave it out of data.references.",
                )
        return section.references
    if not clock.dated:
        return ()
    if clock.months:
        return tuple(
            name for name in ("year", "month-of-year")
            if name == "month-of-year" or lag_steps(name, 0, clock.months)
        )  # fmt: skip
    days = fitted * clock.step / 86_400e6
    # Crowds follow weeks; the weather does not, but goes on from its last days.
    wanted = {"day": 2, "week": 7 * _WEEKS} if section.counts else _DAYS
    lags = [
        name for name, least in wanted.items() if lag_steps(name, clock.step, 0) and days >= least
    ]
    if days >= 365 * _YEARS and not section.counts:
        return (*lags, "day-of-year")
    tables = ["time-of-day"] if clock.per_day > 1 and days >= 2 else []
    if section.counts and days >= 7 * _WEEKS:
        tables.append("time-of-week")
    return (*lags, *tables)


def far_lags(names: tuple[str, ...], clock: Clock, horizon: int) -> tuple[str, ...]:
    """Describe which lags lie further back than their names tell: behind all that is forecast."""
    far = {
        name: steps * -(-horizon // steps)
        for name in names
        if name in LAGS and 0 < (steps := lag_steps(name, clock.step, clock.months)) < horizon
    }
    if not far:
        return ()
    listed = ", ".join(f"{name} {back}" for name, back in far.items())
    return (
        f"References may not lie among the {horizon} frames that are forecast, so that these are "
        f"the frames so many before each and not those of the {LAGS[next(iter(far))][0]} before: "
        f"{listed}.",
    )


def reference(
    name: str,
    frames: Frames,
    times: np.ndarray,
    clock: Clock,
    fitted: int,
    arrays: Mapping[str, Tensor] | None,
    horizon: int,
) -> Lag | Table:
    """Lay one reference out over the times of all frames and of the horizon behind them.

    Args:
        name: which.
        frames: the frames, scaled.
        times: theirs, and those of the horizon behind the last.
        clock: their step.
        fitted: the number of training frames, of which means are taken.
        arrays: means of a model already trained; None takes those of the training frames.
        horizon: H.
    """
    if name in LAGS:
        rows = lag_rows(
            times,
            len(frames.values),
            clock,
            lag_steps(name, clock.step, clock.months),
            count=LAGS[name][1],
            horizon=horizon,
        )
        return Lag(name=name, rows=torch.from_numpy(rows))
    if arrays is None:
        return fit_table(
            name, times, clock.per_day, frames.blocks(fitted), frames.device, clock.calendar
        )
    return Table(
        name=name,
        slots=torch.from_numpy(slots_of(name, times, clock.per_day, clock.calendar)).to(
            frames.device
        ),
        means=arrays[f"{name}.means"].to(frames.device),
        counts=arrays[f"{name}.counts"].to(frames.device),
    )
