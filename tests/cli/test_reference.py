"""cli/REFERENCE.md and cli/completions say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecast.cli import reference

FOLDER = Path(__file__).parents[2] / "cli"


def test_the_reference_is_what_help_prints():
    assert (FOLDER / "REFERENCE.md").read_text() == reference.text(), "run: make reference"


@pytest.mark.parametrize("shell", reference.SHELLS)
def test_the_completions_are_those_of_the_program(shell):
    assert (FOLDER / "completions" / f"forecast.{shell}").read_text() == reference.completion(shell)
