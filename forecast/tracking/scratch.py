"""Folders for a while: removed when done with, and those of killed processes at the next start."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = ".scratch-"
_LOCK = ".lock"


@contextmanager
def scratch(parent: Path) -> Generator[Path]:
    """Yield a new folder in `parent`, and remove it; before, remove what killed processes left.

    Each folder has a lock beside it that its process holds, and the system frees at a kill. So a
    folder whose lock is free belongs to nobody.
    """
    parent.mkdir(parents=True, exist_ok=True)
    clean(parent)
    folder = parent / f"{_PREFIX}{secrets.token_hex(8)}"
    lock = FileLock(folder.with_name(folder.name + _LOCK))
    # The lock comes first, so that the folder has never been without.
    lock.acquire()
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def clean(parent: Path) -> None:
    """Remove the folders in `parent` that no living process holds; never an error."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if not folder.is_dir():
            continue
        file = folder.with_name(folder.name + _LOCK)
        with contextlib.suppress(OSError, Timeout), FileLock(file, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            file.unlink(missing_ok=True)
