"""What every command prints with: results on stdout, all else on stderr, errors as one panel."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import typer

from forecast.errors import DataError, ForecastError, UsageError, from_system


def answer(text: str) -> None:
    """Print a result; a reader that has seen enough, such as `head`, ends it without an error.

    Raises:
        DataError: standard output takes no more, as on a full disk.
    """
    try:
        typer.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        hush()
    except OSError as error:
        hush()
        raise _full(error) from error


def hush() -> None:
    """Send the rest of both outputs nowhere, so that nothing fails when they are flushed at exit.

    Standard error too only if it has no reader either.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def end(code: int) -> int:
    """Write out what waits to be written, and return the exit code that this comes to."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        fault = _full(error)
        panel(fault.message, fault.hint)
        code = code or fault.exit_code
    hush()
    return code


def _full(error: OSError) -> ForecastError:
    return from_system(error, "standard output") or DataError(str(error))


def document(value: Any) -> None:
    """Print one JSON document."""
    answer(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def refuse_both(out: object, as_json: bool) -> None:
    """Refuse two results on one standard output.

    Raises:
        UsageError: a forecast goes there, and a JSON document too.
    """
    if as_json and out is None:
        raise UsageError(
            "--json prints one document to standard output, where the forecast would go too.",
            hint="Say where the forecast goes: --out forecast.csv",
        )


def notice(text: str) -> None:
    """Write something for the user on stderr; where nobody reads it, nothing comes of that."""
    try:
        typer.echo(text, err=True)
    except OSError:
        hush()


def figure(value: float | None, digits: int = 4) -> str:
    """Write a measured number, a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Print a table: drawn on a terminal, else aligned columns that other programs can cut."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=None, header_style="bold")
        for index, title in enumerate(header):
            drawn.add_column(title, justify="right" if index in right else "left")
        for row in rows:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    answer(
        "\n".join(
            "  ".join(
                cell.rjust(width) if index in right else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (header, *rows)
        )
    )


def panel(message: str, hint: str = "", title: str = "Error") -> None:
    """Print an error as one panel on stderr: what came and what is allowed, then what to do."""
    if sys.stderr.isatty():
        from rich.console import Console, Group
        from rich.panel import Panel
        from rich.text import Text

        parts = [Text(message)] + ([Text(hint, style="bold")] if hint else [])
        Console(stderr=True).print(
            Panel(Group(*parts), title=title, title_align="left", border_style="red")
        )
        return
    # Off a terminal a panel is its text with a rule to its left: easy to read in a log, and a
    # long path or hash is not broken in two.
    lines = [f"{title}:", *_wrapped(message), *_wrapped(hint)]
    notice("\n".join([lines[0], *(f"| {line}" for line in lines[1:])]))


def _wrapped(text: str) -> list[str]:
    return [
        line
        for paragraph in text.splitlines()
        for line in textwrap.wrap(paragraph, 96, break_long_words=False, break_on_hyphens=False)
    ]
