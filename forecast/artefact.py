"""A trained forecaster as a folder: weights and arrays in safetensors, everything else in JSON.

```
weights.safetensors   the model's state
arrays.safetensors    scaler statistics, how far intervals open, and the baselines with numbers of
                      their own that scores stand beside
history.parquet       of graphs, the events that forecasts go on from
forecaster.json       recipe, spec, columns, layout or grid, metrics, versions, sha256 of the others
```

There is no pickle and no code in the folder, and loading runs none. A forecaster trained on a GPU
loads on a CPU. The same training gives the same bytes: nothing here tells the time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import forecast
from forecast import atomic, recipe
from forecast.batch import EventSpec, GridSpec, Spec
from forecast.data.covariates import Covariates
from forecast.data.scaling import Scaler
from forecast.data.tables import Layout
from forecast.errors import DataError, NotFoundError
from forecast.intervals import Calibration
from forecast.models import MODELS, model_info
from forecast.recipe import Recipe

FORMAT = 1
_DESCRIPTION = "forecaster.json"
_WEIGHTS = "weights.safetensors"
_ARRAYS = "arrays.safetensors"
_HISTORY = "history.parquet"


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
        grid: fields, cells, step and reading options, as `GridData.describe` lays them out.
        data: name, digest and size of the training data.
        metrics: what was measured when it was trained.
    """

    model: nn.Module
    recipe: Recipe
    spec: GridSpec
    statistics: dict[str, Tensor]
    grid: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the fields of a frame."""
        return tuple(channel["name"] for channel in self.grid["channels"])

    def arrays(self) -> dict[str, Tensor]:
        """Give the tensors to keep beside the weights."""
        return self.statistics

    def described(self) -> dict[str, Any]:
        """Give, as plain values, what else is to be kept of the data it was trained on."""
        return {
            "columns": list(self.columns),
            "frequency": self.spec.frequency,
            "grid": self.grid,
        }

    @classmethod
    def restored(
        cls, model: nn.Module, resolved: Recipe, arrays: dict[str, Tensor], kept: dict[str, Any]
    ) -> GridForecaster:
        """Put it together from what `arrays` and `described` gave, read back from a folder."""
        return cls(
            model=model,
            recipe=resolved,
            spec=_grid_spec(kept["spec"]),
            statistics=arrays,
            grid=kept["grid"],
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
        graph: ids, features and reading options, as `describe` of the data lays them out.
        history: all events of its data, which forecasts go on from; None of values.
        data: name, digest and size of the training data.
        metrics: what was measured when it was trained.
    """

    model: nn.Module
    recipe: Recipe
    spec: EventSpec
    statistics: dict[str, Tensor]
    graph: dict[str, Any]
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
        return {_HISTORY: stream.getvalue()}

    def described(self) -> dict[str, Any]:
        """Give, as plain values, what else is to be kept of the data it was trained on."""
        return {"columns": list(self.columns), "graph": self.graph}

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
        history = files.get(_HISTORY)
        return cls(
            model=model,
            recipe=resolved,
            spec=EventSpec(**kept["spec"]),
            statistics=arrays,
            graph=kept["graph"],
            history=None if history is None else polars.read_parquet(io.BytesIO(history)),
            data=kept["data"],
            metrics=kept["metrics"],
        )


AnyForecaster = Forecaster | GridForecaster | GraphForecaster
AnySpec = Spec | GridSpec | EventSpec


def build(name: str, config: Any, spec: AnySpec, **inputs: Tensor) -> nn.Module:
    """Make an untrained model of this name.

    Args:
        name: a key of MODELS.
        config: an instance of its config class.
        spec: the shape of the task.
        inputs: what the classes of graphs are made with beside these.
    """
    model, _ = model_info(name).load()
    return model(config, spec, **inputs)


def save(folder: Path, forecaster: AnyForecaster) -> None:
    """Write the folder; its description comes last, so that a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        _WEIGHTS: _bytes(forecaster.model.state_dict()),
        _ARRAYS: _bytes(forecaster.arrays()),
        **(forecaster.files() if isinstance(forecaster, GraphForecaster) else {}),
    }
    for name, content in contents.items():
        atomic.write_bytes(folder / name, content)
    description = {
        "format": FORMAT,
        "model": forecaster.recipe.model,
        "recipe": forecaster.recipe.to_dict(),
        "spec": dataclasses.asdict(forecaster.spec),
        **forecaster.described(),
        "data": forecaster.data,
        "metrics": forecaster.metrics,
        "versions": {
            "forecast": forecast.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "polars": polars.__version__,
            "python": platform.python_version(),
        },
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False)
    atomic.write_bytes(folder / _DESCRIPTION, text.encode())


def describe(folder: Path) -> dict[str, Any]:
    """Read what a folder says of its forecaster, without the weights.

    Raises:
        NotFoundError: this is no forecaster's folder.
        DataError: its description is damaged, or of a format this version does not read.
    """
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise NotFoundError(
            f"{folder} holds no trained forecaster: there is no {_DESCRIPTION} in it.",
            hint="Give the folder that `forecast train` printed, runs:/... or models:/name@alias.",
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"The description is damaged: {error}.", file=str(path)) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else None
        raise DataError(
            f"The artefact has format {found}, and forecast {forecast.__version__} reads format "
            f"{FORMAT}.",
            hint="Use the version of forecast that wrote it, or train again.",
            file=str(path),
        )
    return description


def load(folder: str | Path) -> AnyForecaster:
    """Read a forecaster from its folder.

    Raises:
        NotFoundError: this is no forecaster's folder.
        DataError: a file of it is missing, changed or damaged.
    """
    folder = Path(folder)
    kept = describe(folder)
    try:
        names = (_WEIGHTS, _ARRAYS, *(name for name in kept["sha256"] if name == _HISTORY))
        contents = {name: _checked(folder / name, kept) for name in names}
        resolved = recipe.from_dict(kept["recipe"])
        arrays, weights = load_tensors(contents[_ARRAYS]), load_tensors(contents[_WEIGHTS])

        def made(spec: AnySpec, **inputs: Tensor) -> nn.Module:
            model = build(resolved.model, resolved.model_config, spec, **inputs)
            model.load_state_dict(weights)
            return model.eval()

        match kept["spec"]["kind"]:
            case "grid":
                model = made(_grid_spec(kept["spec"]))
                return GridForecaster.restored(model, resolved, arrays, kept)
            case "graph":
                inputs = {
                    name.removeprefix("inputs."): value
                    for name, value in arrays.items()
                    if name.startswith("inputs.")
                }
                model = made(EventSpec(**kept["spec"]), **inputs)
                return GraphForecaster.restored(model, resolved, arrays, kept, contents)
            case _:
                return Forecaster.restored(made(Spec(**kept["spec"])), resolved, arrays, kept)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"The artefact cannot be put together: {error}.",
            hint="Fetch or copy it again, or train again.",
            file=str(folder),
        ) from error


def _grid_spec(kept: dict[str, Any]) -> GridSpec:
    stated: dict[str, Any] = {**kept, "references": tuple(kept["references"])}
    return GridSpec(**stated)


def _scaler(name: str, arrays: dict[str, Tensor], ids: tuple[str, ...]) -> Scaler:
    mean, deviation = arrays[f"{name}.mean"], arrays[f"{name}.deviation"]
    return Scaler(mean=mean.numpy(), deviation=deviation.numpy(), ids=ids)


def digest(folder: Path) -> str:
    """Name the folder's content: the hash of its description, which holds those of the others."""
    return hashlib.sha256((folder / _DESCRIPTION).read_bytes()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Name a model by its weights."""
    return hashlib.sha256(_bytes(model.state_dict())).hexdigest()


def baseline(name: str, forecaster: Forecaster) -> nn.Module | None:
    """Make a closed-form baseline for the task of a forecaster; None if it would need fitting."""
    _, config = MODELS[name].load()
    model = build(name, config(), forecaster.spec)
    if name == "ridge":
        if forecaster.ridge is None:
            return None
        model.load_state_dict({"weight": forecaster.ridge})
    return model.eval()


def _checked(path: Path, description: dict[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            "The file is missing from the artefact.", hint="Copy the whole folder.", file=str(path)
        ) from error
    stated = description.get("sha256", {}).get(path.name)
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise DataError(
            f"The file has sha256 {found}, and the artefact states {stated}.",
            hint="It was changed or cut off after training; copy or fetch the artefact again.",
            file=str(path),
        )
    return content


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    # Tensors may share memory, as a start with the rule it was taken from; the format refuses that.
    return save_tensors(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
    )
