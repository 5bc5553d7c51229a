"""Inputs by name: files, patterns, and the files of known data sets."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from forecast.catalogue import DATASETS
from forecast.catalogue.files import locate
from forecast.errors import NotFoundError, UsageError

STDIN = "-"


def expand(inputs: Sequence[str]) -> list[str]:
    """Turn names of data sets and patterns into files, in order, each file once.

    Raises:
        NotFoundError: a pattern matches nothing.
        UsageError: standard input is named twice.
    """
    found: list[str] = []
    for text in inputs:
        known = DATASETS.get(text)
        if known and known.kind == "series":
            found.append(str(locate(known.files[0])))
            continue
        if text == STDIN or "://" in text or not glob.has_magic(text) or Path(text).exists():
            found.append(text)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise NotFoundError(
                f"No file matches {text!r}.", hint="Check the folder and the pattern."
            )
        found += matches
    if found.count(STDIN) > 1:
        raise UsageError("Standard input can be read once only.", hint="Name - once.")
    return list(dict.fromkeys(found))
