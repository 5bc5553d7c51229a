"""The Python interface: what the command line does, with the same words.

```python
import forecast

trained = forecast.train("etth1", model="itransformer", horizon=96)
table = forecast.predict(trained.artefact, "new.csv")   # a polars DataFrame
model = forecast.load("models:/etth1@champion")         # the forecaster itself
```
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecast import kinds
from forecast.contracts import AnyForecaster
from forecast.device import set_threads
from forecast.runs.predict import predict_files
from forecast.runs.run import Trained, train
from forecast.series.forecaster import Forecaster
from forecast.series.stream.pump import Source
from forecast.series.stream.run import Streamed, memory_of, run_stream
from forecast.tracking.loading import load, load_series

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl
    import xarray

__all__ = [
    "Streamed",
    "Trained",
    "load",
    "load_series",
    "predict",
    "predict_files",
    "stream",
    "stream_memory",
    "train",
]


def predict(
    model: str | Path | AnyForecaster, source: Any, device: str = "auto", **options: Any
) -> pl.DataFrame | xarray.Dataset:
    """Forecast the steps that follow the last one, from any kind of data.

    Args:
        model: a forecaster, or where it is: a folder, `runs:/...` or `models:/name@alias`.
        source: of series a file, a stream of CSV or a frame; of grids a file, a folder, a pattern
            or a list of them; of graphs a file of events that goes on from those kept with the
            model, or None, and of values the file, of sensors a pair of files.
        device: where to run.
        options: of series `future`, `history`, `level` and `method`, as `series.predict.predict`
            says; of events `at`, `sources` and `top`.

    Returns:
        Of series a frame in the layout of the training table; of grids a data set with the names,
        units and coordinates of the training files, and `lead_time`; of graphs a frame as
        `graphs.predict` says.

    Raises:
        ForecastError: the model or the data cannot be used.
    """
    forecaster = load(model) if isinstance(model, str | Path) else model
    return kinds.of(forecaster.recipe.model).predict(forecaster, source, device, **options)


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
