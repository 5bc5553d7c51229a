"""Grids: frames with the simple forecasts beside them, scored per cell and by area."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from forecast import contracts
from forecast.batch import Batches, GridBatch, GridSpec
from forecast.contracts import (
    DatasetInfo,
    Finished,
    Fold,
    Plan,
    refuse_changed,
    refuse_cold,
    too_short,
)
from forecast.device import choose_device
from forecast.errors import UsageError
from forecast.grids import context as grid_context
from forecast.grids import data as grids
from forecast.grids import pictures, reading
from forecast.grids import predict as grid_prediction
from forecast.grids import predict_files as files
from forecast.grids.calendars import STANDARD
from forecast.grids.data import GridData
from forecast.grids.forecaster import GridForecaster
from forecast.grids.reading import Grid
from forecast.grids.score import score
from forecast.recipe import Recipe
from forecast.scoring.comparison import flat
from forecast.tables.formats import shown
from forecast.training.loop import Fitted

if TYPE_CHECKING:
    import xarray

NOUN = "grids"
OPTIONS = frozenset[str]()


def continued(resolved: Recipe, start: GridForecaster) -> Recipe:
    """Bring the same references along, and scale frames the same way."""
    return resolved.replace("data", references=start.spec.references, scaling=start.grid.scaling)


def open_task(resolved: Recipe, start: GridForecaster | None, device: torch.device) -> GridTask:
    """Read, divide and scale frames."""
    data = grids.load(
        resolved.grid,
        lookback=resolved.window.lookback,
        horizon=resolved.window.horizon,
        device=device,
        arrays=start.statistics if start else None,
    )
    if start:
        grid_context.fitting(data.grid, start.grid, resolved.source_name)
    stated = resolved.replace(
        "window", lookback=data.spec.lookback, horizon=data.spec.horizon
    ).replace("data", references=data.spec.references, scaling=data.section.resolved_scaling)
    return GridTask(recipe=stated, data=data)


def evaluate(
    forecaster: GridForecaster,
    source: str | tuple[str, ...] | None,
    device: str,
    recipe: Recipe | None = None,
    *,
    cold: bool = False,
) -> dict[str, Any]:
    """Score a forecaster of grids."""
    if cold:
        refuse_cold(forecaster)
    place, spec = choose_device(device), forecaster.spec
    if source is None:
        section = (recipe or forecaster.recipe).grid
        data = grids.load(
            section,
            lookback=spec.lookback,
            horizon=spec.horizon,
            device=place,
            arrays=forecaster.statistics,
        )
        if recipe is None:
            refuse_changed(forecaster, data.digest)
    else:
        data = grid_context.as_test_set(forecaster.grid, forecaster.statistics, spec, source, place)
    scores = score(copy.deepcopy(forecaster.model).to(place), data, "test")
    return {
        "protocol": data.section.protocol if source is None else "every window of the file",
        "data": _text(source) if source else forecaster.recipe.source_name,
        "metrics": {"test": scores.pop("model"), "baselines": scores},
        "notices": list(data.notices),
    }


def predict(forecaster: GridForecaster, source: Any, device: str) -> xarray.Dataset:
    """Forecast the frames that follow."""
    return grid_prediction.predict(forecaster, source, device).dataset()


predict_frame = grid_prediction.predict_frame
predict_files = files.predict_files
restore = GridForecaster.restored


def window_length(resolved: Recipe, step: int | None, ahead: int | None) -> int:
    """Length of a backtest's window."""
    return contracts.window_length(step, ahead)


def folds(resolved: Recipe, plan: Plan) -> list[Fold]:
    """Divide frames anew for each window, by the times of the first and the last frame used."""
    section = resolved.grid
    grid = reading.read(grids.located(section.source), section)
    if not grid.clock.dated:
        raise UsageError(
            "Frames without dates have no later windows to be tested on one after the other.",
            hint="Train and score them once: forecast train",
        )
    count = len(grid.times)
    train_end, val_end, _ = grids.borders_of(section, grid)
    validation = val_end - train_end
    gap = plan.gap or section.gap
    first = count - plan.windows * plan.step - gap - validation
    if first <= 0:
        raise too_short(count, "frames", plan, validation)
    found: list[Fold] = []
    for number in range(plan.windows):
        stop = count - (plan.windows - 1 - number) * plan.step
        start = stop - plan.step - gap - validation - first if plan.rolling else 0
        divided = resolved.replace(
            "data",
            # What lies before a window is known when it begins.
            inside=False,
            split=(0, validation, plan.step),
            gap=gap,
            first=grid.clock.text(grid.times[start]),
            last=grid.clock.text(grid.times[stop - 1]),
        )
        found.append(
            Fold(
                recipe=divided,
                start=_shown(grid, stop - plan.step),
                stop=_shown(grid, stop - 1),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class GridTask:
    """A recipe of grids with its data.

    Attributes:
        recipe: every number in it stated.
        data: as read, divided and scaled.
    """

    recipe: Recipe
    data: GridData

    @property
    def spec(self) -> GridSpec:
        """Shape of the task."""
        return self.data.spec

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Nothing: a model is made of its config and the spec."""
        return {}

    @property
    def digest(self) -> str:
        """Name the frames by their content."""
        return self.data.digest

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user."""
        return self.data.notices

    def with_train(self, **train: Any) -> GridTask:
        """Return the task with fields of the recipe's training section set."""
        return replace(self, recipe=self.recipe.replace("train", **train))

    def dataset(self, context: str) -> DatasetInfo:
        """Describe the data for the lineage of a run."""
        return DatasetInfo(
            name=self.recipe.source_name,
            source=_text(self.recipe.grid.source),
            digest=self.digest,
            rows=len(self.data.grid.times),
            columns=self.data.columns,
            context=context,
        )

    def batches(
        self, model: nn.Module, *, fresh: bool
    ) -> tuple[Batches[GridBatch], Batches[GridBatch]]:
        """Return the windows of the training and of the validation part."""
        return self.data.windows("train"), self.data.windows("val")

    def solve(self, model: nn.Module) -> None:
        """Leave a rule as it is: it has no weights."""

    def finish(self, model: nn.Module, fitted: Fitted | None, folder: Path) -> Finished:
        """Score once on the test part, draw and keep a model."""
        data = self.data
        # The one time that this run looks at the test part.
        scores = score(model, data, "test")
        metrics: dict[str, Any] = {
            "protocol": data.section.protocol,
            "test": scores.pop("model"),
            "baselines": scores,
            "validation": self._validation(model, fitted),
        }
        picture = folder / "forecast.png"
        pictures.draw_last(picture, model=model, data=data)
        forecaster = GridForecaster(
            model=model,
            recipe=self.recipe,
            spec=data.spec,
            statistics=data.arrays(),
            grid=data.header,
            data={
                "source": _text(self.recipe.grid.source),
                "digest": data.digest,
                "rows": len(data.grid.times),
                "series": 1,
            },
            metrics=metrics,
        )
        return Finished(
            forecaster=forecaster,
            metrics=metrics,
            figures=flat(metrics, "grid") | _table_figures(metrics["test"]),
            pictures=(picture,),
        )

    def example(self) -> None:
        """Return nothing: a grid is no table."""

    def _validation(self, model: nn.Module, fitted: Fitted | None) -> dict[str, Any]:
        """Score the weights on the validation part."""
        if fitted is not None:
            return {"mse": fitted.best_loss, "best_epoch": fitted.best_epoch}
        return {"mse": score(model, self.data, "val")["model"]["mse"]}


def _table_figures(scores: dict[str, Any]) -> dict[str, float]:
    """Flatten what the tables of the field hold: OpenSTL's sums, WeatherBench 2's areas."""
    found = {f"test_openstl_{name}": value for name, value in scores["openstl"].items()}
    for column, figures in scores.get("area", {}).items():
        found |= {
            f"test_area_{name}_{column}": value
            for name, value in figures.items()
            if not isinstance(value, list)
        }
    return {name: value for name, value in found.items() if value is not None}


def _shown(grid: Grid, number: int) -> str:
    """Write the time of a frame for people, as short as it is exact."""
    if grid.clock.calendar != STANDARD:
        return grid.clock.short(grid.times[number]).replace("T", " ").removesuffix(" 00:00:00")
    return shown(grid.times[number])


def _text(source: str | tuple[str, ...]) -> str:
    return source if isinstance(source, str) else ", ".join(source)
