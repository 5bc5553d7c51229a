"""Inputs of any size, and the pieces they come in: files, folders, patterns, addresses.

All inputs together are one long table: their rows may be in any order, and those of a series may be
in several files. A piece is a `Cells`, as a small file of its own would be, but its lines are those
of the whole file.
"""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from forecast.errors import DataError, NotFoundError, UsageError
from forecast.series.bulk import text
from forecast.tables import decode
from forecast.tables.columns import find_roles
from forecast.tables.dialect import Cells
from forecast.tables.layout import SUFFIXES, TableOptions

# Rows of a typed piece; text is cut by bytes.
_PIECE_ROWS = 1 << 20
_SUFFIXES = (*SUFFIXES, ".txt", ".csv.bz2", ".csv.xz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How the inputs are read.

    Attributes:
        options: those of the table.
        columns: the variates that the model wants.
        delimiter: that of a text whose beginning cannot be looked at, because it is far away.
        piece: the bytes of text in one piece.
    """

    options: TableOptions
    columns: tuple[str, ...]
    delimiter: str
    piece: int

    @property
    def keys(self) -> tuple[str, str]:
        """Name the columns of ids and times."""
        assert self.options.id is not None
        assert self.options.time is not None
        return self.options.id, self.options.time

    @property
    def wanted(self) -> tuple[str, ...]:
        """Name the columns that forecasting needs."""
        options = self.options
        return (
            *self.keys,
            *self.columns,
            *options.static,
            *options.categorical,
            *options.past_covariates,
            *options.known_future,
        )

    def check(self, head: Cells) -> None:
        """Refuse an input that lacks a column.

        Raises:
            DataError: naming the column, and what may be meant.
        """
        find_roles(head, self.options, self.columns)


@dataclass(kw_only=True, slots=True)
class Source:
    """One input.

    Attributes:
        name: its path or address.
        size: its bytes; None of an address.
        changed: when it was last changed [s since 1970]; None of an address.
        digest: sha256 of its bytes, once all were read; None of an address.
        rows: how many were read.
    """

    name: str
    size: int | None = None
    changed: float | None = None
    digest: str | None = None
    rows: int = 0

    def pieces(self, reading: Reading) -> Iterator[Callable[[], Cells]]:
        """Yield a function for each piece, which any thread may call to make it.

        Raises:
            DataError: if the input cannot be read, or lacks a column.
        """
        if self.size is None:
            yield from self._scanned(_lazy(self.name, reading), reading)
            return
        with _opened(self.name) as raw:
            typed = raw.read(4) == b"PAR1"
            raw.seek(0)
            if typed:
                self.digest = hashlib.file_digest(raw, "sha256").hexdigest()
                yield from self._scanned(pl.scan_parquet(self.name, glob=False), reading)
                return
            yield from self._text(raw, reading)

    def describe(self) -> dict[str, object]:
        """Return in plain types what was read."""
        return {
            "name": self.name,
            "size": self.size,
            "changed": self.changed,
            "sha256": self.digest,
            "rows": self.rows,
        }

    def _text(self, raw: io.FileIO, reading: Reading) -> Iterator[Callable[[], Cells]]:
        digest, options = hashlib.sha256(), reading.options
        with text.decoded(raw, digest, options.encoding, self.name) as stream:
            form, first, line, head = text.begin(
                stream, options.delimiter, self.name, reading.piece
            )
            reading.check(head)
            form = form.choose(reading.wanted, numbered=reading.keys)
            for data in itertools.chain([first], text.records(stream, reading.piece)):
                breaks = data.count(b"\n")
                yield partial(form.cells, data, line, breaks)
                line += breaks
        self.digest = digest.hexdigest()

    def _scanned(self, lazy: pl.LazyFrame, reading: Reading) -> Iterator[Callable[[], Cells]]:
        try:
            empty = pl.DataFrame(schema=lazy.collect_schema())
            head = Cells(frame=empty, lines=np.arange(0), file=self.name, digest="")
            reading.check(head)
            row = 1
            for frame in lazy.select(reading.wanted).collect_batches(chunk_size=_PIECE_ROWS):
                lines = np.arange(row, row + frame.height)
                yield partial(
                    Cells, frame=frame, lines=lines, file=self.name, digest="", commas=True
                )
                row += frame.height
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(
                f"It cannot be read ({first}).",
                file=self.name,
                hint="Check the address and the right to read it, or write the file again.",
            ) from error


def find(inputs: Sequence[str | Path]) -> list[Source]:
    """Find the files that inputs stand for, in order, each once.

    Args:
        inputs: files, folders, patterns, or addresses that polars reads, such as `s3://...`.

    Raises:
        NotFoundError: if one of them stands for nothing.
        UsageError: if one is standard input.
    """
    found: dict[str, Source] = {}
    for name in map(str, inputs):
        if name == "-":
            raise UsageError(
                "Standard input is read as a whole, and a large table in pieces.",
                hint="Name files, patterns, folders or addresses.",
            )
        if is_address(name):
            found[name] = Source(name=name)
            continue
        for path in map(str, _files(name)):
            with _opened(path) as file:
                state = os.fstat(file.fileno())
            found[path] = Source(name=path, size=state.st_size, changed=state.st_mtime)
    return list(found.values())


def is_address(name: str) -> bool:
    """Return whether an input is an address and not a path."""
    return "://" in name and not Path(name).exists()


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.name.lower().endswith(_SUFFIXES)
            # Names that begin so are the notes of the programs that write such folders.
            and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        ]
        if not files:
            raise NotFoundError(
                f"The folder {name} holds no table: no name in it ends in one of "
                f"{', '.join(_SUFFIXES)}.",
                hint="Name another folder, or a pattern such as 'in/*.dat'.",
            )
        return files
    if path.exists() or not glob.has_magic(name):
        return [path]
    files = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise NotFoundError(f"No file matches {name!r}.", hint="Check the folder and the pattern.")
    return files


def _opened(name: str) -> io.FileIO:
    try:
        return open(name, "rb", buffering=0)
    except OSError:
        # It says in full what is wrong, and what is near.
        decode.read_bytes(name, name)
        raise


def _lazy(address: str, reading: Reading) -> pl.LazyFrame:
    if address.lower().endswith((".parquet", "/")):
        return pl.scan_parquet(address)
    return pl.scan_csv(address, infer_schema=False, separator=reading.delimiter)
