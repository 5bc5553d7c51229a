"""Trained forecasters of graphs: the model with all that forecasting with it needs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import polars
from torch import Tensor, nn

from forecast.batch import EventSpec
from forecast.graphs.header import GraphHeader, header_of
from forecast.models.building import described_briefly, restore
from forecast.recipe import Recipe

HISTORY = "history.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphForecaster:
    """A trained model of graphs, as `Forecaster` does one of series.

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

    def __repr__(self) -> str:
        return described_briefly(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is forecast."""
        return tuple(self.data["columns"])

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors to keep beside the weights."""
        return self.statistics

    def files(self) -> dict[str, bytes]:
        """Return the files to keep beside them."""
        if self.history is None:
            return {}
        stream = io.BytesIO()
        self.history.write_parquet(stream)
        return {HISTORY: stream.getvalue()}

    def described(self) -> dict[str, Any]:
        """Lay out as plain values what else is to be kept of the data it was trained on."""
        return {"columns": list(self.columns), "graph": self.graph.to_dict()}

    @classmethod
    def restored(
        cls,
        resolved: Recipe,
        weights: dict[str, Tensor],
        arrays: dict[str, Tensor],
        kept: dict[str, Any],
        files: dict[str, bytes],
    ) -> GraphForecaster:
        """Put it together from what was kept, read back from a folder."""
        history = files.get(HISTORY)
        spec = EventSpec(**kept["spec"])
        inputs = {
            name.removeprefix("inputs."): value
            for name, value in arrays.items()
            if name.startswith("inputs.")
        }
        return cls(
            model=restore(resolved, spec, weights, **inputs),
            recipe=resolved,
            spec=spec,
            statistics=arrays,
            graph=header_of(kept["graph"]),
            history=None if history is None else polars.read_parquet(io.BytesIO(history)),
            data=kept["data"],
            metrics=kept["metrics"],
        )
