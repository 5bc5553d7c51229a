"""A trained forecaster as a folder: weights and arrays in safetensors, everything else in JSON.

```
weights.safetensors   the model's state
arrays.safetensors    scaler statistics, how far intervals open, and the baselines with numbers of
                      their own that scores stand beside
history.parquet       of graphs, the events that forecasts go on from
forecaster.json       recipe, spec, columns, layout or grid, metrics, versions, sha256 of the others
                      and of itself
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
from forecast import atomic, kinds, limits, recipe
from forecast.artefact import schema
from forecast.artefact.fitting import Budget, check_shapes
from forecast.contracts import AnyForecaster
from forecast.errors import DataError, ForecastError, NotFoundError
from forecast.models.building import tensor_bytes

FORMAT = 1
_DESCRIPTION = "forecaster.json"
_WEIGHTS = "weights.safetensors"
_ARRAYS = "arrays.safetensors"
_FILES = (_WEIGHTS, _ARRAYS, "history.parquet")
_CHANGED = "It was changed or cut off after training; copy or fetch the artefact again."


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
    description: dict[str, Any] = {
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
    description["sha256"][_DESCRIPTION] = _own_hash(description)
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
    try:
        document = schema.read_file(path)
    # A name that is too long for the file system is no file's either.
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{folder} holds no trained forecaster: there is no {_DESCRIPTION} in it.",
            hint="Give the folder that `forecast train` printed, runs:/... or models:/name@alias.",
        ) from error
    if document.get("format") != FORMAT:
        raise DataError(
            f"The artefact has format {str(document.get('format'))[:100]}, and forecast "
            f"{forecast.__version__} reads format {FORMAT}.",
            hint="Use the version of forecast that wrote it, or train again.",
            file=str(path),
        )
    kept = schema.checked(document, path)
    stated = kept["sha256"].get(_DESCRIPTION)
    # Artefacts of earlier versions do not state it.
    if stated and stated != _own_hash(kept):
        raise DataError(
            "The description is not the one that was written: its sha256 is another.",
            hint=_CHANGED,
            file=str(path),
        )
    return kept


def load(folder: str | Path) -> AnyForecaster:
    """Read a forecaster from its folder.

    Raises:
        NotFoundError: this is no forecaster's folder.
        DataError: a file of it is missing, changed, damaged, or does not fit the others.
    """
    folder = Path(folder)
    kept = describe(folder)
    contents = _contents(folder, kept)
    try:
        arrays, weights = load_tensors(contents[_ARRAYS]), load_tensors(contents[_WEIGHTS])
        with Budget(weights, folder):
            _check_finite(weights, folder)
            resolved = recipe.from_dict(kept["recipe"])
            restored = kinds.of(resolved.model).restore(resolved, weights, arrays, kept, contents)
        check_shapes(kept, arrays)
    except (DataError, NotFoundError):
        raise
    # The folder comes from anywhere. What is wrong with it was not found by its schema, and shows
    # only where it is put to use: as whatever error that ends in.
    except Exception as error:
        reason = error.message if isinstance(error, ForecastError) else str(error)
        raise DataError(
            f"The artefact cannot be put together: {reason[:1_000].rstrip('.')}.",
            hint="Fetch or copy it again, or train again.",
            file=str(folder),
        ) from error
    return restored


def verify(folder: Path) -> dict[str, Any]:
    """Check all files of a folder by their hashes; return its description.

    This is what `load` checks before it puts a forecaster together, without putting one together.

    Raises:
        NotFoundError: this is no forecaster's folder.
        DataError: a file of it is missing, changed or damaged.
    """
    kept = describe(folder)
    _contents(folder, kept)
    return kept


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


def _contents(folder: Path, kept: dict[str, Any]) -> dict[str, bytes]:
    """Read the files that a description names, each as it states it."""
    names = [name for name in kept["sha256"] if name != _DESCRIPTION]
    for name in names:
        if name not in _FILES:
            raise DataError(
                f"The description names a file {name[:100]!r}; an artefact has "
                f"{', '.join(_FILES)}.",
                hint=_CHANGED,
                file=str(folder),
            )
    if missing := [name for name in (_WEIGHTS, _ARRAYS) if name not in names]:
        raise DataError(
            f"The description does not state the sha256 of {missing[0]}.",
            hint=_CHANGED,
            file=str(folder),
        )
    return {name: _checked(folder / name, kept["sha256"][name]) for name in names}


def _checked(path: Path, stated: str) -> bytes:
    try:
        content = limits.read_regular(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            "The file is missing from the artefact.", hint="Copy the whole folder.", file=str(path)
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise DataError(
            f"The file has sha256 {found}, and the artefact states {stated}.",
            hint=_CHANGED,
            file=str(path),
        )
    if path.suffix == ".safetensors":
        try:
            load_tensors(content)
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(
                f"The file holds no tensors: {error}.", hint=_CHANGED, file=str(path)
            ) from error
    return content


def _own_hash(description: dict[str, Any]) -> str:
    """Hash a description but for the hash itself."""
    others = {name: one for name, one in description["sha256"].items() if name != _DESCRIPTION}
    plain = json.dumps(description | {"sha256": others}, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
