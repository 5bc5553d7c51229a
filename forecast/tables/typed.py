"""Tables whose cells bear types: Parquet, JSON, Excel. A new format is one row of `TYPED`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from forecast.errors import DataError, MissingExtraError

_ZIP, _EXCEL = b"PK\x03\x04", b"[Content_Types].xml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How a format is recognised by its bytes, and read.

    Attributes:
        name: what messages call it.
        holds: whether some bytes are of this format.
        read: from bytes to columns.
    """

    name: str
    holds: Callable[[bytes], bool]
    read: Callable[[bytes], pl.DataFrame]


def read(data: bytes, file: str) -> pl.DataFrame | None:
    """Read a table of one of the typed formats; None if it is none of them.

    Raises:
        DataError: the file is damaged.
        MissingExtraError: the package that reads it is not installed.
    """
    for form in TYPED:
        if not form.holds(data):
            continue
        try:
            return form.read(data)
        except MissingExtraError:
            raise
        # Readers of other people's formats raise what they like, panics of Rust included.
        except (Exception, pl.exceptions.PanicException) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(
                f"The {form.name} is damaged or cut short ({first}).",
                file=file,
                hint="Write or copy the file again.",
            ) from error
    return None


def _is_json(data: bytes) -> bool:
    return data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def _json(data: bytes) -> pl.DataFrame:
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if data.startswith(b"["):
        return pl.read_json(io.BytesIO(data), infer_schema_length=None)
    return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)


def is_excel(data: bytes) -> bool:
    """Whether bytes are an Excel workbook, which is a zip with a listing of its parts."""
    return data.startswith(_ZIP) and _EXCEL in data[:4096] + data[-65_536:]


def _excel(data: bytes) -> pl.DataFrame:
    try:
        import fastexcel  # noqa: F401, PLC0415 # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise MissingExtraError(
            "Reading an Excel workbook takes the package fastexcel, which is not installed.",
            hint="Install it: pip install 'forecast[excel]'. Or save the sheet as CSV.",
        ) from error
    frame = pl.read_excel(io.BytesIO(data), engine="calamine", infer_schema_length=None)
    return frame.rename({name: name.strip() for name in frame.columns})


TYPED = (
    Format(
        name="Parquet file",
        holds=lambda data: data.startswith(b"PAR1"),
        read=lambda data: pl.read_parquet(io.BytesIO(data)),
    ),
    Format(name="JSON", holds=_is_json, read=_json),
    Format(name="Excel workbook", holds=is_excel, read=_excel),
)
