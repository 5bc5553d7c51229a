"""Series: tables with windows, intervals, and models that may carry a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import torch
from torch import nn

from forecast import contracts
from forecast.batch import Batches, SeriesBatch, Spec
from forecast.catalogue.dataset import Split
from forecast.contracts import DatasetInfo, Finished, Fold, Plan, too_short
from forecast.errors import DataError, UsageError
from forecast.models import MODELS, unread_covariates
from forecast.recipe import Recipe
from forecast.scoring.comparison import flat
from forecast.series import data as loading
from forecast.series import memory_report, pictures, rolling_origin, score
from forecast.series import predict as prediction
from forecast.series import predict_files as files
from forecast.series.context import read_context
from forecast.series.data import SeriesData
from forecast.series.forecaster import Forecaster
from forecast.tables import reading
from forecast.tables.formats import shown
from forecast.training.loop import Fitted

NOUN = "tables"
OPTIONS = frozenset[str](
    {
        "date_format",
        "timezone",
        "fill",
        "settings",
        "history",
        "future",
        "level",
        "intervals",
        "resume",
        "safe_ids",
    }
)


def continued(resolved: Recipe, start: Forecaster) -> Recipe:
    """Read the covariates that the forecaster reads: they are part of its shape."""
    return resolved.replace(
        "data",
        static=start.layout.static,
        categorical=tuple(start.layout.levels),
        past_covariates=start.layout.past_covariates,
        known_future=start.layout.known_future,
        holidays=start.covariates.holidays,
    )


def open_task(resolved: Recipe, start: Forecaster | None, device: torch.device) -> SeriesTask:
    """Read, divide and scale a table."""
    section = resolved.table
    table = loading.read(
        section.source,
        section,
        columns=start.columns if start else None,
        frequency=start.spec.frequency if start else None,
        levels=start.layout.levels if start else None,
        keep=section.keep,
        leave_out=section.leave_out,
    )
    data = loading.load(
        table,
        split=section.split,
        gap=section.gap,
        lookback=resolved.window.lookback,
        horizon=resolved.window.horizon,
        season=section.season,
        marks=section.marks,
        holidays=section.holidays,
        device=device,
        scaler=start.scaler if start else None,
        covariates=start.covariates if start else None,
        all_history=MODELS[resolved.model].streams,
    )
    spec = data.spec
    stated = resolved.replace("window", lookback=spec.lookback, horizon=spec.horizon)
    stated = stated.replace("data", frequency=spec.frequency, season=spec.season)
    return SeriesTask(recipe=stated, data=data)


def evaluate(
    forecaster: Forecaster,
    source: str | tuple[str, ...] | None,
    device: str,
    recipe: Recipe | None = None,
    *,
    cold: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a forecaster of series."""
    if isinstance(source, tuple):
        raise UsageError(
            f"{len(source)} tables are scored one by one.", hint="Name one file: forecast evaluate"
        )
    section = recipe.table if recipe else None
    return score.evaluate(forecaster, source, device, section=section, cold=cold, reading=reading)


def predict(forecaster: Forecaster, source: Any, device: str, **options: Any) -> pl.DataFrame:
    """Forecast the rows that follow."""
    return prediction.predict(forecaster, source, device, **options)


predict_files = files.predict_files


def predict_frame(
    forecaster: Forecaster, frame: pl.DataFrame, *, level: Sequence[float] | None = None
) -> pl.DataFrame:
    """Forecast a frame in memory, as the model server does.

    Raises:
        DataError: a series has fewer rows than the lookback, which an answer could not say.
    """
    table = read_context(forecaster, frame)
    if short := prediction.too_short(forecaster, table):
        raise DataError(
            f"{short}.",
            hint=f"Send at least the last {forecaster.spec.lookback} rows of each series.",
        )
    return prediction.predict_table(forecaster, table, level=level).frame


restore = Forecaster.restored


def window_length(resolved: Recipe, step: int | None, ahead: int | None) -> int:
    """Length of a backtest's window."""
    return contracts.window_length(step, ahead)


def folds(resolved: Recipe, plan: Plan) -> list[Fold]:
    """Divide a table anew for each window; every series ends where its own rows do."""
    section = resolved.table
    table = loading.read(section.source, section, keep=section.keep, leave_out=section.leave_out)
    rows = int(np.diff(table.offsets).max())
    division = Split(train=section.split[0], val=section.split[1], test=section.split[2])
    train_end, val_end, _ = division.borders(rows)
    validation = val_end - train_end
    gap = plan.gap or section.gap
    first = rows - plan.windows * plan.step - gap - validation
    if first <= 0:
        raise too_short(rows, "rows", plan, validation)
    last = table.times[int(table.offsets[np.diff(table.offsets).argmax() + 1]) - rows :]
    found: list[Fold] = []
    for number in range(plan.windows):
        later = (plan.windows - 1 - number) * plan.step
        divided = resolved.replace(
            "data",
            split=(first if plan.rolling else 0, validation, plan.step),
            gap=gap,
            leave_out=section.leave_out + later,
            keep=first + validation + gap + plan.step
            if plan.rolling
            else section.keep and section.keep - later,
        )
        start = rows - later - plan.step
        found.append(
            Fold(recipe=divided, start=shown(last[start]), stop=shown(last[start + plan.step - 1]))
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesTask:
    """A recipe of series with its data.

    Attributes:
        recipe: every number in it stated.
        data: as read, divided and scaled.
    """

    recipe: Recipe
    data: SeriesData

    @property
    def spec(self) -> Spec:
        """Return the shape of the task."""
        return self.data.spec

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Return nothing: a model is made of its config and the spec."""
        return {}

    @property
    def digest(self) -> str:
        """Name the table by its content."""
        return self.data.table.digest

    @property
    def notices(self) -> tuple[str, ...]:
        """Return sentences for the user."""
        return (*self.data.notices, *unread_covariates(self.recipe.model, self.spec))

    def with_train(self, **train: Any) -> SeriesTask:
        """Return the task with fields of the recipe's training section set."""
        return replace(self, recipe=self.recipe.replace("train", **train))

    def dataset(self, context: str) -> DatasetInfo:
        """Return for the lineage of a run which data it used."""
        return DatasetInfo(
            name=self.recipe.source_name,
            source=self.recipe.table.source,
            digest=self.digest,
            rows=len(self.data.table.times),
            columns=self.data.table.columns,
            context=context,
        )

    def batches(
        self, model: nn.Module, *, fresh: bool
    ) -> tuple[Batches[SeriesBatch], Batches[SeriesBatch]]:
        """Return windows, or the segments that a model with a state learns from."""
        return rolling_origin.prepare(
            model, self.data.windows("train"), self.data.windows("val"), fresh=fresh
        )

    def solve(self, model: nn.Module) -> None:
        """Find the weights of a closed form on the training and validation part."""
        score.fit_closed_form(model, self.data)

    def finish(self, model: nn.Module, fitted: Fitted | None, folder: Path) -> Finished:
        """Calibrate, score once on the test part, draw and keep a model."""
        data = self.data
        baselines = score.fit_baselines(data)
        models = {"model": model} | baselines
        calibrations = score.calibrate_all(models, data)
        # The one time that this run looks at the test part.
        scores = score.score_all(models, data, calibrations=calibrations)
        metrics = {
            "protocol": score.protocol(model),
            "test": scores.pop("model"),
            "baselines": scores,
            "validation": self._validation(model, fitted),
        }
        drawn = [folder / "forecast.png"]
        pictures.last_window(model, data, self.recipe, drawn[0])
        if rolling_origin.carries_state(model):
            begun = rolling_origin.beginnings(model, data.windows("test"))
            fresh, full = rolling_origin.early_errors(model, begun)
            early = fresh.numpy(), full.numpy()
            metrics["early"] = score.thinned(*early)
            drawn.append(folder / "early.png")
            pictures.early_errors(
                *early,
                title=f"{self.recipe.source_name}  ·  {self.recipe.model}  ·  "
                "error by the rows that a stream has seen",
                path=drawn[1],
            )
        memory, followed = memory_report.memory(model, data, self.recipe, folder)
        metrics |= memory
        drawn += followed
        forecaster = Forecaster(
            model=model,
            recipe=self.recipe,
            spec=data.spec,
            scaler=data.scaler,
            columns=data.table.columns,
            layout=data.table.layout,
            ridge=baselines["ridge"].state_dict()["weight"],
            covariates=data.covariates,
            calibration=calibrations["model"],
            data={
                "source": self.recipe.table.source,
                "digest": data.table.digest,
                "rows": len(data.table.times),
                "series": len(data.table.ids),
            },
            metrics=metrics,
        )
        return Finished(
            forecaster=forecaster,
            metrics=metrics,
            figures=flat(metrics, "series") | _interval_figures(metrics) | _memory_figures(metrics),
            pictures=tuple(drawn),
        )

    def example(self) -> pd.DataFrame:
        """Take the first lookback of the first series, in the form of the table."""
        table = self.data.table
        rows = slice(0, min(self.spec.lookback, int(table.offsets[1])))
        frame = reading.forecast_frame(
            table.layout, table.ids[:1], table.times[rows][None], table.values[rows][None]
        )
        return frame.to_pandas()

    def _validation(self, model: nn.Module, fitted: Fitted | None) -> dict[str, Any]:
        """Return the validation scores of the weights, whose loss is the MSE or else a CRPS."""
        windows = self.data.windows("val")
        if fitted is None:
            return {"mse": score.score(model, self.data, windows)["mse"]}
        found: dict[str, Any] = {"mse": fitted.best_loss, "best_epoch": fitted.best_epoch}
        if getattr(self.recipe.model_config, "quantiles", ()):
            found["crps"] = fitted.best_loss
            found["mse"] = score.score(model, self.data, windows)["mse"]
        return found


def _memory_figures(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        f"memory{number}_{name}": value
        for number, block in enumerate(metrics.get("memory", ()))
        for name, value in block.items()
    }


def _interval_figures(metrics: dict[str, Any]) -> dict[str, float]:
    figures: dict[str, float | None] = {}
    for name, scores in {"": metrics["test"], **metrics["baselines"]}.items():
        prefix = f"{name}_test" if name else "test"
        for method, found in scores.get("intervals", {}).items():
            wide = found["levels"]["90"]
            figures |= {
                f"{prefix}_{method}_crps": found["crps"],
                f"{prefix}_{method}_coverage_90": wide["coverage"],
                f"{prefix}_{method}_interval_score_90": wide["interval_score"],
            }
    return {name: value for name, value in figures.items() if value is not None}
