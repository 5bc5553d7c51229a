"""cli/REFERENCE.md and cli/completions: the whole help as files, written by the program itself.

`python -m forecast.cli.reference FOLDER` writes them; a test holds the files to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

SHELLS = ("bash", "zsh", "fish")
_WIDTH = "100"


def text() -> str:
    """Put the help of every command into one Markdown page."""
    parts = ["# Command reference", "", "Written by `make reference`; do not edit.", ""]
    for path in commands():
        parts += [f"## {' '.join(('forecast', *path))}", "", "```text", help_of(path), "```", ""]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, ...]]:
    """Walk through the program's commands, the program itself first."""
    from forecast.cli import app

    yield ()
    root = get_command(app)
    for name, command in getattr(root, "commands", {}).items():
        yield (name,)
        for below in getattr(command, "commands", {}):
            yield (name, below)


def help_of(path: tuple[str, ...]) -> str:
    """Take what `--help` prints, off a terminal and at a fixed width."""
    environment = os.environ | {"COLUMNS": _WIDTH, "TERMINAL_WIDTH": _WIDTH, "NO_COLOR": "1"}
    environment.pop("FORCE_COLOR", None)
    done = subprocess.run(
        [sys.executable, "-m", "forecast", *path, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def completion(shell: str) -> str:
    """Take the script that completes `forecast` in a shell."""
    environment = os.environ | {"_FORECAST_COMPLETE": f"source_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", "from forecast.cli import app; app(prog_name='forecast')"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip() + "\n"


def write(folder: Path) -> None:
    """Write the page and the completions below a folder."""
    (folder / "REFERENCE.md").write_text(text(), encoding="utf-8")
    (folder / "completions").mkdir(exist_ok=True)
    for shell in SHELLS:
        (folder / "completions" / f"forecast.{shell}").write_text(
            completion(shell), encoding="utf-8"
        )


if __name__ == "__main__":
    typer.run(write)
