"""Forecast tables larger than memory: only the last rows of every series are ever held.

All inputs together are one long table. Its pieces go by once: the times of all rows are read, and
the rows that a forecast rests on are kept as they are written. These are then read, judged and
forecast by the rules of `prediction`, some thousands of series at a time, so that a series has the
same forecast as it has in memory.

The rules for a series are judged on the rows that are kept; rows before them must have an id and a
time that can be read. A series that breaks a rule is named with the reason in a side file, and the
others are forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import forecast
from forecast.errors import Failure, UsageError
from forecast.series.bulk import sources, tails
from forecast.series.bulk.job import Job, Report, aligned, digest
from forecast.series.bulk.output import Output, open_output, safe
from forecast.series.bulk.sources import Reading, Source
from forecast.series.forecaster import Forecaster
from forecast.tables.layout import Layout

__all__ = ["Failure", "Report", "is_called_for", "predict_files", "safe"]

# Text is read in pieces of so many bytes, and so many series make a part.
PIECE_BYTES, PART_SERIES = 1 << 23, 2_048
# A file of more bytes than this is not read as a whole.
_LARGE = 256 << 20


def is_called_for(layout: Layout, inputs: Sequence[str], *, resume: bool = False) -> bool:
    """Return whether inputs are read in pieces, as one table, and not each as a whole.

    They are for a model of long tables if one of them is a folder or an address, if there is one
    alone and it has more than 256 MiB, or if an interrupted job is to be resumed.
    """
    if resume:
        return True
    if layout.kind != "long" or layout.joint or "-" in inputs:
        return False
    if any(sources.is_address(name) or Path(name).is_dir() for name in inputs):
        return True
    return len(inputs) == 1 and sum(source.size or 0 for source in sources.find(inputs)) > _LARGE


def predict_files(
    forecaster: Forecaster,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    reading: Mapping[str, Any] | None = None,
    device: str = "auto",
    level: Sequence[float] | None = None,
    resume: bool = False,
    parts: Literal[".parquet", ".csv"] = ".parquet",
    safe_ids: bool = False,
    part_series: int = PART_SERIES,
    piece_bytes: int = PIECE_BYTES,
    tell: Callable[[str], object] = lambda _: None,
) -> Report:
    """Forecast long tables of any size.

    Args:
        forecaster: trained on a long table whose series are forecast apart.
        inputs: CSV or Parquet: files, folders, patterns, or addresses that polars reads.
        out: a file, by its ending .csv, .tsv (text also with .gz or .zst behind it) or .parquet;
            else a folder of parts.
        reading: fields of `TableOptions` in which the inputs differ from the training table.
        device: where to run.
        level: levels of prediction intervals [%]; None takes those of the model's own quantiles.
            They are calibrated on the validation part of the training data alone (`split`), for of
            the rows before the context nothing is kept.
        resume: take over the parts that a killed job has finished.
        parts: how the names of the parts of a folder end.
        safe_ids: put an apostrophe before ids that a spreadsheet would take for formulas, in text.
        part_series: how many series make a part, about.
        piece_bytes: how much text is read at once, about.
        tell: takes sentences on how far it is.

    Returns:
        What was forecast, and what was not.

    Raises:
        ForecastError: the inputs are no such tables, no series can be read, or the output cannot be
            written.
    """
    layout, spec = forecaster.layout, forecaster.spec
    _check(forecaster)
    names = [inputs] if isinstance(inputs, str | Path) else inputs
    how = Reading(
        options=replace(layout.options(), **(reading or {})),
        columns=forecaster.columns,
        delimiter=layout.delimiter,
        piece=max(1, piece_bytes),
    )
    found = sources.find(names)
    with open_output(Path(out), parts, resume=resume) as output:
        _check_apart(found, output)
        kept = tails.scan(found, how, spec.frequency, spec.context or spec.lookback)
        rows_read = sum(source.rows for source in found)
        tell(f"{rows_read:,} rows of {len(kept.ids):,} series read.")
        job = Job(
            forecaster=forecaster,
            device=device,
            level=level,
            output=output,
            safe_ids=safe_ids,
            size=aligned(part_series, forecaster),
            about={
                "program": f"forecast {forecast.__version__}",
                "model": digest(forecaster),
                "inputs": [source.describe() for source in found],
                "rows_read": rows_read,
            },
            tell=tell,
        )
        return job.run(kept)


def _check(forecaster: Forecaster) -> None:
    """Refuse a model that does not forecast the series of a long table apart, from their last rows.

    Raises:
        UsageError: it is another.
    """
    if forecaster.layout.kind != "long" or forecaster.layout.joint:
        raise UsageError(
            "The model was not trained on a long table whose series are forecast apart, and only "
            "such tables are read in pieces.",
            hint="Name single files: they are read as a whole.",
        )
    if forecaster.spec.context is None:
        raise UsageError(
            "The model looks back over all history, and of a table that is read in pieces only the "
            "last rows are kept.",
            hint="Name single files: they are read as a whole.",
        )


def _check_apart(found: Sequence[Source], output: Output) -> None:
    """Refuse to replace an input by the output."""
    for source in found:
        path = Path(source.name).resolve()
        if source.size is not None and (path == output.target or output.target in path.parents):
            raise UsageError(
                f"The output {output.target} would replace the input {source.name}.",
                hint="Name another place for the output.",
            )
