"""Spark: the rows of each part repartitioned to one place, each place forecast as Arrow."""

# pyright: reportMissingImports=false
# An extra: it is checked as far as it is installed.
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from forecast.engines.arrow import ERROR, PART, Forecasting, id_column


def start() -> None:
    """Join the session that is there, or start one as Spark is configured here."""
    _session().sparkContext.setLogLevel("ERROR")


def run(
    forecasting: Forecasting, paths: list[str], out: Path, places: int
) -> tuple[int, list[tuple[str, str]]]:
    """Forecast, and write Parquet files."""
    key = id_column(forecasting.model)

    def dealt(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield from forecasting.dealt(pa.Table.from_batches([batch])).to_batches()

    def forecast(batches: Iterator[Any]) -> Iterator[Any]:
        if held := list(batches):
            yield from forecasting.forecast(pa.Table.from_batches(held)).to_batches()

    rows = _session().read.parquet(*paths)
    with_part = to_arrow_schema(rows.schema).append(pa.field(PART, pa.int64()))
    parts = rows.mapInArrow(dealt, from_arrow_schema(with_part)).repartition(places, PART)
    found = parts.mapInArrow(forecast, from_arrow_schema(forecasting.schema)).cache()
    failed = found.where(found[ERROR].isNotNull()).select(key, ERROR).collect()
    good = found.where(found[ERROR].isNull()).drop(ERROR)
    good.write.parquet(str(out))
    return good.count(), [(row[key], row[ERROR]) for row in failed]


def _session() -> Any:
    # Spark starts its workers with the first python3 of the PATH; without an activated environment
    # that is another one, which lacks this package. What the user has stated stays.
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        os.environ.setdefault(name, sys.executable)
    builder: Any = SparkSession.builder
    return (
        builder.appName("forecast")
        # Times stay what they are in the file, whatever the zone of a machine.
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
