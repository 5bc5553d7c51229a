"""Protocols: how a model is scored, and the baselines that every score stands beside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from forecast.batch import Forecast, SeriesBatch
from forecast.batch.windows import Windows
from forecast.contracts import refuse_changed
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError, UsageError
from forecast.models import BASELINES, MODELS, building
from forecast.models.protocols import ClosedForm
from forecast.recipe import DataSection
from forecast.scoring.sums import ErrorSums, IntervalSums, QuantileSums
from forecast.series import data as loading
from forecast.series import intervals, rolling_origin
from forecast.series.data import SeriesData
from forecast.series.forecaster import Forecaster
from forecast.series.intervals import Band, Calibration, Method, Tracker
from forecast.series.scaling import Scale
from forecast.training.loop import EVALUATION_BATCH

# Every window of the test part, none dropped, scaled by training rows.
PROTOCOL = "standard"
# Levels of the intervals that are scored [%]: their ten bounds are the quantiles of the CRPS.
LEVELS = (10.0, 30.0, 50.0, 70.0, 90.0)
SHOWN_LEVELS = (50.0, 90.0)
# Origins that adaptive intervals are followed over, one by one; a large panel has more.
_MOST_ORIGINS = 25_000


@torch.no_grad()
def score(
    model: nn.Module,
    data: SeriesData,
    windows: Windows,
    calibration: Calibration | None = None,
    methods: tuple[Method, ...] = ("split",),
) -> dict[str, Any]:
    """Score a model on all windows of a part, in fp32, none dropped.

    Args:
        model: the model.
        data: whose part it is.
        windows: the windows of the part, all origins of each series in order.
        calibration: the model's; without it there are no intervals to score.
        methods: by which intervals are made.

    Returns:
        The figures of `ErrorSums.result`; of a model with quantiles those of `QuantileSums.result`
        as `quantiles`; and those of `IntervalSums.result` for each method as `intervals`.
    """
    model.eval()
    device = windows.device
    deviation, mean = (
        torch.from_numpy(part).to(device) for part in (data.scaler.deviation, data.scaler.mean)
    )
    sums = ErrorSums(deviation, mean, naive_errors(data))
    quantiles: QuantileSums | None = None
    ranges: dict[Method, _Intervals] = {}
    if calibration is not None and calibration.highest >= LEVELS[-1]:
        adaptive = len(windows) <= _MOST_ORIGINS
        ranges = {
            method: _Intervals(calibration, method)
            for method in methods
            if adaptive or method != "adaptive"
        }
    with memory_errors("evaluating", EVALUATION_BATCH):
        for forecast, batch, scale in rolling_origin.answers(model, windows, EVALUATION_BATCH):
            assert batch.target is not None
            target = batch.target if scale is None else scale.undo(batch.target)
            found = forecast if scale is None else scale.undo_forecast(forecast)
            sums.add(found.point(), target, batch.target_mask, batch.series_id)
            if found.quantiles:
                quantiles = quantiles or QuantileSums(found.quantiles)
                quantiles.add(found.values, target, batch.target_mask)
            for some in ranges.values():
                some.add(forecast, batch, scale)
    figures = sums.result(data.table.columns)
    if quantiles:
        figures["quantiles"] = quantiles.result()
    if ranges:
        figures["intervals"] = {method: some.sums.result() for method, some in ranges.items()}
    return figures


class _Intervals:
    """Make intervals by one method for one batch after the other, and add up how they fare."""

    def __init__(self, calibration: Calibration, method: Method) -> None:
        self.sums = IntervalSums(LEVELS, SHOWN_LEVELS)
        self._calibration = calibration
        self._split = calibration.thresholds(LEVELS)[:, None]  # (N, 1, H, C)
        self._tracker = Tracker(calibration, LEVELS) if method == "adaptive" else None
        self._series = 0

    def add(self, forecast: Forecast, batch: SeriesBatch, scale: Scale | None) -> None:
        """Add a batch; intervals open in the space of the model and are scored in the series'."""
        assert batch.target is not None
        band = Band.of(forecast)
        opened = self._split
        if self._tracker:
            opened = self._follow(self._tracker, batch, band.needed(batch))
        lower, upper = zip(*(band.bounds(some) for some in opened), strict=True)
        low, high, truth = torch.stack(lower), torch.stack(upper), batch.target
        if scale is not None:
            low, high, truth = (scale.undo(part) for part in (low, high, truth))
        self.sums.add(low, high, truth, batch.target_mask)

    def _follow(self, tracker: Tracker, batch: SeriesBatch, needed: Tensor) -> Tensor:
        """Issue the intervals of one origin after the other; each series starts anew."""
        opened: list[Tensor] = []
        owners = [0] * len(batch) if batch.series_id is None else batch.series_id.tolist()
        for row, owner in enumerate(owners):
            if owner != self._series:
                tracker = self._tracker = Tracker(self._calibration, LEVELS)
                self._series = owner
            opened.append(tracker.issue(needed[row : row + 1]))
        return torch.cat(opened, 1)  # (N, B, H, C)


def naive_errors(data: SeriesData) -> tuple[Tensor, Tensor] | None:
    """Take the mean absolute and squared error of the seasonal naive forecast, one season ahead.

    Returns:
        (S, C) each, over the rows of every series before its test part in scaled space, 0 where a
        series has none; None if there are no such rows.
    """
    if not data.borders[:, 1].any():
        return None
    season, offsets = data.spec.season, data.table.offsets
    values, mask = data.series.values.double(), data.series.mask
    change = values[season:] - values[:-season]
    # A pair counts if both rows are rows of one series before its test part.
    row = np.arange(len(change))
    owner = np.searchsorted(offsets, row, side="right") - 1
    inside = row + season < (offsets[:-1] + data.borders[:, 1])[owner]
    counted = torch.from_numpy(inside).to(values.device)[:, None].expand_as(change)
    if mask is not None:
        counted = counted & mask[season:] & mask[:-season]
    change = torch.where(counted, change, 0.0)
    parts = torch.stack([change.abs(), change.square(), counted.double()])  # (3, rows, C)
    sums = parts.new_zeros(3, len(offsets) - 1, change.shape[1])
    sums.index_add_(1, torch.from_numpy(owner).to(values.device), parts)
    absolute, squared = sums[:2] / sums[2].clamp(min=1)
    return absolute, squared


def fit_baselines(data: SeriesData) -> dict[str, nn.Module]:
    """Solve for the closed-form baselines on the training and validation part."""
    fitted: dict[str, nn.Module] = {}
    for name in BASELINES:
        _, config = MODELS[name].load()
        model = building.build(name, config(), data.spec).to(data.series.values.device)
        fit_closed_form(model, data)
        fitted[name] = model.eval()
    return fitted


def fit_closed_form(model: nn.Module, data: SeriesData) -> None:
    """Solve for a closed-form model; those with nothing to solve are left as they are."""
    if isinstance(model, ClosedForm):
        model.fit(data.windows("train"), data.windows("val"))


def calibrate_all(
    models: Mapping[str, nn.Module], data: SeriesData
) -> dict[str, Calibration | None]:
    """Calibrate the intervals of several models on the validation part."""
    windows = data.windows("val")
    return {name: intervals.calibrate(model, windows) for name, model in models.items()}


def score_all(
    models: Mapping[str, nn.Module],
    data: SeriesData,
    part: str = "test",
    calibrations: Mapping[str, Calibration | None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score several models on the same part: the first one's intervals by both methods."""
    windows = data.windows(part)
    if not len(windows):
        raise DataError(
            f"The {part} part has no complete window of lookback {data.spec.lookback} and horizon "
            f"{data.spec.horizon}.",
            hint="Give it more rows with --set data.split=..., or take a shorter horizon.",
        )
    known = calibrations or {}
    return {
        name: score(
            model, data, windows, known.get(name), ("split",) if place else intervals.METHODS
        )
        for place, (name, model) in enumerate(models.items())
    }


def protocol(model: nn.Module) -> str:
    """Name the protocol, and whether the model reads more rows than the baselines beside it."""
    if not rolling_origin.carries_state(model):
        return PROTOCOL
    return f"{PROTOCOL}, but the model reads all rows before an origin, baselines the lookback"


def evaluate(
    forecaster: Forecaster,
    source: str | None = None,
    device: str = "auto",
    *,
    section: DataSection | None = None,
    cold: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a trained forecaster, with the baselines beside it.

    Args:
        forecaster: the forecaster.
        source: a file whose every row after the first lookback is scored; None scores the test
            part of the data it was trained on, by the same split.
        device: where to run.
        section: another source or division, whose test part is scored instead.
        cold: let a model that carries a state forecast from the rows of the lookback alone, as a
            stream does that has just begun. Its intervals are not scored then.
        reading: fields of `TableOptions` in which the file differs from the training table.

    Returns:
        `protocol`, `data`, `metrics.test` and `metrics.baselines`, and `notices`.

    Raises:
        UsageError: `cold` is asked of a model that is never anything else.
    """
    if cold and not rolling_origin.carries_state(forecaster.model):
        raise UsageError(
            f"{forecaster.recipe.model} carries no state: all its forecasts are from the "
            f"{forecaster.spec.lookback} rows of the lookback.",
            hint="Leave --cold out.",
        )
    place = choose_device(device)
    trained_on = forecaster.recipe.table
    section = section or trained_on
    table = loading.read(
        source or section.source,
        section if source is None else replace(forecaster.layout.options(), **(reading or {})),
        columns=forecaster.columns,
        frequency=forecaster.spec.frequency,
        levels=forecaster.layout.levels,
        keep=section.keep if source is None else None,
        leave_out=section.leave_out if source is None else 0,
    )
    if source is None:
        data = loading.load(
            table,
            split=section.split,
            gap=section.gap,
            lookback=forecaster.spec.lookback,
            horizon=forecaster.spec.horizon,
            season=forecaster.spec.season,
            marks=section.marks,
            device=place,
            scaler=forecaster.scaler,
            covariates=forecaster.covariates,
            all_history=forecaster.spec.context is None,
        )
        if section is trained_on:
            refuse_changed(forecaster, table.digest)
    else:
        data = loading.whole(
            table,
            forecaster.scaler,
            forecaster.covariates,
            forecaster.spec,
            section.marks,
            place,
        )
    own = copy.deepcopy(forecaster.model).to(place)
    models: dict[str, nn.Module] = {"model": rolling_origin.Cold(own) if cold else own}
    for name in BASELINES:
        baseline = forecaster.baseline(name)
        if baseline is not None:
            models[name] = baseline.to(place)
    # On new data there is no validation part: the model alone brings its calibration along.
    beside = {name: model for name, model in models.items() if name != "model"}
    calibrations = calibrate_all(beside, data)
    if forecaster.calibration is not None and not cold:
        calibrations["model"] = forecaster.calibration.to(place)
    scores = score_all(models, data, calibrations=calibrations)
    return {
        "protocol": (protocol(models["model"]) if source is None else "every window of the file")
        + (", each from its lookback alone" if cold else ""),
        "data": source or section.source,
        "metrics": {"test": scores.pop("model"), "baselines": scores},
        "notices": list(data.notices),
    }


def thinned(
    fresh: Float[np.ndarray, " K"], full: Float[np.ndarray, " K"]
) -> dict[str, list[float]]:
    """Take the errors of streams after 1, 2, 4, ... rows, as an artefact tells them.

    Args:
        fresh: MSE after 1, 2, ..., K rows of a stream that begins there.
        full: MSE of the same forecasts with all the history before.
    """
    rows = [2**power for power in range(len(fresh).bit_length())]
    rows = [row for row in rows if np.isfinite(fresh[row - 1])]
    alone, with_all = ([float(part[row - 1]) for row in rows] for part in (fresh, full))
    return {"rows": rows, "mse": alone, "mse_with_all_history": with_all}
