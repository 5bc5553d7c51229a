"""Errors a user can put right, and the exit code each of them ends a command with.

It has three parts: what came, what is allowed, what to do. The first two are the message, the last
is the hint. The command line prints both as one panel and never a traceback; a library user
catches `ForecastError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def nearest(name: str, known: Iterable[str], most: int = 12) -> str:
    """Say which known name is meant by a mistyped one, or list what there is."""
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
