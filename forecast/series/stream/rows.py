"""Rows as they come, and forecasts as they are issued: lines of CSV or JSON, wide or long.

Cells are read by the rules by which tables are read.

A row is one line. The first line says what the rest is: a JSON object is a row, anything else is
the header of CSV.

Letters: n rows or forecasts, H horizon, C variates.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from forecast.errors import DataError, nearest
from forecast.series.bulk.output import safe
from forecast.tables import formats
from forecast.tables import times as timestamps
from forecast.tables.columns import listed, number_series
from forecast.tables.dialect import DELIMITERS, Cells
from forecast.tables.frequency import NEVER, Frequency
from forecast.tables.layout import Layout
from forecast.tables.numbers import read_numbers, refuse_cells

_FILE = "standard input"
# A field may be as long as its line; the limit of the csv module is for a whole process.
csv.field_size_limit(1 << 30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Some rows of many series, in the order in which they came.

    Attributes:
        ids: the series of each row; empty in a wide table.
        ordinals: `(n,)` the steps since 1970 at which they stand.
        phases: `(n,)` what is left of the time beyond that step.
        values: the cells, NaN where they are missing.
        lines: `(n,)` the line of each, from 1.
    """

    ids: list[str]
    ordinals: np.ndarray
    phases: np.ndarray
    values: Float[np.ndarray, "n C"]
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: np.ndarray) -> Rows:
        """Take some of the rows."""
        return Rows(
            ids=[self.ids[place] for place in places],
            ordinals=self.ordinals[places],
            phases=self.phases[places],
            values=self.values[places],
            lines=self.lines[places],
        )


@dataclass(kw_only=True, slots=True)
class RowReader:
    """Read lines the way a trained model's table was read, its columns matched by name.

    Attributes:
        layout: the form of that table.
        columns: the C variates; of a joint table they are ids.
        frequency: the step between the rows of a series.
        json: whether the rows are JSON objects; None until the first line is seen.
        line: lines read so far.
    """

    layout: Layout
    columns: tuple[str, ...]
    frequency: str
    json: bool | None = None
    line: int = 0
    _header: list[str] = field(default_factory=list[str])
    _delimiter: str = ","

    def read(self, lines: Sequence[bytes]) -> tuple[Rows, DataError | None]:
        """Read complete lines; blank ones are no rows.

        Returns:
            The rows up to the first that cannot be read, and the error that it is; its `row` is
            the number of the line, also where more than one is wrong with it.
        """
        numbered = [
            (number, line) for number, line in enumerate(lines, self.line + 1) if line.strip()
        ]
        self.line += len(lines)
        first: DataError | None = None
        while True:
            try:
                if numbered and self.json is None:
                    self._begin(*numbered[0])
                    numbered = numbered if self.json else numbered[1:]
                return self._parse(numbered), first
            except DataError as error:
                first = error
                numbered = [row for row in numbered if error.row and row[0] < error.row]
            except Exception as error:  # noqa: BLE001 - a hostile line is no fault of the program
                first = self._unread(numbered, error)
                numbered = [row for row in numbered if first.row and row[0] < first.row]

    def _unread(self, numbered: Sequence[tuple[int, bytes]], error: Exception) -> DataError:
        """Find the first line that a parser gave up on."""
        for number, line in numbered:
            try:
                self._parse([(number, line)])
            except DataError as own:
                return own
            except Exception as own:  # noqa: BLE001 - as above
                return self._error(number, f"The row cannot be read: {own}.")
        number = numbered[0][0] if numbered else self.line
        return self._error(number, f"The rows from here on cannot be read: {error}.")

    def _begin(self, number: int, line: bytes) -> None:
        if line.lstrip().startswith(b"{"):
            self.json = True
            return
        text = line.decode(errors="replace").removeprefix("\ufeff").rstrip("\r\n")
        delimiter = max(DELIMITERS, key=text.count)
        header = [name.strip() for name in next(csv.reader([text], delimiter=delimiter))]
        for name in self._wanted:
            if name not in header:
                raise DataError(
                    f"There is no column {name!r} in the first line, which is the header.",
                    hint=f"{nearest(name, header)} The model needs {listed(self._wanted)}.",
                    file=_FILE,
                    row=number,
                )
        self.json, self._header, self._delimiter = False, header, delimiter

    @property
    def _values(self) -> tuple[str, ...]:
        return self.layout.values if self.layout.joint else self.columns

    @property
    def _wanted(self) -> list[str]:
        return [self.layout.time, *([self.layout.id] if self.layout.id else []), *self._values]

    def _parse(self, numbered: Sequence[tuple[int, bytes]]) -> Rows:
        values = np.empty((len(numbered), len(self._values)))
        if not numbered:
            none = np.empty(0, np.int64)
            return Rows(ids=[], ordinals=none, phases=none, values=values, lines=none)
        cells = self._cells(numbered)
        stamps = timestamps.parse(
            cells,
            self.layout.time,
            date_format=self.layout.date_format,
            timezone=self.layout.timezone,
            prove=False,
        )
        step = Frequency.parse(self.frequency)
        ordinals, phases = step.split(stamps.clock if step.on_local_clock else stamps.times)
        if (phases == NEVER).any():
            raise cells.error(
                f"The time is not one of the frequency {self.frequency}.",
                row=int((phases == NEVER).argmax()),
                column=self.layout.time,
                hint=f"Bring rows of frequency {self.frequency}.",
            )
        decimal = "." if self.json else self.layout.decimal
        for place, name in enumerate(self._values):
            numbers = read_numbers(cells, name, decimal=decimal, missing=self.layout.missing)
            refuse_cells(cells, name, numbers, decimal)
            values[:, place] = numbers.values
        return Rows(
            ids=self._ids(cells),
            ordinals=ordinals,
            phases=phases,
            values=values,
            lines=cells.lines,
        )

    def _ids(self, cells: Cells) -> list[str]:
        if self.layout.id is None:
            return [""] * len(cells.lines)
        series, ids = number_series(cells, self.layout.id)
        return [ids[number] for number in series]

    def _cells(self, numbered: Sequence[tuple[int, bytes]]) -> Cells:
        """Part the lines into cells of text."""
        lines = np.array([number for number, _ in numbered], np.int64)
        wanted = self._wanted
        read = self._objects if self.json else self._records
        columns = zip(wanted, zip(*read(numbered, wanted), strict=True), strict=True)
        frame = pl.DataFrame([pl.Series(name, part, pl.String) for name, part in columns])
        return Cells(frame=frame, lines=lines, file=_FILE, digest="", delimiter=self._delimiter)

    def _records(
        self, numbered: Sequence[tuple[int, bytes]], wanted: Sequence[str]
    ) -> list[list[str]]:
        width = len(self._header)
        places = [self._header.index(name) for name in wanted]
        texts = [line.decode(errors="replace").rstrip("\r\n") for _, line in numbered]
        # One line more, which a quotation mark left open in the last one takes in.
        rows = csv.reader([*texts, ""], delimiter=self._delimiter)
        records: list[list[str]] = []
        for count, ((number, _), cells) in enumerate(zip(numbered, rows, strict=False), 1):
            if rows.line_num != count:
                raise self._error(number, "A quotation mark is never closed.")
            if len(cells) != width:
                raise self._error(number, f"The row has {len(cells)} cells, the header {width}.")
            records.append([cells[place] for place in places])
        return records

    def _objects(
        self, numbered: Sequence[tuple[int, bytes]], wanted: Sequence[str]
    ) -> list[list[str | None]]:
        records: list[list[str | None]] = []
        for number, line in numbered:
            try:
                row = json.loads(line)
                # What is not named is missing, but for time and series.
                cells = [row.get(name) for name in wanted]
            except (ValueError, AttributeError) as error:
                raise self._error(number, f"This is not a JSON object ({error}).") from error
            records.append([_text(cell) for cell in cells])
        return records

    def _error(self, number: int, message: str) -> DataError:
        return DataError(message, hint="Mend the row.", file=_FILE, row=number)


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    # Half of a surrogate pair, which JSON can escape alone, is no character.
    text = cell if isinstance(cell, str) else json.dumps(cell)
    return text.encode(errors="surrogatepass").decode(errors="replace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """Forecasts as they were issued.

    Attributes:
        ids: the series of each forecast; empty in a wide table.
        times: `(n,)` datetime64[us], the row after which each was issued.
        future: `(n, H)` the times it is for.
        values: in the units of the table, NaN for a variate of which nothing was ever observed.
        cold: `(n,)` whether the model has not yet seen as many rows as it looks back on.
    """

    ids: list[str]
    times: np.ndarray
    future: np.ndarray
    values: Float[np.ndarray, "n H C"]
    cold: np.ndarray


@dataclass(kw_only=True, slots=True)
class RowWriter:
    """Write forecasts in the form in which their rows came.

    CSV has a row for each step ahead: the time of issue, the columns of the table, and whether the
    start was cold. Of JSON lines each is a whole forecast, its steps in lists.

    Attributes:
        layout: the form of the table.
        columns: the C variates.
        safe_ids: put an apostrophe before ids in CSV that a spreadsheet takes for formulas.
    """

    layout: Layout
    columns: tuple[str, ...]
    safe_ids: bool = False
    _headed: bool = False

    def text(self, issued: Issued, *, json: bool) -> bytes:
        """Return the forecasts as lines; the first ones of CSV come with their header."""
        return self._json(issued) if json else self._csv(issued)

    def _csv(self, issued: Issued) -> bytes:
        layout = self.layout
        count, horizon, variates = issued.values.shape
        ids, names, cells = issued.ids, layout.values, issued.values
        if layout.joint:
            ids, cells = list(self.columns) * count, cells.transpose(0, 2, 1)[..., None]
        several = variates if layout.joint else 1
        columns: dict[str, Any] = {"issued": self._times(issued.times.repeat(horizon * several))}
        if layout.id:
            columns[layout.id] = np.repeat(np.array(ids, dtype=object), horizon)
        future = np.repeat(issued.future, several, axis=0)
        columns[layout.time] = self._times(future.reshape(-1))
        flat = cells.reshape(count * horizon * several, -1)
        columns |= {name: flat[:, place] for place, name in enumerate(names)}
        columns["cold"] = issued.cold.repeat(horizon * several)
        numbers = pl.selectors.float()
        frame = pl.DataFrame(columns).with_columns(numbers.fill_nan(None))
        if self.safe_ids and layout.id:
            frame = safe(frame.with_columns(pl.col(layout.id).cast(pl.String)), layout.id)
        if layout.decimal != ".":
            comma = numbers.cast(pl.String).str.replace(".", layout.decimal, literal=True)
            frame = frame.with_columns(comma)
        text = frame.write_csv(separator=layout.delimiter, include_header=not self._headed)
        self._headed = True
        return text.encode()

    def _json(self, issued: Issued) -> bytes:
        layout = self.layout
        times, future = (
            self._times(part.reshape(-1)).cast(pl.String).to_list()
            for part in (issued.times, issued.future)
        )
        horizon = issued.future.shape[1]
        lines: list[str] = []
        for place, (name, values) in enumerate(zip(issued.ids, issued.values, strict=True)):
            row: dict[str, Any] = {"issued": times[place]}
            if layout.id and not layout.joint:
                row[layout.id] = name
            row["cold"] = bool(issued.cold[place])
            row[layout.time] = future[place * horizon : (place + 1) * horizon]
            for column, cells in zip(self.columns, values.T, strict=True):
                row[column] = [None if math.isnan(cell) else cell for cell in cells.tolist()]
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        return "".join(lines).encode()

    def _times(self, times: np.ndarray) -> pl.Series:
        layout = self.layout
        return formats.write(times, layout.time_kind, layout.time_format, layout.timezone)
