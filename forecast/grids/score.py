"""Scores of models and of the simple forecasts on windows of a grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from forecast.batch import Forecast
from forecast.device import memory_errors
from forecast.errors import DataError
from forecast.grids.climatology import Table
from forecast.grids.data import GridData
from forecast.models.grid_baselines import rule_names, rules
from forecast.scoring.fields import GridErrorSums
from forecast.training.loop import EVALUATION_BATCH


def error_sums(data: GridData, part: str = "test") -> GridErrorSums:
    """Make an accumulator of the errors of forecasts of a part."""
    frames = data.frames_of(part)
    means = [n for n, one in enumerate(frames.references) if isinstance(one, Table)]
    return GridErrorSums(
        columns=data.columns,
        deviation=frames.scaler.deviation,
        latitudes=data.latitudes,
        # The finest mean comes last.
        climate=means[-1] if means else None,
        unit_range=data.section.resolved_scaling == "maximum",
    )


@torch.no_grad()
def score(model: nn.Module | None, data: GridData, part: str) -> dict[str, dict[str, Any]]:
    """Score a model and all simple forecasts on all windows of a part, in one pass over them.

    Returns:
        The figures of `GridErrorSums.result` of `model`, unless it is None, and of each rule by
        its name.
    """
    windows = data.windows(part)
    if not len(windows):
        raise DataError(
            f"The {part} part has no complete window of lookback {data.spec.lookback} and horizon "
            f"{data.spec.horizon}.",
            hint="Give it more frames with --set data.split=..., or take a shorter horizon.",
        )
    names = rule_names(data.spec)
    sums = {name: error_sums(data, part) for name in (("model", *names) if model else names)}
    if model:
        model.eval()
    with memory_errors("evaluating", EVALUATION_BATCH):
        for batch in windows.batches(EVALUATION_BATCH):
            if model:
                sums["model"].add(model(batch), batch)
            simple = rules(batch, data.spec.horizon)
            for place, name in enumerate(names):
                sums[name].add(Forecast(values=simple[:, place]), batch)
    return {name: some.result() for name, some in sums.items()}
