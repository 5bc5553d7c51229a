"""Comparison: by which measure scores are judged, and which baselines are better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def judged(scores: Mapping[str, Any]) -> tuple[str, bool]:
    """Name the measure by which scores of a kind are judged, and say whether more is better."""
    for measure in ("mse", "mae"):
        if measure in scores:
            return measure, False
    return ("mrr" if "mrr" in scores else "ndcg_at_10"), True


def more_is_better(measure: str) -> bool:
    """Say whether a figure, such as `test_mrr`, is the better the larger it is."""
    kinds = ("mrr", "hits_at_1", "hits_at_10", "ap", "auc", "ndcg_at_10", "acc", "ssim", "psnr")
    words = measure.split("_")
    return any(
        "_".join(words[start:stop]) in kinds
        for start in range(len(words))
        for stop in range(start + 1, len(words) + 1)
    )


def beaten_by(scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the baselines that score better than the model, the best one first.

    A score that is not finite is worse than any that is.
    """
    measure, more = judged(scores)
    own = scores[measure]
    if own is None:
        return []
    sign = -1 if more else 1
    better = [
        (sign * figures[measure], name)
        for name, figures in baselines.items()
        if figures.get(measure) is not None and math.isfinite(figures[measure])
    ]
    limit = sign * own if math.isfinite(own) else math.inf
    return [name for error, name in sorted(better) if error < limit]


def flat(metrics: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    """Give the figures of the model and of the baselines, as `test_mse`, `ridge_test_mse`, ...

    Args:
        metrics: with `test`, `baselines` and `validation`.
        names: the measures to take, where they are there.
    """
    figures = {
        f"{label}_test_{name}" if label else f"test_{name}": scores[name]
        for label, scores in {"": metrics["test"], **metrics["baselines"]}.items()
        for name in names
        if scores.get(name) is not None
    }
    for column, scores in metrics["test"].get("units", {}).items():
        figures |= {
            f"test_{measure}_{column}": value
            for measure, value in scores.items()
            if value is not None
        }
    measure, _ = judged(metrics["validation"])
    if metrics["validation"].get(measure) is not None:
        figures[f"best_val_{measure}"] = metrics["validation"][measure]
    return figures
