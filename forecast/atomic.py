"""Write a file so that it is there whole or not at all, also when the machine stops in between.

A temporary file bears the machine and the process that writes it in its name. So whatever a killed
process left behind is known by that, and is removed when the same file is written again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from forecast.errors import from_system

# Bytes of the name that a temporary name keeps, so that it never gets too long.
_KEPT = 120


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the place of `path`.

    The bytes reach the disk before the rename, and the rename before the return. On any exception
    the temporary file is removed and `path` is what it was.

    Raises:
        ForecastError: the system refuses to write there; it names `path`.
    """
    temporary = _temporary(path)
    try:
        _remove_left(path)
        # Made here, so that the place is known to take a file before any work is done.
        temporary.touch()
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if _is_about(error, path, temporary) and (fault := from_system(error, path)):
            raise fault from error
        raise


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Yield a new folder beside `path`; on success it takes the place of `path`.

    Raises:
        ForecastError: the system refuses to write there; it names `path`.
    """
    temporary = _temporary(path)
    former = temporary.with_name(f"{temporary.name}.former")
    try:
        _remove_left(path)
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(former)
        temporary.rename(path)
        _sync(path.parent)
    except BaseException as error:
        if former.exists() and not path.exists():
            former.rename(path)
        if _is_about(error, path, temporary) and (fault := from_system(error, path)):
            raise fault from error
        raise
    finally:
        for left in (temporary, former):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Put what the system says against writing `path` into a sentence that names it.

    Raises:
        ForecastError: the system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(path)) and not isinstance(error, BrokenPipeError):
            raise from_system(error, path) or error from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically.

    Raises:
        ForecastError: as `replacing` does.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _prefix(path: Path) -> str:
    """Begin the names of the temporary files of `path` on this machine."""
    kept = os.fsdecode(os.fsencode(path.name)[:_KEPT])
    return f".{kept}.{zlib.crc32(platform.node().encode()):08x}-"


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")


def _remove_left(path: Path) -> None:
    """Remove temporary files of `path` whose processes are gone."""
    prefix = _prefix(path)
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix)]
        for name in names:
            number = name.removeprefix(prefix).partition(".")[0]
            if not number.isdecimal() or _lives(int(number)):
                continue
            left = path.with_name(name)
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_about(error: BaseException, path: Path, temporary: Path) -> bool:
    """Whether an error names this file or none, and so came from writing it."""
    named = getattr(error, "filename", None)
    return named is None or str(named).startswith((str(path), str(temporary), str(path.parent)))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
