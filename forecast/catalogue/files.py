"""Find, fetch and verify the files of known data sets.

Nothing is downloaded unless `fetch` is called, and no byte gets its final name before its sha256
has been checked. Half a download stays beside the target as `NAME.part` and is gone on with.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from forecast.errors import DataError, NotFoundError, UsageError
from forecast.paths import data_root

Progress = Callable[[int, int], None]

_TIMEOUT = 30.0
_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFile:
    """Identify one published file, bit for bit.

    Attributes:
        path: where it lies under the data root.
        sha256: the digest of its bytes, in hexadecimal.
        size: its length [bytes].
        urls: its official addresses, the preferred one first; empty when there is none.
        dataset: the data set it belongs to, named in what to do when it is missing.
        packaged: whether it ships inside this package instead of under the data root; or the
            package that it ships in, by its name in imports, inside of which `path` leads to it.
    """

    path: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()
    dataset: str
    packaged: bool | str = False

    @property
    def name(self) -> str:
        """Return the file's name without its folder."""
        return Path(self.path).name


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot be read: {_reason(error)}.", file=str(path), hint="Make the file readable."
        ) from error


def verify(path: Path, file: KnownFile) -> bool:
    """Return whether `path` holds exactly the bytes of `file`."""
    return (
        os.path.isfile(path) and path.stat().st_size == file.size and sha256_of(path) == file.sha256
    )


def find(file: KnownFile, *, local: Path | None = None) -> Path | None:
    """Return where the file lies, or None.

    Args:
        file: the file to look for.
        local: looked at before the data root: the file itself, whatever its name, or a folder that
            holds it by its relative path or its name.
    """
    return next((path for path in _places(file, local) if os.path.isfile(path)), None)


def locate(file: KnownFile, *, local: Path | None = None) -> Path:
    """Return where the file lies, its content checked.

    A file at `local` is the user's own: where it differs from the published one, that is a warning.

    Raises:
        NotFoundError: it is nowhere; nothing is downloaded.
        DataError: the file under the data root differs from the published one, or is unreadable.
    """
    path = find(file, local=local)
    if path is None:
        looked = "\n".join(f"  {place}" for place in _places(file, local))
        raise NotFoundError(
            f"{file.name} is not on this machine; looked for\n{looked}", hint=_how_to_get(file)
        )
    if not verify(path, file):
        difference = f"has sha256 {sha256_of(path)}, the published {file.name} has {file.sha256}."
        if path == _home(file):
            raise DataError(difference, file=str(path), hint=_how_to_get(file))
        warnings.warn(f"{path} {difference}", UserWarning, stacklevel=2)
    return path


def fetch(
    file: KnownFile,
    *,
    mirror: str | None = None,
    root: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Bring the file under the data root and return where it lies.

    A good copy already there is left alone; a copy that differs is replaced, once the new bytes
    have been verified. Of several processes that fetch the same file, one does and the others wait.

    Args:
        file: the file to bring.
        mirror: a folder, or an address (`file://`, `http://`, `https://`), under which the file
            lies by its relative path or its name; asked instead of the official addresses.
        root: another folder than the data root.
        progress: called with the bytes that are there and the bytes there will be.

    Raises:
        NotFoundError: no source has it, or none can be reached.
        DataError: what came is not the published file, or the folder cannot be written.
    """
    target = _home(file, root)
    if verify(target, file):
        return target
    if mirror is not None:
        sources = _mirrored(file, mirror)
    else:
        sources = (_home(file).as_uri(),) if file.packaged else file.urls
    failures: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target.with_name(f"{target.name}.part")) as (part, stream):
            # Another process may have finished it while this one waited.
            if verify(target, file):
                part.unlink()
                return target
            for source in sources:
                failure = _receive(source, stream, file, progress)
                if failure is None:
                    _publish(part, stream, target, file, source)
                    return target
                failures.append(f"  {source}: {failure}")
            if part.stat().st_size == 0:
                part.unlink()
    except OSError as error:
        raise DataError(
            f"cannot be written: {_reason(error)}.",
            file=str(target),
            hint="Check its permissions and free space, or choose another folder with --to or "
            "$FORECAST_DATA.",
        ) from error
    tried = "\n".join(failures) if failures else "  it has no official address"
    raise NotFoundError(
        f"{file.name} could not be fetched:\n{tried}",
        hint=f"Put the file ({file.size:,} bytes, sha256 {file.sha256}) at {target}, or name a "
        f"folder or address that has it: forecast datasets fetch {file.dataset} --mirror PLACE",
    )


def _home(file: KnownFile, root: Path | None = None) -> Path:
    if root is None and file.packaged:
        if isinstance(file.packaged, str):
            return Path(str(resources.files(file.packaged) / file.path))
        return Path(str(resources.files("forecast.catalogue") / "sample" / file.path))
    return (root or data_root()) / file.path


def _places(file: KnownFile, local: Path | None) -> list[Path]:
    if local is None:
        own = []
    elif local.is_dir():
        own = [local / file.path, local / file.name]
    else:
        own = [local]
    # Once each: a file without a folder has its name for its path.
    return list(dict.fromkeys([*own, _home(file)]))


def _how_to_get(file: KnownFile) -> str:
    if file.packaged:
        package = file.packaged if isinstance(file.packaged, str) else "forecast"
        return f"It ships with the package {package}: install that again."
    if not file.urls:
        return f"It has no official address. Put it at {_home(file)}"
    return f"Fetch it: forecast datasets fetch {file.dataset}\nor put it at {_home(file)}"


def _mirrored(file: KnownFile, mirror: str) -> tuple[str, ...]:
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", mirror, re.IGNORECASE)
    if scheme is None:
        folder = Path(mirror).expanduser().absolute()
        if not folder.is_dir():
            raise NotFoundError(f"The mirror {folder} is not a folder.", hint="Check the path.")
        mirror = folder.as_uri()
    elif scheme[1].lower() not in {"file", "http", "https"}:
        raise UsageError(
            f"A mirror is a folder or an address with file, http or https; {mirror!r} is neither.",
            hint="Copy the files to a folder and name that.",
        )
    names = dict.fromkeys((file.path, file.name))
    return tuple(f"{mirror.rstrip('/')}/{quote(name)}" for name in names)


@contextmanager
def _exclusive(part: Path) -> Generator[tuple[Path, BinaryIO]]:
    """Open `part` for reading and appending, locked against other threads and processes.

    Whoever held the lock before may have renamed or removed the file that was waited for; then the
    lock is on a file without that name, and the next one is opened.
    """
    while True:
        with part.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                ours = os.path.samestat(part.stat(), os.fstat(stream.fileno()))
            except FileNotFoundError:
                ours = False
            if ours:
                yield part, stream
                return


def _receive(
    source: str, stream: BinaryIO, file: KnownFile, progress: Progress | None
) -> str | None:
    """Complete `stream` from `source`; return what went wrong, or None at the end of the file."""
    done = stream.seek(0, os.SEEK_END)
    if done == file.size:
        return None
    if done > file.size:
        done = 0
    try:
        request = Request(source, headers={"User-Agent": "forecast"})
        if done:
            request.add_header("Range", f"bytes={done}-")
        response = urlopen(request, timeout=_TIMEOUT)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()
            # What is there reaches past the end of what the server has now: start again.
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
                stream.truncate(0)
                return _receive(source, stream, file, progress)
        return _reason(error)
    with response:
        # A server that knows no ranges, and a file:// address, send the whole file.
        if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0
        stream.truncate(done)
        length = response.headers.get("Content-Length", "")
        end = done + int(length) if length.isdecimal() else 0
        # One byte too many tells a longer file, which need not be read to its end.
        while done <= file.size:
            if progress is not None:
                progress(done, file.size)
            try:
                chunk = response.read(min(_CHUNK, file.size + 1 - done))
            except (OSError, HTTPException) as error:
                return f"broke off after {done:,} of {file.size:,} bytes ({_reason(error)})"
            if not chunk:
                break
            stream.write(chunk)
            done += len(chunk)
    # A whole but shorter file did not break off: its hash will tell that it is another one.
    broken = done < min(end, file.size)
    return f"broke off after {done:,} of {file.size:,} bytes" if broken else None


def _publish(part: Path, stream: BinaryIO, target: Path, file: KnownFile, source: str) -> None:
    """Move a complete download to its name, if it is the published file."""
    stream.flush()
    os.fsync(stream.fileno())
    if not verify(part, file):
        size, digest = part.stat().st_size, sha256_of(part)
        part.unlink()
        raise DataError(
            f"What {source} sent has {size:,} bytes and sha256 {digest}; the published {file.name} "
            f"has {file.size:,} bytes and sha256 {file.sha256}. It was thrown away.",
            hint="Fetch it again, or from another place with --mirror.",
        )
    part.replace(target)


def _reason(error: Exception) -> str:
    """Describe in a few words what went wrong."""
    if isinstance(error, HTTPError):
        return f"{error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
