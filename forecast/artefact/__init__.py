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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

import forecast
from forecast import atomic, kinds, recipe
from forecast.contracts import AnyForecaster
from forecast.errors import DataError, NotFoundError
from forecast.models.building import tensor_bytes

FORMAT = 1
_DESCRIPTION = "forecaster.json"
_WEIGHTS = "weights.safetensors"
_ARRAYS = "arrays.safetensors"


def save(folder: Path, forecaster: AnyForecaster) -> None:
    """Write the folder; its description comes last, so that a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        _WEIGHTS: tensor_bytes(forecaster.model.state_dict()),
        _ARRAYS: tensor_bytes(forecaster.arrays()),
        **forecaster.files(),
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


def is_one(folder: Path) -> bool:
    """Whether a folder holds a trained forecaster."""
    return (folder / _DESCRIPTION).is_file()


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
        contents = {name: _checked(folder / name, kept) for name in kept["sha256"]}
        resolved = recipe.from_dict(kept["recipe"])
        arrays, weights = load_tensors(contents[_ARRAYS]), load_tensors(contents[_WEIGHTS])
        _check_finite(weights, folder)
        return kinds.of(resolved.model).restore(resolved, weights, arrays, kept, contents)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(
            f"The artefact cannot be put together: {error}.",
            hint="Fetch or copy it again, or train again.",
            file=str(folder),
        ) from error


def _check_finite(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse weights that would forecast nothing but empty cells."""
    bad = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if bad:
        raise DataError(
            f"The model cannot forecast: {len(bad)} of its {len(weights)} tensors hold NaN or "
            f"infinite weights, first {bad[0]}.",
            hint="Its training diverged or the file was changed: train again, with a smaller "
            "train.learning_rate or train.clip=1.0.",
            file=str(folder / _WEIGHTS),
        )


def digest(folder: Path) -> str:
    """Name the folder's content: the hash of its description, which holds those of the others."""
    return hashlib.sha256((folder / _DESCRIPTION).read_bytes()).hexdigest()


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
