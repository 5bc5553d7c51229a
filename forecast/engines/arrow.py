"""The function that every engine runs: rows of whole series in, their forecasts out, as Arrow.

Series are dealt out in the parts that a job on one machine would make of them, by the order of
their ids: the last bit of a forecast may depend on the batch it is made in, so the batches are the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import polars as pl

from forecast.errors import DataError
from forecast.series import context, predict
from forecast.series.bulk import PART_SERIES
from forecast.series.bulk.job import aligned
from forecast.series.forecaster import Forecaster
from forecast.tracking import loading

# The column that says why a series has no forecast; null for all others.
ERROR = "forecast_error"
# The column by which rows travel: the number of the part that their series is in.
PART = "forecast_part"
# Series tried to learn the types of what comes out.
_SAMPLE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecasting:
    """Forecast the series of an Arrow table; small enough to be sent to every process.

    Attributes:
        model: where the model is.
        level: levels of prediction intervals [%].
        schema: the columns that come out, `ERROR` last.
        bounds: the first id of each part, ascending.
    """

    model: str
    level: tuple[float, ...] | None
    schema: Any
    bounds: tuple[str, ...]

    @classmethod
    def of(cls, model: str, level: tuple[float, ...] | None, paths: Sequence[str]) -> Forecasting:
        """Learn from the files which parts there are, and from a series what comes out.

        Raises:
            DataError: none of the first series can be forecast; says why the first cannot.
        """
        key = id_column(model)
        rows = pl.scan_parquet(list(paths))
        names = rows.select(pl.col(key).cast(pl.String).unique().sort()).collect()[key].drop_nulls()
        size = aligned(PART_SERIES, _loaded(model))
        first: DataError | None = None
        for name in names[:_SAMPLE]:
            own = rows.filter(pl.col(key).cast(pl.String) == name).collect()
            try:
                found = _predict(model, level, own)
            except DataError as error:
                first = first or error
                continue
            return cls(
                model=model,
                level=level,
                schema=found.to_arrow().schema,
                bounds=tuple(names.gather_every(size)),
            )
        raise first or DataError("The files hold no series.", hint="Check the paths.")

    def dealt(self, table: Any) -> Any:
        """Add to an Arrow table the column `PART`."""
        frame = pl.DataFrame(pl.from_arrow(table))
        names = frame[id_column(self.model)].cast(pl.String).fill_null("")
        part = pl.Series(self.bounds).search_sorted(names, side="right").cast(pl.Int64) - 1
        return frame.with_columns(part.alias(PART)).to_arrow()

    def forecast(self, table: Any) -> Any:
        """Forecast an Arrow table of whole parts, with the column `PART`, rows in any order.

        Returns:
            The forecasts, and `ERROR`; a series that cannot be forecast is one row with its id and
            the reason.
        """
        frame = pl.DataFrame(pl.from_arrow(table))
        if not frame.height:
            return self.schema.empty_table()
        parts = [self._forecast(part.drop(PART)) for part in frame.partition_by(PART)]
        return pl.concat(parts, how="vertical_relaxed").to_arrow().cast(self.schema)

    def _forecast(self, frame: pl.DataFrame) -> pl.DataFrame:
        try:
            return _predict(self.model, self.level, frame)
        except DataError as error:
            key = id_column(self.model)
            names = frame[key].unique().sort()
            if len(names) == 1:
                return self._failure(key, str(names[0]), error)
            # One bad series must not take the others with it: find it by halves.
            first = pl.col(key) < names[len(names) // 2]
            parts = [self._forecast(frame.filter(half)) for half in (first, ~first)]
            return pl.concat(parts, how="vertical_relaxed")

    def _failure(self, key: str, name: str, error: DataError) -> pl.DataFrame:
        empty = pl.DataFrame(pl.from_arrow(self.schema.empty_table()))
        row = empty.clear(1).with_columns(
            pl.lit(name).alias(key), pl.lit(error.message).alias(ERROR)
        )
        return row.select(empty.columns)


def id_column(model: str) -> str:
    """Name the column that tells series apart."""
    return cast(str, _loaded(model).layout.id)


def _predict(model: str, level: tuple[float, ...] | None, frame: pl.DataFrame) -> pl.DataFrame:
    forecaster = _loaded(model)
    table = context.read_context(forecaster, frame)
    found = predict.predict_table(forecaster, table, level=level, method="split")
    told = found.frame.with_columns(pl.lit(None, pl.String).alias(ERROR))
    if not found.skipped:
        return told
    # Series without an observed value are left out there; here each must be answered for.
    empty = told.clear(len(found.skipped)).with_columns(
        pl.Series(id_column(model), found.skipped),
        pl.lit("It has no observed value.").alias(ERROR),
    )
    return pl.concat([told, empty.select(told.columns)])


@lru_cache(maxsize=2)
def _loaded(model: str) -> Forecaster:
    """Load a model once in a process."""
    return loading.load_series(model)
