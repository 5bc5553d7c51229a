"""Locks between processes: one holder at a time of a file, a folder, a store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from forecast.errors import ForecastError


@contextmanager
def exclusive(path: Path, what: str, wait: float = 0.0) -> Generator[None]:
    """Hold the lock file `path` for as long as the block runs; the system frees it at a kill.

    Args:
        path: the lock file, which stays where it is.
        what: what is held, as a message calls it.
        wait: seconds to wait for another holder.

    Raises:
        ForecastError: another process still holds it after that time.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise ForecastError(
            f"Another process is using {what}.",
            hint="Wait until it has ended, then try again.",
        ) from error
    try:
        yield
    finally:
        lock.release()
