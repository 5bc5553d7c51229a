"""Forecasts on disk, part by part: absent or complete, and the same bytes whatever happened.

Parts are written into a hidden folder beside the output, and a manifest says what they were made
from. When all are there the folder becomes the output, or the parts become one file. What a killed
job left behind is taken over part by part, if a part would be made from the same rows by the same
model.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from forecast import atomic
from forecast.errors import DataError, Failure, NotFoundError, UsageError
from forecast.tables.layout import SUFFIXES, Layout, write_table

MANIFEST, FAILED = "manifest.json", "failed.csv"
_LOCK = ".lock"
_FORMAT = 1
# Rows of a group where all parts become one Parquet file.
_GROUP_ROWS = 1 << 18
_COPIED = 1 << 20
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = r"^([=+\-@\t\r])"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What the manifest says of a part.

    Attributes:
        name: its file; empty where no series of it could be read.
        key: names the rows it was made from, and how.
        taken: how many series it covers, with and without a forecast.
        series: how many of them have one.
        rows: the rows of its file.
        sha256: that of its file.
        header: bytes before the first row, where it is text.
        failed: the series without a forecast.
        short: series that have no row where their context begins.
        new: series that were not in the training data.
    """

    name: str = ""
    key: str
    taken: int
    series: int = 0
    rows: int = 0
    sha256: str | None = None
    header: int = 0
    failed: tuple[Failure, ...] = ()
    short: int = 0
    new: int = 0


@dataclass(kw_only=True, slots=True)
class Output:
    """An output while it is made.

    Attributes:
        target: the file or folder that it becomes.
        suffix: how the names of its parts end.
        folder: whether it becomes a folder.
        work: the folder in which it is made.
        former: the parts that an earlier job left.
        parts: those of this one.
    """

    target: Path
    suffix: str
    folder: bool
    work: Path
    former: list[Part]
    parts: list[Part] = field(default_factory=list[Part])

    @property
    def side_file(self) -> Path:
        """Return where the series without a forecast are named."""
        if self.folder:
            return self.target / FAILED
        name = self.target.name
        return self.target.with_name(f"{name.removesuffix(_suffix(name) or '')}.{FAILED}")

    def reuse(self, key: Callable[[int], str]) -> Part | None:
        """Find the next part among those of an earlier job; `key` names as many series' rows."""
        if len(self.parts) >= len(self.former):
            return None
        part = self.former[len(self.parts)]
        if part.key != key(part.taken):
            return None
        if part.name and (part.name != self._name() or self._digest(part.name) != part.sha256):
            return None
        return part

    def write(
        self, frame: pl.DataFrame, layout: Layout, *, safe_ids: bool
    ) -> tuple[str, str | None, int]:
        """Write the file of the next part; return its name, its sha256 and its header's bytes."""
        name, header = self._name(), 0
        if self.suffix != ".parquet":
            frame = safe(frame, layout.id) if safe_ids else frame
            delimiter = "\t" if self.suffix == ".tsv" else layout.delimiter
            header = len(frame.clear().write_csv(separator=delimiter).encode())
        write_table(frame, self.work / name, layout)
        return name, self._digest(name), header

    def add(self, part: Part, about: dict[str, Any]) -> None:
        """Note the next part down."""
        self.parts.append(part)
        self._describe(about, complete=False)

    def publish(
        self, about: dict[str, Any], failed: Sequence[Failure], key: str, *, safe_ids: bool
    ) -> None:
        """Put the output and its side file in their places.

        Args:
            about: what the manifest says besides.
            failed: what the side file says; without any there is none.
            key: the column of ids.
            safe_ids: whether no id of the side file may begin like a formula.
        """
        rows = [(failure.id, failure.reason, failure.hint) for failure in failed]
        table = pl.DataFrame(
            rows, schema=dict.fromkeys((key, "reason", "hint"), pl.String()), orient="row"
        )
        content = (safe(table, key) if safe_ids else table).write_csv().encode()
        if self.folder:
            if failed:
                atomic.write_bytes(self.work / FAILED, content)
            self._describe(about, complete=True)
            kept = {MANIFEST, FAILED, *(part.name for part in self.parts)}
            for path in self.work.iterdir():
                if path.name not in kept:
                    path.unlink()
            self._replace_folder()
            return
        whole = self.work / f"whole{_suffix(self.target.name)}"
        with atomic.replacing(whole) as temporary:
            self._join(temporary)
        if failed:
            atomic.write_bytes(self.side_file, content)
        else:
            self.side_file.unlink(missing_ok=True)
        whole.replace(self.target)
        _sync(self.target.parent)
        shutil.rmtree(self.work)

    def _name(self) -> str:
        return f"part-{sum(bool(part.name) for part in self.parts):05}{self.suffix}"

    def _digest(self, name: str) -> str | None:
        try:
            with (self.work / name).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def _describe(self, about: dict[str, Any], *, complete: bool) -> None:
        parts = [asdict(part) for part in self.parts]
        content = {"format": _FORMAT, "complete": complete, **about, "parts": parts}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        atomic.write_bytes(self.work / MANIFEST, text.encode())

    def _replace_folder(self) -> None:
        former = self.target.with_name(f".{self.target.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if self.target.exists():
            self.target.rename(former)
        self.work.rename(self.target)
        _sync(self.target.parent)
        shutil.rmtree(former, ignore_errors=True)

    def _join(self, whole: Path) -> None:
        """Make one file of the parts."""
        files = [(self.work / part.name, part.header) for part in self.parts if part.name]
        if self.suffix == ".parquet":
            frames = pl.scan_parquet([path for path, _ in files], glob=False)
            frames.sink_parquet(whole, row_group_size=_GROUP_ROWS)
            return
        with _packed(whole, _suffix(self.target.name) or "") as write:
            for number, (path, header) in enumerate(files):
                with path.open("rb") as stream:
                    stream.seek(header if number else 0)
                    while block := stream.read(_COPIED):
                        write(block)


@contextmanager
def open_output(out: Path, parts: str, *, resume: bool) -> Generator[Output]:
    """Begin an output, or go on with one that a killed job left.

    Args:
        out: a file by its ending (.csv, .tsv, .parquet, text also packed), else a folder.
        parts: how the names of a folder's parts end.
        resume: whether to take over what is there of an earlier job.

    Raises:
        NotFoundError: if the folder to write in does not exist.
        UsageError: if there is something else in the place, or another job is at work.
    """
    target = Path(os.path.realpath(out))
    suffix = _suffix(target.name)
    folder = target.is_dir() or str(out).endswith("/") or not target.suffix
    if not folder and suffix is None:
        raise UsageError(
            f"A table cannot be written to {str(out)!r}: its name must end in one of "
            f"{', '.join(SUFFIXES)}.",
            hint="Choose one of these endings, or a folder: end the name with a slash.",
        )
    if folder:
        _check_folder(target)
        suffix = parts
    work = target.with_name(f".{target.name}.partial")
    try:
        work.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"There is no folder {target.parent} to write {target.name} in.",
            hint=f"Make it first: mkdir -p {target.parent}",
        ) from error
    except OSError as error:
        raise DataError(
            f"The output cannot be written: {error.strerror or error}.",
            file=str(out),
            hint="Choose another place.",
        ) from error
    descriptor = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR)
    try:
        _hold(descriptor, out)
        output = Output(
            target=target,
            suffix=".parquet" if suffix == ".parquet" else f".{str(suffix).split('.')[1]}",
            folder=folder,
            work=work,
            former=_read_parts(work) if resume else [],
        )
        try:
            yield output
        finally:
            if work.exists() and not output.parts and not output.former:
                shutil.rmtree(work)
    finally:
        os.close(descriptor)


def _suffix(name: str) -> str | None:
    """Return the longest ending of a name by which a table can be written."""
    return max((end for end in SUFFIXES if name.lower().endswith(end)), key=len, default=None)


def _check_folder(target: Path) -> None:
    """Refuse to replace what no such job has written."""
    if not target.exists() or (target / MANIFEST).is_file():
        return
    if not target.is_dir():
        raise UsageError(
            f"{target} is a file, and its name has no ending that says of which kind.",
            hint=f"Name a folder, or a file that ends in one of {', '.join(SUFFIXES)}.",
        )
    if any(target.iterdir()):
        raise UsageError(
            f"The folder {target} holds something else than forecasts of such a job, and would be "
            "replaced.",
            hint="Name a new folder in it: --out FOLDER/forecasts/",
        )


def _hold(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"Another job is writing {out}.", hint="Wait for it, or name another output."
        ) from error


def _read_parts(work: Path) -> list[Part]:
    """Read the parts of an earlier job; one that cannot be read has none."""
    try:
        content = json.loads((work / MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            return []
        return [
            Part(**item | {"failed": tuple(Failure(**failure) for failure in item["failed"])})
            for item in content["parts"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def safe(frame: pl.DataFrame, column: str | None) -> pl.DataFrame:
    """Put an apostrophe before the texts of a column that a spreadsheet takes for formulas."""
    return (
        frame if column is None else frame.with_columns(pl.col(column).str.replace(_FORMULA, "'$1"))
    )


@contextmanager
def _packed(path: Path, suffix: str) -> Generator[Callable[[bytes], object]]:
    """Open a file to write text to, packed as its name says; the same text gives the same bytes."""
    with path.open("wb") as stream:
        if suffix.endswith(".gz"):
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            yield lambda block: stream.write(packer.compress(block))
            stream.write(packer.flush())
        elif suffix.endswith(".zst"):
            # pyarrow comes with mlflow, and only this format needs it.
            import pyarrow as pa  # noqa: PLC0415

            with pa.CompressedOutputStream(stream, "zstd") as packed:
                yield packed.write
        else:
            yield stream.write


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
