"""Text of any size to pieces of whole records: unpacked, decoded, cut, and split into cells.

Plain records are split by the fastest way there is. The first sign that they may not be plain sends
a piece to the reader of whole files, which knows what to do and what to say.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from forecast.errors import DataError
from forecast.tables import decode, dialect
from forecast.tables.decode import BYTE_ORDER_MARKS, SAMPLE_BYTES
from forecast.tables.dialect import Cells

# Bytes that are read at once.
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How the records of a text are split into cells.

    Attributes:
        file: the name that errors give.
        delimiter: one character.
        names: all columns.
        wanted: those that are kept.
        numbered: of them those whose texts come again and again; they become Categorical.
    """

    file: str
    delimiter: str
    names: tuple[str, ...]
    wanted: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()

    def choose(self, wanted: Sequence[str], *, numbered: Sequence[str]) -> Form:
        """Keep some of the columns."""
        return replace(self, wanted=tuple(wanted), numbered=tuple(numbered))

    def cells(self, data: bytes, line: int, breaks: int) -> Cells:
        """Split whole records, of which the first stands on this line of the file.

        Raises:
            DataError: if they are no records of this form, naming the line.
        """
        try:
            data = decode.to_utf8(data, None, self.file)
            cells = self._plain(data, breaks) or self._thorough(data)
        except DataError as error:
            raise _moved(error, line - 1) from error
        return replace(cells, frame=cells.frame.select(self.wanted), lines=cells.lines + line - 1)

    def _plain(self, data: bytes, breaks: int) -> Cells | None:
        """Split plain records; None where they may not be plain."""
        if b'"' in data:
            return None
        # The texts of some columns come again and again: they are numbered while they are read.
        schema = {
            name: pl.Categorical(pl.Categories.random()) if name in self.numbered else pl.String()
            for name in self.names
        }
        try:
            frame = pl.read_csv(
                data, has_header=False, separator=self.delimiter, schema=schema, quote_char=None
            )
        except pl.exceptions.PolarsError:
            return None
        # polars refuses a record with too many cells, but fills one with too few; no cells are
        # missing at its end if none is empty there, or if their number is right in all.
        last = frame[self.names[-1]].null_count()
        if frame.height != breaks or (last and self._count(data) != frame.height * frame.width):
            return None
        return Cells(
            frame=frame,
            lines=np.arange(1, breaks + 1),
            file=self.file,
            digest="",
            delimiter=self.delimiter,
            commas=self.delimiter != "," and b"," in data,
        )

    def _count(self, data: bytes) -> int:
        """Count the cells of whole records."""
        return data.count(self.delimiter.encode()) + data.count(b"\n")

    def _thorough(self, data: bytes) -> Cells:
        if not data.strip():
            frame = pl.DataFrame(schema=dict.fromkeys(self.names, pl.String()))
            return Cells(frame=frame, lines=np.arange(0), file=self.file, digest="")
        header = pl.DataFrame(schema=list(self.names)).write_csv(separator=self.delimiter).encode()
        above = header.count(b"\n")
        try:
            cells = dialect.load(
                io.BytesIO(header + data), delimiter=self.delimiter, name=self.file
            )
        except DataError as error:
            raise _moved(error, -above) from error
        return replace(cells, lines=cells.lines - above, digest="")


def begin(
    stream: BinaryIO, delimiter: str | None, file: str, size: int
) -> tuple[Form, bytes, int, Cells]:
    """Read the header of a text, and the first rows with it.

    Returns:
        The form; these rows, and the line they begin on; and the same as cells.

    Raises:
        DataError: if it has none.
    """
    pieces = records(stream, min(size, SAMPLE_BYTES))
    data = next(pieces, b"")
    while sum(map(bool, data.splitlines())) < 2 and (more := next(pieces, b"")):
        data += more
    if b"\0" in data:
        raise DataError(
            "This is no text, or one with several bytes for each character.",
            file=file,
            hint="If it is text, name its encoding: set data.encoding to utf-16-le, for example.",
        )
    head = dialect.load(io.BytesIO(data), delimiter=delimiter, name=file)
    line = int(head.lines[0])
    for _ in range(line - 1):
        data = data[data.index(b"\n") + 1 :]
    form = Form(file=file, delimiter=head.delimiter, names=tuple(head.frame.columns))
    return form, data, line, head


def records(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Cut a text into pieces of whole records, of about this many bytes."""
    while data := stream.read(size):
        # A line break in quotation marks ends no record.
        while not data.endswith(b"\n") or (b'"' in data and data.count(b'"') % 2):
            rest = stream.readline()
            data += rest or b"\n"
            if not rest:
                break
        yield data


class _Hashing(io.RawIOBase):
    """Read a file, and hash what was read."""

    def __init__(self, raw: io.FileIO, digest: Any) -> None:
        self._raw = raw
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:count])
        return count


class _Recoded(io.RawIOBase):
    """Read text of any encoding as UTF-8 with plain line feeds."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._words = io.TextIOWrapper(stream, encoding)
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._ready:
            self._ready = self._words.read(_CHUNK).encode()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@contextmanager
def decoded(raw: io.FileIO, digest: Any, encoding: str | None, file: str) -> Generator[BinaryIO]:
    """Open a text as UTF-8, whatever it is packed and written in.

    Args:
        raw: the file.
        digest: the hash that takes its bytes.
        encoding: the encoding; UTF-8, or what a byte order mark says, when None.
        file: the name that errors give.

    Raises:
        DataError: while it is open, if it cannot be unpacked or decoded.
        UsageError: if there is no such encoding.
    """
    stream = io.BufferedReader(_Hashing(raw, digest), _CHUNK)
    packing = decode.packing(stream.peek(16))
    if packing == "zip":
        raise DataError(
            "A zip is unpacked as a whole, and this table is read in pieces.",
            file=file,
            hint="Unpack it, or pack it with gzip or zstd.",
        )
    try:
        unpacked: Any = decode.UNPACKED[packing](stream) if packing else stream
        start = unpacked.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
        mark = next((mark for mark in BYTE_ORDER_MARKS if start.startswith(mark)), b"")
        unpacked.read(len(mark))
        encoding = encoding or BYTE_ORDER_MARKS.get(mark, "utf-8")
        # Lines that end in nothing but a carriage return are found by whoever decodes them.
        if encoding != "utf-8" or (b"\r" in start and b"\n" not in start):
            # One that does not exist is refused in the words of the reader of whole files.
            decode.to_utf8(b"", encoding, file)
            unpacked = io.BufferedReader(_Recoded(unpacked, encoding), _CHUNK)
        yield unpacked
        # What lies behind the end of a packed stream is part of the file all the same.
        while stream.read(_CHUNK):
            pass
    except UnicodeError as error:
        raise DataError(
            f"The text is not {encoding} ({error}).",
            file=file,
            hint="Name the encoding it was written in, or leave it out.",
        ) from error
    except decode.UNPACKING_ERRORS as error:
        if packing:
            raise decode.damaged(packing, error, file) from error
        raise DataError(
            f"It cannot be read ({error}).", file=file, hint="Copy or download the file again."
        ) from error


def _moved(error: DataError, lines: int) -> DataError:
    """Move an error down by some lines."""
    if error.row is None or not lines:
        return error
    where = DataError("", file=error.file, row=error.row, column=error.column).message
    return DataError(
        error.message.removeprefix(where),
        hint=error.hint,
        file=error.file,
        row=error.row + lines,
        column=error.column,
    )
