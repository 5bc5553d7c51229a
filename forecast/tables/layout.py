"""The form of a table: how to read it, and how to write a forecast as its file was written."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float

from forecast import atomic, outputs
from forecast.errors import DataError, NotFoundError, UsageError
from forecast.tables import formats
from forecast.tables.formats import TimeKind
from forecast.tables.regular import Duplicates

Fill = Literal["none", "hold", "linear", "refuse"]
SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions:
    """How to read a table, where its own form does not.

    Attributes:
        layout: `wide`, a column for each variate; `long`, a row for each series and time; `auto`
            takes `long` where an id column is named or one is called `unique_id`.
        time: the column of times; by default the first called date, time, timestamp, datetime or
            ds, in any case, else the first that holds times.
        id: the column that names the series of a long table; `unique_id` by default.
        target: wide, the variates in this order, all numeric columns by default; long, the columns
            of values, `y` by default.
        joint: whether the series of a long table are the variates of one.
        static: columns of a long table that are constant within each series.
        categorical: columns of text that change from row to row.
        past_covariates: columns of numbers that help to forecast and are known up to now.
        known_future: columns of numbers that help to forecast and are known in advance.
        date_format: the strptime format of the times, `epoch` (seconds) or `epoch_ms`.
        timezone: the IANA zone of times without an offset, and of the calendar and the output.
        frequency: the step between rows as a pandas offset alias; by default the most common one.
        fill: what becomes of missing cells and rows: `none` leaves them missing, `hold` repeats the
            last value, `linear` draws a line within gaps, `refuse` refuses them.
        duplicates: what becomes of rows that share a time.
        delimiter: one character, or `tab`.
        decimal: the mark before the fraction of a number.
        encoding: the encoding of the text.
        missing: further cells that mean missing; a number means every cell equal to it.
    """

    layout: Literal["auto", "wide", "long"] = "auto"
    time: str | None = None
    id: str | None = None
    target: tuple[str, ...] = ()
    joint: bool = False
    static: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    past_covariates: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()
    date_format: str | None = None
    timezone: str | None = None
    frequency: str | None = None
    fill: Fill = "none"
    duplicates: Duplicates = "refuse"
    delimiter: str | None = None
    decimal: Literal[".", ","] | None = None
    encoding: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The form of a table that was read, in plain types that JSON can carry.

    Attributes:
        kind: `wide` or `long`.
        time: the column of times.
        id: the column of ids of a long table.
        values: the columns of values.
        variates: the names of the variates: the value columns, or with `joint` the ids.
        joint: whether the series of a long table are the variates of one.
        static: the columns that are constant within each series.
        levels: the levels of each categorical column; the code of a level is its place.
        past_covariates: the covariates that are known up to now.
        known_future: the covariates that are known in advance.
        time_kind: how a time is written.
        time_format: the format of times that are text.
        timezone: the zone of the local clock: an IANA name or an offset; None where it is unknown.
        date_format: the format that had to be named to read the times.
        fill: how missing cells and rows were treated.
        duplicates: how rows that share a time were treated.
        missing: the further cells that mean missing.
        delimiter: the delimiter of the text.
        decimal: the mark before the fraction of a number.
        encoding: the encoding that had to be named to read the text.
    """

    kind: Literal["wide", "long"]
    time: str
    id: str | None = None
    values: tuple[str, ...]
    variates: tuple[str, ...]
    joint: bool = False
    static: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    past_covariates: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()
    time_kind: TimeKind = "text"
    time_format: str | None = None
    timezone: str | None = None
    date_format: str | None = None
    fill: Fill = "none"
    duplicates: Duplicates = "refuse"
    missing: tuple[str, ...] = ()
    delimiter: str = ","
    decimal: str = "."
    encoding: str | None = None

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Layout:
        """Rebuild a layout from what `dataclasses.asdict` and JSON made of it.

        Raises:
            KeyError: if the levels are missing.
            TypeError: if another field is missing or unknown.
        """
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        plain["levels"] = {name: tuple(levels) for name, levels in content["levels"].items()}
        return Layout(**plain)

    def options(self) -> TableOptions:
        """How to read a later file of this form; its delimiter and decimal mark may be its own."""
        shared = {item.name for item in fields(TableOptions)} & {item.name for item in fields(self)}
        kept = {name: getattr(self, name) for name in shared - {"delimiter", "decimal"}}
        return TableOptions(
            layout=self.kind, target=self.values, categorical=tuple(self.levels), **kept
        )


def forecast_frame(
    layout: Layout,
    ids: Sequence[str],
    times: Sequence[np.ndarray] | np.ndarray,
    values: Float[np.ndarray, "S H C"],
) -> pl.DataFrame:
    """Lay forecasts out as the table they continue.

    Args:
        layout: the form of that table.
        ids: the S series.
        times: the H times of each series, as `future_times` gives them.
        values: the forecasts, in the units of the table.

    Returns:
        Wide, a row for each time; long, a row for each series and time, series after series; the
        times in the format and on the local clock of the table.
    """
    series, horizon, variates = values.shape
    clock = np.stack([np.asarray(row) for row in times]).astype("datetime64[us]")
    if layout.kind == "wide":
        if series != 1:
            raise ValueError(f"A wide table holds one series, not {series}.")
        names, cells = (), values[0]
    elif layout.joint:
        names, cells = layout.variates, values[0].T.reshape(-1, 1)
        clock = np.repeat(clock, variates, axis=0)
    else:
        names, cells = tuple(ids), values.reshape(series * horizon, variates)
    columns = {
        layout.time: formats.write(
            clock.reshape(-1), layout.time_kind, layout.time_format, layout.timezone
        )
    }
    if layout.id is not None:
        column = np.repeat(np.array(names, dtype=object), horizon)
        columns = {layout.id: pl.Series(column, dtype=pl.String)} | columns
    for place, name in enumerate(layout.values):
        columns[name] = pl.Series(cells[:, place].astype(np.float64))
    return pl.DataFrame(columns)


def write_table(frame: pl.DataFrame, destination: Path | None, layout: Layout) -> None:
    """Write a table as its destination's suffix says, whole or not at all.

    Text is UTF-8, with the delimiter (a tab in .tsv) and the decimal mark of the layout; a missing
    value is an empty cell.

    Args:
        frame: the table.
        destination: a path that ends in .csv, .tsv or .parquet, text also with .gz or .zst behind
            it; None writes CSV to standard output.
        layout: the form of the table that was read.

    Raises:
        UsageError: if the suffix is another.
        NotFoundError: if the folder does not exist.
        DataError: if the file cannot be written.
    """
    if destination is None:
        outputs.to_stdout(_text(frame, layout.delimiter, layout.decimal))
        return
    name = destination.name.lower()
    suffix = max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)
    if suffix is None:
        raise UsageError(
            f"A table cannot be written to {str(destination)!r}: its name must end in one of "
            f"{', '.join(SUFFIXES)}.",
            hint="Choose one of these endings.",
        )
    delimiter = "\t" if suffix.startswith(".tsv") else layout.delimiter
    try:
        # A link stays a link: it is its target that is replaced.
        with atomic.replacing(destination.resolve()) as temporary:
            if suffix == ".parquet":
                frame.write_parquet(temporary)
            else:
                content = _text(frame, delimiter, layout.decimal)
                temporary.write_bytes(_compress(content, suffix))
    except FileNotFoundError as error:
        raise NotFoundError(
            f"There is no folder {destination.parent} to write {destination.name} in.",
            hint="Make it, or choose another.",
        ) from error
    except OSError as error:
        raise DataError(
            f"The file cannot be written: {error.strerror or error}.",
            file=str(destination),
            hint="Choose another place, or make room there.",
        ) from error


def _text(frame: pl.DataFrame, delimiter: str, decimal: str) -> bytes:
    numbers = pl.selectors.float()
    frame = frame.with_columns(numbers.fill_nan(None))
    if decimal != ".":
        frame = frame.with_columns(numbers.cast(pl.String).str.replace(".", decimal, literal=True))
    return frame.write_csv(separator=delimiter).encode()


def _compress(content: bytes, suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        # Without the time of day, so that the same forecast gives the same bytes.
        return gzip.compress(content, mtime=0)
    if suffix.endswith(".zst"):
        # pyarrow comes with mlflow, and only this format needs it.
        import pyarrow as pa  # noqa: PLC0415

        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()
    return content
