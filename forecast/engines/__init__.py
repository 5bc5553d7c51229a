"""Engines: long tables forecast on a cluster, by the one function that forecasts them here.

An engine only moves rows: it brings all rows of a series to one place, hands each place's rows to
`Forecasting` as an Arrow table, and writes the Arrow tables that come back. Ray and Spark are
extras: `pip install 'forecast[ray]'`, `'forecast[spark]'`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from forecast.engines.arrow import ERROR, Forecasting
from forecast.errors import MissingExtraError, NotFoundError, UsageError, nearest
from forecast.series.forecaster import Forecaster
from forecast.tracking import loading

__all__ = ["ENGINES", "ERROR", "Distributed", "Forecasting", "predict_files"]

# Name of each engine, and of its module here.
ENGINES = {"ray": "forecast.engines.ray_data", "spark": "forecast.engines.spark"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Distributed:
    """What an engine did.

    Attributes:
        out: folder of Parquet files.
        rows: rows forecast.
        failed: series without a forecast, and why.
        start_seconds: time until the engine was up.
        seconds: time from then to the last file.
    """

    out: Path
    rows: int
    failed: tuple[tuple[str, str], ...]
    start_seconds: float
    seconds: float


class Engine(Protocol):
    """Describe the module of an engine."""

    def start(self) -> None:
        """Start it, or join one that runs."""
        ...

    def run(
        self, forecasting: Forecasting, paths: list[str], out: Path, places: int
    ) -> tuple[int, list[tuple[str, str]]]:
        """Forecast; return the number of rows, and the series that failed with the reason."""
        ...


def predict_files(
    model: str,
    inputs: Sequence[str],
    out: Path,
    *,
    engine: str,
    level: Sequence[float] | None = None,
    places: int = 8,
) -> Distributed:
    """Forecast long Parquet tables on a cluster.

    Args:
        model: where the model is: a folder or address that every machine reaches.
        inputs: Parquet files or folders of them.
        out: a new folder for Parquet files.
        engine: a key of `ENGINES`.
        level: levels of prediction intervals [%].
        places: places that the series are dealt out to, in parts of some thousands.

    Raises:
        NotFoundError: there is no such engine or file.
        UsageError: the model is not of long tables, or `out` is there already.
        MissingExtraError: the engine is not installed.
    """
    if engine not in ENGINES:
        raise NotFoundError(f"There is no engine {engine!r}.", hint=nearest(engine, ENGINES))
    forecaster = loading.load_series(model)
    _check(forecaster, inputs, out)
    try:
        module = cast(Engine, importlib.import_module(ENGINES[engine]))
    except ImportError as error:
        raise MissingExtraError(
            f"The engine {engine} is not installed: {error}.",
            hint=f"Install it: pip install 'forecast[{engine}]'",
        ) from error
    paths = [str(path) for name in inputs for path in _files(name)]
    began = time.perf_counter()
    module.start()
    started = time.perf_counter()
    forecasting = Forecasting.of(model, None if level is None else tuple(level), paths)
    rows, failed = module.run(forecasting, paths, out.absolute(), places)
    return Distributed(
        out=out,
        rows=rows,
        failed=tuple(sorted(failed)),
        start_seconds=started - began,
        seconds=time.perf_counter() - started,
    )


def _check(forecaster: Forecaster, inputs: Sequence[str], out: Path) -> None:
    if forecaster.layout.kind != "long" or forecaster.layout.joint:
        raise UsageError(
            "The model was not trained on a long table whose series are forecast apart; nothing "
            "can be dealt out to several machines.",
            hint="Leave --engine out.",
        )
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UsageError(
            f"{out} is there already, and an engine writes into a folder of its own.",
            hint="Name another folder, or remove this one.",
        )
    for name in inputs:
        if not all(path.suffix in (".parquet", ".pq") for path in _files(name)):
            raise UsageError(
                f"{name} is no Parquet; engines read Parquet alone, in which types are stated.",
                hint="Write the table as Parquet, or leave --engine out.",
            )


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        found = sorted([*path.glob("**/*.parquet"), *path.glob("**/*.pq")])
        if found:
            return [one.absolute() for one in found]
    if not path.is_file():
        raise NotFoundError(f"There is no Parquet file at {name}.", hint="Check the path.")
    return [path.absolute()]
