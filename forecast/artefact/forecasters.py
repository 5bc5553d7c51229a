"""Trained forecasters, one class for each kind of data: the model with all that it needs.

Each takes itself apart into tensors and plain values, and is put together from them; the files
that hold these are `artefact`'s.

Letters: L lookback, H horizon, C variates.
"""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from typing import Any

import polars
import torch
from torch import Tensor, nn

from forecast.batch import EventSpec, GridSpec, Spec
from forecast.graphs.header import GraphHeader, header_of
from forecast.grids.header import GridHeader
from forecast.recipe import Recipe
from forecast.series.covariates import Covariates
from forecast.series.intervals import Calibration
from forecast.series.scaling import Scaler
from forecast.tables.reading import Layout

HISTORY = "history.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """Hold a trained model of series and all that forecasting with it needs.

    Attributes:
        model: in evaluation mode, on the CPU after loading.
        recipe: the resolved recipe it was trained by.
        spec: the shape of its task.
        scaler: fitted on its training rows.
        columns: C names of the variates, in the order of the model.
        layout: how its table was written; forecasts are written the same way.
        ridge: (L, H) matrix of the closed-form baseline, or None.
        covariates: how what accompanies its variates becomes numbers.
        calibration: how far its intervals open; None if there was nothing to measure that on.
        data: name, digest and size of the training data.
        metrics: what was measured when it was trained.
    """

    model: nn.Module
    recipe: Recipe
    spec: Spec
    scaler: Scaler
    columns: tuple[str, ...]
    layout: Layout
    ridge: Tensor | None
    covariates: Covariates = field(default_factory=Covariates)
    calibration: Calibration | None = None
    data: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def batch_size(self) -> int:
        """Tell how many windows are forecast at once."""
        return self.recipe.train.batch_size * 8

    def arrays(self) -> dict[str, Tensor]:
        """Give the tensors to keep beside the weights."""
        arrays = {
            "scaler.mean": torch.from_numpy(self.scaler.mean),
            "scaler.deviation": torch.from_numpy(self.scaler.deviation),
        }
        if self.ridge is not None:
            arrays["baseline.ridge"] = self.ridge
        if self.covariates.scaler is not None:
            arrays["covariates.mean"] = torch.from_numpy(self.covariates.scaler.mean)
            arrays["covariates.deviation"] = torch.from_numpy(self.covariates.scaler.deviation)
        if self.calibration is not None:
            arrays["intervals.reaches"] = self.calibration.reaches
        return arrays

    def described(self) -> dict[str, Any]:
        """Give, as plain values, what else is to be kept of the data it was trained on."""
        return {
            "columns": list(self.columns),
            "frequency": self.spec.frequency,
            "layout": dataclasses.asdict(self.layout),
            "ids": list(self.scaler.ids),
            "static": {name: list(code) for name, code in self.covariates.static.items()},
        }

    @classmethod
    def restored(
        cls, model: nn.Module, resolved: Recipe, arrays: dict[str, Tensor], kept: dict[str, Any]
    ) -> Forecaster:
        """Put it together from what `arrays` and `described` gave, read back from a folder."""
        reaches = arrays.get("intervals.reaches")
        ids = tuple(kept["ids"])
        return cls(
            model=model,
            recipe=resolved,
            spec=Spec(**kept["spec"]),
            scaler=_scaler("scaler", arrays, ids),
            columns=tuple(kept["columns"]),
            layout=Layout.from_dict(kept["layout"]),
            ridge=arrays.get("baseline.ridge"),
            covariates=Covariates.from_dict(
                _scaler("covariates", arrays, ids) if "covariates.mean" in arrays else None,
                kept.get("static", {}),
                resolved.table.holidays,
            ),
            calibration=None if reaches is None else Calibration(reaches=reaches),
            data=kept["data"],
            metrics=kept["metrics"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GridForecaster:
    """Hold a trained model of grids, as `Forecaster` does one of series.

    Attributes:
        model: in evaluation mode, on the CPU after loading.
        recipe: the resolved recipe it was trained by.
        spec: the shape of its task.
        statistics: what its frames are scaled by, and the means that it is compared with.
        grid: fields, cells, step and reading options.
        data: name, digest and size of the training data.
        metrics: what was measured when it was trained.
    """

    model: nn.Module
    recipe: Recipe
    spec: GridSpec
    statistics: dict[str, Tensor]
    grid: GridHeader
    data: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the fields of a frame."""
        return self.grid.columns

    def arrays(self) -> dict[str, Tensor]:
        """Give the tensors to keep beside the weights."""
        return self.statistics

    def described(self) -> dict[str, Any]:
        """Give, as plain values, what else is to be kept of the data it was trained on."""
        return {
            "columns": list(self.columns),
            "frequency": self.spec.frequency,
            "grid": self.grid.to_dict(),
        }

    @classmethod
    def restored(
        cls, model: nn.Module, resolved: Recipe, arrays: dict[str, Tensor], kept: dict[str, Any]
    ) -> GridForecaster:
        """Put it together from what `arrays` and `described` gave, read back from a folder."""
        return cls(
            model=model,
            recipe=resolved,
            spec=grid_spec(kept["spec"]),
            statistics=arrays,
            grid=GridHeader.from_dict(kept["grid"]),
            data=kept["data"],
            metrics=kept["metrics"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphForecaster:
    """Hold a trained model of graphs, as `Forecaster` does one of series.

    Attributes:
        model: in evaluation mode, on the CPU after loading.
        recipe: the resolved recipe it was trained by.
        spec: the shape of its task.
        statistics: what its class and its values are made with.
        graph: ids, features and reading options.
        history: all events of its data, which forecasts go on from; None of values.
        data: name, digest and size of the training data.
        metrics: what was measured when it was trained.
    """

    model: nn.Module
    recipe: Recipe
    spec: EventSpec
    statistics: dict[str, Tensor]
    graph: GraphHeader
    history: polars.DataFrame | None
    data: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name what is forecast."""
        return tuple(self.data["columns"])

    def arrays(self) -> dict[str, Tensor]:
        """Give the tensors to keep beside the weights."""
        return self.statistics

    def files(self) -> dict[str, bytes]:
        """Give the files to keep beside them."""
        if self.history is None:
            return {}
        stream = io.BytesIO()
        self.history.write_parquet(stream)
        return {HISTORY: stream.getvalue()}

    def described(self) -> dict[str, Any]:
        """Give, as plain values, what else is to be kept of the data it was trained on."""
        return {"columns": list(self.columns), "graph": self.graph.to_dict()}

    @classmethod
    def restored(
        cls,
        model: nn.Module,
        resolved: Recipe,
        arrays: dict[str, Tensor],
        kept: dict[str, Any],
        files: dict[str, bytes],
    ) -> GraphForecaster:
        """Put it together from what was kept, read back from a folder."""
        history = files.get(HISTORY)
        return cls(
            model=model,
            recipe=resolved,
            spec=EventSpec(**kept["spec"]),
            statistics=arrays,
            graph=header_of(kept["graph"]),
            history=None if history is None else polars.read_parquet(io.BytesIO(history)),
            data=kept["data"],
            metrics=kept["metrics"],
        )


AnyForecaster = Forecaster | GridForecaster | GraphForecaster
AnySpec = Spec | GridSpec | EventSpec


def grid_spec(kept: dict[str, Any]) -> GridSpec:
    """Restore the shape of a task of grids; JSON has lists where it has tuples."""
    stated: dict[str, Any] = {**kept, "references": tuple(kept["references"])}
    return GridSpec(**stated)


def _scaler(name: str, arrays: dict[str, Tensor], ids: tuple[str, ...]) -> Scaler:
    mean, deviation = arrays[f"{name}.mean"], arrays[f"{name}.deviation"]
    return Scaler(mean=mean.numpy(), deviation=deviation.numpy(), ids=ids)
