"""Errors a user can put right, and the exit code each of them ends a command with.

It has three parts: what came, what is allowed, what to do. The first two are the message, the last
is the hint. The command line prints both as one panel and never a traceback; a library user
catches `ForecastError`.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


class ForecastError(Exception):
    """Report something that the user can put right.

    Args:
        message: what came and what is allowed, in full sentences.
        hint: what to do about it, an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(ForecastError):
    """Report a wrong argument or recipe (exit code 2)."""

    exit_code = 2


class DataError(ForecastError):
    """Report data that cannot be used as they are (exit code 3).

    Args:
        message: what came and what is allowed.
        hint: what to do.
        file: the file it was found in.
        row: the 1-based line of the file, its header included, as an editor counts.
        column: the column's name.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        where = ", ".join(
            part
            for part in (
                str(file) if file else "",
                f"row {row}" if row is not None else "",
                f"column {column!r}" if column is not None else "",
            )
            if part
        )
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.file = file
        self.row = row
        self.column = column


class NotFoundError(ForecastError):
    """Report a file, data set, model or run that is not there (exit code 4)."""

    exit_code = 4


class MissingExtraError(ForecastError):
    """Report an optional package that a feature needs (exit code 5)."""

    exit_code = 5


class PartialError(ForecastError):
    """Report that some series failed while the others were written (exit code 6)."""

    exit_code = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One part, such as a series, that failed while the others did not.

    Attributes:
        id: what it is called.
        reason: why, in a sentence.
        hint: what to do.
    """

    id: str
    reason: str
    hint: str = ""

    @staticmethod
    def of(name: str, error: ForecastError) -> Failure:
        """Put an error into this form."""
        return Failure(id=name, reason=error.message, hint=error.hint)


def nearest(name: str, known: Iterable[str], most: int = 12) -> str:
    """Return which known name is meant by a mistyped one, or list what there is."""
    names = sorted(known)
    folded = {name.lower(): name for name in names}
    begun = [one for one in folded if len(name) > 2 and one.startswith(name.lower())]
    if len(begun) == 1:
        return f"Did you mean {folded[begun[0]]!r}?"
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.5)
    if close:
        return f"Did you mean {folded[close[0]]!r}?"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"Choose one of: {', '.join(names[:most])}{more}."


# What the operating system says, and what to do about it; anything else it says is quoted.
_ROOM = "Make room there, or name another place."
_OTHER = "Name another place, or change who may write there."
_SYSTEM = {
    errno.ENOSPC: ("No space is left there.", _ROOM),
    errno.EDQUOT: ("The disk quota is used up.", _ROOM),
    errno.EFBIG: ("The file would be larger than is allowed there.", _ROOM),
    errno.EROFS: ("The file system can only be read.", _OTHER),
    errno.EACCES: ("Permission is denied.", _OTHER),
    errno.EPERM: ("It is not allowed.", _OTHER),
    errno.ENAMETOOLONG: ("The name is longer than file systems allow, mostly 255 bytes.",
                         "Choose a shorter name."),
    errno.EISDIR: ("This is a folder, and a file is wanted.", "Name a file."),
    errno.ENOTDIR: ("A part of the path is a file, and a folder is wanted.", "Check the path."),
    errno.EEXIST: ("There is something else of this name.", "Choose another name."),
    errno.ELOOP: ("Its links lead round in a circle.", "Name the file itself."),
    errno.EMFILE: ("Too many files are open.", "Allow more: ulimit -n"),
    errno.ENOENT: ("It is not there.", "Check the path."),
}  # fmt: skip
# Libraries that wrap an error of the system keep no more of it than a text.
_NUMBERED = re.compile(r"(?:os error|errno =|\[Errno) (\d+)")
_WORDED = {
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
}


def from_system(error: BaseException, path: str | Path | None = None) -> ForecastError | None:
    """Put an error of the operating system into a sentence that names the place.

    Args:
        error: what was raised; libraries wrap the error of the system in their own.
        path: the place, where the error itself does not name one.

    Returns:
        The error to raise instead; None if the system has nothing to do with it.
    """
    for one in _chain(error):
        number = one.errno if isinstance(one, OSError) else None
        if number is None:
            text = str(one)
            found = _NUMBERED.search(text)
            worded = (code for words, code in _WORDED.items() if words in text)
            number = int(found[1]) if found else next(worded, None)
        if number is None:
            continue
        if isinstance(one, OSError) and path is None:
            path = one.filename
        place = os.fsdecode(path) if isinstance(path, bytes) else path
        message, hint = _SYSTEM.get(number, (f"{os.strerror(number)}.", "Check the place."))
        if number == errno.ENOENT:
            where = f"{place}: " if place is not None else ""
            folder = "" if place is None else os.path.dirname(place)
            if folder and not os.path.isdir(folder):
                message, hint = f"There is no folder {folder}.", "Make it, or check the path."
            return NotFoundError(f"{where}{message}", hint=hint)
        return DataError(message, hint=hint, file=None if place is None else str(place))
    if isinstance(error, MemoryError):
        return DataError(
            "The memory of this machine does not suffice.",
            hint="Bring fewer rows or columns, or take a machine with more memory.",
        )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
