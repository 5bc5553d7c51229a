"""Files to bytes, and bytes to text: paths, compression, encodings and what is no table at all.

Everything is decided by the first bytes, not by a file's suffix.
"""

from __future__ import annotations

import bz2
import codecs
import difflib
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from forecast.errors import DataError, NotFoundError, UsageError
from forecast.tables.typed import is_excel

# The longer marks come first: the UTF-32 one begins with the UTF-16 one.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# What people hand over by mistake, so that the message can say what it is.
FOREIGN = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook",
    b"%PDF-": "a PDF",
    b"SQLite format 3\x00": "a SQLite database",
    b"\x89HDF\r\n": "an HDF5 or NetCDF-4 file",
    b"CDF\x01": "a NetCDF file",
    b"CDF\x02": "a NetCDF file",
    b"CDF\x05": "a NetCDF file",
    b"ARROW1": "an Arrow (Feather) file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x93NUMPY": "a NumPy array",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
}
# Control characters that no text has.
CONTROLS = {*range(9), *range(14, 27), *range(28, 32)}
# So many bytes show what the rest is.
SAMPLE_BYTES = 1 << 16


def read_bytes(source: str | Path | BinaryIO, file: str) -> bytes:
    """Read a whole file, by its path or as an open binary stream.

    Raises:
        NotFoundError: if there is no such file; it names those whose names are near.
        DataError: if it cannot be read.
    """
    path = Path(source) if isinstance(source, str | Path) else Path(file)
    try:
        return source.read() if not isinstance(source, str | Path) else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(path) from error
    except IsADirectoryError as error:
        hint = f"Name one file in it, for example {path / _listing(path)[0]}."
        raise DataError("This is a folder, not a table.", file=file, hint=hint) from error
    except PermissionError as error:
        hint = "Ask its owner for the right to read it, or copy it."
        raise DataError("You may not read this file.", file=file, hint=hint) from error
    except (OSError, ValueError) as error:
        hint = "Check the path."
        raise DataError(f"The file cannot be read: {error}.", file=file, hint=hint) from error


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) or ["data.csv"]
    except OSError:
        return ["data.csv"]


def _not_found(path: Path) -> NotFoundError:
    folder = path.parent
    if not folder.is_dir():
        return NotFoundError(f"There is no folder {folder}.", hint="Check the path.")
    close = difflib.get_close_matches(path.name, _listing(folder), n=3, cutoff=0.5)
    hint = f"Near it: {', '.join(close)}." if close else f"Look at what is in {folder.resolve()}."
    return NotFoundError(f"There is no file {path}.", hint=hint)


def _zstandard(stream: Any) -> Any:
    # pyarrow comes with mlflow, and only this format needs it.
    import pyarrow as pa  # noqa: PLC0415

    return io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = [member.filename for member in members]
        if len(members) != 1:
            listing = ", ".join(names[:5]) or "nothing"
            raise DataError(
                f"The zip holds {len(members)} files ({listing}); it must hold one table.",
                hint="Unpack it and name the file.",
            )
        return archive.read(members[0])


UNPACKING_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)
# From a binary stream to what is packed in it; a zip, whose listing is at its end, takes all bytes.
UNPACKED: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": _zstandard,
}
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


def packing(start: bytes) -> str | None:
    """Return how data that begin so are packed; None if they are not."""
    for magic, name in COMPRESSIONS.items():
        # A text could begin with the letters BZh; a bzip2 stream goes on with the digits of pi.
        if start.startswith(magic) and (name != "bzip2" or start[4:10] == b"1AY&SY"):
            return name
    return None


def damaged(what: str, error: Exception, file: str) -> DataError:
    """Make the error for packed data that cannot be unpacked."""
    return DataError(
        f"The {what} data are damaged or cut short ({error}).",
        file=file,
        hint="Copy or download the file again.",
    )


def decompress(data: bytes, file: str) -> bytes:
    """Unpack gzip, bzip2, xz, zstd or a zip of one file; return anything else as it is.

    Raises:
        DataError: if the data are damaged, or a zip holds several files.
    """
    if is_excel(data):
        return data
    name = packing(data[:16])
    if name is None:
        return data
    try:
        return _unzip(data) if name == "zip" else UNPACKED[name](io.BytesIO(data)).read()
    except DataError as error:
        raise DataError(error.message, hint=error.hint, file=file) from error
    except (*UNPACKING_ERRORS, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise damaged(name, error, file) from error


def to_utf8(data: bytes, encoding: str | None, file: str) -> bytes:
    """Return text as UTF-8 with plain line feeds and without a byte order mark.

    Raises:
        DataError: if the data are no text, or not in this encoding.
        UsageError: if there is no such encoding.
    """
    for magic, what in FOREIGN.items():
        if data.startswith(magic):
            raise DataError(
                f"This is {what}, not a table of text or Parquet.",
                file=file,
                hint="Export the table as CSV or Parquet.",
            )
    if data.startswith(codecs.BOM_UTF8):
        # The mark is certain, whatever an earlier file of this form was written in.
        encoding = None
    if encoding is not None:
        try:
            data = data.decode(encoding).removeprefix("\ufeff").encode()
        except UnicodeError as error:
            raise DataError(
                f"The text is not {encoding} ({error}).",
                file=file,
                hint="Name the encoding it was written in, or leave it out.",
            ) from error
        except (LookupError, ValueError) as error:
            raise UsageError(
                f"There is no text encoding {encoding!r}.",
                hint="Name one that Python knows, such as utf-8, latin-1, cp1252 or utf-16.",
            ) from error
    else:
        mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), b"")
        data = _decode_unnamed(data[len(mark) :], BYTE_ORDER_MARKS.get(mark), file)
    if b"\x00" in data:
        raise _binary(file)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _binary(file: str) -> DataError:
    return DataError(
        "This is binary data, not a table of text or Parquet.",
        file=file,
        hint="Export the table as CSV or Parquet.",
    )


def _decode_unnamed(data: bytes, marked: str | None, file: str) -> bytes:
    encoding = marked or _wide_encoding(data[:SAMPLE_BYTES]) or "utf-8"
    if encoding == "utf-8" and data.isascii():
        return data
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if CONTROLS & set(data[:SAMPLE_BYTES]):
            raise _binary(file) from error
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"Byte 0x{data[error.start]:02x} is not {encoding.upper()} text.",
            file=file,
            row=line if encoding == "utf-8" else None,
            hint="Name the encoding it was written in: --set data.encoding=latin-1, for example.",
        ) from error
    return data if encoding == "utf-8" else text.encode(errors="replace")


def _wide_encoding(sample: bytes) -> str | None:
    """Recognise UTF-16 without a mark: in Latin text every second byte is zero, always the same."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > 0.3 * len(sample) / 2 and even == 0:
        return "utf-16-le"
    if even > 0.3 * len(sample) / 2 and odd == 0:
        return "utf-16-be"
    return None
