"""Kinds of data: the one place that tells series, grids and graphs apart.

`KINDS` names the module of each kind, which has what `contracts.Kind` lists.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from forecast.contracts import AnyForecaster, Fold, Kind, Plan, Task
from forecast.errors import UsageError
from forecast.models import model_info
from forecast.recipe import Recipe

if TYPE_CHECKING:
    from forecast.series.forecaster import Forecaster

KINDS = {
    "series": "forecast.series.kind",
    "grid": "forecast.grids.kind",
    "graph": "forecast.graphs.kind",
}


def all_kinds() -> list[Kind]:
    """Return every kind of data there is."""
    return [cast(Kind, importlib.import_module(module)) for module in KINDS.values()]


def of(model: str) -> Kind:
    """Return the kind of data that a model forecasts."""
    return cast(Kind, importlib.import_module(KINDS[model_info(model).kind]))


def as_series(forecaster: AnyForecaster, name: str) -> Forecaster:
    """Narrow a forecaster to one of series.

    Args:
        forecaster: of any kind.
        name: what the user called it.

    Raises:
        UsageError: it forecasts another kind of data.
    """
    if model_info(forecaster.recipe.model).kind != "series":
        raise UsageError(
            f"{name} holds {forecaster.recipe.model}, a forecaster of {forecaster.spec.kind}s, "
            "and tables of series are asked for here.",
            hint="Give it the files that it was trained on: forecast predict MODEL FILE --out ...",
        )
    return cast("Forecaster", forecaster)


def continued(resolved: Recipe, start: AnyForecaster) -> Recipe:
    """Return a recipe with the shape of the forecaster that its training starts from.

    Raises:
        UsageError: the forecaster is of another kind of data.
    """
    own, kind = model_info(start.recipe.model).kind, model_info(resolved.model).kind
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
    return of(shaped.model).continued(shaped, start)


def open_task(resolved: Recipe, start: AnyForecaster | None, device: torch.device) -> Task:
    """Read, divide and scale the data of a recipe, for the kind of data that its model is of.

    Args:
        resolved: the recipe.
        start: the forecaster that training starts from, whose scaling is kept.
        device: where the data go.

    Raises:
        ForecastError: the data cannot be used.
    """
    return of(resolved.model).open_task(resolved, start, device)


def folds(resolved: Recipe, plan: Plan) -> list[Fold]:
    """Divide the data of a recipe anew for each window of a backtest, the earliest first.

    Raises:
        DataError: the data are too short for so many windows.
    """
    return of(resolved.model).folds(resolved, plan)


def evaluate(
    forecaster: AnyForecaster,
    source: str | tuple[str, ...] | None = None,
    device: str = "auto",
    recipe: Recipe | None = None,
    *,
    cold: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a trained forecaster, with the baselines beside it.

    Args:
        forecaster: the forecaster.
        source: a file of which all that follows the first lookback is scored, of grids and sensors
            also several; None scores the test part of its own data, by the same split.
        device: where to run.
        recipe: one whose data section is taken instead of the forecaster's own.
        cold: let a model that carries a state forecast from the lookback alone.
        reading: fields of `TableOptions` in which a table differs from the training table.

    Returns:
        `protocol`, `data`, `metrics.test` and `metrics.baselines`, and `notices`.
    """
    kind = of(forecaster.recipe.model)
    if not reading:
        return kind.evaluate(forecaster, source, device, recipe, cold=cold)
    if forecaster.spec.kind != "series" or source is None:
        raise UsageError(
            f"How a file is read, data.{next(iter(reading))}, is said of a table that is named.",
            hint="Name the table, or leave --set out.",
        )
    # Tables alone are read in ways that a user may state.
    return cast(Any, kind).evaluate(forecaster, source, device, recipe, cold=cold, reading=reading)
