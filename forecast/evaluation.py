"""Protocols: how a model is scored, and the baselines that every score stands beside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from forecast import artefact
from forecast.artefact import Forecaster
from forecast.data import loading
from forecast.data.loading import SeriesData
from forecast.data.windows import Windows
from forecast.device import choose_device, memory_errors
from forecast.errors import DataError
from forecast.loop import EVALUATION_BATCH
from forecast.metrics import ErrorSums
from forecast.models import BASELINES, MODELS


@torch.no_grad()
def score(model: nn.Module, data: SeriesData, windows: Windows) -> dict[str, Any]:
    """Score a model on all windows of a part, in fp32, none dropped.

    Returns:
        The figures of `ErrorSums.result`.
    """
    model.eval()
    deviation = torch.from_numpy(data.scaler.deviation).to(windows.device)
    sums = ErrorSums(deviation)
    with memory_errors("evaluating", EVALUATION_BATCH):
        for batch in windows.batches(EVALUATION_BATCH):
            assert batch.target is not None
            sums.add(model(batch).values, batch.target, batch.target_mask, batch.series_id)
    return sums.result(data.table.columns)


def fit_baselines(data: SeriesData) -> dict[str, nn.Module]:
    """Solve for the closed-form baselines on the training and validation part."""
    fitted: dict[str, nn.Module] = {}
    for name in BASELINES:
        _, config = MODELS[name].load()
        model = artefact.build(name, config(), data.spec).to(data.series.values.device)
        fit_closed_form(model, data)
        fitted[name] = model.eval()
    return fitted


def fit_closed_form(model: nn.Module, data: SeriesData) -> None:
    """Solve for a closed-form model; those with nothing to solve are left as they are."""
    if hasattr(model, "fit"):
        model.fit(data.windows("train"), data.windows("val"))  # pyright: ignore[reportCallIssue]


def score_all(
    models: Mapping[str, nn.Module], data: SeriesData, part: str = "test"
) -> dict[str, dict[str, Any]]:
    """Score several models on the same part."""
    windows = data.windows(part)
    if not len(windows):
        raise DataError(
            f"The {part} part has no complete window of lookback {data.spec.lookback} and horizon "
            f"{data.spec.horizon}.",
            hint="Give it more rows with --set data.split=..., or take a shorter horizon.",
        )
    return {name: score(model, data, windows) for name, model in models.items()}


def evaluate(
    forecaster: Forecaster, source: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Score a trained forecaster, with the baselines beside it.

    Args:
        forecaster: the forecaster.
        source: a file whose every row after the first lookback is scored; None scores the test
            part of the data it was trained on, by the same split.
        device: where to run.

    Returns:
        `protocol`, `data`, `metrics.test` and `metrics.baselines`, and `notices`.
    """
    place = choose_device(device)
    section = forecaster.recipe.data
    options = section if source is None else forecaster.layout.options()
    table = loading.read(
        source or section.source,
        options,
        columns=forecaster.columns,
        frequency=forecaster.spec.frequency,
        levels=forecaster.layout.levels,
    )
    if source is None:
        data = loading.load(
            table,
            split=section.split,
            lookback=forecaster.spec.lookback,
            horizon=forecaster.spec.horizon,
            season=forecaster.spec.season,
            marks=section.marks,
            device=place,
            scaler=forecaster.scaler,
        )
        if table.digest != forecaster.data["digest"]:
            raise DataError(
                f"{section.source} has changed since training: its sha256 was "
                f"{forecaster.data['digest']} and is {table.digest}.",
                hint="Name the file as an argument to score all its rows as new data.",
            )
    else:
        data = loading.whole(table, forecaster.scaler, forecaster.spec, section.marks, place)
    models: dict[str, nn.Module] = {"model": copy.deepcopy(forecaster.model).to(place)}
    for name in BASELINES:
        baseline = artefact.baseline(name, forecaster)
        if baseline is not None:
            models[name] = baseline.to(place)
    scores = score_all(models, data)
    return {
        "protocol": "standard" if source is None else "every window of the file",
        "data": source or section.source,
        "metrics": {"test": scores.pop("model"), "baselines": scores},
        "notices": list(data.notices),
    }


def beaten_by(scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the baselines with a smaller test MSE than the model's, the best one first."""
    own = scores["mse"]
    better = [
        (figures["mse"], name)
        for name, figures in baselines.items()
        if figures["mse"] is not None and own is not None and figures["mse"] < own
    ]
    return [name for _, name in sorted(better)]
