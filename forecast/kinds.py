"""Tasks: what training and scoring do differently for each kind of data, behind one protocol.

A task is opened from a recipe. It holds the data, says in which form a model learns from them, and
at the end scores it, keeps it as a forecaster and draws what people look at first.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pandas as pd
import torch
from torch import Tensor, nn

from forecast.artefact.forecasters import AnyForecaster, AnySpec
from forecast.batch import Batches
from forecast.errors import DataError, UsageError
from forecast.models import MODELS
from forecast.recipe import Recipe
from forecast.series.score import judged
from forecast.tracking import DatasetInfo
from forecast.training.loop import Fitted

if TYPE_CHECKING:
    import polars as pl
    import xarray

_MODULES = {
    "series": "forecast.series.kind",
    "grid": "forecast.grids.kind",
    "graph": "forecast.graphs.kind",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """Hold what a training came to.

    Attributes:
        forecaster: the model with all that forecasting needs, its metrics among it.
        metrics: `protocol`, `test` and `baselines`, each with the measure that `evaluation.judged`
            finds, and `validation`.
        figures: the numbers among them, flat and by the names that the tracking server charts.
        pictures: files in the run's folder; the first is the one to show.
    """

    forecaster: AnyForecaster
    metrics: dict[str, Any]
    figures: dict[str, float]
    pictures: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Say how a backtest divides the data.

    Attributes:
        windows: number of test windows, which end with the data and touch each other.
        step: rows or frames of each window.
        gap: rows between what a model has seen and the first that it is scored on.
        rolling: every window trains on as many rows as the first one, not on all before it.
    """

    windows: int
    step: int
    gap: int = 0
    rolling: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Hold one window of a backtest.

    Attributes:
        recipe: the recipe whose test part is the window.
        start: the time of its first row.
        stop: the time of its last row.
    """

    recipe: Recipe
    start: str
    stop: str


class Task(Protocol):
    """Describe a recipe with its data read, divided and scaled."""

    @property
    def recipe(self) -> Recipe:
        """Give the recipe, every number in it stated."""
        ...

    @property
    def spec(self) -> AnySpec:
        """Give the shape of the task, from which a model is built."""
        ...

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Give what a model is made with beside its config and the spec."""
        ...

    @property
    def digest(self) -> str:
        """Name the data by their content."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Give sentences for the user."""
        ...

    def stated(self, **train: Any) -> Task:
        """Return the task with fields of the recipe's training section set."""
        ...

    def dataset(self, context: str) -> DatasetInfo:
        """Say for the lineage of a run which data it used."""
        ...

    def batches(self, model: nn.Module, *, fresh: bool) -> tuple[Batches[Any], Batches[Any]]:
        """Get a model ready to learn by steps, and give training and validation part to it.

        Args:
            model: the model.
            fresh: whether its weights are still those it was made with.
        """
        ...

    def solve(self, model: nn.Module) -> None:
        """Find the weights of a model that has a closed form."""
        ...

    def finish(self, model: nn.Module, fitted: Fitted | None, folder: Path) -> Finished:
        """Score a model once on the test part, beside the baselines; draw and keep it.

        Args:
            model: the model with its best weights.
            fitted: how training by steps ended; None for a closed form.
            folder: for the pictures.
        """
        ...

    def example(self) -> pd.DataFrame | None:
        """Give some rows of input for the registry to show; None where input is no table."""
        ...


class _Kind(Protocol):
    """Describe the module of a kind of data."""

    def continued(self, resolved: Recipe, start: AnyForecaster) -> Recipe:
        """Give a recipe the shape of the forecaster that its training starts from."""
        ...

    def open_task(
        self, resolved: Recipe, start: AnyForecaster | None, device: torch.device
    ) -> Task:
        """Read the data of a recipe."""
        ...

    def evaluate(
        self,
        forecaster: AnyForecaster,
        source: str | tuple[str, ...] | None,
        device: str,
        recipe: Recipe | None = None,
        *,
        cold: bool = False,
    ) -> dict[str, Any]:
        """Score a forecaster."""
        ...

    def folds(self, resolved: Recipe, plan: Plan) -> list[Fold]:
        """Divide the data anew for each window of a backtest."""
        ...

    def predict(
        self, forecaster: AnyForecaster, source: Any, device: str, **options: Any
    ) -> pl.DataFrame | xarray.Dataset:
        """Forecast what follows."""
        ...


def _kind(model: str) -> _Kind:
    return cast(_Kind, importlib.import_module(_MODULES[MODELS[model].kind]))


def continued(resolved: Recipe, start: AnyForecaster) -> Recipe:
    """Give a recipe the shape of the forecaster that its training starts from.

    Raises:
        UsageError: the forecaster is of another kind of data.
    """
    own, kind = MODELS[start.recipe.model].kind, MODELS[resolved.model].kind
    if own != kind:
        raise UsageError(
            f"--init names {start.recipe.model}, a forecaster of {own}, and {resolved.source_name} "
            f"holds {kind}.",
            hint="Go on from a forecaster of the same kind of data.",
        )
    shaped = Recipe(
        data=resolved.data,
        window=resolved.window,
        model=start.recipe.model,
        model_config=start.recipe.model_config,
        train=resolved.train,
        tracking=resolved.tracking,
    ).replace("window", lookback=start.spec.lookback, horizon=start.spec.horizon)
    return _kind(shaped.model).continued(shaped, start)


def open_task(resolved: Recipe, start: AnyForecaster | None, device: torch.device) -> Task:
    """Read, divide and scale the data of a recipe, for the kind of data that its model is of.

    Args:
        resolved: the recipe.
        start: the forecaster that training starts from, whose scaling is kept.
        device: where the data go.

    Raises:
        ForecastError: the data cannot be used.
    """
    return _kind(resolved.model).open_task(resolved, start, device)


def folds(resolved: Recipe, plan: Plan) -> list[Fold]:
    """Divide the data of a recipe anew for each window of a backtest, the earliest first.

    Raises:
        DataError: the data are too short for so many windows.
    """
    return _kind(resolved.model).folds(resolved, plan)


def evaluate(
    forecaster: AnyForecaster,
    source: str | tuple[str, ...] | None = None,
    device: str = "auto",
    recipe: Recipe | None = None,
    *,
    cold: bool = False,
) -> dict[str, Any]:
    """Score a trained forecaster, with the baselines beside it.

    Args:
        forecaster: the forecaster.
        source: a file of which all that follows the first lookback is scored, of grids and sensors
            also several; None scores the test part of its own data, by the same split.
        device: where to run.
        recipe: one whose data section is taken instead of the forecaster's own.
        cold: let a model that carries a state forecast from the lookback alone.

    Returns:
        `protocol`, `data`, `metrics.test` and `metrics.baselines`, and `notices`.
    """
    return _kind(forecaster.recipe.model).evaluate(forecaster, source, device, recipe, cold=cold)


def predict(
    model: str | Path | AnyForecaster, source: Any, device: str = "auto", **options: Any
) -> pl.DataFrame | xarray.Dataset:
    """Forecast the steps that follow the last one, from any kind of data.

    Args:
        model: a forecaster, or where it is: a folder, `runs:/...` or `models:/name@alias`.
        source: of series a file, a stream of CSV or a frame; of grids a file, a folder, a pattern
            or a list of them; of graphs a file of events that goes on from those kept with the
            model, or None, and of values the file, of sensors a pair of files.
        device: where to run.
        options: of series those of `prediction.predict`: `future`, `level`, `method`; of events
            `at`, `sources` and `top`.

    Returns:
        Of series a frame in the layout of the training table; of grids a data set with the names,
        units and coordinates of the training files, and `lead_time`; of graphs a frame as
        `graph_context` says.

    Raises:
        ForecastError: the model or the data cannot be used.
    """
    from forecast.series.predict import load  # noqa: PLC0415

    forecaster = load(model) if isinstance(model, str | Path) else model
    return _kind(forecaster.recipe.model).predict(forecaster, source, device, **options)


def refuse_cold(forecaster: AnyForecaster) -> None:
    """Refuse to score from the lookback alone what never does anything else."""
    raise UsageError(
        f"{forecaster.recipe.model} carries no state that --cold could leave out.",
        hint="Leave --cold out.",
    )


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


def too_short(count: int, what: str, plan: Plan, validation: int) -> DataError:
    """Say that data are too short for a backtest."""
    return DataError(
        f"{count:,} {what} do not hold {plan.windows} windows of {plan.step}"
        + (f", a gap of {plan.gap}" if plan.gap else "")
        + f" and {validation:,} {what} of validation, with any to train on.",
        hint="Ask for fewer or shorter windows: --windows, --step.",
    )
