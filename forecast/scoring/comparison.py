"""Comparison: by which measure scores are judged, and which baselines are better.

Names, directions and order come from `measures.MEASURES`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from forecast.scoring.measures import MEASURES, Measure, of_kind


def primary_measure(scores: Mapping[str, Any]) -> str:
    """Name of the measure by which scores are judged: the first primary one that they hold."""
    return next((name for name, row in MEASURES.items() if row.primary and name in scores), "mse")


def measure_of(figure: str) -> Measure | None:
    """Measure that a figure is of, such as `test_mrr` or `ridge_test_mae_OT`; None of a loss.

    A name may hold a baseline before `test_`, and a column or a level after the measure.
    """
    _, _, after = figure.partition("test_")
    words = f"_{after or figure}_"
    starts = ((words.find(f"_{name}_"), -len(name), name) for name in MEASURES)
    found = min((one for one in starts if one[0] >= 0), default=None)
    return MEASURES[found[2]] if found else None


def more_is_better(figure: str) -> bool:
    """Whether a figure, such as `test_mrr`, is the better the larger it is."""
    measure = measure_of(figure)
    return measure is not None and measure.better == "more"


def loss(figure: str, value: float | None) -> float:
    """Value of a figure as one that is the better the smaller it is; infinite if it is not finite.

    Args:
        figure: name of a measure, or of a figure such as `test_mrr`.
        value: its value.
    """
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if more_is_better(figure) else value


def beaten_by(scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the baselines that score better than the model, the best one first.

    A score that is not finite is worse than any that is.
    """
    measure = primary_measure(scores)
    if scores[measure] is None:
        return []
    limit = loss(measure, scores[measure])
    losses = sorted((loss(measure, own.get(measure)), name) for name, own in baselines.items())
    return [name for error, name in losses if error < limit]


def flat(metrics: Mapping[str, Any], kind: str) -> dict[str, float]:
    """Flatten the figures of model and baselines, as `test_mse`, `ridge_test_mse`, ...

    Args:
        metrics: with `test`, `baselines` and `validation`.
        kind: of data, whose measures are taken where they are there.
    """
    figures = {
        f"{label}_test_{name}" if label else f"test_{name}": scores[name]
        for label, scores in {"": metrics["test"], **metrics["baselines"]}.items()
        for name in of_kind(kind)
        if scores.get(name) is not None
    }
    for column, scores in metrics["test"].get("units", {}).items():
        figures |= {
            f"test_{measure}_{column}": value
            for measure, value in scores.items()
            if value is not None
        }
    measure = primary_measure(metrics["validation"])
    if metrics["validation"].get(measure) is not None:
        figures[f"best_val_{measure}"] = metrics["validation"][measure]
    return figures
