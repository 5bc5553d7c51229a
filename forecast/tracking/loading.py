"""Forecasters by reference: a folder, `runs:/...` or `models:/name@alias`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forecast import artefact, kinds
from forecast.contracts import AnyForecaster
from forecast.tracking.registry import resolve

if TYPE_CHECKING:
    from forecast.series.forecaster import Forecaster

_SCHEMES = ("runs:", "models:", "mlflow-artifacts:")


def load(model: str | Path) -> AnyForecaster:
    """Load a forecaster of any kind of data, from its folder, `runs:/...` or `models:/name@alias`.

    Raises:
        NotFoundError: there is no such folder, run or registered model.
        DataError: the artefact is damaged.
    """
    text = str(model)
    folder = resolve(text) if text.startswith(_SCHEMES) else Path(text)
    return artefact.load(folder)


def load_series(model: str | Path) -> Forecaster:
    """Load a forecaster of series.

    Raises:
        UsageError: it forecasts another kind of data.
        NotFoundError: as `load` does.
        DataError: as `load` does.
    """
    return kinds.as_series(load(model), str(model))
