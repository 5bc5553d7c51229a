"""Backtests: models trained and scored on one window after the other, side by side.

Every window is a recipe of its own, whose run and artefact are kept: each figure is what `forecast
evaluate` says of that artefact. What is done is written down at once, so that a killed backtest
goes on where it stopped.

```
$FORECAST_HOME/backtests/3f2a9c.../
  results.json       the figures of every model and window that is done
  itransformer-0/    the artefact of a model and a window
```
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from forecast import artefact, atomic, kinds
from forecast.contracts import Fold, Plan
from forecast.errors import UsageError
from forecast.models import MODELS, model_info
from forecast.paths import home_folder
from forecast.recipe import Recipe
from forecast.runs import run
from forecast.scoring.comparison import loss, primary_measure
from forecast.scoring.measures import MEASURES
from forecast.tracking.search import PART
from forecast.training.loop import Silence, Watcher


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Scores of one model over all windows.

    Attributes:
        model: name of the model or baseline.
        baseline: it is one of the simple forecasts.
        figures: (W,) of each measure, a figure for each window.
        error: standard error of the mean of the first measure over windows; NaN of one window.
        p_value: of a paired t-test of that measure against the best model's, window by window, two
            sides; NaN of the best itself, and of fewer than three windows.
    """

    model: str
    baseline: bool
    figures: dict[str, tuple[float, ...]]
    error: float
    p_value: float

    def mean(self, measure: str) -> float:
        """Average a measure over windows."""
        return float(np.mean(self.figures[measure]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Backtest:
    """Result of a backtest.

    Attributes:
        folder: where artefacts and figures are.
        windows: (start, stop) time of each.
        measures: what is compared, the one that decides first: `mse` and `mae`, scaled as at
            training; of values on graphs the same in their unit; of links `mrr` and `ap`, of shares
            `ndcg_at_10`, of which more is better.
        rows: models and baselines, the best first.
        results: figures and artefact of each model and window, by `model/window`.
    """

    folder: Path
    windows: tuple[tuple[str, str], ...]
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    results: dict[str, dict[str, Any]]


def backtest(
    recipes: Sequence[Recipe],
    plan: Plan,
    *,
    refit: bool = True,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Backtest:
    """Train and score models on every window, the baselines beside them.

    Args:
        recipes: one for each model, of the same data, lookback and horizon.
        plan: how the data are divided.
        refit: train anew for each window; else the model of the first one is scored on all.
        resume: go on with a backtest of the same recipes and plan that was interrupted.
        watcher: is told how it goes.

    Raises:
        UsageError: two recipes are of the same model, or a window has nothing to score.
        DataError: the data are too short for so many windows.
    """
    watcher = watcher or Silence()
    names = [recipe.model for recipe in recipes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"The model {twice[0]} is named twice.", hint="Name each model once.")
    folds = {recipe.model: kinds.folds(recipe, plan) for recipe in recipes}
    folder = home_folder("backtests", _digest(folds, plan, refit)[:12])
    results = _read(folder) if resume else {}
    for name, windows in folds.items():
        for number, fold in enumerate(windows):
            key = f"{name}/{number}"
            if key in results:
                continue
            watcher.notice(f"{name}, window {number + 1} of {len(windows)}, from {fold.start}")
            first = folder / f"{name}-0"
            if refit or number == 0:
                place = folder / f"{name}-{number}"
                trained = run.train(
                    fold.recipe,
                    resume=resume,
                    out=place,
                    force=True,
                    watcher=watcher,
                    tags={PART: "backtest"},
                )
                metrics = trained.metrics
            else:
                place = first
                metrics = kinds.evaluate(artefact.load(first), recipe=fold.recipe)["metrics"]
            results[key] = {
                "artefact": str(place),
                "start": fold.start,
                "stop": fold.stop,
                "test": _short(metrics["test"]),
                "baselines": {
                    other: _short(scores) for other, scores in metrics["baselines"].items()
                },
            }
            _write(folder, results)
    windows, rows = next(iter(folds.values())), compare(results, names, plan.windows)
    return Backtest(
        folder=folder,
        windows=tuple((fold.start, fold.stop) for fold in windows),
        measures=tuple(rows[0].figures),
        rows=rows,
        results=results,
    )


def comparable_models(resolved: Recipe) -> list[str]:
    """Names of the models that a recipe's data can be backtested with, all trained by steps."""
    info = MODELS[resolved.model]
    if info.own_batches:
        # Which model of graphs there is depends on the task: the one that the data chose.
        return [resolved.model]
    return [
        name for name, other in MODELS.items() if other.kind == info.kind and not other.closed_form
    ]


def compare(
    results: dict[str, dict[str, Any]], names: Sequence[str], windows: int
) -> tuple[Row, ...]:
    """Return the scores of all windows as rows, the best mean first.

    Args:
        results: by `model/window`, with `test` and `baselines`.
        names: the models; baselines are taken from the results of the first one.
        windows: W.
    """
    figures: dict[str, list[dict[str, float]]] = {
        name: [results[f"{name}/{number}"]["test"] for number in range(windows)] for name in names
    }
    beside = [results[f"{names[0]}/{number}"]["baselines"] for number in range(windows)]
    simple = [name for name in beside[0] if name not in figures]
    figures |= {name: [window[name] for window in beside] for name in simple}
    first = primary_measure(figures[names[0]][0])
    measures = (first, *MEASURES[first].beside)
    judgements = {name: np.array([one[first] for one in own]) for name, own in figures.items()}
    # A model that diverged in a window is behind all that did not.
    order = sorted(judgements, key=lambda name: loss(first, float(judgements[name].mean())))
    best = judgements[order[0]]
    return tuple(
        Row(
            model=name,
            baseline=name in simple or model_info(name).closed_form,
            figures={measure: tuple(one[measure] for one in figures[name]) for measure in measures},
            error=_standard_error(judgements[name]),
            p_value=_p_value(judgements[name], best) if name != order[0] else math.nan,
        )
        for name in order
    )


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _p_value(own: np.ndarray, best: np.ndarray) -> float:
    if len(own) < 3 or np.ptp(own - best) == 0:
        return math.nan
    return float(stats.ttest_rel(own, best).pvalue)


def _short(scores: dict[str, Any]) -> dict[str, float]:
    if "rmse" in scores and "mse" not in scores:
        # Values on graphs are scored by their root.
        scores = scores | {"mse": scores["rmse"] ** 2}
    compared = dict.fromkeys(
        one for name, row in MEASURES.items() if row.primary for one in (name, *row.beside)
    )
    return {name: scores[name] for name in (*compared, "windows", "queries") if name in scores}


def _digest(folds: dict[str, list[Fold]], plan: Plan, refit: bool) -> str:
    # The times too: data may have grown since.
    named = {
        name: [(fold.recipe.digest(), fold.start, fold.stop) for fold in own]
        for name, own in folds.items()
    }
    text = json.dumps([named, repr(plan), refit], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    atomic.write_bytes(folder / "results.json", json.dumps(results, indent=2).encode())
