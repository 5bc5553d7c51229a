"""Whether the parts of an artefact fit each other: no larger model than its weights, no odd shape.

Letters: S series, L lookback, H horizon, C variates or channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from forecast.errors import DataError
from forecast.grids.climatology import TABLES
from forecast.series.intervals import GRID

_DAY = 86_400_000_000  # [us]
# Elements that a model may make beside its weights while it is built: tables, masks, positions.
_SPARE = 1 << 24
_SPARE_STEPS = 20_000
# Times that each weight may be made on the way: first values, copies, a transposed one.
_TIMES = 20


class Budget(TorchDispatchMode):
    """Stop the building of a model that becomes larger than the weights that are to fill it.

    A description that asks for a width of a million is then an error, and not all of the memory.

    Args:
        weights: what the model is to be filled with.
        folder: of the artefact, for the message.

    Raises:
        DataError: in place of a tensor that is too large, or one too many.
    """

    def __init__(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        super().__init__()
        self._elements = _SPARE + _TIMES * sum(one.numel() for one in weights.values())
        self._steps = _SPARE_STEPS + 200 * len(weights)
        self._folder = folder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation before it runs: those that make a tensor state its size first."""
        self._steps -= 1
        sizes = args[0] if args and isinstance(args[0], list | tuple) else ()
        if sizes and all(isinstance(size, int) for size in sizes):
            self._elements -= math.prod(sizes)
        if self._elements < 0 or self._steps < 0:
            raise DataError(
                "The model that is described is far larger than the weights that come with it.",
                hint="Fetch or copy the artefact again, or train again.",
                file=str(self._folder),
            )
        return func(*args, **(kwargs or {}))


def check_shapes(kept: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Refuse arrays of other shapes or types than the description leads to expect.

    Raises:
        ValueError: names the array, its shape and the one expected.
    """
    for name, shape in _SHAPES[kept["spec"]["kind"]](kept["spec"], kept).items():
        array = arrays.get(name)
        if array is None:
            if name.startswith("scaler.") or name.endswith((".means", ".counts")):
                raise ValueError(f"the arrays lack {name}")
            continue
        fits = len(shape) == array.dim() and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not (fits and array.is_floating_point()):
            wanted = " x ".join("any" if one is None else str(one) for one in shape)
            raise ValueError(f"{name} is {tuple(array.shape)} {array.dtype}, not floats {wanted}")
    for name, array in arrays.items():
        if name.endswith(".deviation") and not bool((array > 0).all()):
            raise ValueError(f"{name} holds what is no deviation: not above zero")
        if name.endswith(".mean") and not bool(torch.isfinite(array).all()):
            raise ValueError(f"{name} holds what is no mean: not finite")


Shape = tuple[int | None, ...]


def _series(spec: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Shape]:
    layout, series = kept["layout"], len(kept["ids"])
    numbers = len(layout["past_covariates"]) + len(layout["known_future"])
    return {
        "scaler.mean": (series, spec["variates"]),
        "scaler.deviation": (series, spec["variates"]),
        "covariates.mean": (series, numbers),
        "covariates.deviation": (series, numbers),
        "baseline.ridge": (spec["lookback"], spec["horizon"]),
        "intervals.reaches": (len(GRID), spec["horizon"], spec["variates"]),
    }


def _grid(spec: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Shape]:
    grid = kept["grid"]
    per_day = max(1, _DAY // grid["step"]) if grid["step"] else 1
    shapes: dict[str, Shape] = {
        "scaler.mean": (spec["channels"], None, None),
        "scaler.deviation": (spec["channels"], None, None),
    }
    for name in spec["references"]:
        if name in TABLES:
            slots = TABLES[name][1](per_day)
            shapes[f"{name}.means"] = (slots, spec["channels"], spec["rows"], spec["columns"])
            shapes[f"{name}.counts"] = (slots, None, None, None)
    return shapes


def _graph(spec: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Shape]:
    return {}


_SHAPES = {"series": _series, "grid": _grid, "graph": _graph}
