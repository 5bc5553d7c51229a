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
import json
import platform
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
from forecast.artefact.forecasters import (
    HISTORY,
    AnyForecaster,
    AnySpec,
    Forecaster,
    GraphForecaster,
    GridForecaster,
    grid_spec,
)
from forecast.batch import EventSpec, Spec
from forecast.errors import DataError, NotFoundError
from forecast.models import MODELS, model_info

FORMAT = 1
_DESCRIPTION = "forecaster.json"
_WEIGHTS = "weights.safetensors"
_ARRAYS = "arrays.safetensors"


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
        names = (_WEIGHTS, _ARRAYS, *(name for name in kept["sha256"] if name == HISTORY))
        contents = {name: _checked(folder / name, kept) for name in names}
        resolved = recipe.from_dict(kept["recipe"])
        arrays, weights = load_tensors(contents[_ARRAYS]), load_tensors(contents[_WEIGHTS])

        def made(spec: AnySpec, **inputs: Tensor) -> nn.Module:
            model = build(resolved.model, resolved.model_config, spec, **inputs)
            model.load_state_dict(weights)
            return model.eval()

        match kept["spec"]["kind"]:
            case "grid":
                model = made(grid_spec(kept["spec"]))
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
