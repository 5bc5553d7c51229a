"""Text to columns of cells: delimiter, quotation marks, and the line on which each record stands.

Every text cell stays text: what a cell means is decided where its column is known. Parquet arrives
here too, with its own types.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from forecast.errors import DataError, UsageError
from forecast.tables import decode, typed

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
QUOTE, NEWLINE = ord('"'), ord("\n")
# Enough to see the delimiter: this many bytes, and of wide tables this many lines.
SAMPLE_BYTES, SAMPLE_LINES = 1 << 16, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """A table as it is written, before any cell is understood.

    Attributes:
        frame: the columns; all of them text unless the file is Parquet.
        lines: `(N,)` int64, the file line on which each record starts, the header being line 1;
            for Parquet the number of the record, from 1.
        file: the name that errors give.
        digest: sha256 of the bytes as they came.
        delimiter: the delimiter of a text file, a comma for Parquet.
        commas: whether a cell can hold a comma, which it can only by quoting or another delimiter.
    """

    frame: pl.DataFrame
    lines: np.ndarray
    file: str
    digest: str
    delimiter: str = ","
    commas: bool = False

    def error(
        self, message: str, *, row: int | None = None, column: str | None = None, hint: str = ""
    ) -> DataError:
        """Make the error for the record at 0-based position `row`."""
        line = None if row is None else int(self.lines[row])
        return DataError(message, hint=hint, file=self.file, row=line, column=column)


def load(
    source: str | Path | BinaryIO,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    name: str | None = None,
) -> Cells:
    """Read a table's cells from a path or an open binary file.

    Args:
        source: CSV, TSV, Parquet, JSON (lines or an array), an Excel workbook, or one of them in
            gzip, bzip2, xz, zstd or a zip of one file.
        delimiter: one character; found in the data when None.
        encoding: a text encoding; UTF-8 or UTF-16 by what the bytes show when None.
        name: the file name that errors give; by default the path.

    Raises:
        NotFoundError: if there is no such file.
        DataError: if the bytes are not one table.
        UsageError: if the delimiter or the encoding does not exist.
    """
    file = name or (str(source) if isinstance(source, str | Path) else "standard input")
    raw = decode.read_bytes(source, file)
    digest = hashlib.sha256(raw).hexdigest()
    data = decode.decompress(raw, file)
    frame = typed.read(data, file)
    if frame is not None:
        lines = np.arange(1, frame.height + 1)
        cells = Cells(frame=frame, lines=lines, file=file, digest=digest, commas=True)
    else:
        cells = _text(decode.to_utf8(data, encoding, file), delimiter, file, digest)
    if cells.frame.height == 0:
        raise DataError("There is a header but no row below it.", file=file, hint="Add the data.")
    return cells


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Records:
    """Where each record of a text starts and ends, how many cells it has and on which line.

    Blank lines are none; `blank` says whether there are any.
    """

    starts: np.ndarray
    ends: np.ndarray
    widths: np.ndarray
    lines: np.ndarray
    blank: bool


def _scan(data: bytes, delimiter: str) -> _Records:
    """Find the records of a text; line breaks and delimiters in quotes belong to their cell."""
    codes = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(codes == NEWLINE)
    cuts = np.flatnonzero(codes == ord(delimiter))
    ends = breaks
    if b'"' in data:
        # True from an opening quotation mark up to the one that closes it.
        inside = np.logical_xor.accumulate(codes == QUOTE)
        ends, cuts = breaks[~inside[breaks]], cuts[~inside[cuts]]
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    widths = np.diff(np.searchsorted(cuts, ends), prepend=0) + 1
    filled = ends > starts
    blank = not filled.all()
    if blank:
        starts, ends, widths = starts[filled], ends[filled], widths[filled]
    lines = np.searchsorted(breaks, starts) + 1
    return _Records(starts=starts, ends=ends, widths=widths, lines=lines, blank=blank)


def _check_quotes(data: bytes, delimiter: str, file: str) -> None:
    """Refuse a quotation mark that is never closed, or stands within a cell without any."""
    if b'"' not in data:
        return
    codes = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(codes == QUOTE)
    border = np.array([ord(delimiter), NEWLINE, QUOTE])
    # Every second mark opens; a doubled one closes and opens again.
    opening, closing = marks[0::2], marks[1::2]
    opening = opening[opening > 0]
    closing = closing[closing < len(codes) - 1]
    stray = [
        *opening[~np.isin(codes[opening - 1], border)][:1],
        *closing[~np.isin(codes[closing + 1], border)][:1],
    ]
    if not stray and len(marks) % 2 == 0:
        return
    place = int(min(stray, default=marks[-1]))
    raise DataError(
        "A quotation mark stands within a cell that is not quoted."
        if stray
        else "A quotation mark is never closed.",
        file=file,
        row=data.count(b"\n", 0, place) + 1,
        hint='Quote the whole cell and double the marks in it ("5"" pipe"), or take them out.',
    )


def _sniff(data: bytes, file: str) -> str:
    """Find the delimiter: the one that cuts the header and the rows into equally many cells."""
    end = -1
    for _ in range(SAMPLE_LINES):
        end = data.find(b"\n", end + 1)
        if end < 0:
            break
    sample = data[: max(end + 1, SAMPLE_BYTES)] if end >= 0 else data
    widths = {mark: _scan(sample, mark).widths for mark in DELIMITERS}
    if len(sample) < len(data):
        # The last record of the sample may be cut, or be open still for want of a quotation mark.
        widths = {mark: counts[:-1] for mark, counts in widths.items() if len(counts) > 1}
    headers = {mark: int(counts[0]) for mark, counts in widths.items() if counts[0] > 1}
    agreeing = [mark for mark in headers if np.all(widths[mark] == headers[mark])]
    if len(agreeing) > 1:
        raise DataError(
            f"The delimiter may be {' or '.join(DELIMITERS[mark] for mark in agreeing)}: "
            "each cuts every row into equally many cells.",
            file=file,
            hint="Name it: set data.delimiter.",
        )
    if agreeing:
        return agreeing[0]
    if not headers:
        # Perhaps there would be one, were it not for a quotation mark.
        _check_quotes(data, ",", file)
        raise DataError(
            "There is only one column; a table needs a time and at least one value. "
            "Columns are delimited by comma, semicolon, tab or bar.",
            file=file,
            hint="Name another delimiter: set data.delimiter.",
        )
    return max(headers, key=lambda mark: headers[mark])


def _text(data: bytes, delimiter: str | None, file: str, digest: str) -> Cells:
    if not data.strip():
        raise DataError("The file is empty.", file=file, hint="Name a file with a header and rows.")
    if delimiter is None:
        delimiter = _sniff(data, file)
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\n\r\0':
        raise UsageError(
            f"The delimiter {delimiter!r} is not one ASCII character.",
            hint="Give one of , ; | or tab.",
        )
    _check_quotes(data, delimiter, file)
    records = _scan(data, delimiter)
    names = _header(data[records.starts[0] : records.ends[0]], delimiter, file)
    names = [name or f"column {place}" for place, name in enumerate(names, start=1)]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"The header names {', '.join(map(repr, repeated))} more than once.",
            file=file,
            row=int(records.lines[0]),
            hint="Give every column its own name.",
        )
    _check_widths(records, len(names), delimiter, file)
    body = _body(data, records)
    frame = _split(body, names, delimiter, file) if body else pl.DataFrame(schema=names)
    if frame.height != len(records.starts) - 1:
        raise DataError(
            f"{len(records.starts) - 1} records were counted and {frame.height} read.",
            file=file,
            hint="Look for quotation marks or control characters out of place.",
        )
    return Cells(
        frame=frame,
        lines=records.lines[1:].astype(np.int64),
        file=file,
        digest=digest,
        delimiter=delimiter,
        commas=b"," in body and (delimiter != "," or b'"' in body),
    )


def _header(record: bytes, delimiter: str, file: str) -> list[str]:
    try:
        names = next(csv.reader(io.StringIO(record.decode(), newline=""), delimiter=delimiter))
    except csv.Error as error:
        hint = "Check that this is a table of text."
        raise DataError(f"The header cannot be read ({error}).", file=file, hint=hint) from error
    return [name.strip() for name in names]


def _check_widths(records: _Records, width: int, delimiter: str, file: str) -> None:
    ragged = np.flatnonzero(records.widths != width)
    if not len(ragged):
        return
    first = ragged[0]
    cells = int(records.widths[first])
    hint = f"Mend the row; {len(ragged)} of {len(records.widths)} rows differ from the header."
    if delimiter == "," and cells > width:
        hint += " If the commas are decimal, quote those cells or delimit them by semicolon."
    raise DataError(
        f"The row has {cells} cell{'s' * (cells != 1)}, the header {width}.",
        file=file,
        row=int(records.lines[first]),
        hint=hint,
    )


def _body(data: bytes, records: _Records) -> bytes:
    """Return the text below the header, without blank lines."""
    if not records.blank:
        return data[records.ends[0] + 1 :]
    places = zip(records.starts[1:].tolist(), records.ends[1:].tolist(), strict=True)
    return b"\n".join(data[start:end] for start, end in places)


def _split(body: bytes, names: list[str], delimiter: str, file: str) -> pl.DataFrame:
    try:
        # Reading everything as text is what keeps ids such as 007 and lets every cell be checked.
        frame = pl.read_csv(
            body, has_header=False, separator=delimiter, infer_schema=False, new_columns=names
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"The rows cannot be split into cells ({_first_line(error)}).",
            file=file,
            hint="Look for quotation marks or control characters out of place.",
        ) from error
    return frame.rechunk()
