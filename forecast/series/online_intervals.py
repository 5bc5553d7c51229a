"""How far intervals open: as calibrated, or brought up to date on each series' own recent misses.

Letters: S series, H horizon, C variates, K covariates known in advance, N levels, M origins of the
recent past.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forecast.batch.windows import Windows
from forecast.device import memory_errors
from forecast.errors import UsageError
from forecast.series import data, rolling_origin
from forecast.series.covariates import Covariates
from forecast.series.forecaster import Forecaster
from forecast.series.intervals import MEMORY, Band, Method, Tracker
from forecast.series.scaling import Scaler
from forecast.tables.reading import Table

# Windows of the recent past that adaptive intervals are brought up to date on, of all series.
_MOST_WINDOWS = 100_000


def levels(forecaster: Forecaster, wanted: Sequence[float] | None) -> tuple[float, ...]:
    """Return which levels the intervals have, in rising order."""
    if wanted is None:
        quantiles = getattr(forecaster.recipe.model_config, "quantiles", ())
        # Rounded, lest 1 - 2 * 0.05 be 90.00000000000001 %.
        own = {round(abs(100 - 200 * quantile), 9) for quantile in quantiles if quantile != 0.5}
        return tuple(sorted(own)) if forecaster.calibration is not None else ()
    for level in wanted:
        if 0 < level < 1:
            raise UsageError(
                f"A level of {level:g} would be {level:g} %: levels are in percent, from 1 on.",
                hint=f"For an interval of {100 * level:g} %: --level {100 * level:g}",
            )
    if wanted and forecaster.calibration is None:
        raise UsageError(
            "This forecaster has no intervals: it was trained without a validation part to measure "
            "them on, or by a version of forecast that did not.",
            hint="Train again with a validation part (data.split), or leave the levels out.",
        )
    return tuple(sorted(set(map(float, wanted))))


def openings(
    forecaster: Forecaster,
    table: Table,
    levels: Sequence[float],
    method: Method,
    recently_needed: Callable[[int], Float[Tensor, "M S H C"]],
) -> tuple[Float[Tensor, "N S H C"], Method]:
    """Return how far the intervals of each series open, and by which method that was found."""
    calibration = forecaster.calibration
    assert calibration is not None
    longest = int(np.diff(table.offsets).max()) - forecaster.spec.lookback
    if method == "split" or longest <= 0:
        return calibration.thresholds(levels)[:, None], "split"
    tracker = Tracker(calibration, levels, len(table.ids))
    count = min(longest, MEMORY, max(1, _MOST_WINDOWS // len(table.ids)))
    for needed in recently_needed(count):
        tracker.issue(needed)
    last = torch.full_like(calibration.reaches[:1], torch.nan).expand(len(table.ids), -1, -1)
    return tracker.issue(last), "adaptive"


def recently_needed(
    forecaster: Forecaster,
    table: Table,
    scaler: Scaler,
    covariates: Covariates,
    known: Float[np.ndarray, "S H K"],
    count: int,
    device: torch.device,
) -> Float[Tensor, "M S H C"]:
    """Forecast from each of the last origins of each series: how far did intervals have to open.

    Returns:
        The last `count` origins before the end of the series, in order; NaN where a series has no
        such origin, or no row yet to compare with.
    """
    spec = forecaster.spec
    back = spec.context or max(spec.lookback, int(np.diff(table.offsets).max()))
    recent = data.continued(table, back + count, known)
    marks, carried = forecaster.recipe.table.marks, spec.context is None
    rows = data.resident(recent, scaler, covariates, marks, carried=carried).to(device)
    ends = recent.offsets[1:] - spec.horizon
    origins = [
        np.arange(max(end - count, start + spec.lookback), end)
        for start, end in zip(recent.offsets, ends, strict=False)
    ]
    windows = Windows(
        series=rows,
        origins=torch.from_numpy(np.concatenate(origins)).to(device),
        lookback=spec.lookback,
        horizon=spec.horizon,
    )
    owners = np.repeat(np.arange(len(ends)), [len(some) for some in origins])
    places = np.concatenate([some - end + count for some, end in zip(origins, ends, strict=True)])
    found = torch.full((count, len(ends), spec.horizon, spec.variates), torch.nan)
    size = forecaster.batch_size
    model, done = forecaster.model.to(device), 0
    with memory_errors("predicting", size):
        for forecast, batch, _ in rolling_origin.answers(model, windows, size):
            here = slice(done, done + len(batch))
            found[places[here], owners[here]] = Band.of(forecast).needed(batch).cpu()
            done += len(batch)
    return found
