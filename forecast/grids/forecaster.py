"""Trained forecasters of grids: the model with all that forecasting with it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from forecast.batch import GridSpec
from forecast.grids.header import GridHeader
from forecast.models.building import described_briefly, restore
from forecast.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class GridForecaster:
    """A trained model of grids, as `Forecaster` does one of series.

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

    def __repr__(self) -> str:
        return described_briefly(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields of a frame."""
        return self.grid.columns

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors to keep beside the weights."""
        return self.statistics

    def files(self) -> dict[str, bytes]:
        """Files to keep beside the tensors: none."""
        return {}

    def described(self) -> dict[str, Any]:
        """Lay out as plain values what else is to be kept of the data it was trained on."""
        return {
            "columns": list(self.columns),
            "frequency": self.spec.frequency,
            "grid": self.grid.to_dict(),
        }

    @classmethod
    def restored(
        cls,
        resolved: Recipe,
        weights: dict[str, Tensor],
        arrays: dict[str, Tensor],
        kept: dict[str, Any],
        files: dict[str, bytes],
    ) -> GridForecaster:
        """Put it together from what `arrays` and `described` gave, read back from a folder."""
        spec = grid_spec(kept["spec"])
        return cls(
            model=restore(resolved, spec, weights),
            recipe=resolved,
            spec=spec,
            statistics=arrays,
            grid=GridHeader.from_dict(kept["grid"]),
            data=kept["data"],
            metrics=kept["metrics"],
        )


def grid_spec(kept: dict[str, Any]) -> GridSpec:
    """Restore the shape of a task of grids; JSON has lists where it has tuples."""
    stated: dict[str, Any] = {**kept, "references": tuple(kept["references"])}
    return GridSpec(**stated)
