"""cli/REFERENCE.md and cli/completions say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer import rich_utils

from forecast.cli import reference

FOLDER = Path(__file__).parents[2] / "cli"


def test_the_reference_is_what_help_prints(command, monkeypatch):
    in_a_process = reference.help_of(("train",))

    def help_of(path):
        width = reference._WIDTH
        done = command(*path, "--help", extra={"COLUMNS": width, "TERMINAL_WIDTH": width})
        assert done.returncode == 0, done.stderr
        return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())

    # Typer reads TERMINAL_WIDTH once, as it is imported.
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", int(reference._WIDTH))
    assert help_of(("train",)) == in_a_process
    monkeypatch.setattr(reference, "help_of", help_of)
    assert (FOLDER / "REFERENCE.md").read_text() == reference.text(), "run: make reference"


@pytest.mark.parametrize("shell", reference.SHELLS)
def test_the_completions_are_those_of_the_program(shell):
    assert (FOLDER / "completions" / f"forecast.{shell}").read_text() == reference.completion(shell)
