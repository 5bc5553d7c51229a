"""The Python interface: what the command line does, with the same words.

```python
import forecast

trained = forecast.train("etth1", model="itransformer", horizon=96)
table = forecast.predict(trained.artefact, "new.csv")   # a polars DataFrame
model = forecast.load("models:/etth1@champion")         # the forecaster itself
```
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import polars as pl

from forecast import kinds
from forecast.contracts import AnyForecaster
from forecast.device import set_threads
from forecast.recipe import Recipe
from forecast.runs import run
from forecast.runs.predict import predict_files
from forecast.runs.run import Trained
from forecast.series.forecaster import Forecaster
from forecast.series.stream.pump import Source
from forecast.series.stream.run import Streamed, memory_of, run_stream
from forecast.tracking.loading import load as _load
from forecast.tracking.loading import load_series

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

__all__ = [
    "Streamed",
    "Trained",
    "evaluate",
    "load",
    "load_series",
    "predict",
    "predict_files",
    "stream",
    "stream_memory",
    "train",
]

Frame = pl.DataFrame | pd.DataFrame
Model = str | Path | Trained | AnyForecaster


def train(target: str | Path | Frame | Recipe, **options: Any) -> Trained:
    """Train, score once on the test part beside the baselines, save, track and register.

    Args:
        target: a recipe (file, name or `Recipe`), the name of a data set, a data file, or a frame
            of polars or pandas.
        options: those of `runs.run.train`: `model`, `lookback`, `horizon`, `settings`, `init`,
            `resume`, `out`, `force`, `watcher`.

    Raises:
        ForecastError: anything the user can put right.
    """
    if isinstance(init := options.get("init"), Trained):
        options["init"] = init.artefact
    with _as_path(target) as path:
        return run.train(cast("str | Path | Recipe", path), **options)


def load(model: str | Path | Trained) -> AnyForecaster:
    """Load a forecaster of any kind of data.

    Args:
        model: its folder, `runs:/...`, `models:/name@alias`, or what `train` returned.

    Raises:
        NotFoundError: there is no such folder, run or registered model.
        DataError: the artefact is damaged.
    """
    return _load(model.artefact if isinstance(model, Trained) else model)


def evaluate(
    model: Model, source: str | Path | Frame | Sequence[str] | None = None, device: str = "auto",
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Score a trained forecaster, with the baselines beside it.

    Args:
        model: a forecaster, what `train` returned, or where it is.
        source: a file or a frame of which all that follows the first lookback is scored; None
            scores the test part of the forecaster's own data.
        device: where to run.
        options: `recipe` and `cold`, as `kinds.evaluate` says.

    Returns:
        `protocol`, `data`, `metrics.test` and `metrics.baselines`, and `notices`.

    Raises:
        ForecastError: the model or the data cannot be used.
    """
    with _as_path(source) as path:
        named = str(path) if isinstance(path, Path) else path
        several = tuple(named) if isinstance(named, list) else named
        return kinds.evaluate(_forecaster(model), cast(Any, several), device, **options)


def predict(
    model: Model, source: Any = None, device: str = "auto", **options: Any
) -> pl.DataFrame | xarray.Dataset:
    """Forecast the steps that follow the last one, from any kind of data.

    Args:
        model: a forecaster, what `train` returned, or where it is: a folder, `runs:/...` or
            `models:/name@alias`.
        source: of series a file, a stream of CSV or a frame of polars or pandas; of grids a file,
            a folder, a pattern or a list of them; of graphs a file of events that goes on from
            those kept with the model, or None, and of values the file, of sensors a pair of files.
        device: where to run.
        options: of series `future`, `history`, `level` (a number or several) and `method`, as
            `series.predict.predict` says; of events `at`, `sources` and `top`.

    Returns:
        Of series a frame in the layout of the training table; of grids a data set with the names,
        units and coordinates of the training files, and `lead_time`; of graphs a frame as
        `graphs.predict` says.

    Raises:
        ForecastError: the model or the data cannot be used.
    """
    forecaster = _forecaster(model)
    if isinstance(level := options.get("level"), int | float):
        options["level"] = [level]
    for name in ("future", "history"):
        if name in options:
            options[name] = _polars(options[name])
    kind = kinds.of(forecaster.recipe.model)
    return kind.predict(forecaster, _polars(source), device, **_given(options))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _forecaster(model: Model) -> AnyForecaster:
    return load(model) if isinstance(model, str | Path | Trained) else model


def _polars(source: Any) -> Any:
    """Turn a frame of pandas into one of polars; leave anything else as it is."""
    if not isinstance(source, pd.DataFrame):
        return source
    # An index of times is a column to everybody but pandas; one that counts rows is none.
    counts = isinstance(source.index, pd.RangeIndex) and source.index.name is None
    return pl.from_pandas(source if counts else source.reset_index())


@contextmanager
def _as_path(source: Any) -> Generator[Any]:
    """Yield a frame as a Parquet file, which keeps every type; anything else as it is."""
    frame = _polars(source)
    if not isinstance(frame, pl.DataFrame):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="forecast-") as folder:
        path = Path(folder) / "frame.parquet"
        frame.write_parquet(path)
        yield path


def stream(
    model: str | Path | Forecaster,
    source: Source,
    write: Callable[[bytes], object],
    **options: Any,
) -> Streamed:
    """Forecast rows as they arrive, until they end or a signal comes.

    Args:
        model: a forecaster of series, or where it is.
        source: lines of CSV or JSON.
        write: writes bytes and flushes them.
        options: as `series.stream.run.run_stream` says.

    Raises:
        ForecastError: the model, the state or a row cannot be used.
    """
    return run_stream(_series(model), source, write, **options)


def stream_memory(model: str | Path | Forecaster, device: str = "auto") -> tuple[int, int]:
    """Return the bytes that one series takes in a stream, and the rows for which it is cold."""
    return memory_of(_series(model), device)


def _series(model: str | Path | Forecaster) -> Forecaster:
    forecaster = load_series(model) if isinstance(model, str | Path) else model
    set_threads(forecaster.recipe.train.threads)
    return forecaster
