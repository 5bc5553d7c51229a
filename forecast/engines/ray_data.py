"""Ray Data: the rows of each part shuffled to one block, each block forecast by a task."""

# pyright: reportMissingImports=false
# An extra: it is checked as far as it is installed.
from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.data.context import DataContext, ShuffleStrategy

from forecast.engines.arrow import ERROR, PART, Forecasting, id_column


def start() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine."""
    with _quiet():
        ray.init(
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Rows go by the hash of their part, so that no series is cut in two.
    context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE


def run(
    forecasting: Forecasting, paths: list[str], out: Path, places: int
) -> tuple[int, list[tuple[str, str]]]:
    """Forecast, and write Parquet files."""
    key = id_column(forecasting.model)
    whole: dict[str, Any] = {
        "batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True,
    }  # fmt: skip
    with _quiet():
        rows: Any = ray.data.read_parquet(paths).map_batches(forecasting.dealt, **whole)
        found = (
            rows.repartition(places, keys=[PART]).map_batches(forecasting.forecast, **whole)
        ).materialize()
        failed = found.filter(_has_failed).select_columns([key, ERROR]).take_all()
        good = found.filter(_has_not_failed).drop_columns([ERROR])
        good.write_parquet(str(out), coerce_timestamps="us")
        return good.count(), [(str(row[key]), str(row[ERROR])) for row in failed]


def _has_failed(row: dict[str, Any]) -> bool:
    return row[ERROR] is not None


def _has_not_failed(row: dict[str, Any]) -> bool:
    return row[ERROR] is None


@contextmanager
def _quiet() -> Generator[None]:
    """Keep the engine's narration off stderr."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
