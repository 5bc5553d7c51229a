"""Trained forecasters of series: the model with all that forecasting with it needs.

Letters: L lookback, H horizon, C variates.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from forecast.batch import Spec
from forecast.models import MODELS
from forecast.models.building import build, described_briefly, restore
from forecast.recipe import Recipe
from forecast.series.covariates import Covariates
from forecast.series.intervals import Calibration
from forecast.series.scaling import Scaler
from forecast.tables.reading import Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """A trained model of series and all that forecasting with it needs.

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

    def __repr__(self) -> str:
        return described_briefly(self)

    @property
    def batch_size(self) -> int:
        """Return how many windows are forecast at once."""
        return self.recipe.train.batch_size * 8

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors to keep beside the weights."""
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

    def baseline(self, name: str) -> nn.Module | None:
        """Make a closed-form baseline for this task; None if it would need fitting."""
        _, config = MODELS[name].load()
        model = build(name, config(), self.spec)
        if name == "ridge":
            if self.ridge is None:
                return None
            model.load_state_dict({"weight": self.ridge})
        return model.eval()

    def files(self) -> dict[str, bytes]:
        """Files to keep beside the tensors: none."""
        return {}

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
        cls,
        resolved: Recipe,
        weights: dict[str, Tensor],
        arrays: dict[str, Tensor],
        kept: dict[str, Any],
        files: dict[str, bytes],
    ) -> Forecaster:
        """Put it together from what `arrays` and `described` gave, read back from a folder."""
        spec = Spec(**kept["spec"])
        reaches = arrays.get("intervals.reaches")
        ids = tuple(kept["ids"])
        return cls(
            model=restore(resolved, spec, weights),
            recipe=resolved,
            spec=spec,
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


def _scaler(name: str, arrays: dict[str, Tensor], ids: tuple[str, ...]) -> Scaler:
    mean, deviation = arrays[f"{name}.mean"], arrays[f"{name}.deviation"]
    return Scaler(mean=mean.numpy(), deviation=deviation.numpy(), ids=ids)
